"""The data rule: the sets of a scale, with what the runs have room for by the model's own tokenizer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sdpg.config import Config, prompt_limits
from sdpg.experiment.own_tokenizer import load_tokenizer
from sdpg.experiment.written import read_solutions, wanted
from sdpg.tasks.data import build_data
from sdpg.tasks.lengths import Room


def make_problems(config: Config, folder: str | Path) -> dict[str, Any]:
    """Build the sets of a resolved config in `folder` -> the report (see `build_data`). Raises ValueError."""
    solutions = read_solutions(Path(folder).parent) if wanted(config) else None
    return build_data(config, folder, room=room_of(config), solutions=solutions)


def room_of(config: Config) -> Room:
    """Return what the runs of a config have room for, by the model's own tokenizer."""
    limits = prompt_limits(config)
    return Room(
        load=lambda: load_tokenizer(config.model),
        prompt=limits["max_prompt_tokens"],
        response=limits["max_response_tokens"],
        teacher=limits["teacher"],
    )


def _left(row: dict[str, Any]) -> str:
    return f"{row['problems']}" + (f" of {row['rows']} rows" if row["rows"] != row["problems"] else "")


def summary(report: dict[str, Any]) -> str:
    """Return what the data rule prints: the sizes, and what was left out and why."""
    sets = {"train": report["train"], **{f"validation {k}": v for k, v in report["validation"].items()}, **report["evaluation"]}
    lines = ["problems: " + ", ".join(f"{name} {_left(row)}" for name, row in sets.items())]
    lines.append(f"training problems removed because a held-out set has them: {report['train']['overlap_removed']}")
    for name, row in sets.items():
        counts = {
            "repeated": row["duplicates_removed"],
            "with conflicting answers": row["conflicts_removed"],
            "without a solution, dropped": row.get("missing_solutions", {}).get("dropped", 0),
            "without a solution that the teacher would read, kept": (
                row["missing_solutions"]["kept"] if row.get("missing_solutions", {}).get("read_by_a_teacher") else 0
            ),
            "whose answer the verifier rejects": row["answers"]["rejected"],
            "whose prompt is too long": row.get("prompts", {}).get("overlong", 0),
        }
        if said := [f"{count} {what}" for what, count in counts.items() if count]:
            lines.append(f"{name}: {', '.join(said)} (data/report.json has the rows)")
    return "\n".join(lines)
