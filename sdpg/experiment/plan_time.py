"""What a scale's runs take of time and disk: FLOPs over a share of the peak, bytes over a share of the bandwidth.

A rollout is bound by reading weights and KV cache for every token, everything else by arithmetic or by gathering shards. Left
out: judging, data, start-up, lm-eval, idle processes, and batches that dynamic sampling adds.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from sdpg.config.data import Source
from sdpg.config.settings import Config, Train, kept_steps
from sdpg.experiment.architecture import Architecture
from sdpg.experiment.planner import PROMPT_SHARE, TEACHER_SHARE, Job, Plan, cache_bytes, resume_bytes, sequence_bytes
from sdpg.io import path_of
from sdpg.tasks.pinned import load_dataset, split_of

MFU = 0.4  # share of a card's FLOPs that is reached, unless somebody knows better
BANDWIDTH_SHARE = 0.55  # of a card's bandwidth that decoding reaches, with the scheduler's gaps
DISK = 1e9  # bytes a second
BETWEEN_NODES = 50e9  # bytes a second and GPU
OPTIMIZER_BYTES = 40  # read and written for a parameter: norm, clipping, AdamW, the copy in the compute precision
UNKNOWN_PROBLEMS = 40  # of an evaluation set that is not at hand; AMC 2023 has so many
TEXT_BYTES = 3  # of a sampled token in eval/*.parquet
ROW_BYTES = 2000  # of a step in metrics.jsonl and in TensorBoard's events
STEP_PHASES = ("rollout", "reference", "teacher", "train", "optimizer", "push", "save")


@dataclass(frozen=True)
class Rates:
    """Shares of a card's peak that are reached: of its FLOPs (MFU), and of its memory's bandwidth in rollouts."""

    mfu: float = 1.0
    bandwidth: float = 1.0


@dataclass(frozen=True)
class Work:
    """FLOPs of a forward pass: of the body, and of the lm-head; linear: those of the body's weights, without attention."""

    body: float
    head: float
    linear: float

    @property
    def flops(self) -> float:
        """FLOPs of both."""
        return self.body + self.head


def forward(model: Architecture, prompts: float, group: float, prompt: float, response: float) -> Work:
    """Return the work of reading `group` responses to each of so many prompts, a prompt once for all. Lengths in tokens."""
    tokens = prompts * (prompt + group * response)
    pairs = prompts * (prompt**2 / 2 + group * response * (response / 2 + prompt))
    linear = 2.0 * model.layers * model.linear * tokens
    body = linear + 4.0 * model.layers * model.q * pairs
    return Work(body, 2.0 * model.embedding * prompts * group * response, linear)


def step_flops(job: Job) -> dict[str, float]:
    """Return the FLOPs of a step over all GPUs, by phase, in the mean over a run; train with what is computed twice."""
    t, d, model = job.train, job.demand, job.model
    student = forward(model, t.prompts_per_step, t.group_size, PROMPT_SHARE * t.max_prompt_tokens, job.response)
    teacher = forward(model, t.prompts_per_step, t.group_size, TEACHER_SHARE * t.max_prompt_tokens, job.response)
    before = t.updates_per_batch > 1 or d.kl_in_reward or d.by_token  # log-probs before the first update
    body = (3 + t.gradient_checkpointing) * student.body
    if job.rank:  # frozen weights have no gradient, adapters are computed like any weights
        adapters = student.linear * job.trainable / (model.layers * model.linear)
        body += (3 + t.gradient_checkpointing) * adapters - student.linear - student.head
    return {
        "rollout": student.flops,
        "reference": (d.reference + d.kl_in_reward) * student.flops,
        "teacher": d.teacher * teacher.flops,
        "train": body + (3 + d.whole) * student.head + before * student.flops,
    }


def decode_seconds(job: Job, responses: float, group: float, b: int, rates: Rates) -> float:
    """Return the time to sample so many responses on one replica of the engine, `group` to a prompt; b: bytes of a weight.

    Every step reads the weights once and the cache of all running sequences; as many run as the cache holds. The last response
    is as long as may be.
    """
    t, model, place = job.train, job.model, job.place
    prompt = PROMPT_SHARE * t.max_prompt_tokens
    room = cache_bytes(job) / sequence_bytes(job, prompt + job.response) if job.on_vllm else responses
    running = max(1.0, min(responses, place.engine.max_num_seqs, room))
    steps = max(t.max_response_tokens, responses * job.response / running)
    read = responses * job.response * (job.response / 2 + prompt)  # tokens of the cache
    read_bytes = read * 2 * model.layers * model.kv * b + steps * b * (model.layers * model.layer + model.embedding)
    shared_by = group if place.engine.prefix_caching is not False else 1  # responses whose prompt is read once
    work = forward(model, responses / shared_by, shared_by, prompt, job.response)
    tp = place.engine.tensor_parallel
    return max(read_bytes / (tp * job.gpu.bandwidth * rates.bandwidth), work.flops / (tp * job.gpu.flops * rates.mfu))


