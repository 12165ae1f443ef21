"""Show that sdpg/reference.py and the Trainer train the same parameters, and that the program stays short and alone."""

from __future__ import annotations

import ast
import re
from copy import deepcopy
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, Qwen3Config, Qwen3ForCausalLM

import baselines
from benchmarks.gpu.tiny import EOS
from sdpg import reference as program
from sdpg.algorithms.sdpg import SDPG
from sdpg.config import resolve
from sdpg.types import Score
from tests.core.conftest import VOCAB, TokenTask, make_trainer, problems, train_config

ROOT = Path(__file__).parents[1]
STEPS = 3
TOLERANCE = 1e-5  # of a parameter; what is found is at most 3e-6
ANOTHER_LOSS, ANOTHER_UPDATE = (1e-3, 5e-5)  # a wrong loss differs by at least so much, wrong settings of the optimiser by this
# beta is 1/2, 2/3, 1/3 of its peak at the three steps: the first lies on the way up, the others on the way down
METHOD = {"beta_base": 1.0, "T_warm": 2, "T_decay": 3, "alpha": 0.5}
OPTIMISER = {"lr": 2e-3, "warmup_steps": 2, "weight_decay": 0.1, "clip_grad_norm": 1.0, "betas": [0.9, 0.999]}


class Mixed(TokenTask):
    """Problem 0 is always solved and problem 1 never; of the others, responses with an even sum are right."""

    def score(self, problem, ids, finish_reason):
        return Score(correct={"0": True, "1": False}.get(problem.id, sum(ids) % 2 == 0))


@pytest.fixture(scope="module", params=[True, False], ids=["tied", "untied"])
def base(request, tmp_path_factory):
    """Folder of a random 2-layer Qwen3 whose probabilities are far from equal, with a tied or an untied lm-head."""
    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=VOCAB,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=16,
        intermediate_size=64,
        tie_word_embeddings=request.param,
        max_position_embeddings=64,
        initializer_range=0.2,
        pad_token_id=0,
        eos_token_id=EOS,
    )
    folder = tmp_path_factory.mktemp("base")
    Qwen3ForCausalLM(config).save_pretrained(folder)
    return folder


@dataclass(frozen=True)
class Run:
    """What the Trainer did: the rollouts of each step, its row of metrics, and the parameters after it."""

    base: Path
    settings: program.Settings
    batches: list[program.Rollouts]
    rows: list[dict]
    parameters: list[dict[str, torch.Tensor]]


def trainers_run(base, work, *, temperature=1.0, **fields) -> Run:
    """Three steps of the Trainer with its own engine, in several micro-batches."""
    config = train_config(
        steps=STEPS + 1, temperature=temperature, micro_batch_tokens=100, checkpoint_every=9, validate_every=9, **OPTIMISER
    )
    algorithm = baselines.make("sdpg", T=STEPS + 1, **METHOD | fields)
    trainer = make_trainer(base, work, algorithm, config, data=problems(4), task=Mixed())
    collect, batches = trainer.collector.collect, []

    def record(*args, **kwargs):
        batch = collect(*args, **kwargs)
        x, cx = ([list(getattr(s, name)) for s in batch.samples] for name in ("prompt", "teacher_prompt"))
        batches.append(program.Rollouts(x, cx, [list(s.rollout.ids) for s in batch.samples], batch.R_NG))
        return batch

    trainer.collector.collect = record
    rows, parameters = [], []
    for k in range(1, STEPS + 1):
        rows.append(trainer.step(k))
        parameters.append({n: p.detach().clone() for n, p in trainer.models.policy.named_parameters()})
    settings = program.Settings(steps=STEPS + 1, temperature=temperature, **OPTIMISER, **METHOD | fields)
    return Run(base, settings, batches, rows, parameters)


def train(run: Run, settings: program.Settings) -> tuple[list[float], list[float]]:
    """Train the plain program on the recorded rollouts -> after each step, the largest difference of any parameter; losses."""
    model = AutoModelForCausalLM.from_pretrained(run.base, dtype=torch.float32)
    initial = deepcopy(model)
    optimizer, largest, losses = program.make_optimizer(model, settings), [], []
    for k, (batch, theirs) in enumerate(zip(run.batches, run.parameters, strict=True), start=1):
        losses.append(program.train_step(model, initial, optimizer, batch, k, settings))
        ours = dict(model.named_parameters())
        assert ours.keys() == theirs.keys()
        largest.append(max((ours[n] - theirs[n]).abs().max().item() for n in ours))
    return largest, losses


