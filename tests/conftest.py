"""Fixtures of several test files."""

from __future__ import annotations

from collections import Counter

import pytest

LONG = "minutes: only with --all (make test-all)"


def pytest_addoption(parser):
    parser.addoption("--all", action="store_true", help="run the tests marked `long`, too")


def pytest_collection_modifyitems(config, items):
    """Skip the long tests without --all, and put the files with most slow tests first: of two workers that take file after
    file, one would else wait for a slow file that the other began last.
    """
    slow = Counter()
    for item in items:
        if item.get_closest_marker("long") and not config.getoption("--all"):
            item.add_marker(pytest.mark.skip(reason=LONG))
        elif item.get_closest_marker("slow"):
            slow[item.path] += 1
    items.sort(key=lambda item: -slow[item.path])


MINIMAL = """
name: mine
model: some/dir
data:
  train: {path: train.jsonl}
  evaluation: {held-out: {chain: {operations: [2], count: 3, seed: 0}}}
train: {steps: 5, max_prompt_tokens: 32, max_response_tokens: 16}
methods: {grpo: }
"""


@pytest.fixture
def scale_file(tmp_path):
    """A function that writes a scale file, MINIMAL with `old` replaced by `new`, and returns its path."""

    def write(old: str = "", new: str = "") -> str:
        assert old in MINIMAL
        path = tmp_path / "mine.yaml"
        path.write_text(MINIMAL.replace(old, new) if old else MINIMAL)
        return str(path)

    return write
