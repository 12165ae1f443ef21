"""Methods can be told apart in colour, in grey, and without colour vision."""

from __future__ import annotations

import ast
from itertools import combinations
from pathlib import Path

import pytest
from matplotlib.colors import to_rgb

from sdpg.figures import FIGURES
from sdpg.figures.style import METHODS, method_styles

TWELVE = [*METHODS, "own-1", "own-2", "own-3", "own-4"]
FOLDER = Path(__file__).resolve().parents[2] / "sdpg" / "figures"


def lightness(color: str) -> float:
    """CIE L*, 0 (black) to 100 (white)."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(color)]
    y = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    return 116 * y ** (1 / 3) - 16 if y > 0.008856 else 903.3 * y


def test_twelve_methods_have_twelve_looks():
    styles = method_styles(TWELVE).values()
    assert len({style.color for style in styles}) == 12
    assert len({style.marker for style in styles}) == 12
    assert all((a.dash, a.marker) != (b.dash, b.marker) for a, b in combinations(styles, 2))


def test_methods_shown_together_differ_in_grey():
    shown = method_styles(["sdpg-ufkl", "sdpg-urkl", "grpo", "opcd"]).values()
    assert min(abs(lightness(a.color) - lightness(b.color)) for a, b in combinations(shown, 2)) > 12
    assert len({style.dash for style in shown}) == 4
    assert all(lightness(style.color) < 80 for style in method_styles(TWELVE).values())  # visible on white


def test_a_known_method_looks_the_same_in_every_company():
    assert method_styles(["x", "grpo"])["grpo"] == method_styles(["grpo", "rlsd"])["grpo"] == METHODS["grpo"]


def test_more_names_than_styles_still_get_one():
    assert len(method_styles(f"own-{i}" for i in range(30))) == 30


@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_shares_only_the_style_and_the_readers(name):
    imported = set()
    for node in ast.walk(ast.parse((FOLDER / f"{name}.py").read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("sdpg"):
            imported |= {
                f"{node.module}.{alias.name}" if node.module == "sdpg.figures" else node.module for alias in node.names
            }
    assert imported <= {"sdpg.figures.style", "sdpg.analysis.results", "sdpg.analysis.intervals"}
