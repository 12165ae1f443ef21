"""A run that has lost what it learned and does not come back is not trained to its last step: it collapsed, and that counts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

LOOKS = 2  # validations in a row below the share: one alone may be a dip that a run comes back from


class Collapse:
    """Watches the mean accuracy over the validation sets, also across a restart."""

    def __init__(self, share: float | None, rows: Iterable[Mapping[str, Any]] = ()):
        """share: of the best accuracy so far, below which a run counts as fallen; None: never. rows: of the steps taken."""
        self.share, self.best, self.below = share, 0.0, 0
        for row in rows:
            self.look(row)

    def look(self, row: Mapping[str, Any]) -> str | None:
        """Take in a step's row -> why the run ends there, None if it goes on or the row has no validation."""
        found = [value for key, value in row.items() if key.startswith("validation_")]
        if self.share is None or not found:
            return None
        accuracy = sum(found) / len(found)
        self.best = max(self.best, accuracy)
        self.below = self.below + 1 if accuracy < self.share * self.best else 0
        if self.below < LOOKS:
            return None
        return f"collapsed: validation accuracy {accuracy:.3f} is below {self.share:g} of its best, {self.best:.3f}, again"
