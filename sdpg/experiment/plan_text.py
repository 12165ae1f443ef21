"""A plan as text, for `sdpg plan`."""

from __future__ import annotations

from collections.abc import Iterator

from sdpg.experiment.plan_time import (
    BANDWIDTH_SHARE,
    DISK,
    MFU,
    STEP_PHASES,
    UNKNOWN_PROBLEMS,
    Rates,
    checkpoints,
    disk_bytes,
    evaluated,
    evaluation_seconds,
    problems,
    run_seconds,
    step_flops,
    step_seconds,
    unit_hours,
)
from sdpg.experiment.planner import (
    PHASES,
    PROMPT_SHARE,
    TEACHER_SHARE,
    Plan,
    cache_bytes,
    host_bytes,
    memory_items,
    misfit,
    peak,
    phase_bytes,
    sequence_bytes,
)

SMALL = 10**7  # parameters below which overhead decides the time of a step


def render(plan: Plan, mfu: float = MFU) -> str:
    """Return the plan: what is assumed, memory, time of a step, hours, disk, and last whether it fits."""
    expected = Rates(mfu, BANDWIDTH_SHARE)
    parts = [_assumed(plan, mfu), _memory(plan), _step(plan, expected), _hours(plan, expected), _disk(plan)]
    last = misfit(plan) or _fits(plan)
    return "\n\n".join("\n".join(part) for part in parts) + f"\n\n{last}\n"


def _fits(plan: Plan) -> str:
    phase = max(sums := phase_bytes(memory_items(plan.job)), key=sums.get)
    there = plan.job.gpu.memory / 1e9
    return (
        f"{plan.config.name} fits: at most {peak(plan.job) / 1e9:.1f} of {there:.1f} GB, in phase {phase} of {plan.job.method}"
    )


def _assumed(plan: Plan, mfu: float) -> Iterator[str]:
    job, config = plan.job, plan.config
    t, model, place, gpu = job.train, job.model, job.place, job.gpu
    yield (
        f"{config.name}: {model.name}, {model.parameters:,} parameters in {model.layers} layers; methods: {len(plan.jobs)}, "
        f"seeds: {len(config.seeds)}"
    )
    rates = f"{gpu.flops / 1e12:,.4g} TFLOP/s, {gpu.bandwidth / 1e9:,.0f} GB/s"
    if gpu.kind == "cpu":
        count = f"{place.world} CPU processes, each" if place.world > 1 else "a CPU process,"
        yield f"{count} {gpu.memory / 1e9:.1f} GB (resources.mem_mb), taken at {rates}"
    else:
        spread = f"state sharded over {job.shards}" if job.shards > 1 else "state whole on each"
        nodes = f"{place.nodes} nodes of " if place.nodes > 1 else ""
        yield f"{nodes}{place.gpus} x {gpu.name.upper()}, {gpu.memory / 1e9:.1f} GB, {rates}; {spread}"
    prompt, teacher = (share * t.max_prompt_tokens for share in (PROMPT_SHARE, TEACHER_SHARE))
    yield (
        f"assumed: responses of {job.response:,.0f} tokens (longest {t.max_response_tokens:,}), prompts of {prompt:,.0f} (the "
        f"teacher's {teacher:,.0f}), half of the advantages positive"
    )
    yield f"         MFU {mfu:g}; rollouts at {BANDWIDTH_SHARE:g} of the bandwidth; a disk of {DISK / 1e9:g} GB/s"


