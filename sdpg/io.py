"""Writing files so that a reader never sees half of one: a temporary file beside the target, then one rename."""

from __future__ import annotations

import errno
import hashlib
import json
import os
from contextlib import contextmanager, suppress
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]  # the project's folder
LEAST_SPACE = 2**20  # bytes that must be free before work begins


def path_of(text: str | Path) -> Path:
    """Return the path that is meant: ~ is the user's home, and stays as it is where there is no such user."""
    return Path(os.path.expanduser(text))  # noqa: PTH111  Path.expanduser raises for a user that there is not


@contextmanager
def write_atomic(path: str | Path, mode: str = "w"):
    """Yield an open file; on success it replaces `path` in one step, on any error nothing is left behind.

    mode: "w" (text, UTF-8) or "wb". Raises OSError with the path if the disk is full or the folder cannot be written.
    """
    path = Path(path)
    make_folder(path.parent)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, mode, encoding=None if "b" in mode else "utf-8") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        if error.filename not in (None, str(temporary)):
            raise
        if error.errno is None:  # of a library
            raise OSError(f"could not write {path}: {error}") from error
        raise OSError(error.errno, os.strerror(error.errno), str(path)) from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


@contextmanager
def naming(path: Path):
    """Give an OSError without a path, as libraries and a full disk raise it, this one."""
    try:
        yield
    except OSError as error:
        if error.filename is not None or error.errno is None:
            raise
        raise OSError(error.errno, os.strerror(error.errno), str(path)) from error


def make_folder(path: Path) -> None:
    """Make a folder and those above it. Raises OSError naming what is a file there, or where nothing can be made."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        check_folder(path)
        raise


def check_folder(path: Path) -> None:
    """Raise OSError, naming the place, unless files can be made in a folder, which may be still to be made itself."""
    there = next(place for place in [path, *path.absolute().parents] if os.path.lexists(place))
    if there.is_symlink() and not there.exists():
        raise FileNotFoundError(errno.ENOENT, f"This link leads to {there.readlink()}, which is not there", str(there))
    if not there.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, "This is a file, and a folder is to be here; move it away", str(there))
    space = os.statvfs(there)
    reason = errno.EROFS if space.f_flag & os.ST_RDONLY else errno.EACCES if not os.access(there, os.W_OK | os.X_OK) else None
    if reason is None and space.f_bavail * space.f_frsize < LEAST_SPACE and space.f_blocks:
        reason = errno.ENOSPC
    if reason is not None:
        raise OSError(reason, os.strerror(reason), str(there))


def kind_of(path: str | Path) -> str | None:
    """Return "file", "folder", or None for what is not there or cannot be: too long a name, a file where a folder is named."""
    try:
        return "folder" if Path(path).is_dir() else "file" if Path(path).exists() else None
    except (OSError, ValueError):
        return None


def project_file(path: str) -> str:
    """Return the path of a file that comes with the project: as it stands in the project's folder, absolute elsewhere."""
    return path if Path.cwd() == ROOT else str(ROOT / path)


def write_json(path: str | Path, value) -> None:
    """Write `value` as indented JSON, atomically; NaN and infinity are refused (they are not JSON)."""
    with write_atomic(path) as file:
        json.dump(value, file, indent=2, allow_nan=False)
        file.write("\n")


def read_json(path: str | Path):
    """Read one JSON file; a broken one raises ValueError with its path."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is not valid JSON ({error}); delete it and run its rule again") from error


def sha256(path: str | Path) -> str:
    """Return hex SHA-256 of a file's bytes."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
