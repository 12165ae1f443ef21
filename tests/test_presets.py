"""The presets hold what the paper and the released code say."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

import baselines
from sdpg.config import PRESETS, ConfigError, available_presets, available_scales, method_config, resolve, run_config
from sdpg.config.diff import ABSENT, complete, difference, flatten
from sdpg.tasks.prompts import load_template
from sdpg.tasks.sources import build_source

ROOT = Path(__file__).parents[1]
STAND_INS = ROOT / "../shared/data/math"  # small copies of the evaluation sets, where they exist
SIZES = ("4b", "1.7b")
SDPG = ("methods.sdpg-ufkl", "methods.sdpg-urkl")


def settings(name: str) -> dict:
    """Dotted key -> value of a preset, the methods' defaults included."""
    return flatten(complete(resolve(name)))


def written(name: str) -> dict:
    """Dotted key -> value of what stands in the preset's file."""
    return flatten(yaml.safe_load((PRESETS / f"{name}.yaml").read_text(encoding="utf-8")))


# --- all presets ----------------------------------------------------------------------------------------------------


def test_the_presets_are_these():
    assert available_presets() == [
        "matched",
        "one-gpu",
        *(f"{w}-qwen3-{s}" for w in ("paper", "released") for s in sorted(SIZES)),
    ]
    assert not set(available_presets()) & set(available_scales())


@pytest.mark.parametrize("name", available_presets())
def test_every_preset_resolves_and_every_run_of_it(name):
    config = resolve(name)
    assert config.name == name
    for method in config.methods:
        run_config(config, method, 0)
        assert set(method_config(config, method)) >= set(
            baselines.hyperparameters(method_config(config, method)["algorithm"]).model_fields
        )


def test_an_unknown_scale_is_told_of_the_presets_too():
    with pytest.raises(ConfigError, match="did you mean 'paper-qwen3-4b'.*choose one of.*cpu.*released-qwen3-1.7b"):
        resolve("paper-qwen3-4")


# --- section 4.1 ----------------------------------------------------------------------------------------------------

SECTION_4_1 = {
    "task.template": "boxed",
    "task.verifier": "math-verify",
    "train.precision": "bf16",
    "train.engine": "vllm",
    "train.lr": 1e-6,
    "train.warmup_steps": 10,
    "train.weight_decay": 0.1,
    "train.betas": [0.9, 0.999],
    "train.clip_grad_norm": 1.0,
    "train.steps": 400,
    "train.prompts_per_step": 128,
    "train.group_size": 8,
    "train.temperature": 1.0,
    "train.max_prompt_tokens": 2048,
    "train.max_response_tokens": 4096,
    "train.reward": [0, 1],
    "train.updates_per_batch": 1,
    "train.reduction": "group",
    "train.overlong_buffer": 0,
    "train.dynamic_sampling": 0,
    "train.checkpoint_every": 10,
    "evaluation.samples": 32,
    "evaluation.temperature": 1.0,
    "evaluation.engine": "vllm",
    "methods.grpo.clip_low": 0.2,
    "methods.grpo.clip_high": 0.2,
    "methods.grpo.clip_dual": None,
    "methods.grpo.kl_coef": 1e-3,
    "methods.grpo.kl_in_reward": False,
    "methods.grpo.normalise_std": True,
    "methods.grpo.ratio": "token",
    "methods.grpo.imitation": 0,
    "methods.rlsd.clip_low": 0.2,
    "methods.rlsd.clip_high": 0.2,
    "methods.rlsd.kl_coef": 1e-3,
    "methods.rlsd.eps_w": 0.2,
    "methods.rlsd.lam": 0.5,
    "methods.rlsd.lam_decay": None,
    "methods.sdpg-ufkl.anchor": "ufkl",
    "methods.sdpg-urkl.anchor": "urkl",
    **{
        f"{method}.{field}": value
        for method in SDPG
        for field, value in {
            "alpha": 1e-3,
            "beta_base": 1e-3,
            "T": 400,
            "T_warm": 50,
            "T_decay": 350,
            "gate": True,
            "off_policy": False,
            "div_clamp": None,
            "exclude_stop": False,
            "tis_cap": None,
        }.items()
    },
}


@pytest.mark.parametrize("size", SIZES)
def test_the_paper_preset_is_section_4_1_value_by_value(size):
    config = resolve(f"paper-qwen3-{size}")
    found = flatten(complete(config))
    assert {key: found[key] for key in SECTION_4_1} == SECTION_4_1
    commit = {"4b": "1cfa9a7208912126459214e8b04321603b3df60c", "1.7b": "70d244cc86ccca08cf5af4e1e306ecf908b1ad5e"}[size]
    assert config.model.dump() == {"pretrained": f"Qwen/Qwen3-{size.upper()}@{commit}"}
    assert list(config.data.evaluation) == ["aime24", "aime25", "amc23"]
    assert config.data.train.dump() == {"dataset": "dapo-math-17k"}
    assert not any("train" in block for block in config.methods.values())
    assert {"sdpg-ufkl", "sdpg-urkl", "grpo", "rlsd"} <= set(config.methods)


