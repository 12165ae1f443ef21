"""The benchmarks compare equal work, count it right, and keep their files in order. No timing is judged here."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest
import torch

from benchmarks import against_in_docs, bench, head, limits, rollout, step
from benchmarks.fixed import FixedBatch
from benchmarks.machine import RESULTS, exponents, extra_memory_mb, headline
from benchmarks.models import QWEN3, checkpoint
from benchmarks.ours import FixedEngine, build_trainer
from benchmarks.workers import PEERS, Worker, peer_python, take_turns
from tests.benchmark_facts import MACHINE, SMALL

ROOT = Path(__file__).parents[1]
KEYS = {"name", "value", "model", "shape", "device", "hardware"}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """The tiny model's checkpoint."""
    return checkpoint("tiny", tmp_path_factory.mktemp("models"))


# --- the lm-head


@pytest.mark.long
def test_the_head_benchmark_compares_equal_work(tmp_path, monkeypatch, capsys):
    sizes = ["--tokens", "16", "32", "--vocabulary", "50", "90", "--extra", "--hidden", "8", "--repeats", "2"]
    monkeypatch.setattr(sys, "argv", ["head.py", *sizes, "--no-peers", "--out", str(tmp_path)])
    head.main()
    report = json.loads((tmp_path / "head.json").read_text())
    assert [(s["tokens"], s["vocabulary"]) for s in report["shapes"]] == [(16, 50), (32, 50), (16, 90), (32, 90)]
    for shape in report["shapes"]:
        rows = shape["implementations"]
        assert set(rows) == {"chunked", "checkpointed", "materialising", "released"}
        assert rows["chunked"]["ours_over_this"] == 1
        for name in rows:
            assert rows[name]["gradient_difference"] < 1e-4, name
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert {row["name"] for row in summary} <= {"head_time_vs_materialising", "head_memory_vs_materialising"}
    assert all(set(row) == KEYS for row in summary)
    assert (tmp_path / "head.md").read_text() in capsys.readouterr().out
    monkeypatch.setattr(sys, "argv", ["head.py", "--memory-only", "--no-peers", "--out", str(tmp_path)])
    head.main()
    again = json.loads((tmp_path / "head.json").read_text())
    for shape, before in zip(again["shapes"], report["shapes"], strict=True):
        for name, row in shape["implementations"].items():
            assert row | {"memory_mb": 0} == before["implementations"][name] | {"memory_mb": 0}
    (tmp_path / "head.json").write_text(json.dumps(again | {"versions": {}}))
    with pytest.raises(ValueError, match="other versions"):
        head.main()


def test_a_wrong_gradient_is_seen():
    base = {"hidden": [1.0, -2.0], "norm": [4.0]}
    assert head.difference(base, base) == 0
    assert head.difference({"hidden": [1.0, -1.0], "norm": [4.0]}, base) == 0.5
    assert head.difference({"hidden": [1.0, -2.0], "norm": [5.0]}, base) == 0.25


def head_report(**liger):
    measured = {"ms": 4.0, "ours_over_this": 0.5, "memory_mb": 80.0, "gradient_difference": 1e-7}
    own = measured | {"ms": 2.0, "ours_over_this": 1.0, "memory_mb": 4.0}
    rows = {"chunked": own, "materialising": measured, **liger}
    setting = {"hidden": 8, "dtype": "float32", "repeats": 5}
    return {"setting": setting, **MACHINE, "scaling": {}, "shapes": [{"tokens": 1, "vocabulary": 2, "implementations": rows}]}


def test_what_cannot_run_is_said_in_its_row_and_has_no_headline():
    report = head_report(**{"liger-triton": {"note": "needs CUDA"}})
    values = {row["name"]: row["value"] for row in head.headlines(report)}
    assert values == {"head_time_vs_materialising": 0.5, "head_memory_vs_materialising": 0.05}
    assert "| 1 | 2 | liger-triton | needs CUDA | - | - | - |" in head.table(report)


