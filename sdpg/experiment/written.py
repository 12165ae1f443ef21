"""Whether a scale has worked solutions written, and those that were."""

from __future__ import annotations

from pathlib import Path

from sdpg.config import Config, prompt_limits
from sdpg.tasks.prompts import load_template

FOLDER, TABLE = "solutions", "solutions.parquet"


def wanted(config: Config) -> bool:
    """Return whether solutions are written: the scale says by whom, and a method's teacher reads them."""
    return bool(
        config.data.solutions and prompt_limits(config)["teacher"] and load_template(config.task.template).reads_solution
    )


def read_solutions(root: Path) -> dict[str, str]:
    """Return {key (`solution_key`): solution} of what the rule wrote. Raises ValueError if it is missing or broken."""
    import pandas as pd

    path = root / FOLDER / TABLE
    if not path.is_file():
        raise ValueError(f"{path} does not exist; write it first: `snakemake` does, or `sdpg solutions --scale {root.name}`")
    try:
        frame = pd.read_parquet(path, columns=["key", "solution"])
    except Exception as error:  # pyarrow raises several unrelated kinds for a file that is not parquet
        said = " ".join(str(error).split())[:200]
        raise ValueError(
            f"{path} could not be read ({said}); delete it and run the rule solutions again: nothing is asked twice"
        ) from error
    return dict(zip(frame["key"], frame["solution"], strict=True))
