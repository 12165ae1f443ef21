"""Methods whose whole loss is self-distillation beside SDPG, RLSD and GRPO, in the layout of the paper's Figure 6."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure

from sdpg.analysis.results import Results
from sdpg.artefacts.declare import PUBLISHED_CURVES, FigureSpec
from sdpg.artefacts.figures import curves

ARTEFACT = FigureSpec(
    reads=lambda files: [*files.made("scores"), *files.records, *files.metrics, PUBLISHED_CURVES],
    place=11,
    methods=("sdpg-ufkl", "sdpg-urkl", "grpo", "rlsd", "opcd", "opsd", "sdpo", "sdft"),
    caption=(
        "Methods whose whole loss is distillation (OPCD, OPSD, SDPO, SDFT) beside SDPG, RLSD and GRPO: accuracy on "
        "each evaluation set, training reward, entropy and response length over the training steps. Bold lines are means "
        "over seeds, thin ones single seeds; dotted: the accuracy of the base model. Where the evaluation sets are the "
        "paper's, dashed lines with open markers are its Figure 6 (Qwen3-1.7B, single runs), rewards on the scale "
        "of our runs."
    ),
)


def draw(results: Results) -> tuple[Figure, pd.DataFrame]:
    """Draw it; needs scores.csv, every run.json and metrics.jsonl, and results/published/curves.csv. The frame: see
    curves.compare.
    """
    return curves.compare(results, ARTEFACT.methods, "fig6")
