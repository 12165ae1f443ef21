"""Artefacts and analysis read files: they never load a deep-learning library; and what is planned is known without reading."""

from __future__ import annotations

import subprocess
import sys

MODULES = """
import pkgutil, sdpg.analysis
from sdpg.artefacts import declared
loaded = [item.module for item in declared().values()]
loaded += [__import__(found.name) for found in pkgutil.iter_modules(sdpg.analysis.__path__, "sdpg.analysis.")]
assert len(loaded) > 20
"""
PLAN = """
from sdpg.config import resolve
from sdpg.experiment.workflow import Scale
assert len(Scale("cpu", {}).steps) > 15
"""


def loaded(code: str, *names: str) -> set[str]:
    """Return those of the libraries that are loaded after `code` has run in a separate Python."""
    code += f"\nimport sys; print(*({set(names)!r} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


def test_artefacts_and_analysis_import_no_torch():
    libraries = ("torch", "transformers", "vllm", "lm_eval", "datasets", "pandas")
    assert loaded(MODULES, *libraries) == {"pandas"}


def test_the_plan_of_a_scale_is_made_without_pandas_and_matplotlib():
    assert loaded(PLAN, "torch", "pandas", "matplotlib", "scipy") == set()
