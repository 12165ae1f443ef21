"""Every setting of a scale file, once: its type, range and default, and below it its meaning.

Defaults are the paper's where it gives one. `config/schema.json` is generated from here (`sdpg docs`). Quick to import, so that
`snakemake -n` is: nothing here imports torch.
"""

from __future__ import annotations

import json
from functools import cached_property
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, field_validator, model_validator
from pydantic_core import PydanticCustomError

from sdpg.config.alternatives import Alternatives
from sdpg.config.data import Data
from sdpg.config.fits import check_temperature, check_training
from sdpg.config.pauses import Pauses
from sdpg.config.resources import Resources
from sdpg.config.sensitivity import Axis
from sdpg.config.task import Task
from sdpg.config.track import Track
from sdpg.io import ROOT
from sdpg.rollout import engines
from sdpg.types import (
    LARGEST,
    LEAST,
    WHOLE,
    Count,
    CountOrNone,
    Fraction,
    LearningRate,
    Length,
    Name,
    PathText,
    Positive,
    Seed,
    Settings,
    Temperature,
    TemperatureOrGreedy,
    Text,
    Weight,
    whole,
)

SCHEMA = ROOT / "config" / "schema.json"
Engine = Annotated[str, Field(json_schema_extra={"enum": list(engines.names())})]
UNIQUE = {"uniqueItems": True}
PASS_K = [1, 4, 8]
Seeds = Annotated[list[Seed], Field(min_length=1, json_schema_extra=UNIQUE)]
Keep = Literal["all", "last"] | Count
Pair = Annotated[list[Fraction], Field(min_length=2, max_length=2)]


def _one_of(names, value: str) -> str:
    if value not in names:
        raise ValueError(f"expected one of {', '.join(names)}")
    return value


def _none_twice(values: list) -> list:
    if len(set(values)) < len(values):
        raise ValueError("none twice")
    return values


class WarmStart(Settings):
    """A tiny Qwen3-architecture model, trained inside the DAG on demonstrations of the chain task."""

    hidden_size: Annotated[int, Field(ge=8, le=65536), WHOLE] = 64
    """Width of the model."""
    layers: Annotated[int, Field(ge=1, le=1000), WHOLE] = 2
    """Transformer blocks."""
    heads: Annotated[int, Field(ge=1, le=1000), WHOLE] = 4
    """Attention heads."""
    head_dim: Annotated[int, Field(ge=2, le=4096, multiple_of=2), WHOLE] = 32
    """Size of one head, even; vLLM's CPU attention takes 32, 64, 80, 96, 112, 128 and larger, nothing smaller."""
    intermediate_size: Annotated[int, Field(ge=8, le=65536), WHOLE] = 160
    """Width of the feed-forward layer."""
    steps: Count = 1200
    """Supervised steps."""
    batch_size: Count = 128
    """Demonstrations a step."""
    lr: LearningRate = 0.003
    """Peak learning rate of the cosine schedule."""
    hinted: Fraction = 0.3
    """Share of demonstrations whose prompt carries the hint."""
    operations: Annotated[list[Length], Field(min_length=1)] = [2, 3, 4, 5, 6]
    """Chain lengths of the demonstrations."""
    error_rate: Fraction = 0.35
    """Mean chance, over facts, that a plain demonstration gets the fact wrong."""
    jump_plain: Fraction = 0.06
    """Chance before each step that a plain demonstration skips to the answer."""
    jump_hinted: Fraction = 0.2
    """The same chance for hinted demonstrations: the teacher's shortcut bias."""
    reverse: Fraction = 0.1
    """Share of demonstrations of `reverse`, the task that training does not touch."""
    seeds: Seeds = [0]
    """Seeds of weights and demonstrations: one base model each. A run with seed s starts from number s modulo their count."""
    student_range: Pair = [0.15, 0.4]
    """The rule `base_model` fails unless the student's accuracy lies in [low, high]. Another range runs nothing again."""
    teacher_min: Fraction = 0.9
    """The rule `base_model` fails unless the hinted teacher's accuracy is at least this. Another one runs nothing again."""
    pauses: Pauses | None = None
    """Demonstrations of which some pause after every value, for the verifier `pauses`; null for none."""

    _unique = field_validator("seeds")(_none_twice)

    @field_validator("student_range")
    @classmethod
    def _ordered(cls, value: list[float]) -> list[float]:
        if value[0] >= value[1]:
            raise PydanticCustomError("expected", "expected [low, high] with low < high")
        return value


