"""How a check is run and recorded: a failure becomes a line of the report, and the next check goes on.

A line is a dict: part, check, status (one of STATUSES), measured, expected, note, seconds, and facts: numbers for whoever reads
the JSON.
"""

from __future__ import annotations

import gc
import importlib
import json
import math
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch

STATUSES = PASSED, FAILED, LEFT_OUT = "passed", "failed", "left out"
TAIL = 5  # lines of a traceback that a failed check shows
OURS = ("sdpg", "baselines", "benchmarks", "tests")
SHORT_OF_TIME = "the part's time was spent"


class LeftOut(Exception):
    """A check cannot be made here; the text says why."""


@dataclass(frozen=True)
class Outcome:
    """What a check found, in words; whether it is as expected; numbers for the JSON file."""

    measured: str
    ok: bool = True
    facts: dict = field(default_factory=dict)


class Session:
    """One process that runs parts: its device, its time, and the file that its lines go to.

    dry: everything tiny, on the CPU. A line is appended to the file before its check begins, too, with the status "running".
    """

    def __init__(self, file: Path, *, dry: bool, seconds: float):
        self.file, self.dry, self.part = file, dry, ""
        self.device = torch.device("cpu") if dry else torch.device("cuda", torch.cuda.current_device())
        self._end = time.monotonic() + seconds

    @property
    def left(self) -> float:
        """Seconds until this process has to be done."""
        return self._end - time.monotonic()

    def run_part(self, part: str, module: str, function: str) -> None:
        """Import a part and run it. What goes wrong outside of its checks is a line, too: "the part itself"."""
        self.part = part

        def everything() -> Outcome:
            getattr(importlib.import_module(module), function)(self)
            return Outcome("")

        found = self._outcome(everything)
        if found["status"] != PASSED:
            line = {"part": part, "check": "the part itself", "expected": "", "measured": "", "note": "", "facts": {}}
            self._write(line | {"seconds": 0.0} | found)

    def check(self, name: str, expected: str, work: Callable[[], Outcome]) -> bool:
        """Do a check and write its line -> whether it passed. expected: in words, with the tolerances.

        What it lacks (a package, memory, time) leaves it out; any other exception makes it fail.
        """
        line = {"part": self.part, "check": name, "expected": expected, "measured": "", "note": "", "facts": {}}
        self._write(line | {"status": "running", "seconds": 0.0})
        start = time.monotonic()
        line |= self._outcome(work)
        line["seconds"] = round(time.monotonic() - start, 2)
        self._write(line)
        return line["status"] == PASSED

    def _outcome(self, work: Callable[[], Outcome]) -> dict:
        if self.left <= 0:
            return {"status": LEFT_OUT, "note": SHORT_OF_TIME}
        try:
            found = work()
            status = PASSED if found.ok else FAILED
            return {"status": status, "measured": found.measured, "facts": found.facts}
        except LeftOut as why:
            return {"status": LEFT_OUT, "note": str(why)}
        except torch.OutOfMemoryError as error:
            note = f"needs more memory than there is: {str(error).partition('. ')[0]}"
            error.__traceback__ = None  # it holds on to what filled the memory
            return {"status": LEFT_OUT, "note": note}
        except Exception as error:
            if missing := _missing_package(error):
                return {"status": LEFT_OUT, "note": f"needs the package {missing}, which is not installed"}
            lines = "".join(traceback.format_exception(error)).strip().splitlines()
            return {"status": FAILED, "note": "\n".join(lines[-TAIL:])}
        finally:
            self.free()

    @property
    def memory(self) -> float:
        """The GPU's memory in 10^9 bytes; 0 on a CPU."""
        return torch.cuda.get_device_properties(self.device).total_memory / 1e9 if self.device.type == "cuda" else 0.0

    def need(self, gigabytes: float, what: str) -> None:
        """Raise LeftOut unless so much memory (10^9 bytes) of the GPU is free."""
        self.free()
        if self.device.type == "cuda" and (free := torch.cuda.mem_get_info()[0] / 1e9) < gigabytes:
            raise LeftOut(f"{what} needs {gigabytes:.0f} GB, {free:.0f} are free")

    def seconds(self, call: Callable[[], object], prepare: Callable[[], object] = lambda: None) -> float:
        """Run `call` after an untimed `prepare` -> its seconds: between two CUDA events, or by the CPU's clock."""
        prepare()
        if self.device.type != "cuda":
            start = time.perf_counter()
            call()
            return time.perf_counter() - start
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        torch.cuda.synchronize()
        begin.record()
        call()
        end.record()
        torch.cuda.synchronize()
        return begin.elapsed_time(end) / 1e3

    def free(self) -> None:
        """Give back the memory of what is no longer used."""
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def _write(self, line: dict) -> None:
        with self.file.open("a", encoding="utf-8") as file:
            file.write(json.dumps(_plain(line), allow_nan=False) + "\n")


def _plain(value):
    """Return JSON data with infinite numbers and NaN as text."""
    if isinstance(value, dict):
        return {key: _plain(x) for key, x in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(x) for x in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def _missing_package(error: Exception) -> str | None:
    """Return the package whose absence an error is about; None for any other error, a missing module of our own included."""
    if isinstance(error, ModuleNotFoundError) and error.name and (name := error.name.partition(".")[0]) not in OURS:
        return None if name in sys.modules and sys.modules[name] is not None else name
    return None


def worst(pairs) -> tuple[float, str]:
    """Return the largest of (value, name), a NaN being larger than anything."""
    return max(pairs, key=lambda pair: (pair[0] != pair[0], pair[0]))


def relative(got: torch.Tensor, want: torch.Tensor) -> float:
    """Return the largest difference over the largest entry of `want` (at least 1e-6), in float64 on the CPU."""
    got, want = got.detach().double().cpu(), want.detach().double().cpu()
    return ((got - want).abs().max() / want.abs().max().clamp(min=1e-6)).item()


def distance(got: torch.Tensor, want: torch.Tensor) -> float:
    """Return |got - want| / |want| in the Euclidean norm."""
    got, want = got.detach().double().cpu().flatten(), want.detach().double().cpu().flatten()
    return ((got - want).norm() / want.norm().clamp(min=1e-30)).item()