def test_ligers_fastest_row_stands_for_it():
    ran = {"ms": 1.0, "gradient_difference": 0.0, "memory_mb": 1.0}
    rows = {"liger-chunked": ran | {"ours_over_this": 2.0}, "liger-triton": ran | {"ours_over_this": 0.7}}
    (row,) = (r for r in head.headlines(head_report(**rows)) if r["name"] == "head_time_vs_liger")
    assert row["value"] == 2.0
    assert row["shape"].endswith("liger-chunked")


def test_what_keeps_all_logits_is_left_out_where_it_does_not_fit():
    shape = {"tokens": 4096, "vocabulary": 151936}
    assert "GiB" in head.why_not("materialising", shape, free_mb=8000)
    assert head.why_not("materialising", shape, free_mb=32000) is None
    assert head.why_not("chunked", shape, free_mb=8000) is None


def test_exponents_of_a_power_law_are_found_and_only_where_the_points_decide_them():
    points = [(x, y, 3 * x**0.5 * y**2) for x in (1, 10, 100) for y in (2, 4)]
    assert exponents(points) == pytest.approx((0.5, 2.0), abs=1e-3)
    assert exponents([(x, 2, x) for x in (1, 2, 3)]) is None
    assert exponents([]) is None


@pytest.mark.skipif(torch.cuda.is_available(), reason="measures the process's resident memory")
def test_extra_memory_sees_what_a_call_takes_at_its_peak():
    for _ in range(2):  # freed memory that is taken again counts again
        extra = extra_memory_mb(lambda: torch.ones(40 * 2**18).sum())  # 40 MiB
        assert extra is None or 35 < extra < 60
        small = extra_memory_mb(lambda: [torch.ones(2**16) for _ in range(160)])  # 40 MiB in pieces of 256 KiB
        assert small is None or 35 < small < 60


# --- processes that take turns


def test_a_worker_answers_whatever_it_prints_and_a_broken_one_shows_its_output(tmp_path):
    script = tmp_path / "echo.py"
    script.write_text(
        "from benchmarks.workers import Channel\n"
        "channel = Channel()\nprint('noise')\nchannel.send(ready=True)\n"
        "for r in channel.requests():\n    print('more noise')\n    channel.send(twice=2 * r['x'])\n"
    )
    with Worker(sys.executable, script, [], threads=1) as worker:
        assert worker.ready == {"ready": True}
        assert [worker.ask(x=x) for x in (1, 2)] == [{"twice": 2}, {"twice": 4}]
        with pytest.raises(RuntimeError, match="KeyError: 'x'"):
            worker.ask(y=1)


def test_turns_alternate_and_begin_with_another_each_time():
    order = []

    class Fake:
        def __init__(self, name):
            self.name = name

        def ask(self):
            order.append(self.name)
            return {"n": len(order)}

    answers = take_turns({"a": Fake("a"), "b": Fake("b")}, 3)
    assert "".join(order) == "abbaab"
    assert [row["n"] for row in answers["b"]] == [2, 3, 6]


# --- a training step beside TRL's


def test_a_fixed_batch_is_what_it_says(tmp_path):
    batch = FixedBatch.draw(SMALL, range(3, 23))
    counts, lengths = batch.counts(), [len(y) for group in batch.responses for y in group]
    assert counts["responses"] == len(lengths) == 8
    assert counts["response_tokens"] == sum(lengths)
    assert counts["student_tokens"] == sum(lengths) + 4 * sum(map(len, batch.prompts))
    assert counts["teacher_tokens"] == sum(lengths) + 4 * sum(map(len, batch.teacher_prompts))
    assert all(sorted(group) == [0, 0, 1, 1] for group in batch.rewards)  # every response has a successful sibling
    batch.save(tmp_path / "b.json")
    assert FixedBatch.load(tmp_path / "b.json") == batch
    equal = FixedBatch.draw(SMALL.equal(), range(3, 23))
    assert {len(y) for group in equal.responses for y in group} == {5}
    assert len({len(x) for x in equal.prompts}) == len({len(x) for x in equal.teacher_prompts}) == 1


