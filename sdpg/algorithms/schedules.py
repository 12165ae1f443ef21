"""Schedules over training steps."""

from __future__ import annotations


def trapezoid(k: int, *, peak: float, T: int, T_warm: int, T_decay: int) -> float:
    """Compute beta(k) = peak * min(1, k / T_warm) * min(1, (T - k) / T_decay), section 3.5.2; T_warm = 0 or T_decay = 0: no
    ramp.
    """
    warm = min(1.0, k / T_warm) if T_warm else 1.0
    decay = min(1.0, (T - k) / T_decay) if T_decay else 1.0
    return peak * warm * max(0.0, decay)
