"""Reading an archive of `sdpg archive` that anyone may have made.

Nothing is unpacked by the names in it: the few small files that a comparison reads are looked up by name, read up to a limit,
checked against the archive's own sums and written under names of ours. An archive with anything that `sdpg archive` never
writes is refused whole.
"""

from __future__ import annotations

import hashlib
import stat
import struct
import zipfile
import zlib
from pathlib import Path, PurePosixPath
from typing import NoReturn

from sdpg.analysis.outcome import CLAIMS, CURVES, IDENTITY
from sdpg.sharing.archive import SUMS

MOST_FILES = 100_000
MOST_DIRECTORY = 64 * 2**20  # bytes of the list of files
MOST_READ = 64 * 2**20  # bytes of one of the files that are read
MOST_RATIO, SMALL = 200, 2**20  # bytes out of one byte, in a file that is larger than this: tables and logs reach 30
END, END64, LOCATOR = b"PK\x05\x06", b"PK\x06\x06", b"PK\x06\x07"
# What zipfile raises for what it cannot read; also OSError, for a place before the beginning.
BROKEN = (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, struct.error, ValueError, zlib.error)
KINDS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)


def unpack(path: Path, folder: Path) -> str:
    """Write CURVES, IDENTITY and CLAIMS of an archive to `folder` -> the scale's name in it. Raises Refused, OSError."""
    if not path.is_file():
        raise ValueError(f"{path} is {'a folder' if path.is_dir() else 'not there'}; expected a .zip of `sdpg archive`")
    _check_directory(path)
    try:
        with zipfile.ZipFile(path) as archive:
            name, infos = _checked(path, archive)
            sums = _sums(path, _read(path, archive, infos[SUMS]))
            for wanted in (IDENTITY, CURVES, CLAIMS):
                if wanted not in infos:
                    if wanted == CLAIMS:
                        continue
                    refuse(path, f"it has no {wanted}, and nothing can be compared without (a sweep has none)")
                data = _read(path, archive, infos[wanted])
                if sums.get(wanted) != hashlib.sha256(data).hexdigest():
                    refuse(path, f"{wanted} is not what its {SUMS} says")
                (folder / wanted).write_bytes(data)
    except Refused:
        raise
    except (*BROKEN, OSError) as error:
        if isinstance(error, OSError) and error.filename is not None:  # of the disk here
            raise
        refuse(path, f"it is broken ({' '.join(str(error).split())[:200] or type(error).__name__})")
    return name


class Refused(ValueError):
    """An archive that is not read; the message says why."""


def refuse(path: Path, why: str) -> NoReturn:
    """Raise Refused."""
    raise Refused(f"{path} is not read: {why}")


def _check_directory(path: Path) -> None:
    """Refuse a list of files that is too long, before all of it is read."""
    with path.open("rb") as file:
        size = file.seek(0, 2)
        file.seek(max(0, size - 65_557 - 20))
        tail = file.read()
        at = tail.rfind(END)
        if at < 0 or len(tail) < at + 22:
            refuse(path, "it is no zip file, or not all of one")
        entries, length = struct.unpack("<HI", tail[at + 10 : at + 16])
        if at >= 20 and tail[at - 20 : at - 16] == LOCATOR:
            (offset,) = struct.unpack("<Q", tail[at - 12 : at - 4])
            if offset != size - len(tail) + at - 20 - 56:  # where zipfile looks
                refuse(path, "its end is broken")
            file.seek(offset)
            end = file.read(56)
            if end[:4] != END64:
                refuse(path, "its end is broken")
            entries, length = struct.unpack("<QQ", end[32:48])
    if entries > MOST_FILES or length > MOST_DIRECTORY:
        refuse(path, f"it says that it has {entries} files, expected at most {MOST_FILES}")


def _checked(path: Path, archive: zipfile.ZipFile) -> tuple[str, dict[str, zipfile.ZipInfo]]:
    """Return the folder that all files lie in, and the files by their paths in it. Refuses what no archive of ours has."""
    infos = archive.infolist()
    if len(infos) > MOST_FILES:
        refuse(path, f"it has {len(infos)} files, expected at most {MOST_FILES}")
    found: dict[str, zipfile.ZipInfo] = {}
    names: set[str] = set()
    for info in infos:
        if info.filename.endswith("/") and not info.file_size:
            continue  # a folder, which other programs list
        shown, parts = repr(info.orig_filename)[:80], PurePosixPath(info.filename).parts
        kind = stat.S_IFMT(info.external_attr >> 16)
        if not info.orig_filename.isprintable() or "\\" in info.orig_filename or info.orig_filename != "/".join(parts):
            refuse(path, f"{shown} is no path of a file")
        if len(parts) < 2 or ".." in parts or parts[0] == "/" or ":" in parts[0]:
            refuse(path, f"{shown} would lie outside its folder")
        if kind not in (0, stat.S_IFREG):
            refuse(path, f"{shown} is a link or no ordinary file")
        if info.flag_bits & 1 or info.compress_type not in KINDS:
            refuse(path, f"{shown} is encrypted, or packed in another way than `sdpg archive` does")
        if info.file_size > max(SMALL, MOST_RATIO * info.compress_size):
            refuse(path, f"{shown} would be {info.file_size} bytes out of {info.compress_size}")
        inner = "/".join(parts[1:])
        if inner in found:
            refuse(path, f"{shown} is there twice")
        names.add(parts[0])
        found[inner] = info
    if len(names) != 1 or SUMS not in found:
        refuse(path, f"it was not made by `sdpg archive`: expected one folder with {SUMS} in it")
    starts = sorted((info.header_offset, info.compress_size) for info in infos)
    if any(start + size > after for (start, size), (after, _) in zip(starts, starts[1:], strict=False)):
        refuse(path, "files in it overlap")
    return names.pop(), found


def _read(path: Path, archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> bytes:
    if info.file_size > MOST_READ:
        refuse(path, f"{info.filename} has {info.file_size} bytes, expected at most {MOST_READ}")
    with archive.open(info) as file:
        data = file.read(MOST_READ + 1)
    if len(data) != info.file_size:
        refuse(path, f"{info.filename} is not as long as it says")
    return data


def _sums(path: Path, data: bytes) -> dict[str, str]:
    sums = {}
    for line in data.decode("utf-8").splitlines():
        digest, gap, name = line.partition("  ")
        if not gap:
            refuse(path, f"{SUMS} has a line without a hash")
        sums[name] = digest
    return sums
