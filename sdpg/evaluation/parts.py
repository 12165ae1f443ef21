"""What an evaluation is dealt out in, and goes on from: parts, each written whole as soon as it has been sampled and judged.

    .work/eval/{method}/seed{n}/step000010-aime24-0-3f2a90c1d5e7.parquet    some problems of a set at one checkpoint
                                lm_eval-77ab01c2d3e4.json                   lm-eval's results
                                claims/                                     parts that one of several processes has taken

The hex digits stand for all that decides a part's content: what is sampled from what, how, by which code and versions. A part
of another config, checkpoint or code has another name, and is neither taken nor touched until the evaluation is finished.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sdpg.evaluation.checkpoints import Checkpoint
from sdpg.rollout.placement import IN_PROCESS_ROWS
from sdpg.types import Problem

if TYPE_CHECKING:
    import pandas as pd

# Responses of a part, about: what a kill costs at most, and each process at the end. Of whole batches of the in-process engine,
# whose last bits depend on what is computed side by side.
BATCHES = 4
CLAIMS = "claims"


@dataclass(frozen=True)
class EvaluationSet:
    """One evaluation set with its student prompts as token ids; prompts[i] belongs to problems[i]."""

    name: str
    problems: Sequence[Problem]
    prompts: Sequence[list[int]]


@dataclass(frozen=True)
class Part:
    """Some problems of a set at one checkpoint, and where their samples are kept."""

    checkpoint: Checkpoint
    set: EvaluationSet
    path: Path


def make_parts(
    checkpoints: Sequence[Checkpoint], sets: Sequence[EvaluationSet], folder: Path, *, samples: int, identity: Mapping[str, Any]
) -> list[Part]:
    """Return the parts of an evaluation, by checkpoint, set and problem. identity: what decides their content besides, as JSON
    data.
    """
    size = BATCHES * max(1, IN_PROCESS_ROWS // samples)
    return [
        Part(checkpoint, some, folder / f"step{checkpoint.step:06d}-{whole.name}-{first}-{digest}.parquet")
        for checkpoint in checkpoints
        for whole in sets
        for first, some in _cut(whole, size)
        for digest in [digest_of(identity, checkpoint, [some])]
    ]


def _cut(whole: EvaluationSet, size: int) -> Iterator[tuple[int, EvaluationSet]]:
    for first in range(0, len(whole.problems), size):
        yield first, EvaluationSet(whole.name, whole.problems[first : first + size], whole.prompts[first : first + size])


def digest_of(identity: Mapping[str, Any], checkpoint: Checkpoint, sets: Sequence[EvaluationSet]) -> str:
    """Return 12 hex digits that stand for the identity, a checkpoint's files, and the sets' problems and prompts."""
    problems = [(s.name, [astuple(problem) for problem in s.problems], list(s.prompts)) for s in sets]
    content = json.dumps([identity, checkpoint.step, checkpoint.hashes, problems], sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()[:12]


def claim(path: Path) -> bool:
    """Return whether this is the first of several processes to ask for what `path` will hold. They share its folder."""
    try:
        (path.parent / CLAIMS / path.name).open("x").close()
    except FileExistsError:
        return False
    return True


def read_part(part: Part, samples: int) -> pd.DataFrame:
    """Read a part. One that cannot be read, or lacks rows, is deleted: ValueError."""
    import pandas as pd

    try:
        frame = pd.read_parquet(part.path)
        if len(frame) != samples * len(part.set.problems):
            raise ValueError(f"it has {len(frame)} rows, expected {samples} for each of {len(part.set.problems)} problems")
    except Exception as error:  # pyarrow raises several unrelated kinds for a damaged file
        part.path.unlink(missing_ok=True)
        said = " ".join(str(error).split())[:200]
        raise ValueError(
            f"{part.path} could not be read ({said}), and was deleted; the same command samples it again"
        ) from error
    return frame
