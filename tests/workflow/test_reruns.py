"""What a change makes Snakemake run again, by dry runs: that, all that hangs on it, and nothing else."""

from __future__ import annotations

import os
import random
import shutil

import pytest

from tests.workflow.conftest import copy_project

pytestmark = pytest.mark.slow
SMOKE = ("--config", "scale=smoke")
REPORT = "report.html: verdicts, figures, tables, configurations, cost and files on one page"
MANIFEST = "manifest.json: every file's hash, and what made it"
CLAIMS = "claims.json and claims.md: a verdict for each claim of the paper"
# what hangs on any run: the analysis of all of them
ANALYSIS = {
    "scores.csv, with intervals and paired comparisons",
    "samples.html: responses of every method at its first, middle and last checkpoint, right and wrong",
    "figure training_curves",
    "figure self_distillation",
    "figure final_accuracy",
    "table main",
    "table lm_eval",
    "power.csv: the differences between two methods that so many units can find",
    "table power",
    CLAIMS,
    REPORT,
    "stability.csv",
    "figure contrasts",
    "figure stability",
    "table stability",
    "cost.csv",
    "figure cost",
    "table cost",
    MANIFEST,
}


def train(method: str, seed: int = 0) -> str:
    return f"train {method}, seed {seed}: 4 steps"


def evaluate(method: str, seed: int = 0) -> str:
    return f"evaluate {method}, seed {seed}: every checkpoint on chain, chain-long, and lm-eval on the last"


GRPO_AGAIN = {train("grpo"), evaluate("grpo"), "figure beta_schedule", *ANALYSIS}


def age(folder, seed: int = 0) -> None:
    """Give every file another date, in no order: what a copy or a checkout may do."""
    dice = random.Random(seed)
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            date = 1_700_000_000 + dice.randrange(10_000_000)
            os.utime(path, (date, date))


def test_touching_nothing_or_only_dates_plans_nothing(finished):
    assert finished.planned(*SMOKE) == set()
    for folder in ("baselines", "sdpg", "workflows", "config", "results/smoke"):
        age(finished.folder / folder)
    assert finished.planned(*SMOKE) == set()


@pytest.mark.long
def test_the_target_smoke_is_the_scale_smoke(finished):
    assert finished.planned("smoke") == set()
    assert any(message.startswith("train sdpg-ufkl, seed 0: 160") for message in finished.planned("train"))


def test_editing_a_method_retrains_that_method_and_what_hangs_on_it(finished):
    with finished.edited("baselines/grpo.py"):
        assert finished.planned(*SMOKE) == GRPO_AGAIN
    assert finished.planned(*SMOKE) == set()


def test_editing_the_shared_core_retrains_everything(finished):
    with finished.edited("sdpg/core/trainer.py"):
        planned = finished.planned("train", *SMOKE)
    assert planned == {train("grpo"), train("sdpg-ufkl")}


def test_editing_a_figure_redraws_that_figure(finished):
    with finished.edited("sdpg/artefacts/figures/beta_schedule.py"):
        assert finished.planned("figures", *SMOKE) == {"figure beta_schedule"}
    with finished.edited("sdpg/artefacts/tables/lm_eval.py"):
        assert finished.planned("tables", "figures", *SMOKE) == {"table lm_eval"}


def test_editing_a_claim_or_how_it_is_decided_asks_for_the_verdicts_alone(finished):
    verdicts = {CLAIMS, "figure contrasts", REPORT, MANIFEST}
    with finished.edited("sdpg/artefacts/claims/verdicts.py"):
        assert finished.planned(*SMOKE) == verdicts
    with finished.edited("config/claims.yaml"):  # a comment
        assert finished.planned(*SMOKE) == set()
    claims = finished.folder / "config/claims.yaml"
    before = claims.read_text()
    claims.write_text(before.replace("alpha: 0.05", "alpha: 0.04"))
    assert finished.planned(*SMOKE) == verdicts
    claims.write_text(before)


def test_editing_what_training_does_not_use_retrains_nothing(finished):
    with finished.edited("sdpg/rollout/engines/vllm.py"):
        assert finished.planned("train", *SMOKE) == set()
    with finished.edited("baselines/__init__.py"), finished.edited("sdpg/config/__init__.py"), finished.edited("sdpg/cli.py"):
        assert finished.planned(*SMOKE) == set()


@pytest.mark.long
def test_an_edited_comment_or_docstring_plans_nothing(finished):
    for file in ("sdpg/core/trainer.py", "baselines/grpo.py", "sdpg/artefacts/figures/cost.py"):
        path = finished.folder / file
        before = path.read_text()
        path.write_text("# A comment.\n" + before.replace('"""', '"""Changed. ', 1) + "\n# Another one.\n")
        try:
            assert finished.planned(*SMOKE) == set()
        finally:
            path.write_text(before)


def test_adding_a_seed_trains_that_seed(finished):
    planned = finished.planned(*SMOKE, "seeds=[0,1]")
    runs = {message for message in planned if message.startswith(("train ", "evaluate "))}
    assert runs == {call(method, 1) for call in (train, evaluate) for method in ("grpo", "sdpg-ufkl")}
    assert planned - runs == {"figure beta_schedule", *ANALYSIS}


