"""What all tests of worked solutions share."""

from __future__ import annotations

import pytest

from sdpg.solutions import endpoint as asking
from tests.solutions.scripted import KEY


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(asking, "FIRST_WAIT", 0.01)
    monkeypatch.setenv("TEST_KEY", KEY)
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
