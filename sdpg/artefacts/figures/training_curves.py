"""The six panels of the paper's Figure 3, from our own runs: accuracy per evaluation set, reward, entropy, response length."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure

from sdpg.analysis.results import Results
from sdpg.artefacts.declare import FigureSpec
from sdpg.artefacts.figures import curves, style

ARTEFACT = FigureSpec(
    reads=lambda files: [*files.made("scores"), *files.metrics],
    place=2,
    caption=(
        "Training curves per method: accuracy on each evaluation set, training reward, entropy and response length "
        "over the training steps. Bold lines are means over seeds, thin ones single seeds; dotted: the accuracy of the base "
        "model. Of more than six methods, those of the paper's tables; the other figures show the rest."
    ),
)


def draw(results: Results) -> tuple[Figure, pd.DataFrame]:
    """Draw it; needs scores.csv and every run's metrics.jsonl. The frame has one row per point of each line
    (curves.COLUMNS).
    """
    styles = style.readable(style.method_styles(results.methods))
    return curves.draw(results, styles)
