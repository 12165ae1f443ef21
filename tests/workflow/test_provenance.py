"""Which files a stage depends on, as read from the source."""

from __future__ import annotations

import dataclasses
import sqlite3

import pytest

import baselines
from sdpg import provenance
from sdpg.provenance import ENGINE_FILES, algorithm_fields, algorithm_files, fingerprints, stage_sources


def test_the_registry_read_from_the_source_is_the_real_one():
    files = algorithm_files()
    assert set(files) == set(baselines.REGISTRY)
    for name, cls in baselines.REGISTRY.items():
        assert files[name] == cls.__module__.replace(".", "/") + ".py"
        assert set(algorithm_fields(name)) == {field.name for field in dataclasses.fields(cls)}


def test_training_depends_on_the_core_and_on_no_method():
    shared = stage_sources("workflows/scripts/train.py", without=algorithm_files().values())
    assert {"workflows/scripts/train.py", "sdpg/core/trainer.py", "sdpg/tasks/__init__.py"} <= set(shared)
    assert not set(shared) & set(algorithm_files().values())
    assert not set(shared) & provenance.PLUMBING
    own = stage_sources("baselines/grpo.py", without=shared)
    assert own[0] == "baselines/grpo.py"
    assert "baselines/opcd.py" not in own


def test_imports_inside_functions_count_and_the_unused_engine_can_be_left_out():
    assert ENGINE_FILES["vllm"] in stage_sources("workflows/scripts/evaluate.py")
    assert ENGINE_FILES["vllm"] not in stage_sources("workflows/scripts/train.py", without=[ENGINE_FILES["vllm"]])
    assert all((provenance.ROOT / file).is_file() for file in ENGINE_FILES.values())


def test_figures_and_tables_do_not_depend_on_torch_code():
    for script in ("plot", "make_table", "make_scores", "make_report"):
        assert not [
            f for f in stage_sources(f"workflows/scripts/{script}.py") if f.startswith(("sdpg/core", "sdpg/rollout"))
        ]


def test_fingerprints_follow_the_content(tmp_path, monkeypatch):
    monkeypatch.setattr(provenance, "ROOT", tmp_path)
    first, second = tmp_path / "one.txt", tmp_path / "two.txt"
    first.write_text("a")
    second.write_text("a")
    one, two = fingerprints(["one.txt", "two.txt"])
    assert one.split() == ["one.txt", two.split()[1]]
    provenance._digest.cache_clear()
    first.write_text("b")
    assert fingerprints(["one.txt"]) != [one]
    provenance._digest.cache_clear()


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("from sdpg.core import trainer", "sdpg/core/trainer.py"),
        ("import sdpg.core.trainer", "sdpg/core/trainer.py"),
        ("def f():\n    from sdpg.core.trainer import T", "sdpg/core/trainer.py"),
        ("from . import other", "sdpg/other.py"),
        ("from .core.trainer import T", "sdpg/core/trainer.py"),
        ("import torch, sdpg", "sdpg/__init__.py"),
    ],
)
def test_every_way_to_import_is_seen(tmp_path, monkeypatch, code, expected):
    monkeypatch.setattr(provenance, "ROOT", tmp_path)
    (tmp_path / "sdpg" / "core").mkdir(parents=True)
    for file in ("sdpg/__init__.py", "sdpg/core/__init__.py", "sdpg/core/trainer.py", "sdpg/other.py"):
        (tmp_path / file).touch()
    (tmp_path / "sdpg" / "start.py").write_text(code)
    caches = (provenance._tree, provenance._imports)
    for cache in caches:
        cache.cache_clear()
    assert expected in stage_sources("sdpg/start.py")
    for cache in caches:
        cache.cache_clear()


def test_records_of_another_place_are_adopted_and_its_locks_dropped(tmp_path):
    database = tmp_path / "results" / ".snakemake.db"
    provenance.adopt_records(database, tmp_path)  # no database yet: only its folder is made
    assert database.parent.is_dir()
    here = str(tmp_path / ".snakemake")
    with sqlite3.connect(database) as connection:
        connection.execute(
            "CREATE TABLE snakemake_metadata (namespace TEXT, target TEXT, PRIMARY KEY (namespace, target))"
        )
        connection.execute("CREATE TABLE snakemake_locks (namespace TEXT)")
        connection.executemany(
            "INSERT INTO snakemake_metadata VALUES (?, ?)", [("/old", "a"), ("/old", "b"), (here, "b")]
        )
        connection.executemany("INSERT INTO snakemake_locks VALUES (?)", [("/old",), (here,)])
    provenance.adopt_records(database, tmp_path)
    with sqlite3.connect(database) as connection:
        records = connection.execute("SELECT * FROM snakemake_metadata ORDER BY target").fetchall()
        locks = connection.execute("SELECT * FROM snakemake_locks").fetchall()
    assert records == [(here, "a"), (here, "b")]
    assert locks == [(here,)]