@pytest.mark.parametrize("method", ["grpo", "sdpo", "sdpg"])
def test_our_step_trains_on_the_fixed_batch(tiny, tmp_path, method):
    batch = FixedBatch.draw(SMALL, range(3, 23))
    trainer = build_trainer(tiny, batch, method, "fp32", tmp_path, FixedEngine(batch))
    first, second = trainer.step(100), trainer.step(101)
    assert first["tokens"] == batch.counts()["response_tokens"]
    assert first["accuracy"] == 0.5
    assert first["gate_fraction"] == (0.0 if method == "sdpo" else 0.5)
    assert first["teacher_fraction"] == 1.0
    assert first["grad_norm"] > 0
    assert second["grad_norm"] == pytest.approx(first["grad_norm"], rel=1e-4)  # the learning rate is 0: the same step


def answer(**changes):
    common = {"seconds": 1.0, "response_tokens": 10, "loss": 0.5, "grad_norm": 2.0, "memory_mb": 1.0}
    return common | changes


@pytest.mark.parametrize("changes", [{"response_tokens": 11}, {"loss": 0.51}, {"grad_norm": 2.02}])
def test_a_comparison_of_unequal_work_is_refused(changes):
    assert step.check_equal_work(answer(), answer(), "fp32", "x") == 0
    with pytest.raises(ValueError, match="did not do the same work"):
        step.check_equal_work(answer(), answer(**changes), "fp32", "x")


def test_a_speed_ratio_is_the_median_over_turns():
    ours = [answer(seconds=s) for s in (1.0, 5.0, 1.0)]  # the second turn meets a slow moment, and so does TRL
    theirs = [answer(seconds=s) for s in (2.0, 15.0, 2.0)]
    result = step.compare({"ours": ours, "trl": theirs}, "fp32", "x")
    assert result["speed_ratio"] == 2.0
    assert result["speed_ratio_range"] == [2.0, 3.0]
    assert result["ours"]["response_tokens_per_second"] == 10
    facts = {"model": "tiny", "method": "grpo", "lengths": "mixed", "precision": "fp32", "threads": 1, "trl_rows": 8}
    case = facts | {"responses": 8, "response_tokens": 10} | result
    report = {"setting": {"repeats": 3}, **MACHINE, "cases": [case]}
    (row,) = step.headlines(report)
    assert set(row) == KEYS
    assert (row["name"], row["value"], row["device"]) == ("step_speed_vs_trl_grpo", 2.0, "cpu")
    assert "2.00 (2.00-3.00)" in step.table(report)


@pytest.mark.slow
@pytest.mark.skipif(not PEERS.exists(), reason="the peers are not installed (`make peers`)")
@pytest.mark.parametrize("method", ["grpo", "sdpo"])
def test_trl_finds_the_same_loss_and_gradient(tiny, tmp_path, method):
    batch = FixedBatch.draw(SMALL, range(3, 23))
    batch.save(tmp_path / "batch.json")
    arguments = ["--model", tiny, "--batch", tmp_path / "batch.json", "--method", method, "--precision", "fp32"]
    for rows in (8, 2):
        with (
            Worker(sys.executable, "benchmarks/ours.py", arguments, threads=1) as ours,
            Worker(peer_python(), "benchmarks/peers/trl_step.py", [*arguments, "--rows", rows], threads=1) as trl,
        ):
            assert step.check_equal_work(ours.ask(), trl.ask(), "fp32", method) < 1e-3


def test_the_peers_are_pinned_and_share_what_must_be_shared():
    text = (ROOT / "benchmarks" / "peers" / "requirements.txt").read_text(encoding="utf-8")
    pins = dict(line.split("==") for line in text.splitlines() if not line.startswith("#"))
    assert {"trl", "liger-kernel"} <= set(pins)
    assert not {"torch", "triton"} & set(pins)  # these come from the project's lock
    lock = (ROOT / "requirements" / "cpu.lock").read_text(encoding="utf-8")
    for name in ("transformers", "accelerate", "numpy", "safetensors"):
        assert f"\n{name}=={pins[name]}\n" in lock, f"{name}: the peers have {pins[name]}, the project another version"


