"""rliable's estimates of two seeded score matrices: writes reference.json, which tests/analysis/test_rliable.py reads.

rliable is no dependency of this project. In a separate environment: `pip install rliable==1.2.0 "pandas<3"`, then
`python make_reference.py`, a few minutes.
"""

import json
from importlib.metadata import version
from pathlib import Path

import numpy as np
from rliable import library, metrics

REPS = 40_000
RUNS, TASKS = 10, 6


def estimates(scores, function):
    """Point estimate and the two ends of rliable's stratified bootstrap interval: percentile, 95%."""
    points, intervals = library.get_interval_estimates({"x": scores}, lambda *x: np.array([function(*x)]), reps=REPS)
    return [float(points["x"][0]), *(float(end) for end in intervals["x"][:, 0])]


def main():
    """Draw the matrices, estimate, and write both."""
    rng = np.random.default_rng(2021)
    difficulty = rng.normal(0, 1, TASKS)
    x, y = (np.round(1 / (1 + np.exp(-(difficulty + shift + rng.normal(0, 0.5, (RUNS, TASKS))))), 3) for shift in (0.3, 0.0))
    np.random.seed(0)  # noqa: NPY002 - rliable draws from the global generator
    reference = {
        "rliable": version("rliable"),
        "reps": REPS,
        "x": x.tolist(),
        "y": y.tolist(),
        "mean": estimates(x, metrics.aggregate_mean),
        "iqm": estimates(x, metrics.aggregate_iqm)[:1],
        "iqm_of_first_task": estimates(x[:, :1], metrics.aggregate_iqm),
        "probability_of_improvement": estimates([x, y], metrics.probability_of_improvement),
        "probability_of_first_task": estimates([x[:, :1], y[:, :1]], metrics.probability_of_improvement),
    }
    path = Path(__file__).with_name("reference.json")
    path.write_text(json.dumps(reference) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