CASES = [("ufkl", True, 1.0), ("ufkl", False, 1.0), ("urkl", True, 1.0), ("urkl", False, 1.0), ("urkl", True, 0.8)]


@pytest.mark.parametrize(("anchor", "gate", "temperature"), CASES)
def test_three_steps_train_the_parameters_that_the_trainer_finds(base, tmp_path, anchor, gate, temperature):
    """Compare after every step; then show that every setting matters, so that the comparison could have failed."""
    run = trainers_run(base, tmp_path / "w", anchor=anchor, gate=gate, temperature=temperature)
    for batch in run.batches:
        right = set(batch.R.sum(1).tolist())
        assert {0.0, 4.0} < right, "a step needs a group all wrong, one all right and one in between"
    largest, losses = train(run, run.settings)
    assert max(largest) < TOLERANCE, largest
    assert losses == pytest.approx([row["loss"] for row in run.rows], rel=1e-4, abs=1e-5)
    other = "urkl" if anchor == "ufkl" else "ufkl"
    terms = {"gate": not gate, "anchor": other, "T_warm": 0, "T_decay": 0, "beta_base": 0.0, "alpha": 0.0}
    updates = {"warmup_steps": 0, "weight_decay": 0.0, "clip_grad_norm": 1e9}
    for changes, least in ((terms | {"temperature": 1.1}, ANOTHER_LOSS), (updates, ANOTHER_UPDATE)):
        for name, value in changes.items():
            assert train(run, replace(run.settings, **{name: value}))[0][-1] > least, name


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("advantages", lambda R: R - R.mean(1, keepdim=True)),
        ("advantages", lambda R: (R - R.mean()) / (R.std() + 1e-6)),  # of the batch, not of the group
        ("beta", lambda k, s: s.beta_base),
    ],
)
def test_a_program_with_a_wrong_function_is_told_apart(base, tmp_path, monkeypatch, name, wrong):
    run = trainers_run(base, tmp_path / "w")
    monkeypatch.setattr(program, name, wrong)
    assert train(run, run.settings)[0][-1] > ANOTHER_LOSS


def test_a_teacher_without_the_privileged_context_is_told_apart(base, tmp_path):
    run = trainers_run(base, tmp_path / "w")
    blind = replace(run, batches=[replace(batch, cx=batch.x) for batch in run.batches])
    assert train(blind, run.settings)[0][-1] > ANOTHER_LOSS


def test_its_defaults_are_those_of_the_method_and_of_the_papers_preset():
    ours, preset = asdict(program.Settings()), resolve("paper-qwen3-4b").train.dump()
    sdpg = asdict(SDPG())
    shared = ours.keys() & sdpg.keys()
    assert shared == {"beta_base", "T_warm", "T_decay", "alpha", "anchor", "gate"}
    assert {name: ours[name] for name in shared} == {name: sdpg[name] for name in shared}
    assert ours["steps"] == sdpg["T"]
    assert {n: v if n != "betas" else list(v) for n, v in ours.items() if n not in shared} == {
        n: preset[n] for n in ours.keys() - shared
    }


def test_it_is_short_and_imports_nothing_of_the_project():
    text = Path(program.__file__).read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 160
    nodes = list(ast.walk(ast.parse(text)))
    found = {a.name.split(".")[0] for n in nodes if isinstance(n, ast.Import) for a in n.names}
    found |= {"." * n.level + (n.module or "").split(".")[0] for n in nodes if isinstance(n, ast.ImportFrom)}
    assert found == {"__future__", "copy", "dataclasses", "torch", "transformers"}


def test_its_demonstration_learns(capsys):
    with torch.random.fork_rng():
        program.main()
    rewards = [float(x) for x in re.findall(r"reward (\S+)", capsys.readouterr().out)]
    assert len(rewards) == 40 and sum(rewards[-5:]) / 5 > sum(rewards[:5]) / 5 + 0.15