def micro_batches(job: Job) -> float:
    """Return the micro-batches of a step on one process."""
    t = job.train
    tokens = job.responses * (job.response + PROMPT_SHARE * t.max_prompt_tokens / t.group_size)
    return max(t.updates_per_batch, -(-tokens // job.micro_tokens))


def link(job: Job) -> float:
    """Return the bytes a second between a GPU and those that hold the other shards: on other nodes where each has one."""
    return BETWEEN_NODES if job.place.local == 1 < job.place.nodes else job.gpu.link


def gather_seconds(job: Job, passes: float) -> float:
    """Return the time to gather all shards once a micro-batch and pass, in the compute precision."""
    n = job.shards
    return passes * micro_batches(job) * job.b * job.model.parameters * (n - 1) / n / link(job)


def reduce_seconds(job: Job) -> float:
    """Return the time to sum gradients, in float32, over the nodes that repeat the state: after every micro-batch (HSDP)."""
    repeated = job.place.nodes > 1 and job.place.local > 1
    return micro_batches(job) * 2 * 4 * job.trainable / job.shards / BETWEEN_NODES if repeated else 0.0


def step_seconds(job: Job, rates: Rates) -> dict[str, float]:
    """Return the time of a step by phase, in the mean over a run: validation is left out, saving is spread over the steps."""
    t, p, n, d = job.train, job.model.parameters, job.shards, job.demand
    flops = step_flops(job)
    compute = {phase: value / (job.place.world * job.gpu.flops * rates.mfu) for phase, value in flops.items()}
    gathered = {"reference": d.reference, "teacher": -(-d.teacher // 1), "train": 4.0}  # there, back, and fp32 gradients
    moved = {phase: gather_seconds(job, passes) for phase, passes in gathered.items()}
    moved["train"] += reduce_seconds(job)
    seconds = {phase: max(compute[phase], moved[phase]) for phase in gathered}
    replica = job.responses * job.place.engine.tensor_parallel
    seconds["optimizer"] = t.updates_per_batch * OPTIMIZER_BYTES * job.trainable / n / job.gpu.bandwidth
    seconds["push"] = job.b * p * (n - 1) / n / link(job) + 2 * job.b * p / job.gpu.bandwidth
    saved = resume_bytes(job) + job.b * p
    seconds["save"] = saved / DISK / min(t.checkpoint_every, t.steps)
    seconds["rollout"] = decode_seconds(job, replica, t.group_size, job.b, rates)
    return {phase: seconds[phase] for phase in STEP_PHASES}


def checkpoints(train: Train) -> int:
    """Return how many checkpoints a run keeps: of the first state, every `checkpoint_every` steps and the last."""
    steps = sorted({*range(0, train.steps, train.checkpoint_every), train.steps})
    return len(kept_steps(steps, train.keep))


def problems(source: Source) -> int | None:
    """Return the problems of an evaluation set; None where neither the config nor a file at hand says how many."""
    options = getattr(source, source.kind.replace("-", "_"))
    if not isinstance(options, str):
        return getattr(options, "count", None)
    if source.dataset:
        rows = load_dataset(source.dataset).splits[split_of(source.dataset, source.split)].rows
        return min(rows, source.limit or rows)
    file = path_of(options)
    rows = [_rows(file)] if file.suffix == ".jsonl" and file.is_file() else []
    return min([*rows, *([source.limit] if source.limit else [])], default=None)


def _rows(path: Path) -> int:
    with open(path, encoding="utf-8") as file:
        return sum(1 for line in file if line.strip())


def evaluated(config: Config) -> int:
    """Return the responses sampled at one checkpoint, over all evaluation sets."""
    counts = (problems(source) or UNKNOWN_PROBLEMS for source in config.data.evaluation.values())
    return config.evaluation.samples * sum(counts)


def evaluation_seconds(job: Job, config: Config, rates: Rates) -> float:
    """Return the time to evaluate all checkpoints of a run, the responses shared out over the GPUs of one node."""
    replica = evaluated(config) * job.place.engine.tensor_parallel / job.place.local
    b = 2 if config.evaluation.dtype == "bfloat16" else 4
    return checkpoints(job.train) * decode_seconds(job, replica, config.evaluation.samples, b, rates)


def run_seconds(job: Job, rates: Rates) -> float:
    """Return the time of all training steps of a run."""
    return job.train.steps * sum(step_seconds(job, rates).values())


def unit_hours(plan: Plan, rates: Rates) -> float:
    """Return GPU-hours (on a CPU hours of a job) of training and evaluating all methods with all seeds."""
    place = plan.job.place
    of_one = (
        run_seconds(job, rates) * place.world + evaluation_seconds(job, plan.config, rates) * place.local for job in plan.jobs
    )
    return sum(of_one) * len(plan.config.seeds) / 3600


def disk_bytes(plan: Plan) -> dict[str, float]:
    """Return bytes on disk: all runs' checkpoints, one unfinished run's resume state, what was sampled and logged."""
    kept = [checkpoints(job.train) for job in plan.jobs]
    weights = [n * job.b * job.model.parameters for n, job in zip(kept, plan.jobs, strict=True)]
    sampled = [n * evaluated(plan.config) * job.response * TEXT_BYTES for n, job in zip(kept, plan.jobs, strict=True)]
    seeds = len(plan.config.seeds)
    return {
        "checkpoints": seeds * sum(weights),
        "resume state": max(resume_bytes(job) for job in plan.jobs),
        "results": seeds * (sum(sampled) + sum(ROW_BYTES * job.train.steps for job in plan.jobs)),
    }
