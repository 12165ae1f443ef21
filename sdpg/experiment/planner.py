"""What a scale's runs need of a machine's memory, before anything is loaded. Arithmetic, not measurements; no torch here.

Bytes everywhere; b: bytes of a number in the compute precision (2 in bf16, 4 in fp32). On one GPU the whole state lies there:
compute weights, float32 masters beneath bf16, Adam's moments, gradients. On several it is sharded over a node's GPUs as FSDP2
does, the float32 shards being their own masters, and repeated on every node. On a CPU one process has the job's `mem_mb`.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import baselines
from sdpg.algorithms.base import Needs
from sdpg.config import Config, method_config, run_config
from sdpg.config.settings import Train
from sdpg.core.head.sizes import CHUNK_ELEMENTS, LEAST_ROWS, TILE_ELEMENTS
from sdpg.experiment.architecture import Architecture, activations, architecture
from sdpg.experiment.machine import Gpu, Placement, processor
from sdpg.rollout.placement import BATCHED_TOKENS, CPU_CACHE_LIMIT, IN_PROCESS_ROWS

# of a step; "reference" is the teacher's pass as well
ROLLOUT, REFERENCE, TRAIN, OPTIMIZER, PUSH, SAVE = PHASES = ("rollout", "reference", "train", "optimizer", "push", "save")
ALWAYS = frozenset(PHASES)
UPDATE = frozenset({REFERENCE, TRAIN, OPTIMIZER})  # the engine sleeps, gradients are there

HOST_PROCESS = 5e9  # of a process with CUDA, NCCL and vLLM loaded
SAVING = 2e9  # of a process: a file of about 1 GB as it is made, and as the bytes that are written
FIXED = {"cpu": 8e8, "cuda": 2.5e9}  # Python and libraries; CUDA's context, NCCL's buffers and what lies in pieces

RESPONSE_SHARE = 2600 / 4096  # mean response / longest, in the paper's setting
PROMPT_SHARE, TEACHER_SHARE = 0.1, 0.4  # mean prompt / longest: the student's, and the teacher's with the solution
OPEN_GATES = {"all": 1.0, "nonzero": 1.0, "positive": 0.5}  # share of responses that the teacher reads


@dataclass(frozen=True)
class Demand:
    """What a method asks of the core over a whole run. reference, teacher: the share of a step's responses that each reads, in
    the mean over the steps; with wrong hints more than 1.
    """

    reference: float
    teacher: float
    holds_reference: bool  # also for a frozen teacher
    average: bool  # an EMA teacher
    own_teacher: bool  # the teacher is another model than the policy
    kl_in_reward: bool
    autograd: bool  # the divergence's slope is not in closed form
    whole: bool  # responses are read whole: a second product with the lm-head
    by_token: bool = False  # advantages by token: a forward pass before the first update

    @classmethod
    def of(cls, needs: Sequence[Needs]) -> Demand:
        """Sum up the needs of all steps."""
        return cls(
            reference=sum(n.reference for n in needs) / len(needs),
            teacher=sum(OPEN_GATES[n.gate] * (1 + n.wrong_hints) for n in needs if n.teacher) / len(needs),
            holds_reference=any(n.reference or n.kl_in_reward or n.teacher == "frozen" for n in needs),
            average=any(n.teacher == "ema" for n in needs),
            own_teacher=any(n.teacher in ("frozen", "ema") for n in needs),
            kl_in_reward=any(n.kl_in_reward for n in needs),
            autograd=any(n.divergence is not None and not n.divergence.has_closed_slope for n in needs),
            whole=any(n.whole_responses for n in needs),
            by_token=any(n.token_advantages for n in needs),
        )


@dataclass(frozen=True, kw_only=True)
class Job:
    """One method's run on a machine. response: mean tokens of a response."""

    method: str
    demand: Demand
    model: Architecture
    train: Train
    gpu: Gpu
    place: Placement
    response: float

    @property
    def b(self) -> int:
        """Bytes of a number in the compute precision."""
        return 2 if self.train.precision == "bf16" else 4

    @property
    def shards(self) -> int:
        """Parts that the state is in."""
        return self.place.shards

    @property
    def on_vllm(self) -> bool:
        """Whether vLLM samples."""
        return self.train.engine == "vllm"

    @property
    def rank(self) -> int:
        """Rank of the adapters that are trained in place of the weights; 0: none."""
        return self.train.lora_rank

    @property
    def trainable(self) -> int:
        """Parameters that are trained."""
        return self.rank * self.model.adapter_inputs_and_outputs if self.rank else self.model.parameters

    @property
    def longest(self) -> int:
        """Tokens of the longest prompt with the longest response."""
        return self.train.max_prompt_tokens + self.train.max_response_tokens

    @property
    def responses(self) -> float:
        """Responses a process has in a step."""
        return self.train.prompts_per_step * self.train.group_size / self.place.world

    @property
    def micro_tokens(self) -> int:
        """Tokens of the largest forward pass: a response that is longer than the budget goes alone."""
        t = self.train
        everything = int(self.responses * (t.max_response_tokens + t.max_prompt_tokens / t.group_size)) // t.updates_per_batch
        return max(self.longest, min(t.micro_batch_tokens, everything))


