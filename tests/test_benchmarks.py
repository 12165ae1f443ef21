"""The benchmarks run, measure what they say, and keep the list of headline ratios in order. No timing is judged here."""

from __future__ import annotations

import json
import sys

import pytest
import torch

from benchmarks import head
from benchmarks.machine import extra_memory_mb, headline


def test_the_head_benchmark_compares_equal_work(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(
        sys,
        "argv",
        ["head.py", "--tokens", "16", "--vocabulary", "50", "--hidden", "8", "--repeats", "2", "--out", str(tmp_path)],
    )
    head.main()
    report = json.loads((tmp_path / "head.json").read_text())
    (shape,) = report["shapes"]
    rows = shape["implementations"]
    assert set(rows) == {"chunked", "checkpointed", "materialising", "released"}
    assert rows["chunked"]["ours_over_this"] == 1
    for name in rows:
        assert rows[name]["gradient_difference"] < 1e-4, name
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert {row["name"] for row in summary} <= {"head_time_vs_materialising", "head_memory_vs_materialising"}
    assert all(set(row) == {"name", "value", "model", "shape", "device", "hardware"} for row in summary)
    assert (tmp_path / "head.md").read_text() in capsys.readouterr().out


def test_headlines_replace_their_own_on_the_same_hardware_alone(tmp_path):
    row = {"name": "a", "value": 1.0, "model": "m", "shape": "s", "device": "cpu", "hardware": "x"}
    headline([row, row | {"name": "b"}], names={"a", "b"}, folder=tmp_path)
    headline([row | {"hardware": "y"}], names={"a"}, folder=tmp_path)
    headline([row | {"value": 2.0}], names={"a"}, folder=tmp_path)
    rows = json.loads((tmp_path / "summary.json").read_text())
    assert [(r["name"], r["hardware"], r["value"]) for r in rows] == [("a", "x", 2.0), ("a", "y", 1.0), ("b", "x", 1.0)]


@pytest.mark.skipif(torch.cuda.is_available(), reason="measures the process's resident memory")
def test_extra_memory_sees_what_a_call_takes_at_its_peak():
    extra = extra_memory_mb(lambda: torch.ones(40 * 2**18).sum())  # 40 MiB
    assert extra is None or 35 < extra < 60
