"""What the pages quote: the committed references, by scale."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from sdpg.analysis.outcome import CURVES
from sdpg.analysis.reference import FOLDER
from sdpg.analysis.results import read_csv
from sdpg.artefacts.claims.verdicts import PRIMARY
from sdpg.artefacts.tables.main import COLUMNS
from sdpg.io import read_json
from sdpg.provenance.made import Made, read_made
from sdpg.provenance.standing import Standing, references, standing

SHOWN = ("cpu", "lm")  # scales that the pages speak of, run or not
AGAIN = {"cpu": "cpu-again"}  # scale -> the same with other rounding
VARIED = {"cpu": "cpu-sensitivity"}  # scale -> the same at other values of some settings
BESIDE = (*AGAIN.values(), *VARIED.values())
BASELINE = "grpo"  # whose cost is 1


@dataclass(frozen=True)
class Reference:
    """One committed reference. made: how it came about; folder: where it lies."""

    scale: str
    folder: Path
    made: Made

    @cached_property
    def standing(self) -> Standing:
        """Whether the present code and config would make it."""
        return standing(self.folder)

    @cached_property
    def main(self) -> pd.DataFrame:
        """Table `main`: a row for each method and evaluation set."""
        frame = read_csv(self.folder / "tables" / "main.csv", COLUMNS)
        return frame[frame["method"] != "base"]

    @cached_property
    def base(self) -> dict[str, float]:
        """Accuracy before training on each evaluation set; nothing where it was not evaluated."""
        frame = read_csv(self.folder / "tables" / "main.csv", COLUMNS)
        return dict(frame[frame["method"] == "base"][["task", "last"]].itertuples(index=False))

    @cached_property
    def claims(self) -> list[dict[str, Any]]:
        """The rows of claims.json."""
        return read_json(self.folder / "claims.json")

    @property
    def primary(self) -> list[dict[str, Any]]:
        """The rows of the primary claims."""
        return [row for row in self.claims if row["role"] == PRIMARY]

    @property
    def methods(self) -> list[str]:
        """The methods, in the order of the scale."""
        return list(dict.fromkeys(self.main["method"]))

    @property
    def tasks(self) -> list[str]:
        """The evaluation sets, in the order of the scale."""
        return list(dict.fromkeys(self.main["task"]))

    def entry(self, method: str, task: str) -> dict[str, Any] | None:
        """Return a method's row of table `main`; None if it was not run."""
        rows = self.main[(self.main["method"] == method) & (self.main["task"] == task)]
        return None if rows.empty else rows.iloc[0].to_dict()

    @cached_property
    def whole(self) -> set[tuple[str, int]]:
        """The runs (method, seed) that went to their last step."""
        curves = read_csv(self.folder / CURVES, ["method", "task", "step"])
        last = curves[curves["step"] == curves.groupby("method")["step"].transform("max")]
        seeds = [column for column in curves if column.startswith("seed")]
        kept = last.groupby("method")[seeds].first().notna()
        return {(method, int(seed.removeprefix("seed"))) for method in kept.index for seed in seeds if kept.loc[method, seed]}

    @cached_property
    def spent(self) -> pd.DataFrame:
        """Mean FLOPs and seconds of training of a method's runs that went to their last step; no row where none did."""
        cost = read_csv(self.folder / "cost.csv", ["method", "seed", "step", "flops", "seconds"])
        ends = cost.sort_values("step").groupby(["method", "seed"])[["flops", "seconds"]].last()
        return ends[[run in self.whole for run in ends.index]].groupby("method").mean()

    def cost(self, method: str) -> float | None:
        """Return the FLOPs of a method's whole runs over those of GRPO's; None without either."""
        if not {method, BASELINE} <= set(self.spent.index):
            return None
        ratio = self.spent.loc[method, "flops"] / self.spent.loc[BASELINE, "flops"]
        return None if pd.isna(ratio) else float(ratio)


class References:
    """The references below a folder, results/reference by default. Those of an earlier form count as not run."""

    def __init__(self, folder: Path = FOLDER):
        self.found: dict[str, Reference] = {}
        for path in references(folder):
            if (how := read_made(path)) is not None:
                self.found[path.name] = Reference(path.name, path, how)

    @property
    def scales(self) -> list[str]:
        """The scales to speak of, those without a reference too; of BESIDE something is said where their first one is."""
        return [*SHOWN, *(name for name in self.found if name not in (*SHOWN, *BESIDE))]

    def get(self, scale: str) -> Reference | None:
        """Return the reference of a scale, None if there is none."""
        return self.found.get(scale)


def label(method: str) -> str:
    """Return a method's name in figures and tables."""
    from sdpg.artefacts.figures.style import method_styles

    return method_styles([method])[method].label


def not_run(scale: str) -> str:
    """Return what is said of a scale without a reference."""
    how = f"`make reproduce SCALE={scale}`, then `make reference SCALE={scale}`"
    return f"Scale `{scale}`: not run yet by the present rules ({how})."
