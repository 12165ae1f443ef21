"""Two and four processes (gloo, FSDP2 on the CPU) do what one does: steps, groups, state. A deadlock hits a time limit."""

import json
import os
import shutil
import signal
import time
from pathlib import Path
from random import Random

import pyarrow.parquet as pq
import pytest

from benchmarks.architectures import make
from sdpg.core.checkpoint import list_checkpoints
from sdpg.core.recorder import read_rows
from sdpg.io import sha256
from tests.core.conftest import save_tiny
from tests.core.jobs import METHODS
from tests.core.processes import Processes, run

pytestmark = pytest.mark.slow
OFF = {"method": "sdpg-off", "updates_per_batch": 2, "lr": 1e-2}
ONE_RIGHT = {"task": "one-right", "prompts_per_step": 6}  # more processes than prompts that anything is learnt from
OPSA = {
    "method": "opsa",
    "lr": 1e-4,
}  # few tokens have a gradient: more parameters' are so small that Adam makes steps of rounding
CASES = {  # name -> what differs from two steps of SDPG (UFKL) with 4 prompts on the tied model
    **{
        f"{name}, tied": {"method": name}
        for name in METHODS
        if name not in ("sdpg-off", "sdpo-ema", "sdft", "opcd", "opsa", "sdpg-urkl")
    },
    "sdpg, untied": {"tied": False},
    "gspo, untied": {"tied": False, "method": "gspo"},
    **{f"sdpg, {how}": {"reduction": how} for how in ("batch", "sequence", "constant")},
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
    "sdpo, wrong answers almost everywhere": ONE_RIGHT | {"method": "sdpo-ema", "micro_batch_tokens": 60},
    "opcd, fewer prompts than processes": {"method": "opcd", "prompts_per_step": 3},
    "sdft, fewer prompts than processes, untied": {"method": "sdft", "prompts_per_step": 3, "tied": False},
    "rlcsd, hints on some processes": ONE_RIGHT | {"method": "rlcsd", "micro_batch_tokens": 60},
    "rlcsd, two updates, untied": {"method": "rlcsd", "task": "easy", "updates_per_batch": 2, "tied": False},
    "opsa, one response per prompt": OPSA | {"prompts_per_step": 6, "group_size": 1},
    "opsa, two updates": OPSA | {"updates_per_batch": 2, "micro_batch_tokens": 60},
    "opsa, fewer prompts than processes": OPSA | {"prompts_per_step": 3},
    "sdpg, padded rows": {"packed": False},
    "sdpg, gradient checkpointing": {"gradient_checkpointing": True},
    "grpo, a model that cannot be packed": {"method": "grpo", "model": "gemma2"},
    "grpo, experts and a buffer": {"method": "grpo", "model": "glm4_moe"},
}
ON_FOUR = (  # on two nodes the first four
    "sdpg, tied",
    "sdpg, untied",
    "sdpo, tied",
    "sdpg, two updates, many micro-batches",
    "gspo, untied",
    "rlsd, many micro-batches, untied",
    "sdpg, closed gates on some processes",
    "grpo, advantages of 0 on some processes",
    "sdpo, wrong answers almost everywhere",
    "sdpg, fewer prompts than processes",
    "opcd, fewer prompts than processes",
    "sdft, fewer prompts than processes, untied",
    "sdpg, dynamic sampling",
    "rlcsd, hints on some processes",
    "opsa, fewer prompts than processes",
)
NOT_COMPARED = ("seconds", "tokens_per_second", "peak_memory", "flops")  # times; and work, which depends on the split


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    tiny = {tied: str(save_tiny(folder / str(tied), tied=tied)) for tied in (True, False)}
    return tiny | {kind: str(make(kind, folder / kind)) for kind in ("gemma2", "glm4_moe")}


@pytest.fixture(scope="module")
def outcomes(models, tmp_path_factory):
    """Every case by one process, by two, by four, and by four on two nodes (HSDP)."""
    folder = tmp_path_factory.mktemp("steps")
    cases = {name: case | {"model": models[case.get("model", case.get("tied", True))]} for name, case in CASES.items()}
    few = {name: case for name, case in cases.items() if name in ON_FOUR}
    on_nodes = {name: cases[name] for name in ON_FOUR[:4]}
    groups = {"groups": {"job": "groups_of", "model": models[True], "dynamic_sampling": 4, "prompts_per_step": 6}}
    push = {"push": {"job": "push", "model": models[False]}}
    return Outcomes(
        {
            1: lambda: run("many", 1, folder / "1", {"cases": cases | groups}),
            2: lambda: run("many", 2, folder / "2", {"cases": cases | groups | push}),
            4: lambda: run("many", 4, folder / "4", {"cases": few | groups}),
            "4 on 2 nodes": lambda: run("many", 4, folder / "nodes", {"cases": on_nodes}, nodes=2),
        }
    )