def test_a_setting_of_one_method_retrains_that_method(finished):
    assert finished.planned("train", *SMOKE, "methods={grpo: {kl_coef: 0.5}}") == {train("grpo")}
    assert finished.planned("train", *SMOKE, "set=methods.grpo.kl_coef=0.001 train.lr=3e-4") == {train("grpo")}


def test_an_evaluation_setting_evaluates_again_without_training(finished):
    planned = finished.planned("evaluate", *SMOKE, "evaluation={samples: 5}")
    assert planned == {evaluate("grpo"), evaluate("sdpg-ufkl"), "lm-eval on base model 0"}


def test_adding_a_method_trains_that_method(finished):
    planned = finished.planned("train", *SMOKE, "methods={opcd: {}}")
    assert planned == {train("opcd")}


@pytest.mark.long
def test_results_copied_into_a_fresh_clone_count_there(finished, tmp_path):
    clone = copy_project(tmp_path / "clone", finished.folder)
    shutil.copytree(finished.folder / "results", clone.folder / "results", dirs_exist_ok=True, copy_function=shutil.copyfile)
    age(clone.folder / "results" / "smoke", seed=1)
    assert clone.planned(*SMOKE) == set()
    with clone.edited("baselines/grpo.py"):
        age(clone.folder / "baselines", seed=2)  # an edit that is older than the results is still an edit
        assert clone.planned(*SMOKE) == GRPO_AGAIN
    assert finished.planned(*SMOKE) == set()  # the original is none the worse


HEAD = '{"__metadata__": {"of": "weights"}}'  # of a safetensors file without tensors


@pytest.mark.long
def test_other_content_of_the_users_own_files_counts_with_an_old_date(tmp_path):
    """Same names, sizes and dates: as a copy that keeps dates, or a folder moved there, may have."""
    project = copy_project(tmp_path)
    contents = {
        "model/config.json": "{}",
        "model/model.safetensors": chr(len(HEAD)) + 7 * chr(0) + HEAD,
        "model/tokenizer.json": "tokens",
        "template.yaml": "student: '{question}'\nteacher: '{question} {answer}'\n",
        "train.jsonl": '{"question": "1+1", "answer": "2"}\n',
        "own.yaml": "{name: own, extends: smoke, model: {warm_start: null, pretrained: model}, task: {template: template.yaml},"
        " data: {train: {chain: null, path: train.jsonl}}}",
    }
    (tmp_path / "model").mkdir()
    for name, text in contents.items():
        (tmp_path / name).write_text(text)
    age(tmp_path / "model")
    own = ("--config", "scale=own.yaml")
    project.pretend_finished(*own)
    assert project.planned(*own) == set()
    os.utime(tmp_path / "model/model.safetensors")  # a new date alone is no other content
    assert project.planned(*own) == set()
    base, data = "base model 0 (pretrained), measured as student and as teacher", "problems to train on, and to evaluate on: "
    for name, first in (
        ("model/model.safetensors", base),
        ("model/tokenizer.json", base),
        ("train.jsonl", data),
        ("template.yaml", data),
    ):
        before = contents[name]
        part = "weights" if "weights" in before else "e"
        (tmp_path / name).write_text(f"{before}# other" if "yaml" in name else before.replace(part, part.upper(), 1))
        os.utime(tmp_path / name, (1e9, 1e9))
        planned = project.planned(*own)
        assert {train("grpo"), train("sdpg-ufkl"), REPORT} <= planned, name
        assert any(message.startswith(first) for message in planned), name
        (tmp_path / name).write_text(contents[name])
        os.utime(tmp_path / name, (1e9, 1e9))
    assert project.planned(*own) == set()


def test_a_sweep_plans_training_and_the_choice_and_never_an_evaluation(finished):
    planned = finished.planned("reproduce-all", "--config", "scale=cpu-sweep", "seeds=[100]")
    kinds = {message.split(" ")[0] for message in planned}
    assert kinds == {"problems", "base", "train", "score", "figure", "manifest.json:"}
    assert sum(message.startswith("train ") for message in planned) == 5  # learning rates of grpo
    assert "figure tuning" in planned


def test_a_sweep_has_no_rule_that_evaluates(finished):
    assert "evaluate" in finished.snakemake("-n", "evaluate", "--config", "scale=cpu-sweep", ok=False)


def test_runs_start_from_the_base_model_of_their_seed(finished):
    planned = finished.planned("train", "--config", "scale=cpu", "seeds=[0,10]", "methods=[grpo]")
    assert {message for message in planned if message.startswith("base model")} == {
        "base model 0 (warm_start), measured as student and as teacher"
    }


def test_the_matrix_is_every_cell_with_the_same_overrides(finished):
    output = finished.snakemake("-n", "matrix", "--config", "seeds=[0]", "methods=[grpo,opcd]")
    for cell in ("cpu", "cpu-biased", "cpu-stressed", "cpu-chain"):
        assert output.count(f"[{cell}] train ") == 2
        assert f"[{cell}] report.html" in output
    assert "[matrix] last checkpoints of every method in every cell" in output
