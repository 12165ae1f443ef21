"""Local lm-eval tasks: the project's evaluation sets, judged by its own verifier, and a small multiple-choice set."""

from __future__ import annotations

import json
from pathlib import Path
from statistics import fmean
from typing import Any

from sdpg.evaluation.parts import EvaluationSet
from sdpg.types import Problem

FOLDER = Path(__file__).parent / "tasks"
FIELDS = ("id", "question", "answer", "solution", "source")


def prompt_texts(s: EvaluationSet, task) -> list[str]:
    """Return the prompts as text, which lm-eval knows them by; with the ids behind it where the text alone means others."""
    texts = [task.tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False) for ids in s.prompts]
    told = [task.encoder.encode_text(text) == ids for text, ids in zip(texts, s.prompts, strict=True)]
    return [text if it else f"{text} {ids}" for text, ids, it in zip(texts, s.prompts, told, strict=True)]


def sampled_task(s: EvaluationSet, task, *, repeats: int, temperature: float, max_tokens: int) -> dict[str, Any]:
    """Return lm-eval's config of one evaluation set: `repeats` sampled responses a problem (one if temperature is 0), judged
    by the project's verifier.

    Metrics: accuracy, and process_accuracy where the verifier gives one (the mean over repeats, then over problems).
    """
    repeats = repeats if temperature else 1
    texts = prompt_texts(s, task)
    docs = [
        {field: getattr(problem, field) for field in FIELDS} | {"prompt": text}
        for problem, text in zip(s.problems, texts, strict=True)
    ]
    has_process = task.score_text(s.problems[0], "").process is not None

    def dataset(**_):
        from datasets import Dataset

        return {"test": Dataset.from_list(docs)}

    def process_results(doc, results):
        """Judge responses. doc: one of docs; results: [list of `repeats` response texts, without stop]."""
        problem = Problem(*(doc[field] for field in FIELDS))
        scores = task.verifier.map(lambda text: task.score_text(problem, text), results[0])
        metrics = {"accuracy": fmean(score.correct for score in scores)}
        return metrics | ({"process_accuracy": fmean(score.process for score in scores)} if has_process else {})

    names = ["accuracy", "process_accuracy"] if has_process else ["accuracy"]
    return {
        "task": s.name,
        "custom_dataset": dataset,
        "test_split": "test",
        "output_type": "generate_until",
        "doc_to_text": "prompt",
        "doc_to_target": "answer",
        "num_fewshot": 0,  # examples are part of the prompt
        "repeats": repeats,
        "generation_kwargs": {
            "do_sample": temperature > 0,
            "temperature": temperature,
            "max_gen_toks": max_tokens,
            "until": list(task.stop),
            "stop_token_ids": list(task.eos_token_ids),
            "skip_special_tokens": True,
        },
        "filter_list": [{"name": f"mean@{repeats}", "filter": [{"function": "take_first_k", "k": repeats}]}],
        "process_results": process_results,
        "metric_list": [{"metric": name, "aggregation": "mean", "higher_is_better": True} for name in names],
        "metadata": {"version": 1.0},
    }


def bundled_names() -> list[str]:
    """Return the names of the tasks that come with the project (sdpg/evaluation/tasks)."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def bundled_task(name: str) -> dict[str, Any]:
    """Return lm-eval's config of a bundled task; its documents are the .jsonl file beside the .yaml file."""
    import yaml

    path = FOLDER / f"{name}.yaml"
    config = yaml.safe_load(path.read_text(encoding="utf-8"))
    lines = path.with_suffix(".jsonl").read_text(encoding="utf-8").splitlines()

    def dataset(**_):
        from datasets import Dataset

        return {"test": Dataset.from_list([json.loads(line) for line in lines])}

    return config | {"custom_dataset": dataset}
