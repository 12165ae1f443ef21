"""Two and four processes (gloo, FSDP2 on the CPU) do what one does: steps, groups, state. A deadlock hits a time limit."""

import pytest

from tests.core.conftest import save_tiny
from tests.core.jobs import METHODS
from tests.core.processes import run

pytestmark = pytest.mark.slow
OFF = {"method": "sdpg-off", "updates_per_batch": 2, "lr": 1e-2}
ONE_RIGHT = {"task": "one-right", "prompts_per_step": 6}  # more processes than prompts that anything is learnt from
CASES = {  # name -> what differs from two steps of SDPG (UFKL) with 4 prompts on the tied model
    **{f"{name}, tied": {"method": name} for name in METHODS if name != "sdpg-off"},
    "sdpg, untied": {"tied": False},
    "gspo, untied": {"tied": False, "method": "gspo"},
    **{f"sdpg, {how}": {"reduction": how} for how in ("batch", "sequence", "constant")},
    "gspo, sequence": {"method": "gspo", "reduction": "sequence"},
    "sdpg, many micro-batches": {"micro_batch_tokens": 60},
    "rlsd, many micro-batches, untied": {"method": "rlsd", "micro_batch_tokens": 60, "tied": False},
    "sdpg, two updates": OFF,
    "sdpg, two updates, many micro-batches": OFF | {"micro_batch_tokens": 60},
    "gspo, two updates": {"method": "gspo", "updates_per_batch": 2},
    "grpo with KL in the reward, two updates": {"method": "grpo-reward-kl", "updates_per_batch": 2},
    "sdpg, closed gates on some processes": ONE_RIGHT | {"method": "sdpg-no-anchor"},
    "grpo, advantages of 0 on some processes": ONE_RIGHT | {"method": "grpo-no-kl", "micro_batch_tokens": 60},
    "gspo, advantages of 0 on some processes": ONE_RIGHT | {"method": "gspo"},
    "grpo, advantages of 0 everywhere": {"method": "grpo-no-kl", "task": "never"},
    "sdpg, fewer prompts than processes": {"prompts_per_step": 3},
    "sdpg, dynamic sampling": {"task": "easy", "dynamic_sampling": 3},
    "sdpg, padded rows": {"packed": False},
    "sdpg, gradient checkpointing": {"gradient_checkpointing": True},
    "sdpg, at another temperature": {"temperature": 0.7},
}
NOT_COMPARED = ("seconds", "tokens_per_second", "peak_memory", "flops")  # times; and work, which depends on the split


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    return {tied: str(save_tiny(folder / str(tied), tied=tied)) for tied in (True, False)}


@pytest.fixture(scope="module")
def outcomes(models, tmp_path_factory):
    """Every case by one process, by two, by four, and by four on two nodes (HSDP)."""
    folder = tmp_path_factory.mktemp("steps")
    cases = {name: case | {"model": models[case.get("tied", True)]} for name, case in CASES.items()}
    few = {name: cases[name] for name in (*list(cases)[:3], "sdpg, untied", "sdpg, two updates")}
    return {
        1: run("many_steps", 1, folder / "1", {"cases": cases}),
        2: run("many_steps", 2, folder / "2", {"cases": cases}),
        4: run("many_steps", 4, folder / "4", {"cases": cases}),
        "4 on 2 nodes": run("many_steps", 4, folder / "nodes", {"cases": few}, nodes=2),
    }


def largest_difference(a, b):
    assert a.keys() == b.keys()
    return max(max(abs(x - y) for x, y in zip(a[name], b[name], strict=True)) for name in a)


def comparable(rows):
    return [{key: value for key, value in row.items() if not key.startswith(NOT_COMPARED)} for row in rows]


@pytest.mark.parametrize("processes", [2, 4, "4 on 2 nodes"])
@pytest.mark.parametrize("name", CASES)
def test_steps_do_not_depend_on_the_number_of_processes(outcomes, name, processes):
    if name not in outcomes[processes]:
        pytest.skip("on two nodes a few cases are run")
    one, several = outcomes[1][name], outcomes[processes][name]
    assert largest_difference(one["parameters"], several["parameters"]) < 1e-5
    for alone, together in zip(comparable(one["rows"]), comparable(several["rows"]), strict=True):
        assert alone.keys() == together.keys()
        for key, value in alone.items():
            assert together[key] == (value if value is None else pytest.approx(value, rel=1e-5, abs=1e-5)), key


@pytest.mark.parametrize("processes", [2, 4])
def test_a_tied_head_stays_the_embedding_and_the_engine_has_the_policy(outcomes, processes):
    for name, case in CASES.items():
        assert outcomes[processes][name]["tied"] == case.get("tied", True)
        assert outcomes[processes][name]["pushed"] == 0


def test_it_is_no_empty_comparison(outcomes):
    """The steps change the weights, and the cases differ from each other."""
    steps = outcomes[1]
    assert largest_difference(steps["sdpg, tied"]["parameters"], steps["grpo, tied"]["parameters"]) > 1e-4
    norms = {name: round(out["rows"][0]["grad_norm"], 6) for name, out in steps.items()}
    assert norms["grpo, advantages of 0 everywhere"] == 0
    assert len(set(norms.values())) > 15
    assert 0 < steps["grpo, advantages of 0 on some processes"]["rows"][0]["informative_groups"] < 0.5


def test_dynamic_sampling_chooses_the_same_groups(models, tmp_path):
    given = {"model": models[True], "dynamic_sampling": 4, "prompts_per_step": 6}
    one, two, four = (run("groups_of", n, tmp_path / str(n), given)["steps"] for n in (1, 2, 4))
    assert one == two == four
    assert any(step["sampled"] > 24 for step in one)