class Package(Settings):
    """Weights from an installed Python package."""

    module: Text
    """Importable module of an installed package that carries the weights."""
    gguf: Text
    """File name of the GGUF inside the package."""


class Model(Alternatives):
    """Where the base model comes from: exactly one of the keys; `model: DIR` is short for `model: {pretrained: DIR}`."""

    warm_start: WarmStart | None = None
    """A tiny Qwen3-architecture model, trained inside the DAG on demonstrations of the chain task."""
    pretrained: PathText | None = None
    """A directory with a Hugging Face checkpoint, or a hub id."""
    package: Package | None = None
    """Weights from an installed Python package."""


def _keeps(value: Any) -> Any:
    value = whole(value)
    if isinstance(value, str) and value in ("all", "last"):
        return value
    if isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= LARGEST:
        return value
    raise PydanticCustomError("expected", "expected all, last or a whole number of at least 1")


def kept_steps(steps: list[int], keep: Keep) -> set[int]:
    """Return which steps' checkpoints stay: the first, the last, and "all" others or those at multiples of `keep`."""
    between = set(steps) if keep == "all" else {step for step in steps if keep != "last" and step % keep == 0}
    return {steps[0], steps[-1]} | between


class Train(Settings):
    """Training, the same for every method."""

    engine: Engine = "in-process"
    """Rollout engine (sdpg/rollout/engines)."""
    steps: Count
    """Training steps (rollout batches)."""
    prompts_per_step: Count = 128
    """Prompts in a rollout batch, N."""
    group_size: Annotated[int, Field(ge=1, le=1_000_000), WHOLE] = 8
    """Responses per prompt, G; 1 for a method that compares no responses of a group."""
    temperature: Temperature = 1.0
    """Sampling temperature of the rollouts."""
    max_prompt_tokens: Count
    """The longest prompt, the teacher's included; what becomes of a longer one: data.overlong."""
    max_response_tokens: Count
    """The longest response; a longer one is cut and judged wrong."""
    lr: LearningRate = 1e-6
    """Learning rate after warm-up."""
    lr_multiplier: Annotated[float, Field(gt=0, ge=LEAST, le=1000)] = 1.0
    """Multiplies every method's learning rate: the stress test of a whole scale."""
    betas: Annotated[list[Annotated[float, Field(ge=0, lt=1)]], Field(min_length=2, max_length=2)] = [0.9, 0.999]
    """AdamW's betas."""
    weight_decay: Weight = 0.1
    """AdamW's weight decay."""
    warmup_steps: CountOrNone = 10
    """Steps over which the learning rate rises linearly."""
    clip_grad_norm: Positive = 1.0
    """Largest global gradient norm."""
    reduction: Literal["group", "batch", "sequence", "constant", "micro-batch"] = "group"
    """Per-token losses to one number: token mean per group, then over prompts (`group`, the paper's); token mean over the batch
    (`batch`, DAPO's); mean over responses of token means (`sequence`, GSPO's); sum over prompts x responses x
    max_response_tokens (`constant`, Dr. GRPO's); token mean per micro-batch weighted by responses (`micro-batch`, the released
    code's, which depends on the split)."""
    updates_per_batch: Count = 1
    """Optimizer steps per rollout batch; 1 is on-policy."""
    micro_batch_tokens: Count = 8192
    """Tokens per forward pass; changes memory and speed, never the result."""
    packed: bool = True
    """Lay a micro-batch's tokens in one sequence, with the prompt of a group once, instead of one padded row per response: the
    same result, faster. Models whose attention cannot be replaced are padded in any case."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """fp32, or bf16 compute with fp32 master weights."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass to save memory."""
    lora_rank: Annotated[int, Field(ge=0, le=4096), WHOLE] = 0
    """Rank of low-rank adapters (LoRA) on all linear layers of the blocks, trained in place of the weights.
    Embedding and lm-head stay as they are; checkpoints and the engine get the merged weights. 0: all weights are trained."""
    lora_alpha: Positive | None = None
    """Scale of the adapters: what they add is multiplied by lora_alpha / lora_rank; null: twice the rank."""
    checkpoint_every: Count = 20
    """Steps between checkpoints; the first and the last state are always kept."""
    keep: Annotated[Keep, BeforeValidator(_keeps)] = "all"
    """Which checkpoints stay, and are evaluated: all, the last, or those at multiples of so many steps, itself a multiple of
    checkpoint_every; always the first."""
    validate_every: Count = 20
    """Steps between two looks at the validation sets, and after the last step: one response per problem."""
    reward: Annotated[list[Annotated[float, Field(ge=-1000, le=1000)]], Field(min_length=2, max_length=2)] = [0.0, 1.0]
    """Reward of a wrong and of a right response; the released code takes [-1, 1]."""
    overlong_buffer: CountOrNone = 0
    """DAPO's soft penalty: a response's reward falls by up to 1 over the last so many tokens before max_response_tokens; 0:
    none."""
    dynamic_sampling: Annotated[int, Field(ge=0, le=1000), WHOLE] = 0
    """DAPO's dynamic sampling: at most so many more batches a step in search of groups whose rewards are not all equal; 0:
    none."""

    stop_collapsed: Fraction | None = None
    """A run ends as collapsed when its validation accuracy is below this share of its best at two looks running; null: never.
    What it did not reach counts with its last checkpoint, as after a divergence."""

    @field_validator("engine")
    @classmethod
    def _known(cls, value: str) -> str:
        return _one_of(engines.names(), value)

    @field_validator("reward")
    @classmethod
    def _different(cls, value: list[float]) -> list[float]:
        if abs(value[0] - value[1]) < 1e-6:  # less than the epsilon of a group's deviation
            raise PydanticCustomError("expected", "expected two different numbers")
        return value

    @model_validator(mode="after")
    def _fits(self) -> Train:
        check_training(self)
        return self

    @property
    def dtype(self) -> str:
        """torch's name of the compute precision."""
        return {"fp32": "float32", "bf16": "bfloat16"}[self.precision]