@dataclass(frozen=True)
class Item:
    """Something that takes memory, and in which phases of a step."""

    name: str
    bytes: float
    phases: frozenset[str]


def state_items(job: Job) -> list[Item]:
    """Return what a process keeps from step to step, and the gradients."""
    p, t, n, b = job.model.parameters, job.trainable, job.shards, job.b
    if n > 1 and not job.rank:
        items = [Item("policy: fp32 shard, its own master", 4 * p / n, ALWAYS)]
    elif b == 4 and not job.rank:
        items = [Item("policy: fp32, its own master", 4 * p, ALWAYS)]
    else:
        frozen = ", frozen" if job.rank else ""
        items = [Item(f"policy: {'bf16' if b == 2 else 'fp32'}{frozen}", b * p / n, ALWAYS)]
        copies = b if job.rank and n == 1 and b == 2 else 0  # adapters that are not their own masters
        items += [Item("fp32 masters of what is trained", (4 + copies) * t / n, ALWAYS)]
    items += [Item("Adam's two moments", 8 * t / n, ALWAYS), Item("gradients, fp32", 4 * t / n, UPDATE)]
    if job.demand.holds_reference and not job.rank:  # without its adapters the policy is the reference
        items += [Item("reference", b * p / n, ALWAYS)]
    if job.demand.average:
        wide = n > 1 or b == 4  # float32 alone is kept
        items += [Item("average of the policy (EMA teacher)", (4 if wide else 6) * t / n, ALWAYS)]
    return items


