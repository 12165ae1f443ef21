"""The last checkpoint under lm-eval, beside our own evaluation, and what was forgotten on a task left untrained."""

from __future__ import annotations

import pandas as pd

from sdpg.analysis.results import SCORE_COLUMNS, Results
from sdpg.artefacts.declare import TableSpec, analysis, evaluated
from sdpg.artefacts.scores import lm_eval_rows
from sdpg.artefacts.tables.layout import NONE, Cell, Table, number, signed
from sdpg.config import engine_label

ARTEFACT = TableSpec(
    reads=lambda files: [*files.made("scores"), *files.base_lm_eval, *files.metrics],
    place=5,
    uses=lambda config: {**analysis(config), "engine": config.evaluation.label},
    planned=lambda config: evaluated(config) and config.evaluation.lm_eval is not None,
)

SPREAD = ["lowest_seed", "highest_seed", "stderr"]
COLUMNS = ["method", "task", "metric", "step", "lm_eval", *SPREAD, "compared_with", "other"]
SWEEP, BASE = "sweep", "base model"  # what a value of lm-eval is compared with
PROCESS = "lm_eval_process_accuracy"


def build(results: Results) -> Table:
    """Build it; needs scores.csv, and eval/base<n>/lm_eval.json for the forgetting columns' base value, where there is one.

    A config without lm-eval gives a table that says so. Raises ValueError if scores.csv has no value of it for some method.
    """
    if results.lm_eval is None:
        caption = "lm-eval was not run at this scale (evaluation.lm_eval is null)."
        return Table(caption, "method", [], [(method, []) for method in results.methods], pd.DataFrame(columns=COLUMNS))
    scores = results.scores
    rows = scores[scores["metric"].str.startswith("lm_eval_") & ~scores["metric"].str.contains("_stderr")]
    if rows.empty:
        raise ValueError(
            f"{results.root / 'scores.csv'} has no lm-eval values although evaluation.lm_eval is set; make it again"
        )
    rows = rows[rows["metric"] != PROCESS]  # stays in scores.csv; the table is about accuracy
    measures = sorted(set(zip(rows["task"], rows["metric"], strict=True)), key=lambda m: (_rank(results, m[0]), m))
    base = _base_values(results)
    columns, per_method = [], {method: [] for method in results.methods}
    data = []
    for task, metric in measures:
        other = SWEEP if task in results.tasks else BASE if (task, metric) in base else None
        heading = task if task in results.tasks else f"{task} (not trained on)"
        columns.append((heading, f"lm-eval {metric.removeprefix('lm_eval_')}"))
        if other:
            beside = f"{engine_label(results.engine)} {results.accuracy}" if other == SWEEP else other
            columns += [(heading, beside), (heading, "difference")]
        for method in results.methods:
            entry = _entry(results, method, task, metric) | {"compared_with": other}
            step = entry["step"]
            entry["other"] = _sweep(results, method, task, step) if other == SWEEP else base.get((task, metric))
            data.append(entry)
            per_method[method] += _cells(entry)
    untouched = any(task not in results.tasks for task, _ in measures)
    caption = _caption(results, untouched, bool(base))
    return Table(caption, "method", columns, list(per_method.items()), pd.DataFrame(data, columns=COLUMNS))


def _rank(results: Results, task: str) -> int:
    return results.tasks.index(task) if task in results.tasks else len(results.tasks)


def _entry(results: Results, method: str, task: str, metric: str) -> dict:
    chosen = results.scores.query("method == @method and task == @task")
    rows = chosen[chosen["metric"] == metric]
    if sorted(rows["seed"]) != sorted(results.lm_eval_seeds):
        raise ValueError(
            f"{results.root / 'scores.csv'}: {metric} of {method} on {task} is there for the seeds {sorted(rows['seed'])}, "
            f"expected {sorted(results.lm_eval_seeds)}; make it again"
        )
    name, bracket, rest = metric.partition("[")
    errors = chosen[chosen["metric"] == f"{name}_stderr{bracket}{rest}"]["value"]
    return {
        "method": method,
        "task": task,
        "metric": metric,
        "step": int(rows["step"].max()),
        "lm_eval": rows["value"].mean(),
        "lowest_seed": rows["value"].min(),
        "highest_seed": rows["value"].max(),
        # The seeds' standard errors are of the sampling of problems; they answer the same ones, so averaging gains nothing.
        "stderr": errors.mean() if len(errors) else None,
    }


def _sweep(results: Results, method: str, task: str, step: int) -> float:
    rows = results.scores.query("method == @method and task == @task and metric == @results.accuracy and step == @step")
    return rows[rows["seed"].isin(results.lm_eval_seeds)]["value"].mean()


def _base_values(results: Results) -> dict[tuple[str, str], float]:
    """Return (task, metric) -> mean over the base models of lm-eval's seeds; {} unless each has its file."""
    paths = [results.root / "eval" / f"base{index}" / "lm_eval.json" for index in results.lm_eval_bases]
    if not all(path.is_file() for path in paths):
        return {}
    rows = [row for path in paths for row in lm_eval_rows(path, "base", 0, 0)]
    frame = pd.DataFrame(rows, columns=SCORE_COLUMNS)
    return frame.groupby(["task", "metric"])["value"].mean().to_dict()


def _cells(entry: dict) -> list[Cell]:
    error = f" ± {number(entry['stderr'])}" if entry["stderr"] is not None else ""
    cells = [Cell(f"{number(entry['lm_eval'])}{error} ({number(entry['lowest_seed'])}–{number(entry['highest_seed'])})")]
    if entry["compared_with"]:
        cells += [Cell(number(entry["other"])), Cell(signed(entry["lm_eval"] - entry["other"]))]
    assert all(cell.text != NONE for cell in cells)
    return cells


def _caption(results: Results, untouched: bool, base: bool) -> str:
    limit, repeats = (results.lm_eval.get(key) for key in ("limit", "repeats"))
    problems = f"the first {limit} problems" if limit else "all problems"
    samples = f", {repeats} samples each" if repeats else ""
    caption = (
        "The last checkpoint under lm-eval (fraction): mean over seeds ± lm-eval's standard error of one seed (lowest to "
        f"highest seed in brackets). lm-eval ran on {problems} of each task{samples}; the "
        f"{engine_label(results.engine)} columns are our own evaluation on all of them."
    )
    if (count := len(results.lm_eval_seeds)) < (total := len(results.seeds)):
        which = f"seed {results.seeds[0]}" if count == 1 else f"the first {count} seeds"
        caption += f" All of it is of {which} of each method, out of {total}: evaluation.lm_eval.seeds leaves out the others."
    if untouched:
        caption += " The task that was not trained on shows what was forgotten"
        caption += ": its difference is to the base model." if base else " (no values of the base model)."
    return caption