# --- rollouts


def test_rollouts_of_unequal_length_are_not_compared():
    rollout.check_equal_work({"a": [{"lengths": [4, 4]}]}, 2, 4)
    with pytest.raises(ValueError, match="a sampled 2 responses of 3 to 4 tokens, expected 2 of 4"):
        rollout.check_equal_work({"a": [{"lengths": [4, 4]}, {"lengths": [4, 3]}]}, 2, 4)


def test_generate_of_transformers_gives_every_response_its_full_length(tiny):
    from sdpg.types import Sampling

    groups = rollout.HFGenerate(tiny, "float32").generate([[3, 4, 5], [6]], 3, Sampling(1.0, 5, (-1,)), 0)
    assert [[len(y) for y in group] for group in groups] == [[5] * 3] * 2


# --- the files


def test_headlines_replace_their_own_on_the_same_hardware_and_model_alone(tmp_path):
    row = {"name": "a", "value": 1.0, "model": "m", "shape": "s", "device": "cpu", "hardware": "x"}
    headline([row, row | {"name": "b"}, row | {"model": "n"}], names={"a", "b"}, folder=tmp_path)
    headline([row | {"hardware": "y"}], names={"a"}, folder=tmp_path)
    headline([row | {"value": 2.0}], names={"a"}, folder=tmp_path)
    rows = json.loads((tmp_path / "summary.json").read_text())
    found = [(r["name"], r["hardware"], r["model"], r["value"]) for r in rows]
    assert found == [("a", "x", "m", 2.0), ("a", "x", "n", 1.0), ("a", "y", "m", 1.0), ("b", "x", "m", 1.0)]


def test_quick_leaves_the_results_alone_and_every_option_exists():
    quick = bench.commands(list(bench.PARTS), True, [], bench.QUICK_RESULTS)
    assert RESULTS not in bench.QUICK_RESULTS.parents
    full = bench.commands(list(bench.PARTS), False, [], RESULTS)
    large = bench.commands(list(bench.PARTS), False, list(QWEN3), RESULTS)
    assert [len(part) for part in (quick, full, large)] == [4, 4, 5]  # large: three heads, no rollouts
    parse = {"head": head.parse, "step": step.parse, "rollout": rollout.parse, "limits": limits.parse}
    for command in (*quick, *full, *large):
        parse[command[1].removeprefix("benchmarks.")](command[2:])  # exits on an option that the script does not know


def test_the_tables_in_the_docs_are_the_measured_ones():
    page = against_in_docs.PAGE.read_text(encoding="utf-8")
    assert set(re.findall(r"<!-- against: (\w+) -->", page)) == set(against_in_docs.PARTS)
    assert against_in_docs.fill(page) == page, "run python -m benchmarks.against_in_docs"


def test_filling_the_docs(tmp_path):
    page = "a\n<!-- against: summary -->\nold\n<!-- end -->\nb\n<!-- against: head -->\n<!-- end -->\n"
    assert against_in_docs.fill(page, tmp_path).count("Not measured yet") == 2
    rows = head.headlines(head_report())
    headline(rows, names={row["name"] for row in rows}, folder=tmp_path)
    (tmp_path / "head.json").write_text(json.dumps(head_report()))
    (tmp_path / "head-qwen3-4b-cuda.json").write_text(json.dumps(head_report()))
    filled = against_in_docs.fill(page, tmp_path)
    assert "| `head_memory_vs_materialising` | 0.05 |" in filled
    assert filled.count("| 1 | 2 | chunked | 2 |") == 2
    assert against_in_docs.fill(filled, tmp_path) == filled
    with pytest.raises(ValueError, match="unknown part 'x'"):
        against_in_docs.fill("<!-- against: x -->\n<!-- end -->", tmp_path)