class Outcomes(dict):
    """Computed when first asked for."""

    def __init__(self, ways):
        self.ways = ways

    def __missing__(self, key):
        self[key] = self.ways[key]()
        return self[key]


FOUR = pytest.param(4, marks=pytest.mark.long)


def largest_difference(a, b):
    assert a.keys() == b.keys()
    return max(max(abs(x - y) for x, y in zip(a[name], b[name], strict=True)) for name in a)


def comparable(rows):
    return [{key: value for key, value in row.items() if not key.startswith(NOT_COMPARED)} for row in rows]


@pytest.mark.parametrize(
    ("name", "processes"),
    [
        *((name, 2) for name in CASES),
        *(pytest.param(name, 4, marks=pytest.mark.long) for name in ON_FOUR),
        *(pytest.param(name, "4 on 2 nodes", marks=pytest.mark.long) for name in ON_FOUR[:4]),
    ],
)
def test_steps_do_not_depend_on_the_number_of_processes(outcomes, name, processes):
    one, several = outcomes[1][name], outcomes[processes][name]
    assert largest_difference(one["parameters"], several["parameters"]) < 1e-5
    for alone, together in zip(comparable(one["rows"]), comparable(several["rows"]), strict=True):
        assert alone.keys() == together.keys()
        for key, value in alone.items():
            assert together[key] == (value if value is None else pytest.approx(value, rel=1e-5, abs=1e-5)), key


@pytest.mark.parametrize("processes", [2, FOUR])
def test_a_tied_head_stays_the_embedding_and_the_engine_has_the_policy(outcomes, processes):
    for name in ON_FOUR:
        assert outcomes[processes][name]["tied"] == CASES[name].get("tied", True)
        assert outcomes[processes][name]["pushed"] == 0


def test_it_is_no_empty_comparison(outcomes):
    """The steps change the weights, and the cases differ from each other."""
    steps = outcomes[1]
    assert largest_difference(steps["sdpg, tied"]["parameters"], steps["grpo, tied"]["parameters"]) > 1e-4
    norms = {name: round(out["rows"][0]["grad_norm"], 6) for name, out in steps.items() if name in CASES}
    assert norms["grpo, advantages of 0 everywhere"] == 0
    assert len(set(norms.values())) > 15
    assert 0 < steps["grpo, advantages of 0 on some processes"]["rows"][0]["informative_groups"] < 0.5


@pytest.mark.parametrize("processes", [2, FOUR])
def test_dynamic_sampling_chooses_the_same_groups(outcomes, processes):
    one, several = (outcomes[n]["groups"]["steps"] for n in (1, processes))
    assert one == several
    assert any(step["sampled"] > 24 for step in one)


def test_a_push_holds_one_whole_tensor_at_a_time(outcomes):
    """Beside the shards: the tensor that the engine copies, and the one that is being gathered."""
    assert outcomes[2]["push"]["tensors"] > 20 and outcomes[2]["push"]["most"] <= 2


RUN = {"method": "sdpo-ema", "steps": 12, "checkpoint_every": 3, "validate_every": 4}


def rows_of(work):
    return comparable(read_rows(Path(work) / "metrics.jsonl"))


@pytest.fixture(scope="module")
def whole(models, tmp_path_factory):
    """The run without any stop, by one process."""
    folder = tmp_path_factory.mktemp("whole")
    return folder / "work", run("whole_run", 1, folder, RUN | {"model": models[True], "work": str(folder / "work")})


@pytest.mark.long
def test_a_run_saved_by_two_processes_goes_on_in_one_and_in_four(models, whole, tmp_path):
    given = RUN | {"model": models[True], "work": str(tmp_path / "work")}
    stop_after(Processes("whole_run", 2, tmp_path / "two", given), given["work"], 5, signal.SIGTERM)
    (state,) = states(given["work"])
    assert state["processes"] == 2 and 5 <= state["step"] < 12
    assert len(list((tmp_path / "work/state").glob("step*/*.safetensors"))) == 2
    for count in (1, 4):
        work = shutil.copytree(given["work"], tmp_path / str(count) / "work")
        out = run("whole_run", count, work.parent, given | {"work": str(work)})
        assert f"going on after step {state['step']} of 12" in (work.parent / "log0.txt").read_text()
        assert largest_difference(out["parameters"], whole[1]["parameters"]) < 1e-5
        for got, expected in zip(rows_of(work), rows_of(whole[0]), strict=True):
            assert got == {k: v if v is None else pytest.approx(v, rel=1e-4, abs=1e-5) for k, v in expected.items()}


