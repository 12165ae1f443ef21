"""One micro-batch of SDPG on a model of a true shape, cut into its phases: what parts c and e weigh and time.

reference   forward pass and log-probs under another model          head         log-prob, entropy, KL, and their gradients
teacher     forward pass of the policy over the teacher's prompts   trunk back   backward pass of the policy without its head
trunk       forward pass of the policy without its head             optimizer    clipping, AdamW, copy to bf16
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from benchmarks.fixed import FixedBatch, Recipe
from benchmarks.gpu.session import Session
from benchmarks.gpu.tiny import build, tiny_config
from benchmarks.models import QWEN3, qwen3_config, qwen3_sizes
from sdpg.algorithms.divergences import Divergence
from sdpg.core.batch import Sample, locate
from sdpg.core.flops import Work, forward_flops
from sdpg.core.head.api import Head, token_signals_backward
from sdpg.core.models import frozen
from sdpg.core.optimizer import MasterAdamW
from sdpg.core.passes import inputs, policy_logprobs
from sdpg.experiment.architecture import of_config
from sdpg.types import Rollout

STATE = 2 + 4 + 8 + 4 + 2  # bytes a parameter: bf16 weights, masters, moments, gradients, reference
WORKING_GB = 12.0  # beside the state, with checkpointing, at RECIPE's size
RECIPE = Recipe(2, 8, (128, 256), (512, 1024), (256, 1024), 16384)  # 10,000 tokens of responses
TINY = Recipe(2, 4, (4, 8), (10, 14), (4, 12), 1024)
ACTIVATIONS_GB = 25.0  # more without checkpointing, of the smallest shape
PARAMETERS = {name: of_config(qwen3_sizes(name), name).parameters for name in QWEN3}


def shapes(session: Session) -> list[str]:
    """Return the models that parts c, d and e take: the Qwen3 shapes, or a tiny one."""
    return ["tiny"] if session.dry else list(PARAMETERS)


def config_of(shape: str):
    """Return the HF config of a shape."""
    return tiny_config() if shape == "tiny" else qwen3_config(shape)


def checkpointing(session: Session, shape: str) -> bool:
    """Return whether layers are computed again in the backward pass: but for the smallest shape on a large card."""
    if shape != "qwen3-0.6b":
        return shape != "tiny"
    return session.memory < STATE * PARAMETERS[shape] / 1e9 + WORKING_GB + ACTIVATIONS_GB


def need(session: Session, shape: str) -> None:
    """Raise LeftOut unless the state of a shape and a micro-batch fit."""
    if shape != "tiny":
        session.need(STATE * PARAMETERS[shape] / 1e9 + WORKING_GB, shape)


@dataclass
class Phases:
    """The calls in the order of a step; each takes what the one before it left."""

    policy: torch.nn.Module
    reference: torch.nn.Module
    optimizer: MasterAdamW
    samples: list[Sample]
    hidden: Tensor | None = None
    teacher_hidden: Tensor | None = None
    gradient: Tensor | None = None

    def __post_init__(self):
        device = self.policy.device
        self.read, self.tokens = inputs(self.policy, self.samples), locate(self.samples, device)
        self.teacher_read = inputs(self.policy, self.samples, teacher=True)

    def run_reference(self) -> None:
        """Read the responses with the reference."""
        policy_logprobs(self.reference, Head.of(self.reference), self.read, self.tokens, 1.0)

    @torch.no_grad()
    def run_teacher(self) -> None:
        """Read the responses after the teacher's prompts."""
        self.teacher_hidden = self.teacher_read.hidden(self.policy)

    def run_trunk(self) -> None:
        """Read the responses with the policy, and keep the graph."""
        self.hidden = self.read.hidden(self.policy)

    def run_head(self) -> None:
        """Take log-prob, entropy and reverse KL, and their gradients in hidden states and lm-head."""
        head, m = Head.of(self.policy), len(self.tokens.targets)
        _, self.gradient = token_signals_backward(
            self.hidden,
            head,
            self.tokens.targets,
            lambda s, j: (s.div - s.logp).sum() / m,
            divergence=Divergence(kind="reverse_kl"),
            teacher_hidden=self.teacher_hidden,
            teacher_head=head,
        )
        self.teacher_hidden = None

    def run_trunk_back(self) -> None:
        """Hand the gradient of the hidden states down."""
        self.hidden.backward(self.gradient)
        self.hidden = self.gradient = None

    def run_optimizer(self) -> None:
        """Update the weights."""
        self.optimizer.step()

    def calls(self) -> dict[str, Callable[[], None]]:
        """Return all phases by name, in the order of a step."""
        names = ("reference", "teacher", "trunk", "head", "trunk_back", "optimizer")
        return {name.replace("_", " "): getattr(self, f"run_{name}") for name in names}

    def flops(self) -> dict[str, float]:
        """Return the FLOPs of each phase, nothing computed twice counted (sdpg/core/flops.py); the optimizer has none."""
        trunk = forward_flops(self.policy, self.read.work._replace(predictions=0))
        head = forward_flops(self.policy, Work(0, 0, self.read.work.predictions))
        return {
            "reference": trunk + head,
            "teacher": forward_flops(self.policy, self.teacher_read.work._replace(predictions=0)),
            "trunk": trunk,
            "head": 4 * head,  # forward and twice that backward of the student, forward of the teacher
            "trunk back": 2 * trunk,
        }


def draw_samples(config, recipe: Recipe) -> list[Sample]:
    """Return random prompts and responses of a recipe."""
    batch = FixedBatch.draw(recipe, range(3, config.vocab_size))
    groups = zip(batch.prompts, batch.teacher_prompts, batch.responses, strict=True)
    return [Sample(x, c, Rollout(y, [-1.0] * len(y), "length", 0)) for x, c, ys in groups for y in ys]


def load(session: Session, shape: str, told=lambda name: None) -> Phases:
    """Build policy, reference and optimizer of a shape; `told` is called with the name of each when it is there."""
    config = config_of(shape)
    how = {"dtype": torch.bfloat16, "device": session.device}
    policy = build(config, gradient_checkpointing=checkpointing(session, shape), **how)
    told("weights")
    reference = frozen(build(config, **how))
    told("reference")
    optimizer = MasterAdamW(policy, lr=1e-6, betas=(0.9, 0.999), weight_decay=0.1, warmup_steps=0, clip_norm=1.0)
    told("masters")
    return Phases(policy, reference, optimizer, draw_samples(config, TINY if shape == "tiny" else RECIPE))
