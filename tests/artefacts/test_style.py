"""Methods can be told apart in colour, in grey, and without colour vision."""

from __future__ import annotations

from itertools import combinations

import pytest
from matplotlib.colors import to_rgb

from sdpg.artefacts import declared
from sdpg.artefacts.figures import contrasts
from sdpg.artefacts.figures.style import METHODS, method_styles
from sdpg.experiment.workflow import artefact_sources
from sdpg.provenance.sources import stage_sources
from tests.artefacts.drawings import FIGURES, SHOWN

ALL = [*METHODS, "own-1", "own-2", "own-3", "own-4"]
CURVES = "sdpg/artefacts/figures/curves.py"
SHARED = (  # what figures may depend on beside their own module, and the summary of the same name
    "sdpg/artefacts/figures/style.py",
    "sdpg/artefacts/figures/lines.py",
    "sdpg/analysis/results.py",
    "sdpg/analysis/intervals.py",
    "sdpg/analysis/wording.py",
)


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


def test_verdicts_differ_in_more_than_their_colour():
    looks = [(marker, filled) for _, marker, filled in contrasts.LOOKS.values() if marker]
    assert len(set(looks)) == len(looks)
    assert all(lightness(color) < 60 for color, *_ in contrasts.LOOKS.values())  # text on white


def test_a_known_method_looks_the_same_in_every_company():
    assert method_styles(["x", "grpo"])["grpo"] == method_styles(["grpo", "rlsd"])["grpo"] == METHODS["grpo"]


def test_more_names_than_styles_still_get_one():
    assert len(method_styles(f"own-{i}" for i in range(30))) == 30


def sources(name):
    return set(artefact_sources(declared()[name]))


@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_shares_only_the_style_the_curves_and_the_readers(name):
    summary = "claims/__init__" if name == "figures/contrasts" else name.removeprefix("figures/")
    allowed = [declared()[name].file, *SHARED, f"sdpg/artefacts/{summary}.py"]
    allowed += [CURVES] * (name == "figures/training_curves" or name in SHOWN)
    closed = {
        declared()[name].file,
        "sdpg/analysis/__init__.py",
        "sdpg/artefacts/figures/__init__.py",
        *(file for start in allowed[1:] for file in stage_sources(start)),
    }
    assert sources(name) <= closed


@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_depends_on_its_own_module_and_no_other_figures(name):
    assert declared()[name].file in sources(name)
    assert not {declared()[other].file for other in FIGURES if other != name} & sources(name)


def test_only_what_is_drawn_over_steps_depends_on_the_curves():
    """Or an edit there would draw every figure again; the manifest is of all code."""
    over_steps = {"figures/training_curves", *SHOWN}
    assert {name for name in declared() if CURVES in sources(name)} - {"manifest"} == over_steps


def test_no_summary_and_no_table_depends_on_how_figures_look():
    drawn = {*FIGURES, "matrix", "manifest"}
    assert {name for name in declared() if "sdpg/artefacts/figures/style.py" in sources(name)} == drawn
