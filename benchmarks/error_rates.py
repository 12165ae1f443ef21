"""How often the rules of verdicts err, and what they can find: runs made by chance, put through the project's own functions.

`python -m benchmarks.error_rates` prints the tables of docs/metrics.md (minutes); the tests call `rates` with fewer trials.
A run's score is its unit's level (a base model's), the method's effect, noise, and with some chance a collapse to `floor`.
Shapes: M methods, U units, P problems = 1: what is said of units does not depend on the problems.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sdpg.analysis.agreement import counts_p, difference, pooled_spread, together
from sdpg.analysis.collapse import Collapse
from sdpg.analysis.comparisons import Outcome, compare, paired_collapse, pool
from sdpg.analysis.multiplicity import holm
from sdpg.artefacts.claims.verdicts import DECIDED, EXPLORATORY, PRIMARY, REFUTED, SUPPORTED, Part, combine, decide

ALPHA, MARGIN, HALF = 0.05, 0.01, 0.05  # thresholds in accuracy, as those of the claims about the end
NAMES = tuple("abcdefgh")


@dataclass(frozen=True)
class World:
    """effect: of method a over all others; sd: of a run about its unit and method; spread: of the units' levels; collapse: the
    chance that a run falls to `floor`, of a and of the others; noisier: factor on the sd of a and b alone."""

    units: int = 10
    methods: int = 7
    effect: float = 0.0
    sd: float = 0.03
    spread: float = 0.06
    collapse: tuple[float, float] = (0.1, 0.1)
    floor: float = 0.1
    noisier: float = 1.0

    def draw(self, rng: np.random.Generator, levels: np.ndarray | None = None) -> dict[str, Outcome]:
        """Return one scale's runs; levels: those of the units, if they are given [U]."""
        M, U = self.methods, self.units
        levels = rng.normal(0, self.spread, U) if levels is None else levels
        sd_M = np.where(np.arange(M) < 2, self.noisier, 1.0)[:, None] * self.sd
        y_MU = 0.7 + levels + sd_M * rng.normal(size=(M, U))
        y_MU[0] += self.effect
        fell_MU = rng.random((M, U)) < np.where(np.arange(M) == 0, *self.collapse)[:, None]
        y_MU[fell_MU] = self.floor
        step_MU = np.where(fell_MU, 80.0, np.nan)
        return {
            name: Outcome(y_U[:, None], Collapse(fell, fell, step))
            for name, y_U, fell, step in zip(NAMES, y_MU, fell_MU, step_MU, strict=False)
        }


def performance(world: World, rng: np.random.Generator):
    """Return the claim "a is above b" of one drawn scale, as sdpg.artefacts.claims makes it."""
    outcomes = world.draw(rng)
    found = compare("a", "b", outcomes, pool(outcomes), range(world.units))
    return combine([Part(None, found.difference, MARGIN, HALF)], "all")


def collapses(world: World, rng: np.random.Generator):
    """Return the claim "a collapses more often than b", refuted below half."""
    outcomes = world.draw(rng)
    return combine([Part(None, paired_collapse(outcomes["a"].collapse.ever, outcomes["b"].collapse.ever), 0.0, 0.5)], "all")


def rates(claim, world: World, trials: int, seed: int = 0) -> dict[str, float]:
    """Return how often one claim alone gets each verdict."""
    rng = np.random.default_rng(seed)
    verdicts = [decide([claim(world, rng)], ALPHA, PRIMARY)[0].verdict for _ in range(trials)]
    return {verdict: verdicts.count(verdict) / trials for verdict in DECIDED}