class LmEval(Settings):
    """lm-eval on the last checkpoint."""

    repeats: Count = 4
    """Samples per problem; one where evaluation.temperature is 0, since all would be the same."""
    limit: Count = 64
    """Problems per task."""
    forgetting: Text | None = None
    """A task that training does not touch, to see what was forgotten; null for none."""
    seeds: Count | None = None
    """The first so many seeds of each method, whose runs it is for, and the base models that they start from; null for all.
    Where it is given, or resources.evaluate_at_once is true, lm-eval has jobs of its own."""


class Evaluation(Settings):
    """Evaluation of the checkpoints."""

    engine: Engine = "vllm"
    """Engine of the checkpoint sweep."""
    samples: Count = 8
    """Responses per problem, the n of mean@n."""
    pass_k: Annotated[list[Count], Field(json_schema_extra=UNIQUE | {"default": PASS_K})] = Field(
        default_factory=lambda given: [k for k in PASS_K if k <= given.get("samples", max(PASS_K))]
    )
    """The k of pass@k; none may exceed samples, and by default none does."""
    temperature: TemperatureOrGreedy = 1.0
    """Sampling temperature; 0 takes the most probable token always, with samples: 1."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Weights and compute of the engine."""
    lm_eval: LmEval | None = LmEval()
    """lm-eval on the last checkpoint; null to leave it out."""

    _unique = field_validator("pass_k")(_none_twice)

    @field_validator("engine")
    @classmethod
    def _known(cls, value: str) -> str:
        return _one_of(engines.names(), value)

    @model_validator(mode="after")
    def _samples_differ(self) -> Evaluation:
        both = self.model_dump()
        if both["temperature"] == 0 and both["samples"] > 1:
            text = "samples is {samples}, but temperature is 0: all responses to a problem would be the same; set samples to 1"
            raise PydanticCustomError("together", text, both)
        for engine in [both["engine"], *([engines.lm_eval_engine(both["engine"])] if both["lm_eval"] else [])]:
            if both["temperature"]:
                check_temperature(engine, both["temperature"])
        return self

    @property
    def label(self) -> str:
        """The engine's name in tables."""
        return engines.label(self.engine)


