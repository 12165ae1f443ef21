"""SDPG-URKL with one of its parts taken out at a time, in the layout of the paper's Figure 5."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure

from sdpg.analysis.results import Results
from sdpg.artefacts.declare import PUBLISHED_CURVES, FigureSpec
from sdpg.artefacts.figures import curves

ARTEFACT = FigureSpec(
    reads=lambda files: [*files.made("scores"), *files.records, *files.metrics, PUBLISHED_CURVES],
    place=10,
    methods=("sdpg-urkl", "rpg", "sdpg-no-anchor", "sdpg-no-gate", "sdpg-no-schedule", "grpo"),
    caption=(
        "SDPG-URKL and what is left of it without its distillation (beta = 0), anchor (alpha = 0), gate or schedule, with "
        "GRPO: accuracy on each evaluation set, training reward, entropy and response length over the training steps. Bold "
        "lines are means over seeds, thin ones single seeds; dotted: the accuracy of the base model. Where the evaluation "
        "sets are the paper's, dashed lines with open markers are its Figure 5 (Qwen3-4B, single runs), rewards on the scale "
        "of our runs."
    ),
)
LABELS = {
    "sdpg-urkl": "SDPG-URKL in full",
    "rpg": "without distillation",
    "sdpg-no-anchor": "without anchor",
    "sdpg-no-gate": "without gate",
    "sdpg-no-schedule": "without schedule",
}
PUBLISHED = {"rpg": "sdpg-urkl-beta0", "sdpg-no-anchor": "sdpg-urkl-alpha0"}  # their names in curves.csv


def draw(results: Results) -> tuple[Figure, pd.DataFrame]:
    """Draw it; needs scores.csv, every run.json and metrics.jsonl, and results/published/curves.csv. The frame: see
    curves.compare.
    """
    return curves.compare(results, ARTEFACT.methods, "fig5", labels=LABELS, names=PUBLISHED)
