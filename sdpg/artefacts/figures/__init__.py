"""The figures. Each is a module with `draw(results) -> (Figure, DataFrame)`.

They share style.py and the readers, and those of curves over the training steps curves.py too. A figure's numbers are what
is drawn, one row per point; its CAPTION says what is shown and how bands were made.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # the workflow reads the names below for every dry run: it need not wait for pandas
    from sdpg.analysis.results import Results

FIGURES = (
    "training_curves",
    "final_accuracy",
    "beta_schedule",
    "ablations",
    "self_distillation",
    "published_curves",
    "stability",
    "cost",
    "decomposition",
    "sensitivity",
)
SHOWN = {  # a figure of these methods only: it takes a config with at least two of them
    "ablations": ("sdpg-urkl", "rpg", "sdpg-no-anchor", "sdpg-no-gate", "sdpg-no-schedule", "grpo"),
    "self_distillation": ("sdpg-ufkl", "sdpg-urkl", "grpo", "rlsd", "opcd", "opsd", "sdpo", "sdft"),
}


def make(name: str, results: Results, folder: str | Path | None = None) -> list[Path]:
    """Draw one figure and write <name>.pdf, .png and .csv into `folder` (default: results.root/figures); the three paths.

    Only that figure's module is imported. Raises ValueError for an unknown name or missing input.
    """
    if name not in FIGURES:
        raise ValueError(f"unknown figure {name!r}; choose one of {', '.join(FIGURES)}")
    from sdpg.artefacts.figures import style

    module = importlib.import_module(f"sdpg.artefacts.figures.{name}")
    figure, data = module.draw(results)
    return style.save(figure, data, Path(folder or results.root / "figures"), name, module.CAPTION)
