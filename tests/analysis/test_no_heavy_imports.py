"""Analysis and figures read files: they never load a deep-learning library."""

from __future__ import annotations

import subprocess
import sys

CODE = """
import sys
import sdpg.artefacts.claims, sdpg.analysis.power, sdpg.artefacts.report, sdpg.analysis.results, sdpg.analysis.scores
from sdpg.artefacts.tables import TABLES
from sdpg.artefacts.figures import FIGURES
import importlib
for name in FIGURES:
    importlib.import_module(f"sdpg.artefacts.figures.{name}")
for name in TABLES:
    importlib.import_module(f"sdpg.artefacts.tables.{name}")
heavy = {"torch", "transformers", "vllm", "lm_eval", "datasets"} & sys.modules.keys()
assert not heavy, heavy
"""


def test_analysis_and_figures_import_no_torch():
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
