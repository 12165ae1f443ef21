"""When a signal ends sampling, and when processes that sample together may not leave each other."""

import os
import signal
import threading

import pytest

from sdpg.core.stopping import Stopped, Stopper


def test_a_signal_before_sampling_leaves_it_out_where_nobody_waits():
    stopper = Stopper()
    with stopper.listening():
        os.kill(os.getpid(), signal.SIGUSR1)
        assert stopper.sample(lambda: pytest.fail("it sampled")) is None
    with pytest.raises(Stopped):
        stopper.check()


def test_a_signal_meanwhile_leaves_sampling_at_once():
    stopper = Stopper()
    with stopper.listening():
        assert stopper.sample(lambda: os.kill(os.getpid(), signal.SIGTERM) or pytest.fail("it went on")) is None


def test_of_two_that_sample_together_neither_waits_for_ever():
    """One enters before the signal, the other is asked first; both meet in there, as in an engine's collectives."""
    meet = threading.Barrier(2)

    def generate() -> str:
        meet.wait(timeout=5)
        return "sampled"

    early, late = Stopper(leave_sampling=False), Stopper(leave_sampling=False)
    got = []
    partner = threading.Thread(target=lambda: got.append(early.sample(generate)))
    partner.start()
    with late.listening():
        os.kill(os.getpid(), signal.SIGTERM)
        assert late.sample(generate) == "sampled"
    partner.join()
    assert got == ["sampled"]
    with pytest.raises(Stopped):
        late.check()
