"""Imports without the garbage collector leave it as it was."""

import gc

import pytest

from sdpg.startup import quick_imports


@pytest.fixture(autouse=True)
def collector():
    yield
    gc.enable()


def test_off_inside_and_on_again_after_an_error():
    with pytest.raises(ValueError, match="no"), quick_imports():
        assert not gc.isenabled()
        raise ValueError("no")
    assert gc.isenabled()


def test_who_had_it_off_keeps_it_off():
    gc.disable()
    with quick_imports():
        pass
    assert not gc.isenabled()