def test_the_std_of_a_group_has_the_papers_epsilon_and_is_unbiased():
    torch = pytest.importorskip("torch")
    from sdpg.algorithms.advantages import EPS_STD, group_normalised

    assert EPS_STD == 1e-6
    expected = 0.5 / (0.5**0.5 + 1e-6)  # rewards 0 and 1: the unbiased deviation is sqrt(1/2)
    assert group_normalised(torch.tensor([[0.0, 1.0]]))[0, 1].item() == pytest.approx(expected)


def test_the_tables_methods_are_there():
    table_1, table_2 = (set(resolve(f"paper-qwen3-{size}").methods) for size in SIZES)
    assert table_1 == {"sdpg-ufkl", "sdpg-urkl", "grpo", "rlsd", "rpg", "sdpg-no-anchor"}
    assert table_2 == {"sdpg-ufkl", "sdpg-urkl", "grpo", "rlsd", "opcd"}
    rpg, whole = (method_config(resolve("paper-qwen3-4b"), name) for name in ("rpg", "sdpg-urkl"))
    changed = [key for key, x, y in difference(rpg, whole) if key not in ("T_warm", "T_decay")]
    assert changed == ["beta_base"] and rpg["beta_base"] == 0
    bare = method_config(resolve("paper-qwen3-4b"), "sdpg-no-anchor")
    assert difference(bare, whole) == [("alpha", 0.0, 1e-3)]


# --- where the released code departs ---------------------------------------------------------------------------------

# topic as in docs/presets.md -> key -> (paper, released); None for the values: no key can say it, both are alike
DEPARTURES = {
    "gate": {f"{m}.gate": (True, False) for m in SDPG},
    "schedule": {f"{m}.{key}": (n, 0) for m in SDPG for key, n in (("T_warm", 50), ("T_decay", 350))},
    "clip of SDPG": {
        f"{m}.{key}": values
        for m in SDPG
        for key, values in {
            "off_policy": (False, True),
            "clip_low": (..., 0.2),
            "clip_high": (..., 0.28),
            "clip_dual": (..., 10),
        }.items()
    },
    "clip of GRPO": {
        "methods.grpo.clip_low": (0.2, 0.2),
        "methods.grpo.clip_high": (0.2, 0.2),
        "methods.grpo.clip_dual": (None, 1000),
    },
    "clip of RLSD": {
        "methods.rlsd.clip_low": (0.2, 0.2),
        "methods.rlsd.clip_high": (0.2, 0.2),
        "methods.rlsd.clip_dual": (None, 3),
    },
    "updates per batch": {"train.updates_per_batch": (1, 8)},
    "ratio on the other terms": {f"{m}.sg_rho": (True, False) for m in SDPG},
    "dynamic sampling": {"train.dynamic_sampling": (0, 0)},
    "overlong penalty": {"train.overlong_buffer": (0, 0)},
    "reward": {"train.reward": ([0, 1], [-1, 1])},
    "GRPO's KL": {"methods.grpo.kl_coef": (1e-3, 1e-3), "methods.grpo.kl_in_reward": (False, True)},
    "RLSD's lambda": {"methods.rlsd.lam": (0.5, 0.5), "methods.rlsd.lam_decay": (None, 50)},
    "group std": {"methods.grpo.normalise_std": (True, True)},
    "aggregation": {"train.reduction": ("group", "micro-batch")},
    "KL clamp": {f"{m}.div_clamp": (None, 20) for m in SDPG},
    "KL softmax": {},
    "KL temperature": {"train.temperature": (1, 1)},
    "naming": {},
    "stop tokens": {f"{m}.exclude_stop": (False, False) for m in SDPG},
    "teacher context": {"task.template": ("boxed", "boxed-answer-hint")},
    "OPCD": {},
    "1.7B: response": {},
    "1.7B: batch": {},
    "1.7B: format": {},
    "number of steps": {"train.steps": (400, 216)},
}
DEPARTURES_17 = {  # what is different at 1.7B
    "teacher context": {"task.template": ("boxed", "answer-line-hint")},
    "OPCD": {"methods.opcd.teacher": ("live", ABSENT)},
    "1.7B: response": {"train.max_response_tokens": (4096, 2048)},
    "1.7B: batch": {"train.prompts_per_step": (128, 256)},
    "1.7B: format": {"task.verifier": ("math-verify", "exact")},
    "number of steps": {"train.steps": (400, 108)},
}


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("topic", DEPARTURES)
def test_every_departure_is_a_visible_setting_of_both_presets(topic, size):
    rows = {**DEPARTURES, **DEPARTURES_17}[topic] if size == "1.7b" else DEPARTURES[topic]
    for key, expected in rows.items():
        for name, value in zip((f"paper-qwen3-{size}", f"released-qwen3-{size}"), expected, strict=True):
            if value is ...:  # not read there
                continue
            assert settings(name).get(key, ABSENT) == value, f"{name}: {key}"
            if value is not ABSENT:
                assert written(name)[key] == value, f"{name}.yaml does not say {key}"