def _memory(plan: Plan) -> Iterator[str]:
    """Yield the table of items by phase, what the KV cache holds, and the host's memory."""
    job = plan.job
    items = memory_items(job)
    sums = phase_bytes(items)
    digits = 1 if peak(job) > 1e10 else 3
    number = lambda value: f"{value / 1e9:>11.{digits}f}"  # noqa: E731
    where = "the process" if job.gpu.kind == "cpu" else "a GPU"
    yield f"{f'GB of {where}, {job.method}':38}" + "".join(f"{phase:>11}" for phase in PHASES)
    for item in items:
        yield f"{item.name:38}" + "".join(number(item.bytes) if phase in item.phases else f"{'.':>11}" for phase in PHASES)
    yield f"{'together':38}" + "".join(number(sums[phase]) for phase in PHASES)
    if job.on_vllm:
        one, cache, wanted = sequence_bytes(job, job.longest), cache_bytes(job), job.place.engine.max_num_seqs
        holds = f"{cache // one:,.0f} sequences of {job.longest:,} tokens, others wait"
        yield f"The KV cache holds {holds}; max_num_seqs={wanted} of them would take {wanted * one / 1e9:,.1f} GB."
    if job.gpu.kind != "cpu":
        host, asked = host_bytes(job), plan.config.resources.mem_mb
        short = max(host.values()) > asked * 1e6
        advice = f", too little: --set resources.mem_mb={-(-max(host.values()) // 1e9) * 1000:.0f}" if short else ""
        needed = f"{host['load'] / 1e9:.0f} GB while loading, {host['save'] / 1e9:.0f} while saving"
        yield f"A node's host: {needed}; resources.mem_mb has {asked / 1e3:.0f}{advice}."


def _step(plan: Plan, expected: Rates) -> Iterator[str]:
    """Yield the seconds of a step by phase, of the slowest method."""
    job = max(plan.jobs, key=lambda job: run_seconds(job, expected))
    limit, seconds, flops = step_seconds(job, Rates()), step_seconds(job, expected), step_flops(job)
    digits = 1 if sum(seconds.values()) > 10 else 4
    yield f"{f'a step, {job.method}':38}{'TFLOP':>11}{'limit, s':>11}{'expected, s':>13}"
    for phase in STEP_PHASES:
        work = _short(flops[phase] / 1e12) if phase in flops else "."
        yield f"{phase:38}{work:>11}{limit[phase]:>11.{digits}f}{seconds[phase]:>13.{digits}f}"
    sums = f"{sum(limit.values()):>11.{digits}f}{sum(seconds.values()):>13.{digits}f}"
    yield f"{'together':38}{_short(sum(flops.values()) / 1e12):>11}{sums}"
    if job.model.parameters < SMALL:
        yield "A model this small spends its time outside the arithmetic: docs/performance.md has what was measured."


def _hours(plan: Plan, expected: Rates) -> Iterator[str]:
    """Yield the time of a run of each method, training and evaluation, and the whole DAG's GPU-hours."""
    config, on_cpu = plan.config, plan.job.gpu.kind == "cpu"
    yield f"{'a run':38}{'a step':>11}{'training':>11}{'evaluation':>13}"
    for job in plan.jobs:
        training, evaluation = run_seconds(job, expected), evaluation_seconds(job, config, expected)
        step = _time(training / job.train.steps)
        yield f"{job.method:38}{step:>11}{_time(training):>11}{_time(evaluation):>13}"
    unknown = [name for name, source in config.data.evaluation.items() if problems(source) is None]
    guess = f" ({', '.join(unknown)}: taken as {UNKNOWN_PROBLEMS} problems each)" if unknown else ""
    yield f"Evaluated: {checkpoints(plan.job.train)} checkpoints with {evaluated(config):,} responses each{guess}."
    unit = "hours of jobs" if on_cpu else "GPU-hours"
    hours, limit = unit_hours(plan, expected), unit_hours(plan, Rates())
    yield f"All {len(plan.jobs) * len(config.seeds)} runs, evaluated: {_short(hours)} {unit}; at the limit {_short(limit)}."


def _disk(plan: Plan) -> Iterator[str]:
    sizes = disk_bytes(plan)
    listed = ", ".join(f"{name} {_short(size / 1e9)}" for name, size in sizes.items())
    yield f"Disk: {_short(sum(sizes.values()) / 1e9)} GB: {listed}."


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _time(seconds: float) -> str:
    if seconds < 120:
        return f"{_short(seconds)} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{_short(seconds / 3600)} h"
