"""Atomic writing: the whole file or nothing, and errors that name the file."""

import errno
import os
import resource
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from sdpg.io import check_folder, naming, path_of, read_json, write_atomic, write_json


def test_a_home_that_there_is_not_is_a_path_as_any_other():
    assert path_of("~nobody-of-that-name/x") == Path("~nobody-of-that-name/x") and path_of("~/x") == Path.home() / "x"
    code = [*Path(__file__).parents[1].glob("sdpg/**/*.py")]
    assert [path for path in code if ".expanduser()" in path.read_text(encoding="utf-8")] == []  # it raises RuntimeError


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
    assert done.returncode != 0 and done.stderr.endswith(f"OSError: [Errno 27] File too large: '{tmp_path / 'big'}'\n")
    assert list(tmp_path.iterdir()) == []
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] != 1000


def test_a_full_disk_is_reported_with_the_place(tmp_path):
    with pytest.raises(OSError) as error, write_atomic(tmp_path / "a.parquet", "wb"):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))  # as libraries raise it, without a path
    assert str(error.value) == f"[Errno 28] No space left on device: '{tmp_path / 'a.parquet'}'"
    with pytest.raises(OSError, match="could not write .*a.parquet: Error writing bytes"), write_atomic(tmp_path / "a.parquet"):
        raise OSError("Error writing bytes to file")
    with pytest.raises(OSError) as error, naming(tmp_path):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert error.value.filename == str(tmp_path) and list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("free", "flags", "access", "expected"),
    [
        (10, 0, True, "[Errno 28] No space left on device: "),
        (10**6, os.ST_RDONLY, True, "[Errno 30] Read-only file system: "),
        (10**6, 0, False, "[Errno 13] Permission denied: "),
        (10**6, 0, True, None),
    ],
)
def test_a_place_where_nothing_can_be_written_is_known_before_work(tmp_path, monkeypatch, free, flags, access, expected):
    space = SimpleNamespace(f_bavail=free, f_frsize=4096, f_blocks=10**9, f_flag=flags)
    monkeypatch.setattr(os, "statvfs", lambda path: space)
    monkeypatch.setattr(os, "access", lambda path, mode: access)
    if expected is None:
        check_folder(tmp_path / "new" / "folder")
        return
    with pytest.raises(OSError) as error:
        check_folder(tmp_path / "new" / "folder")
    assert str(error.value) == f"{expected}'{tmp_path}'"


def test_a_file_in_the_place_of_a_folder_is_named(tmp_path):
    (tmp_path / "results").write_text("")
    for attempt in (lambda p: check_folder(p.parent), lambda p: write_json(p, {})):
        with pytest.raises(
            NotADirectoryError, match=r"This is a file, and a folder is to be here; move it away: '.*/results'$"
        ):
            attempt(tmp_path / "results" / "cpu" / "a.json")


def test_json_round_trip_refuses_nan_and_names_a_broken_file(tmp_path):
    write_json(tmp_path / "a.json", {"x": [1, None]})
    assert read_json(tmp_path / "a.json") == {"x": [1, None]}
    with pytest.raises(ValueError):
        write_json(tmp_path / "b.json", {"x": float("nan")})
    assert not (tmp_path / "b.json").exists()
    (tmp_path / "c.json").write_text('{"x": ')
    with pytest.raises(ValueError, match=r"c.json is not valid JSON .*run its rule again"):
        read_json(tmp_path / "c.json")


def test_a_link_that_leads_nowhere_is_no_file(tmp_path):
    (tmp_path / "results").symlink_to(tmp_path / "unmounted")
    with pytest.raises(FileNotFoundError, match="This link leads to .*unmounted, which is not there: '.*/results'$"):
        check_folder(tmp_path / "results" / "mine")