class Sweep(Settings):
    """Takes the place of `methods`: one run for each method, trial and seed, scored on the validation sets."""

    trials: Annotated[dict[str, Annotated[list[dict[str, Any]], Field(min_length=1)]], Field(min_length=1)]
    """Method -> list of settings to try; every list is equally long."""
    inherit: dict[str, str] = {}
    """Method that is not tuned -> the method whose choice it takes, as an ablation or a control of it."""
    one_rate: bool = False
    """One learning rate for a matched family: the trials are of one method, and of train.lr alone. The methods of `inherit` get
    its best, which must lie between the lowest and the highest tried."""


class Config(Settings):
    """A scale of the benchmark (config/scales/*.yaml): everything that it decides."""

    name: Name
    """Results go to results/<name>/."""
    family: Literal["matched", "published"] = "matched"
    """Family of experiment, which decides the claims that the results speak to: matched (the methods differ in their loss, and
    in what their sweeps chose), or published (each has its published or released settings)."""
    seeds: Seeds = [0]
    """One training run per method and seed."""
    model: Model
    """Where the base model comes from: exactly one of the keys; `model: DIR` is short for `model: {pretrained: DIR}`."""
    task: Task = Task()
    """Prompts and verifier."""
    data: Data
    """Problems to train and to evaluate on."""
    train: Train
    """Training, the same for every method."""
    evaluation: Evaluation = Evaluation()
    """Evaluation of the checkpoints."""
    methods: Annotated[dict[Name, dict[str, Any]], Field(min_length=1)]
    """Methods to run -> this scale's overrides of config/methods/<method>.yaml, checked against the method's fields; a list of
    names overrides nothing. `like: NAME` runs another method file under this name."""
    resources: Resources = Resources()
    """What one model job takes (training, evaluation, base model)."""
    tuned: Name | None = None
    """Name of a file in config/tuned: what a sweep chose for each method, beneath its file in config/methods."""
    sweep: Sweep | None = None
    """Takes the place of `methods`: one run for each method, trial and seed, scored on the validation sets."""
    matrix: list[Text] = []
    """Scales that `snakemake matrix` sets side by side, this one among them. Not inherited by `extends`."""
    track: Track = ["tensorboard"]
    """Where metrics go beside metrics.jsonl: tensorboard, trackio, wandb, a list of them, or null. trackio and wandb are your
    own packages, used offline unless your environment says otherwise (docs/sharing.md). It changes no result."""
    sensitivity: list[Axis] = []
    """Settings that are varied one at a time, each value one more method: which conclusions change with them is the figure and
    the table `sensitivity`."""

    _unique = field_validator("seeds")(_none_twice)

    @cached_property
    def bases(self) -> list[int]:
        """Numbers of the base models that the runs start from."""
        return self._bases(self.seeds)

    @property
    def lm_eval_seeds(self) -> list[int]:
        """Seeds of the runs that lm-eval is for; none where the scale runs no lm-eval."""
        return self.seeds[: self.evaluation.lm_eval.seeds] if self.evaluation.lm_eval else []

    @property
    def lm_eval_bases(self) -> list[int]:
        """Numbers of the base models that lm-eval is for: those that its runs start from."""
        return self._bases(self.lm_eval_seeds)

    @property
    def lm_eval_apart(self) -> bool:
        """Whether lm-eval has jobs of its own: where it is for some seeds alone, or no evaluation's job starts an engine."""
        asked = self.evaluation.lm_eval
        return asked is not None and (asked.seeds is not None or self.resources.evaluate_at_once)

    def _bases(self, seeds: list[int]) -> list[int]:
        count = len(self.model.warm_start.seeds) if self.model.warm_start else 1
        return sorted({seed % count for seed in seeds})


def schema_text() -> str:
    """Return the JSON schema of a scale file as it lies in config/schema.json."""
    return json.dumps(Config.model_json_schema(by_alias=True), indent=1, ensure_ascii=False) + "\n"
