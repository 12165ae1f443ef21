"""What the tests of figures share: the figures' names, and looking at what is drawn."""

from __future__ import annotations

from itertools import combinations

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Text

from sdpg.artefacts import declared
from sdpg.artefacts.figures import style

FIGURES = [name for name in declared() if name.startswith("figures/")]
SHOWN = {name: declared()[name].spec.methods for name in FIGURES if declared()[name].spec.methods}  # that they compare
LONG = "a-method-of-a-user-with-a-rather-long-name"
COMPARED = ("sdpg-urkl", "grpo", "sdpg-urkl.train.lr-2e-06", "grpo.train.lr-2e-06")
VARIED = {"sensitivity": [{"setting": "train.lr", "methods": ["sdpg-urkl", "grpo"], "values": [2e-6]}]}  # beside 1e-6
MANY = ("sdpg-ufkl", "sdpg-urkl", "grpo", "opcd", "rlsd", "opsd", "sdpo", "sdft", LONG, f"{LONG}-2", "x", "y")


def lines(ax, label):
    """Return the lines with this label."""
    return [line for line in ax.get_lines() if line.get_label() == label]


def titled(figure, title):
    """Return the panel with this title."""
    (ax,) = [ax for ax in figure.axes if ax.get_title(loc="left") == title]
    return ax


def panels(figure):
    """Return every axes, those inside others too."""
    return [ax for outer in figure.axes for ax in (outer, *outer.child_axes)]


def words(figure):
    """Return every text that can be seen, each with its box in pixels (of a name without the hair line to its curve)."""
    renderer = FigureCanvasAgg(figure).get_renderer()
    figure.draw(renderer)
    found = [*figure.texts, *(text for legend in figure.legends for text in legend.get_texts())]
    found += [figure._suptitle] * (figure._suptitle is not None and figure._suptitle not in found)
    for ax in panels(figure):
        found += [*ax.texts, ax._left_title, ax.xaxis.label, ax.yaxis.label]
        ticks = [label for axis in (ax.xaxis, ax.yaxis) for label in axis.get_ticklabels() if label.get_visible()]
        found += [label for label in ticks if ax.bbox.padded(20).overlaps(label.get_window_extent(renderer))]
    seen = [text for text in found if text.get_visible() and text.get_text().strip()]
    return [(text, Text.get_window_extent(text, renderer)) for text in seen]


def names(figure):
    """Return all that is written in it, on one line."""
    return " | ".join(text.get_text().replace("\n", " ") for text, _ in words(figure))


def fits_a_paper(figure):
    """Assert that it is no wider than two columns, that its text is 7 to 9 points, and that no text lies on another."""
    assert figure.get_size_inches()[0] <= style.WIDTH + 1e-9
    there = words(figure)
    for text, _ in there:
        assert 7 <= text.get_fontsize() <= 9, text.get_text()
    for (one, a), (two, b) in combinations(there, 2):
        shared = min(a.x1, b.x1) - max(a.x0, b.x0), min(a.y1, b.y1) - max(a.y0, b.y0)
        assert min(shared) <= 1.5, f"{one.get_text()!r} and {two.get_text()!r} overlap"


def texts_of(figure):
    """Return the texts of all legends."""
    return [text.get_text() for legend in figure.legends for text in legend.get_texts()]


def all_axes_are_labelled(figure):
    """Assert that every panel has a title, and axes with units."""
    for ax in figure.axes:
        assert ax.get_title(loc="left")
        assert ax.get_xlabel()
        in_a_row = len(ax.get_shared_y_axes().get_siblings(ax)) > 1  # labelled on its left
        assert ax.get_ylabel() or in_a_row or [label.get_text() for label in ax.get_yticklabels()]
        if ax.get_ylabel():
            assert "(" in ax.get_ylabel() or "per response" in ax.get_ylabel() or "fraction" in ax.get_ylabel()


def visible_boxes(figure):
    """Return (what, bounding box in pixels) of every axes with its labels, and of every legend."""
    renderer = FigureCanvasAgg(figure).get_renderer()
    figure.draw(renderer)
    boxes = [(ax.get_title(loc="left"), ax.get_tightbbox(renderer)) for ax in figure.axes]
    return boxes + [(f"legend {i}", legend.get_window_extent(renderer)) for i, legend in enumerate(figure.legends)]


def nothing_overlaps(figure):
    """Assert that no panel, legend or tick label is cut off or hides another."""
    boxes = visible_boxes(figure)
    for what, box in boxes:
        assert box.x0 >= -1 and box.y0 >= -1, f"{what} is cut off"
        assert box.x1 <= figure.bbox.width + 1 and box.y1 <= figure.bbox.height + 1, f"{what} is cut off"
    for (one, a), (two, b) in combinations(boxes, 2):
        shared = min(a.x1, b.x1) - max(a.x0, b.x0), min(a.y1, b.y1) - max(a.y0, b.y0)
        assert min(shared) <= 1, f"{one} and {two} overlap"
    for ax in figure.axes:
        renderer = figure.canvas.get_renderer()
        for axis in (ax.xaxis, ax.yaxis):
            ticks = [t.get_window_extent(renderer) for t in axis.get_ticklabels() if t.get_text()]
            ticks = [t for t in ticks if t.width]
            inside = [t for t in ticks if ax.bbox.padded(20).overlaps(t)]
            assert all(not a.overlaps(b) for a, b in combinations(inside, 2)), f"tick labels of {ax.get_title(loc='left')}"
