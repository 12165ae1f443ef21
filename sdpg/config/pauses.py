"""The settings of `model.warm_start.pauses`."""

from __future__ import annotations

from sdpg.types import Fraction, Settings


class Pauses(Settings):
    """Demonstrations of which some pause before every value (sdpg/tasks/pauses.py), and are surer for it."""

    plain: Fraction = 0.5
    """Share of the plain demonstrations that pause."""
    hinted: Fraction = 0.0
    """The same share of the hinted ones: the teacher's taste for the slow way."""
    goes_on: Fraction = 0.5
    """Chance after each mark of a pause that another follows, up to 4."""
    error_factor: Fraction = 0.5
    """After a pause a fact's error rate is multiplied by this."""
    misconceptions: Fraction = 0.06
    """Share of the facts that plain demonstrations always get wrong, pause or not: what trial will hardly find."""
