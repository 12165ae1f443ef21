"""Where metrics go beside metrics.jsonl: stand-ins for trackio and W&B, which this environment does not have."""

from __future__ import annotations

import importlib.machinery
import json
import sys
from types import ModuleType, SimpleNamespace

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import baselines
from sdpg.config import ConfigError, resolve, run_config
from sdpg.core.recorder import Recorder, read_rows
from sdpg.core.trackers import FILE, TRACKERS, Trackers, Tracking, check_trackers
from sdpg.experiment.workflow import Scale
from sdpg.provenance.sources import stage_sources
from sdpg.redact import redacted
from tests.core.conftest import make_trainer, train_config

BOTH = ("trackio", "wandb")
FACTS = {"reward": 0.5, "accuracy": 0.5, "tokens_per_second": 10.0}


class StandIn(ModuleType):
    """A package like trackio and wandb. runs: what was opened, and what init was told; fails: in which call."""

    def __init__(self, name: str):
        super().__init__(name)
        self.__spec__ = importlib.machinery.ModuleSpec(name, None, origin="stand-in")
        self.runs: list[dict] = []
        self.fails: str | None = None

    def Settings(self, **values):
        return SimpleNamespace(**values)

    def _fail(self, where: str) -> None:
        if self.fails == where:
            raise OSError("no space left; the key is key-of-the-user")

    def init(self, **told):
        self._fail("init")
        print("dashboard at http://localhost/?write_token=key-of-the-user")
        about = {"steps": [], "rows": [], "closed": False, **told}
        self.runs.append(about)

        def log(row, step):
            self._fail("log")
            about["steps"].append(step)
            about["rows"].append(row)

        def finish():
            self._fail("finish")
            about["closed"] = True

        return SimpleNamespace(log=log, finish=finish)


@pytest.fixture
def packages(monkeypatch):
    """The stand-ins, imported in place of the packages."""
    for name in ("WANDB_MODE", "WANDB_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    found = SimpleNamespace(**{name: StandIn(name) for name in BOTH})
    for name in BOTH:
        monkeypatch.setitem(sys.modules, name, getattr(found, name))
    return found


def about(*names: str) -> Tracking:
    return Tracking(names, "sdpg-tiny", "grpo", "grpo-seed3", {"train": {"lr": 0.1}})


def record(folder, names, first: int, last: int, *, done: int, steps: int = 6) -> None:
    """Record some steps, after `done` that were saved, and stop there."""
    recorder = Recorder(folder, steps=steps, done=done, title="grpo seed 3", tracking=about(*names))
    for step in range(first, last + 1):
        recorder.write({"step": step, "beta": None, "fault": "nan", **FACTS})
    recorder.close()


def scalars(folder) -> list[int]:
    events = EventAccumulator(str(folder / "tensorboard")).Reload()
    return [event.step for event in events.Scalars("reward")]


def test_each_tracker_gets_every_row_and_is_told_what_the_run_is(tmp_path, packages, capfd):
    record(tmp_path, ("tensorboard", *BOTH), 1, 6, done=0)
    assert scalars(tmp_path) == [1, 2, 3, 4, 5, 6]
    for name in BOTH:
        (run,) = getattr(packages, name).runs
        assert run["steps"] == [1, 2, 3, 4, 5, 6]
        assert run["rows"][0] == FACTS  # without the step, and without what is no number
        assert run["closed"]
        assert (run["project"], run["group"], run["config"]) == ("sdpg-tiny", "grpo", {"train": {"lr": 0.1}})
    assert packages.trackio.runs[0]["private"]
    assert packages.wandb.runs[0]["dir"] == str(tmp_path)


def test_trackio_says_nothing_in_the_log_of_what_may_carry_a_key(tmp_path, packages, capfd):
    record(tmp_path, ("trackio",), 1, 2, done=0)
    assert "key-of-the-user" not in "".join(capfd.readouterr())


def test_only_what_is_asked_for_is_imported(tmp_path, monkeypatch):
    for name in BOTH:
        monkeypatch.setitem(sys.modules, name, None)
    record(tmp_path, (), 1, 6, done=0)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["metrics.jsonl", FILE]
    check_trackers(["tensorboard"])


@pytest.mark.parametrize(
    ("said", "mode", "resume"), [(None, "offline", None), ("", "offline", None), ("online", "online", "allow")]
)
def test_wandb_is_offline_unless_the_user_says_otherwise(tmp_path, packages, monkeypatch, said, mode, resume):
    if said is not None:
        monkeypatch.setenv("WANDB_MODE", said)
    record(tmp_path, ("wandb",), 1, 1, done=0)
    (run,) = packages.wandb.runs
    assert (run["mode"], run["resume"]) == (mode, resume)
    assert run["settings"].console == "off"


def test_a_run_that_goes_on_is_the_same_tracked_run_and_has_each_row_once(tmp_path, packages):
    names = ("tensorboard", *BOTH)
    record(tmp_path, names, 1, 5, done=0)  # killed in step 6; step 4 was saved
    record(tmp_path, names, 5, 5, done=4)  # killed again
    record(tmp_path, names, 5, 6, done=4)
    assert scalars(tmp_path) == [1, 2, 3, 4, 5, 6]
    for package, key in ((packages.trackio, "name"), (packages.wandb, "id")):
        assert len({run[key] for run in package.runs}) == 1
        assert [step for run in package.runs for step in run["steps"]] == [1, 2, 3, 4, 5, 6]
    assert {run["resume"] for run in packages.trackio.runs} == {"allow"}
    other = tmp_path / "afresh"
    other.mkdir()
    record(other, names, 1, 1, done=0)
    assert packages.wandb.runs[-1]["id"] != packages.wandb.runs[0]["id"]


def test_a_tracker_that_joins_later_gets_the_steps_before(tmp_path, packages):
    record(tmp_path, ("tensorboard",), 1, 5, done=0)
    record(tmp_path, ("wandb", "tensorboard"), 5, 6, done=4)
    assert packages.wandb.runs[0]["steps"] == [1, 2, 3, 4, 5, 6]
    assert scalars(tmp_path) == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("name", BOTH)
@pytest.mark.parametrize("where", ["init", "log", "finish"])
def test_a_tracker_that_fails_is_told_of_once_and_ends_nothing(tmp_path, packages, monkeypatch, capfd, name, where):
    monkeypatch.setenv("WANDB_API_KEY", "key-of-the-user")
    package = getattr(packages, name)
    package.fails = where
    record(tmp_path, ("tensorboard", name), 1, 4, done=0)
    said = [line for line in capfd.readouterr().err.splitlines() if name in line]
    assert len(said) == 1
    assert "failed and is left out from step" in said[0]
    assert "no space left; the key is ***" in said[0]
    assert [row["step"] for row in read_rows(tmp_path / "metrics.jsonl")] == [1, 2, 3, 4] == scalars(tmp_path)
    package.fails = None
    record(tmp_path, ("tensorboard", name), 5, 6, done=4)  # it gets what it lacks
    assert [step for run in package.runs for step in run["steps"]] == [1, 2, 3, 4, 5, 6]


def test_tensorboard_that_fails_ends_nothing_either(tmp_path, capfd):
    (tmp_path / "tensorboard").write_text("a file")
    record(tmp_path, ("tensorboard",), 1, 6, done=0)
    assert capfd.readouterr().err.count("tensorboard failed and is left out from step 1 on") == 1
    assert len(read_rows(tmp_path / "metrics.jsonl")) == 6


@pytest.mark.parametrize("text", ["", "{", "[]", '{"id": 3, "trackers": {}}', '{"id": "x"}'])
def test_a_broken_file_of_trackers_begins_another_tracked_run(tmp_path, packages, text):
    (tmp_path / FILE).write_text(text)
    Trackers(about("wandb"), tmp_path, [], done=0, title="x").close()
    assert json.loads((tmp_path / FILE).read_text())["trackers"] == {"wandb": {"had": 0, "open": True}}


def test_the_trainer_tracks_and_goes_on(tiny, tmp_path, packages):
    algorithm = baselines.make("grpo")

    def trainer():
        found = make_trainer(tiny, tmp_path / "work", algorithm, train_config(steps=4, checkpoint_every=2))
        found.tracking = about("wandb")
        return found

    first = trainer()
    step = first.step

    def until_3(k):
        if k == 4:
            raise ValueError("killed")
        return step(k)

    first.step = until_3
    with pytest.raises(ValueError, match="killed"):
        first.run()
    trainer().run()
    assert [run["steps"] for run in packages.wandb.runs] == [[1, 2, 3], [4]]
    assert len({run["id"] for run in packages.wandb.runs}) == 1
    trainer().run()  # nothing is left to do
    assert len(packages.wandb.runs) == 2


@pytest.mark.parametrize("name", BOTH)
def test_a_missing_package_is_refused_before_any_work(name, monkeypatch, tmp_path):
    scale = Scale("smoke", {"track": ["tensorboard", name]})
    expected = rf"track: the package {name} is not installed; add it .*pip install .* {name}.*or take {name} out"
    monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).mkdir()  # W&B's own folder, which Python would take for a package
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ValueError, match=expected):
        scale.check()