def family(worlds: list[World], trials: int, seed: int = 0, role: str = PRIMARY) -> dict[str, float]:
    """Return, of claims tested together: how often any is wrongly supported (its effect is MARGIN or less) or wrongly refuted
    (HALF or more), and the mean number decided.
    """
    rng = np.random.default_rng(seed)
    wrong, decided = {SUPPORTED: 0, REFUTED: 0}, 0
    for _ in range(trials):
        found = decide([performance(world, rng) for world in worlds], ALPHA, role)
        verdicts = [decision.verdict for decision in found]
        decided += sum(verdict in DECIDED for verdict in verdicts)
        pairs = list(zip(worlds, verdicts, strict=True))
        wrong[SUPPORTED] += any(world.effect <= MARGIN and verdict == SUPPORTED for world, verdict in pairs)
        wrong[REFUTED] += any(world.effect >= HALF and verdict == REFUTED for world, verdict in pairs)
    return {verdict: count / trials for verdict, count in wrong.items()} | {"decided": decided / trials}


def agreement(world: World, trials: int, *, shared: bool, shift: float = 0.0, seed: int = 0) -> float:
    """Return how often two honest runs of one experiment are told apart (scores, collapse counts, and all together, Holm at
    ALPHA).

    shared: both have the same units, whose levels are then the same. shift: added to method a in the second run.
    """
    rng, apart = np.random.default_rng(seed), 0
    for _ in range(trials):
        state = rng.bit_generator.state
        here = world.draw(rng)
        if shared:  # the units' levels once more, everything else anew
            again = np.random.default_rng()
            again.bit_generator.state = state
            there = world.draw(rng, levels=again.normal(0, world.spread, world.units))
        else:
            there = world.draw(rng)
        late = [np.stack([of.x_SP[:, 0] for of in side.values()]) for side in (here, there)]
        late[1][0] += shift
        fell = [np.stack([of.collapse.ever for of in side.values()]) for side in (here, there)]
        healthy = [np.where(down, np.nan, y) for y, down in zip(late, fell, strict=True)]
        spread = pooled_spread(*healthy, shared=shared)
        p = [difference(a, b, spread, shared=shared).p for a, b in zip(*healthy, strict=True)]
        p += [counts_p(int(a.sum()), a.size, int(b.sum()), b.size) for a, b in zip(*fell, strict=True) if a.any() or b.any()]
        p.append(together([late[0]], [late[1]], shared=shared, draws=400))
        apart += min(holm(p)) <= ALPHA
    return apart / trials


def main() -> None:
    """Print the tables of docs/metrics.md: error rates at the thresholds, and what is decided, by the number of units."""
    trials = 5_000
    print("| units | collapse | effect | supported | refuted |\n|---|---|---|---|---|")
    for units in (5, 10):
        for collapse in ((0.0, 0.0), (0.1, 0.1), (0.33, 0.1)):
            for effect in (0.0, MARGIN, HALF, 0.07, 0.09):
                found = rates(performance, World(units=units, collapse=collapse, effect=effect), trials)
                chances = f"{collapse[0]:.0%}, {collapse[1]:.0%}"
                print(f"| {units} | {chances} | {effect:g} | {found[SUPPORTED]:.3f} | {found[REFUTED]:.3f} |")
    print("\n| units | collapse | supported | refuted |\n|---|---|---|---|")
    for units in (5, 10):
        for collapse in ((0.1, 0.1), (0.3, 0.3), (0.6, 0.0), (0.9, 0.1), (1.0, 0.0)):
            found = rates(collapses, World(units=units, collapse=collapse), trials)
            print(f"| {units} | {collapse[0]:.0%}, {collapse[1]:.0%} | {found[SUPPORTED]:.3f} | {found[REFUTED]:.3f} |")
    print(
        "\n| ten claims, effects | procedure | any wrongly supported | any wrongly refuted | decided |\n|---|---|---|---|---|"
    )
    cases = {
        "all .01": [MARGIN] * 10,
        "all .05": [HALF] * 10,
        "six of .08, four of 0": [0.08] * 6 + [0.0] * 4,
        "four of 0, six of .08": [0.0] * 4 + [0.08] * 6,
    }
    for name, effects in cases.items():
        for role, procedure in ((PRIMARY, "fallback"), (EXPLORATORY, "Holm")):
            found = family([World(effect=effect) for effect in effects], 2000, role=role)
            print(f"| {name} | {procedure} | {found[SUPPORTED]:.3f} | {found[REFUTED]:.3f} | {found['decided']:.1f} |")


if __name__ == "__main__":
    main()