def head_items(job: Job) -> list[Item]:
    """Return what the lm-head takes: its weight gathered where sharded, chunks of logits, the gradient of its weight."""
    size, b, kind = job.model.embedding, job.b, job.gpu.kind
    both = 2 if job.demand.teacher else 1
    rows = min(job.micro_tokens, max(LEAST_ROWS, CHUNK_ELEMENTS[kind] // job.model.vocabulary))
    logits = rows * job.model.vocabulary
    passes = frozenset({REFERENCE, TRAIN})
    graph = 6 * 4 * min(logits, TILE_ELEMENTS[kind]) * job.demand.autograd  # a graph over a tile of them, in float32
    items = [Item("logits of a chunk", logits * b * both + graph, passes)]
    if job.shards > 1:
        heads = 1 + (job.demand.own_teacher and not job.rank)
        items += [Item("lm-head, gathered", size * b * heads, passes)]
    if not job.rank and (job.shards > 1 or b == 2):
        items += [Item("lm-head's gradient, fp32", size * 4, frozenset({TRAIN}))]
        if b == 2 and kind == "cpu":  # on CUDA the product is added as it is made
            items += [Item("a chunk's addend to it", size * b, frozenset({TRAIN}))]
    return items


def pass_items(job: Job) -> list[Item]:
    """Return what forward and backward passes take beside the state."""
    model, b, tokens = job.model, job.b, job.micro_tokens
    no_grad = tokens * (3 * b * model.feed_forward + (2 * b + 8) * model.hidden)
    items = [
        Item("activations", activations(model, b, tokens, job.train.gradient_checkpointing, job.rank), frozenset({TRAIN})),
        Item("a layer without gradients", no_grad, frozenset({REFERENCE})),
    ]
    if job.shards > 1:
        gathered = b * (model.embedding + 2 * model.layer)
        items += [Item("gathered embedding and two layers", gathered, frozenset({REFERENCE, TRAIN}))]
        gradient = 4 * (job.trainable / model.layers if job.rank else model.layer)
        items += [Item("a layer's gradient, not yet shared out", gradient, frozenset({TRAIN}))]
    return items + head_items(job)


def sequence_bytes(job: Job, tokens: float) -> float:
    """Return bytes of the KV cache for so many tokens, on each of the GPUs that share it."""
    return tokens * 2 * job.model.layers * job.model.kv * job.b / job.place.engine.tensor_parallel


def engine_items(job: Job) -> list[Item]:
    """Return what the rollout engine takes: vLLM sleeps while the policy is updated, the in-process engine cannot."""
    model, b, awake = job.model, job.b, frozenset({ROLLOUT, SAVE})
    place = job.place
    if not job.on_vllm:
        rows = min(IN_PROCESS_ROWS, job.responses)
        cache = rows * (sequence_bytes(job, job.longest) + 16 * model.vocabulary)  # and float32 logits, four times
        weights = Item("engine's weights", b * model.parameters, ALWAYS)
        return [weights, Item("engine's KV cache and logits", cache, frozenset({ROLLOUT}))]
    weights = b * model.parameters / place.engine.tensor_parallel
    sleeps = ALWAYS if job.gpu.kind == "cpu" else awake | {PUSH}
    layers = BATCHED_TOKENS * b * (2 * model.feed_forward + 4 * model.hidden)
    working = 8 * place.engine.max_num_seqs * model.vocabulary + layers
    if job.gpu.kind == "cpu":
        one = sequence_bytes(job, job.longest)
        cache = max(2 * one, min(place.engine.max_num_seqs * one, CPU_CACHE_LIMIT))
    else:
        cache = max(0.0, place.engine.memory * job.gpu.memory - weights - working)
    return [
        Item("vLLM's weights", weights, sleeps),
        Item("vLLM's working memory", working, awake),
        Item("vLLM's KV cache", cache, awake),
    ]


def memory_items(job: Job) -> list[Item]:
    """Return all that lies on one GPU (in the process, on a CPU) at some time of a step."""
    largest = job.model.embedding * job.b
    push = [Item("two full tensors", 2 * largest, frozenset({PUSH}))]
    if job.shards > 1:
        push += [Item("a full tensor", largest, frozenset({SAVE}))]
    fixed = "Python and libraries" if job.gpu.kind == "cpu" else "CUDA, NCCL and fragments"
    return [*state_items(job), *pass_items(job), *engine_items(job), *push, Item(fixed, FIXED[job.gpu.kind], ALWAYS)]


def phase_bytes(items: Sequence[Item]) -> dict[str, float]:
    """Return the sum for each phase."""
    return {phase: sum(item.bytes for item in items if phase in item.phases) for phase in PHASES}


def cache_bytes(job: Job) -> float:
    """Return bytes of the engine's KV cache on one GPU."""
    return next(item.bytes for item in memory_items(job) if "KV cache" in item.name)


def host_bytes(job: Job) -> dict[str, float]:
    """Return what the processes of a node take of its memory: while they load the model, and while they save.

    Each loads the whole model, in float32 where it will be sharded and trained. What is saved is copied to the host: the resume
    state (float32 weights, moments, the EMA teacher's), and the policy. Each process then writes its part of the state file by
    file, and a file is there twice more meanwhile.
    """
    processes = job.place.local
    base = processes * HOST_PROCESS
    load = processes * (4 if job.shards > 1 and not job.rank else job.b) * job.model.parameters
    writing = min(processes * SAVING, 2 * resume_bytes(job))
    return {"load": base + load, "save": base + resume_bytes(job) + job.b * job.model.parameters + writing}


def resume_bytes(job: Job) -> float:
    """Return bytes of the state that a run resumes from: what is trained in float32, its moments, the EMA teacher's weights."""
    return (12 + 4 * job.demand.average) * job.trainable


@dataclass(frozen=True)
class Plan:
    """The runs of a scale's methods on one machine: a job for each method."""

    config: Config
    jobs: tuple[Job, ...]

    @cached_property
    def job(self) -> Job:
        """The job with the largest peak, the first of several."""
        return max(self.jobs, key=peak)


def peak(job: Job) -> float:
    """Return the most bytes of any phase."""
    return max(phase_bytes(memory_items(job)).values())


def shortage(job: Job) -> str | None:
    """Return what is missing in words; None if the job fits."""
    needed = phase_bytes(memory_items(job))
    worst = max(needed, key=needed.get)
    if needed[worst] > job.gpu.memory:
        there = "resources.mem_mb gives" if job.gpu.kind == "cpu" else f"each {job.gpu.name.upper()} has"
        return f"{needed[worst] / 1e9:.1f} GB in phase {worst}, {there} {job.gpu.memory / 1e9:.1f}"
    if job.on_vllm and cache_bytes(job) < (one := sequence_bytes(job, job.longest)):
        got = f"vLLM's share leaves {cache_bytes(job) / 1e9:.2f} GB for its KV cache"
        return f"{got}, one sequence of {job.longest} tokens takes {one / 1e9:.2f}"
    return None


def make_plan(
    config: Config, *, gpu: Gpu, place: Placement, methods: Sequence[str] | None = None, response_tokens: float | None = None
) -> Plan:
    """Plan the runs of a scale, of all its methods or of some. Raises ValueError for what the trainer would refuse.

    gpu: what the job has; without GPUs the scale's threads and `mem_mb` take its place. response_tokens: the mean; by default
    the paper's share of max_response_tokens.
    """
    model = architecture(config)
    if place.gpus == 0:
        gpu = processor(place, config.resources.threads, config.resources.mem_mb)
    jobs = []
    for method in methods or config.methods:
        train = run_config(config, method, config.seeds[0]).train
        fields = method_config(config, method)
        algorithm = baselines.make(fields.pop("algorithm"), **{key: fields[key] for key in fields if key != "train"})
        demand = Demand.of([algorithm.needs(k) for k in range(1, train.steps + 1)])
        response = RESPONSE_SHARE * train.max_response_tokens if response_tokens is None else response_tokens
        if not 1 <= response <= train.max_response_tokens:
            raise ValueError(
                f"--response-tokens: got {response:g}, expected 1 to train.max_response_tokens={train.max_response_tokens}"
            )
        job = Job(method=method, demand=demand, model=model, train=train, gpu=gpu, place=place, response=response)
        if problem := indivisible(job):
            raise ValueError(problem)
        jobs.append(job)
    return Plan(config, tuple(jobs))


def indivisible(job: Job) -> str | None:
    """Return why the job cannot be shared out evenly; None if it can."""
    place, shared = job.place, job.place.engine.tensor_parallel
    if place.world % shared or (job.model.kv // job.model.head_dim) % shared:
        return (
            f"resources.vllm.tensor_parallel={shared} must divide {place.world} processes and "
            f"{job.model.kv // job.model.head_dim} heads of keys and values"
        )
    return None


def with_settings(job: Job, settings: Mapping[str, Any]) -> Job:
    """Return the job under other settings, by dotted key: those that `remedies` names."""
    train = {key.removeprefix("train."): value for key, value in settings.items() if key.startswith("train.")}
    gpu, place = job.gpu, job.place
    place = replace(
        place,
        gpus=settings.get("resources.gpus", place.gpus),
        engine=replace(place.engine, memory=settings.get("resources.vllm.memory", place.engine.memory)),
    )
    if "resources.mem_mb" in settings:
        gpu = replace(gpu, memory=settings["resources.mem_mb"] * 1e6 / place.local)
    return replace(job, gpu=gpu, place=place, train=job.train.model_copy(update=train))


def remedies(job: Job) -> list[dict[str, Any]]:
    """Return settings to try, by dotted key: without more GPUs first, then few changes, then those that cost less time."""
    t, place = job.train, job.place
    if job.gpu.kind == "cpu":
        return [{"resources.mem_mb": 1000 * n} for n in (8, 16, 32, 64, 128, 256, 512, 1024)]
    shares = [x / 10 for x in range(9, 0, -1)] if job.on_vllm else []
    budgets = [t.micro_batch_tokens // n for n in (2, 4, 8, 16) if t.micro_batch_tokens // n >= job.longest]
    choices = {  # the last varies first
        "resources.gpus": [place.gpus, *(n for n in (2, 4, 8) if n > place.gpus)],
        "train.gradient_checkpointing": [t.gradient_checkpointing, True],
        "train.micro_batch_tokens": [t.micro_batch_tokens, *budgets],
        "resources.vllm.memory": [place.engine.memory, *shares],
    }
    now = {key: values[0] for key, values in choices.items()}
    every = (zip(choices, values, strict=True) for values in itertools.product(*choices.values()))
    changes = [{key: value for key, value in pairs if value != now[key]} for pairs in every]
    return sorted(filter(None, changes), key=lambda change: ("resources.gpus" in change, len(change)))


def remedy(plan: Plan) -> dict[str, Any] | None:
    """Return the first of `remedies` with which every job of the plan fits, by dotted key; None if there is none."""
    for change in remedies(plan.job):
        jobs = [with_settings(job, change) for job in plan.jobs]
        if not any(indivisible(job) or shortage(job) for job in jobs):
            return change
    return None


def refuse_what_does_not_fit(plan: Plan) -> None:
    """Raise ValueError, in one line, if a job does not fit: what it needs, what there is, and settings that would do."""
    if problem := misfit(plan):
        raise ValueError(problem)


def misfit(plan: Plan) -> str | None:
    """Return what does not fit, and the settings with which it would; None if all fits."""
    job = next((job for job in (plan.job, *plan.jobs) if shortage(job)), None)
    if job is None:
        return None
    change = remedy(plan)
    if change is None:
        advice = f"no setting tried makes it fit: take {'more memory' if job.gpu.kind == 'cpu' else 'larger cards'}"
    else:
        advice = "it fits with " + " ".join(f"--set {key}={str(value).lower()}" for key, value in change.items())
    return f"{plan.config.name} does not fit: {job.method} needs {shortage(job)}; {advice}"
