"""Atomic writing: the whole file or nothing, and errors that name the file."""

import resource
import subprocess
import sys
from pathlib import Path

import pytest

from sdpg.io import read_json, write_atomic, write_json


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(RuntimeError), write_atomic(path) as file:
        file.write("new")
        raise RuntimeError
    assert path.read_text() == "old" and [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_a_file_that_the_disk_does_not_take_is_reported_and_leaves_nothing(tmp_path):
    """The kernel refuses to let the file grow, as a full disk does."""
    code = (
        "import resource, signal, sys\nfrom sdpg.io import write_atomic\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\nresource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        f"with write_atomic({str(tmp_path / 'big')!r}) as file: file.write('x' * 100_000)"
    )
    root = Path(__file__).parents[1]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, timeout=60)
    assert done.returncode != 0 and "OSError" in done.stderr
    assert list(tmp_path.iterdir()) == []
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] != 1000


def test_json_round_trip_refuses_nan_and_names_a_broken_file(tmp_path):
    write_json(tmp_path / "a.json", {"x": [1, None]})
    assert read_json(tmp_path / "a.json") == {"x": [1, None]}
    with pytest.raises(ValueError):
        write_json(tmp_path / "b.json", {"x": float("nan")})
    assert not (tmp_path / "b.json").exists()
    (tmp_path / "c.json").write_text('{"x": ')
    with pytest.raises(ValueError, match=r"c.json is not valid JSON .*run its rule again"):
        read_json(tmp_path / "c.json")