@pytest.mark.parametrize("size", SIZES)
def test_nothing_else_differs_between_paper_and_released(size):
    rows = {**DEPARTURES, **DEPARTURES_17} if size == "1.7b" else DEPARTURES
    told = {key for topic in rows.values() for key, (x, y) in topic.items() if x is not ... and x != y}
    a, b = (complete(resolve(f"{which}-qwen3-{size}")) for which in ("paper", "released"))
    ignored = {f"{m}.T" for m in SDPG}  # the number of steps again
    alone = {f"methods.{m}" for m in set(a["methods"]) ^ set(b["methods"])}
    found = {key for key, _, _ in difference(a, b) if not any(key.startswith(f"{m}.") for m in alone)}
    assert found - ignored == {key for key in told if not any(key.startswith(f"{m}.") for m in alone)}
    assert alone == ({"methods.opcd"} if size == "1.7b" else {"methods.rpg", "methods.sdpg-no-anchor"})


def test_the_page_has_a_row_for_every_topic_and_names_the_keys():
    page = (ROOT / "docs" / "presets.md").read_text(encoding="utf-8")
    rows = {m[1].strip(): m[0] for m in re.finditer(r"^\|([^|]+)\|.*\|$", page, flags=re.M)}
    for topic in DEPARTURES:
        keys = {**DEPARTURES, **DEPARTURES_17}[topic]
        assert topic in rows
        for key in keys:
            if topic not in ("group std", "KL temperature", "OPCD"):
                assert key.rsplit(".", 1)[1] in rows[topic], f"{topic}: {key}"
    for preset in available_presets():
        assert f"`{preset}`" in page


@pytest.mark.parametrize("size", SIZES)
def test_mini_batches_are_whole(size):
    for which in ("paper", "released"):
        train = resolve(f"{which}-qwen3-{size}").train
        assert train.prompts_per_step % train.updates_per_batch == 0
    assert train.prompts_per_step // train.updates_per_batch == {"4b": 16, "1.7b": 32}[size]


def test_the_teachers_context():
    paper = load_template("boxed").teacher_text("Q?", "ANSWER", "SOLUTION")
    assert "SOLUTION" in paper and "[Instruction]" in paper
    for name in ("boxed-answer-hint", "answer-line-hint"):
        template = load_template(name)
        teacher = template.teacher_text("Q?", "ANSWER", "SOLUTION")
        assert teacher == template.student_text("Q?") + "[Hint] The correct answer is ANSWER.\n"
    assert load_template("boxed-answer-hint").student == load_template("boxed").student


@pytest.mark.skipif(not STAND_INS.is_dir(), reason="needs copies of the evaluation sets in ../shared/data/math")
@pytest.mark.parametrize("name", available_presets())
def test_the_presets_evaluation_sets_are_the_papers(name):
    sizes = {}
    for task, source in resolve(name).data.evaluation.items():
        problems = build_source(source, f"evaluation.{task}", str(STAND_INS))
        sizes[task] = len(problems)
        assert all(re.fullmatch(r"-?\d+", problem.answer) for problem in problems)  # what `exact` counts on
    assert sizes == {"aime24": 30, "aime25": 30, "amc23": 40}


# --- matched ---------------------------------------------------------------------------------------------------------


def test_matched_is_the_papers_set_up_and_only_the_loss_differs():
    config, paper = resolve("matched"), resolve("paper-qwen3-4b")
    for key in ("model", "task", "data", "train", "evaluation"):
        assert getattr(config, key) == getattr(paper, key), key
    expected = {"sdpg-ufkl", "sdpg-urkl", "rpg", "sdpg-no-anchor", "sdpg-no-gate", "sdpg-no-schedule"}
    expected |= {"grpo", "rlsd", "opcd", "opsd", "sdpo", "grpo-double", "grpo-imitation"}
    assert set(config.methods) == expected
    first = complete(config, "sdpg-ufkl")
    for method in config.methods:
        outside = [key for key, _, _ in difference(first, complete(config, method)) if not key.startswith("algorithm.")]
        assert outside == (["train.group_size"] if method == "grpo-double" else []), method
    for method in ("sdpg-ufkl", "sdpg-urkl", "grpo", "rlsd"):
        assert method_config(config, method) == method_config(paper, method)


@pytest.mark.parametrize(
    ("method", "field"), [("sdpg-no-anchor", "alpha"), ("sdpg-no-gate", "gate"), ("grpo-imitation", "imitation")]
)
def test_an_ablation_of_matched_changes_one_field(method, field):
    config = resolve("matched")
    whole = "grpo" if method.startswith("grpo") else "sdpg-urkl"
    rows = difference(method_config(config, whole), method_config(config, method))
    assert [key for key, _, _ in rows] == [field]