def states(work):
    """state.json of all saved states; those that have no such name are not finished."""
    return [json.loads(path.read_text()) for path in sorted((Path(work) / "state").glob("step*/state.json"))]


def stop_after(processes, work, steps, number, least=0.0):
    """Send a signal once so many rows are there, and wait for the end."""
    metrics = Path(work) / "metrics.jsonl"
    end = time.monotonic() + 120
    while not metrics.exists() or len(read_rows(metrics)) < steps:
        assert time.monotonic() < end and all(child.poll() is None for child in processes.children), processes.logs()
        time.sleep(0.005)
    time.sleep(least)
    processes.send(number)
    return processes.wait()


SIGNALS = [pytest.param("sampling", signal.SIGUSR1, marks=pytest.mark.long), ("update", signal.SIGTERM)]


@pytest.mark.parametrize(("phase", "number"), SIGNALS)
def test_a_signal_in_mid_step_saves_the_last_step_on_all_processes(models, whole, tmp_path, phase, number):
    """One of two processes gets the signal while step 5 samples or learns; the other one is told."""
    given = RUN | {"model": models[True], "work": str(tmp_path / "work"), "micro_batch_tokens": 60}
    processes = Processes("whole_run", 2, tmp_path / "a", given | {"signal_in": [phase, 5, int(number)]})
    assert processes.wait() == [130, 130], processes.logs()
    assert "stopped after step 4 of 12; run the same command again to go on" in (tmp_path / "a/log0.txt").read_text()
    assert [s["step"] for s in states(given["work"])] == [4] and len(rows_of(given["work"])) == 4
    if phase == "update":  # the gradients of its first slots are forgotten
        out = run("whole_run", 2, tmp_path / "b", given)
        assert largest_difference(out["parameters"], whole[1]["parameters"]) < 1e-5


KILLS = int(os.environ.get("SDPG_KILLS", "1"))  # of each number of processes


@pytest.mark.parametrize("count", [1, 2, 4] if KILLS > 1 else [pytest.param(2, marks=pytest.mark.long)])
def test_killed_at_random_points_the_run_is_the_same_and_no_file_is_torn(models, tmp_path, count):
    given = RUN | {"model": models[True], "steps": 8 + 4 * KILLS, "checkpoint_every": 1}
    straight = given | {"work": str(tmp_path / "straight")}
    expected = run("whole_run", count, tmp_path / "a", straight)
    killed = given | {"work": str(tmp_path / "killed")}
    random = Random(count)
    for i in range(KILLS):
        processes = Processes("whole_run", count, tmp_path / "b", killed)
        stop_after(processes, killed["work"], 3 * i + random.randint(0, 3), signal.SIGKILL, random.uniform(0, 0.3))
        check_files(killed["work"])
    out = run("whole_run", count, tmp_path / "b", killed)
    assert rows_of(killed["work"]) == rows_of(straight["work"])
    assert out == expected


@pytest.mark.parametrize("lr", [pytest.param(1e38, marks=pytest.mark.long), 1e10])
def test_all_processes_end_a_diverged_run_at_the_same_step(models, tmp_path, lr):
    given = RUN | {"model": models[True], "lr": lr, "warmup_steps": 0, "checkpoint_every": 1}
    rows, batches = {}, {}
    for count in (1, 2):
        work = tmp_path / str(count) / "work"
        run("whole_run", count, work.parent, given | {"work": str(work)})
        rows[count] = rows_of(work)
        batches[count] = pq.read_table(work / "diverged").to_pylist()
        assert len(list((work / "diverged").iterdir())) == count
        assert "diverged at step" in (work.parent / "log0.txt").read_text()
        check_files(work)
    assert [(row["step"], row.get("diverged")) for row in rows[1]] == [(row["step"], row.get("diverged")) for row in rows[2]]
    assert rows[1][-1]["diverged"]
    by_place = [{(row["group"], row["number"]): row["response_ids"] for row in batches[count]} for count in (1, 2)]
    assert by_place[0].keys() == by_place[1].keys()
    if lr == 1e38:  # at step 1; of weights of 1e10 rounding decides what is sampled
        assert by_place[0] == by_place[1]


def check_files(work):
    """Whatever has its name is whole: the state with its hashes, listed checkpoints, rows but for a last line."""
    for path in (Path(work) / "state").glob("step*"):
        state = json.loads((path / "state.json").read_text())
        assert state["sha256"] and all(sha256(path / name) == value for name, value in state["sha256"].items())
    for entry in list_checkpoints(Path(work) / "checkpoints"):
        folder = Path(work) / "checkpoints" / entry["path"]
        assert all(sha256(folder / name) == value for name, value in entry["sha256"].items())
