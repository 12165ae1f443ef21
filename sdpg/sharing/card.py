"""The model card of a run's checkpoint, made of what the run left: nothing in it is typed by hand."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from sdpg.analysis.results import Results, run_parameters
from sdpg.io import ROOT, kind_of, path_of, read_json, sha256
from sdpg.markdown import table
from sdpg.tasks.pinned import load_dataset

ARXIV = "2606.04036"
CITATION = """@misc{sdpg2026,
  title = {Self-Distilled Policy Gradient},
  year = {2026},
  eprint = {2606.04036},
  archivePrefix = {arXiv},
  url = {https://arxiv.org/abs/2606.04036}
}"""
FILES = (".jsonl", ".json", ".csv", ".parquet", ".gz")  # of a path that is no data set of the hub
HUB_ID = re.compile(r"[\w.-]+/[\w.-]+(@[\w.-]+)?")


def card(results: Results, info: Mapping[str, Any], *, method: str, seed: int, step: int, to: str, licence: str | None) -> str:
    """Return the card as Markdown with its YAML header. info: run.json, already without machine paths (`shareable`)."""
    config = run_parameters(dict(info), "run.json")
    algorithm = config["algorithm"]["algorithm"]
    title, equation = _equation(algorithm)
    loss = f"Loss of a token (symbols: docs/methods/{algorithm}.md of the project):\n\n```\n{equation}\n```"
    hyperparameters = [(f"`{key}`", _text(value)) for key, value in config["algorithm"].items() if key != "algorithm"]
    base, base_id = _base(config.get("model", {}))
    header: dict[str, Any] = {"library_name": "transformers", "pipeline_tag": "text-generation"}
    header |= {"license": licence} if licence else {}
    header |= {"base_model": base_id} if base_id else {}
    header["datasets"] = sorted(set(_hub_data(config)))
    header["tags"] = list(dict.fromkeys(["sdpg", algorithm, "reinforcement-learning", f"arxiv:{ARXIV}"]))
    header = {key: value for key, value in header.items() if value}
    steps = config["train"].get("steps")
    parts = [
        f"---\n{yaml.safe_dump(header, sort_keys=False)}---",
        f"# {to.partition('/')[2]}",
        f"Step {step} of {steps} of a run of **{title}** (method `{method}`, seed {seed}, scale `{results.name}`), trained and "
        "evaluated with the benchmark and reproduction suite of Self-Distilled Policy Gradient "
        f"([arXiv {ARXIV}](https://arxiv.org/abs/{ARXIV})).",
        f"Base model: {base}." + ("" if licence else " Licence: that of the base model, unless its owner says otherwise."),
        "## Method",
        *([loss] if equation else []),
        table(["hyper-parameter", "value"], hyperparameters),
        "## Scores",
        _scores(results, method, seed, step),
        "## Data",
        _data(results.root, config, info.get("inputs", {})),
        "## How to load it",
        _loading(to, config.get("task", {})),
        "## How it was made",
        f"Commit of the project: {info.get('git_commit') or 'unknown'}. The whole configuration, also in `sdpg_run.json`:",
        f"<details><summary>Configuration</summary>\n\n```yaml\n{_yaml(config)}```\n\n</details>",
        table(["package", "version"], sorted(info.get("versions", {}).items())),
        "## Citation",
        f"```bibtex\n{CITATION}\n```",
    ]
    return "\n\n".join(parts) + "\n"


def shareable(value: Any) -> Any:
    """Return JSON data without paths of this machine: of an absolute path its last part is left, and no name of a host."""
    if isinstance(value, Mapping):
        return {key: shareable(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [shareable(inner) for inner in value]
    if isinstance(value, str) and _is_path(value):
        return Path(value).name or value
    return value


def _is_path(text: str) -> bool:
    """Return whether a text is a path of this machine. One with spaces is if it is there, or its first folder is."""
    if not text.startswith(("/", "~", "./", "../")) or "\n" in text:
        return False
    first = re.match(r"/[^/]+(?=/)", text)
    return " " not in text or kind_of(path_of(text)) is not None or (first is not None and kind_of(first[0]) == "folder")


def _equation(algorithm: str) -> tuple[str, str]:
    """Return the title and the equation of a method's page, or its registered name alone."""
    page = ROOT / "docs" / "methods" / f"{algorithm}.md"
    if not page.is_file():
        return algorithm, ""
    text = page.read_text(encoding="utf-8")
    block = re.search(r"## Equation\n.*?```\n(.*?)\n```", text, flags=re.S)
    return text.partition("\n")[0].removeprefix("# "), block[1] if block else ""


def _base(model: Mapping[str, Any]) -> tuple[str, str | None]:
    """Return what the base model is, in words, and its hub id if it has one."""
    if name := model.get("pretrained"):
        is_id = HUB_ID.fullmatch(name) is not None and kind_of(name) != "folder"
        commit = f" at `{name.partition('@')[2]}`" if "@" in name else ""
        identifier = name.partition("@")[0]
        return (f"[{identifier}](https://huggingface.co/{identifier}){commit}", identifier) if is_id else (f"`{name}`", None)
    if package := model.get("package"):
        return f"`{package['gguf']}` of the Python package `{package['module']}`", None
    return "a tiny Qwen3 architecture, trained from scratch on demonstrations (a warm start of the project)", None


def _sources(config: Mapping[str, Any]) -> Iterable[tuple[str, Mapping[str, Any]]]:
    data = config.get("data", {})
    yield "train", data.get("train", {})
    for part in ("validation", "evaluation"):
        for name, source in (data.get(part) or {}).items():
            yield f"{part}: {name}", source


def _hub_data(config: Mapping[str, Any]) -> Iterable[str]:
    for _, source in _sources(config):
        path = source.get("path")
        if "dataset" in source:
            yield load_dataset(source["dataset"]).hub
        elif isinstance(path, str) and HUB_ID.fullmatch(path) and not path.endswith(FILES) and kind_of(path) is None:
            yield path


def _licence(source: Mapping[str, Any], said: Mapping[str, Any]) -> str:
    """Return the terms of a source's problems: as it, the report of the data or the data set's file says."""
    given = [x[key] for x in (source, said) for key in ("licence", "license") if x.get(key)]
    if given:
        return str(given[0])
    if "dataset" in source:
        return load_dataset(source["dataset"]).licence
    return "not stated" if "path" in source else "generated"


def _data(root: Path, config: Mapping[str, Any], inputs: Mapping[str, str]) -> str:
    report = read_json(root / "data" / "report.json") if (root / "data" / "report.json").is_file() else {}
    rows = []
    for name, source in _sources(config):
        part, _, inner = name.partition(": ")
        said = report.get(part, {}).get(inner, {}) if inner else report.get(part, {})
        file = root / "data" / {"validation": "validation", "evaluation": "eval"}.get(part, "") / f"{inner}.parquet"
        digest = sha256(file) if inner and file.is_file() else inputs.get("train.parquet") if not inner else None
        problems, shown = str(said.get("problems", "?")), f"`{digest}`" if digest else "?"
        rows.append((name, f"`{_text(source)}`", problems, _licence(source, said), shown))
    hashes = [(f"`{name}`", f"`{digest}`") for name, digest in inputs.items() if "/" not in name and name != "train.parquet"]
    own = f"\n\nWhat the run started from, by SHA-256:\n\n{table(['file', 'sha256'], hashes)}" if hashes else ""
    return table(["set", "source", "problems", "licence", "sha256 as used"], rows) + own


def _scores(results: Results, method: str, seed: int, step: int) -> str:
    path, intervals = results.root / "scores.csv", results.root / "intervals.csv"
    if not path.is_file():
        return "Not evaluated yet."
    frame = pd.read_csv(path)
    own = frame[(frame["method"] == method) & (frame["seed"] == seed) & (frame["step"] == step)]
    if own.empty:
        return f"Step {step} was not evaluated."
    over = pd.read_csv(intervals) if intervals.is_file() else None
    rows = []
    for row in own.itertuples():
        cell = ""
        if over is not None:
            of = over[(over["method"] == method) & (over["task"] == row.task) & (over["metric"] == row.metric)]
            of = of[(of["selection"] == "step") & (of["step"] == step)]
            if len(of) == 1:
                one, seeds = of.iloc[0], int(of.iloc[0]["seeds"])
                cell = f"{one['mean']:.3f} [{one['low']:.3f}, {one['high']:.3f}], {seeds} seed{'s' * (seeds != 1)}"
        rows.append((row.task, row.metric, f"{row.value:.3f}", cell))
    text = table(["evaluation set", "metric", "this checkpoint", "the method over its seeds, with 95% interval"], rows)
    return f"At step {step}, on {len(set(own['task']))} evaluation sets:\n\n{text}"


def _loading(to: str, task: Mapping[str, Any]) -> str:
    code = [
        "from transformers import AutoModelForCausalLM, AutoTokenizer",
        "",
        f'tokenizer = AutoTokenizer.from_pretrained("{to}")',
        f'model = AutoModelForCausalLM.from_pretrained("{to}", dtype="auto")',
    ]
    template = task.get("template", "unknown")
    chat = ", in the tokenizer's chat template" if task.get("chat_template") else ""
    how = f"It was trained with the prompts of the template `{template}`{chat} (sdpg/tasks/templates of the project)."
    return "```python\n" + "\n".join(code) + f"\n```\n\n{how}"


def _text(value: Any) -> str:
    text = yaml.safe_dump(value, default_flow_style=True, sort_keys=False, width=10_000, allow_unicode=True)
    return text.removesuffix("\n...\n").strip()


def _yaml(value: Any) -> str:
    return yaml.safe_dump(value, sort_keys=False, allow_unicode=True)
