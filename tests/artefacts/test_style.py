"""Methods can be told apart in colour, in grey, and without colour vision."""

from __future__ import annotations

import ast
from itertools import combinations
from pathlib import Path

import pytest
from matplotlib.colors import to_rgb

from sdpg.artefacts.figures import FIGURES, SHOWN
from sdpg.artefacts.figures.style import METHODS, method_styles
from sdpg.artefacts.summaries import SUMMARIES
from sdpg.provenance import stage_sources

ALL = [*METHODS, "own-1", "own-2", "own-3", "own-4"]
FOLDER = Path(__file__).resolve().parents[2] / "sdpg" / "artefacts" / "figures"


def lightness(color: str) -> float:
    """CIE L*, 0 (black) to 100 (white)."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(color)]
    y = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    return 116 * y ** (1 / 3) - 16 if y > 0.008856 else 903.3 * y


def test_every_method_has_a_look_of_its_own():
    styles = method_styles(ALL).values()
    assert len({style.color for style in styles}) == len(ALL) == 16
    assert len({METHODS[method].marker for method in METHODS}) == 12
    assert all((a.dash, a.marker) != (b.dash, b.marker) for a, b in combinations(styles, 2))


def test_methods_shown_together_differ_in_grey():
    shown = method_styles(["sdpg-ufkl", "sdpg-urkl", "grpo", "opcd"]).values()
    assert min(abs(lightness(a.color) - lightness(b.color)) for a, b in combinations(shown, 2)) > 12
    assert len({style.dash for style in shown}) == 4
    assert all(lightness(style.color) < 80 for style in method_styles(ALL).values())  # visible on white


@pytest.mark.parametrize("shown", SHOWN.values(), ids=SHOWN)
def test_methods_compared_in_one_figure_differ_in_grey(shown):
    styles = method_styles([*shown, "own-1"]).values()
    assert len({style.marker for style in styles}) == len(styles) <= 9
    for one, two in combinations(styles, 2):
        assert one.dash != two.dash or abs(lightness(one.color) - lightness(two.color)) > 12


def test_a_known_method_looks_the_same_in_every_company():
    assert method_styles(["x", "grpo"])["grpo"] == method_styles(["grpo", "rlsd"])["grpo"] == METHODS["grpo"]


def test_more_names_than_styles_still_get_one():
    assert len(method_styles(f"own-{i}" for i in range(30))) == 30


@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_shares_only_the_style_the_curves_and_the_readers(name):
    imported = set()
    for node in ast.walk(ast.parse((FOLDER / f"{name}.py").read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("sdpg"):
            imported |= {
                f"{node.module}.{alias.name}" if node.module == "sdpg.artefacts.figures" else node.module
                for alias in node.names
            }
    shared = {"sdpg.artefacts.figures.style", "sdpg.artefacts.figures.curves", "sdpg.artefacts.figures.SHOWN"}
    own = {f"sdpg.artefacts.{name}"} if name in SUMMARIES else set()
    assert imported <= shared | own | {"sdpg.analysis.results", "sdpg.analysis.intervals", "sdpg.artefacts.tuning"}


@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_depends_on_its_own_module_and_no_other_figures(name):
    others = {f"sdpg/artefacts/figures/{other}.py" for other in FIGURES if other != name}
    for start in (f"sdpg/artefacts/figures/{name}.py", "workflows/scripts/plot.py"):
        assert not others & set(stage_sources(start))
    drawn_over_steps = name in ("training_curves", *SHOWN)
    assert (
        "sdpg/artefacts/figures/curves.py" in stage_sources(f"sdpg/artefacts/figures/{name}.py")
    ) == drawn_over_steps
    assert "sdpg/artefacts/figures/curves.py" not in stage_sources(
        "workflows/scripts/plot.py"
    )  # or it would redraw every figure
