"""The settings of `model.warm_start.pauses`."""

from __future__ import annotations

from sdpg.types import Fraction, Settings


class Pauses(Settings):
    """Demonstrations of which some pause after every value (sdpg/tasks/pauses.py), with errors that are convictions."""

    plain: Fraction = 0.5
    """Share of the plain demonstrations that pause. These never skip steps: the slow way is the surer one."""
    hinted: Fraction = 0.0
    """The same share of the hinted ones: the teacher's taste for the slow way."""
    goes_on: Fraction = 0.5
    """Chance after each mark of a pause that another follows, up to 4."""
    misconceptions: Fraction = 0.33
    """Share of the facts that plain demonstrations get wrong at misconception_rate; error_rate is the others' mean."""
    misconception_rate: Fraction = 0.9
    """Chance that a plain demonstration gets such a fact wrong. The nearer to 1, the longer until trial finds what is right."""
