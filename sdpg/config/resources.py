"""Settings of what a job takes of a machine. They decide how a run is executed, and nothing that it finds."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from sdpg.types import WHOLE, Count, Settings


class Vllm(Settings):
    """What vLLM takes of each GPU. It changes memory and speed, and no result."""

    memory: Annotated[float, Field(ge=0.01, lt=1)] | None = None
    """Share of the GPU's memory for weights and KV cache; null: by its size, more where nothing is trained beside it."""
    max_num_seqs: Count | None = None
    """Sequences decoded at the same time; null: by the GPU's size."""
    tensor_parallel: Annotated[int, Field(ge=1, le=64), WHOLE] = 1
    """GPUs that hold one engine together, for a model that is too large for one."""
    prefix_caching: bool | None = None
    """Keep the KV cache of prompts that begin alike; null: where it helps."""


class Runtime(Settings):
    """Minutes that a job of each kind may take on a cluster."""

    base_model: Annotated[int, Field(ge=30, le=525_600), WHOLE] = 240
    """Minutes to make a base model, or to take one and measure it."""
    train: Annotated[int, Field(ge=30, le=525_600), WHOLE] = 1440
    """Minutes of a training job. Ahead of their end it saves, and is queued again: a run may take longer."""
    evaluate: Annotated[int, Field(ge=30, le=525_600), WHOLE] = 1440
    """Minutes to evaluate a run, which is queued again ahead of their end, or a base model with lm-eval."""


class Resources(Settings):
    """What one model job takes (training, evaluation, base model)."""

    threads: Annotated[int, Field(ge=1, le=10_000), WHOLE] = 1
    """CPU threads per job."""
    mem_mb: Count = 4000
    """Memory per job, in MB."""
    gpus: Annotated[int, Field(ge=0, le=64), WHOLE] = 0
    """GPUs of a training job on each node, one process each, and of an evaluation on its one; 0: none, even where there are
    some."""
    nodes: Annotated[int, Field(ge=1, le=1000), WHOLE] = 1
    """Nodes of a training job; more than one: on Slurm."""
    processes: Annotated[int, Field(ge=1, le=64), WHOLE] | None = None
    """Processes of a training job on each node, and of an evaluation; null: one for each GPU, or one."""
    vllm: Vllm = Vllm()
    """What vLLM takes of each GPU."""
    runtime: Runtime = Runtime()
    """Minutes that a job may take on a cluster."""
    evaluate_at_once: bool = False
    """Evaluate a run in its training job, which saves a start of the engine and its imports; the evaluation's own job then only
    puts the files in place, and lm-eval has a job of its own. For runs of one process without a GPU, whose evaluation is
    short."""

    @property
    def local_processes(self) -> int:
        """Processes of a training job on each node, and of an evaluation."""
        return self.processes or max(1, self.gpus)

    @model_validator(mode="after")
    def _fits(self) -> Resources:
        both = {"gpus": self.gpus, "processes": self.local_processes, "tensor_parallel": self.vllm.tensor_parallel}
        if self.gpus and self.local_processes != self.gpus:
            raise PydanticCustomError("together", "processes is {processes}, expected gpus={gpus}, or null", both)
        if self.local_processes % self.vllm.tensor_parallel:
            text = "vllm.tensor_parallel is {tensor_parallel}, expected a divisor of the {processes} processes of a node"
            raise PydanticCustomError("together", text, both)
        if self.evaluate_at_once and (self.gpus or self.nodes > 1 or self.local_processes > 1):
            text = "evaluate_at_once goes with one process and no GPU, whose memory the trainer keeps; set it to false"
            raise PydanticCustomError("together", text)
        return self
