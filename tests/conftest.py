"""Fixtures of several test files."""

from __future__ import annotations

import pytest

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