@pytest.mark.parametrize(
    ("value", "expected"),
    [(None, []), ("wandb", ["wandb"]), (["tensorboard", "trackio"], ["tensorboard", "trackio"]), ([], [])],
)
def test_the_setting_takes_one_several_or_none(value, expected):
    assert resolve("smoke", {"track": value}).track == expected
    assert resolve("smoke").track == ["tensorboard"]


@pytest.mark.parametrize("value", ["wanbd", ["wandb", "wandb"], 3, True, {"wandb": {}}, [["wandb"]], ""])
def test_another_value_is_refused_in_one_line(value):
    with pytest.raises(ConfigError, match="track: got .*, expected one of tensorboard, trackio, wandb, a list of them"):
        resolve("smoke", {"track": value})


def test_tracking_is_no_part_of_what_identifies_a_run():
    other = resolve("smoke", {"track": ["wandb"]})
    assert run_config(resolve("smoke"), "grpo", 0) == run_config(other, "grpo", 0)
    assert "sdpg/core/trackers.py" not in stage_sources("sdpg/experiment/compose.py")
    assert list(TRACKERS) == ["tensorboard", *BOTH]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("401 for hf_abcdefghijkl", "401 for ***"),
        ("http://u:pw@host/x?write_token=abc&y", "http://***@host/x?write_token=***&y"),
        ("Authorization: Bearer abc.def", "Authorization: Bearer ***"),
        ("key word-of-mouth\nrefused", "key *** refused"),
        ("a token of the hub", "a token of the hub"),
    ],
)
def test_keys_are_taken_out_of_messages(monkeypatch, text, shown):
    monkeypatch.setenv("MY_API_KEY", "word-of-mouth")
    monkeypatch.setenv("OTHER_TOKEN", "a")
    assert redacted(text) == shown
