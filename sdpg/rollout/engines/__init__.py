"""The rollout engines, one file each."""


def names():
    return ("in-process", "vllm")


def engine_file(name):
    return {"in-process": "sdpg/rollout/engines/in_process.py", "vllm": "sdpg/rollout/engines/vllm.py"}[name]
