"""Problems from reasoning-gym's generators, worded for a prompt, and scored by the generator's own scorer.

A mix names its parts; each is a generator with its options:

    mix:
      sum-2: {dataset: basic_arithmetic, weight: 6, question: "What is {expression}?",
              solution: "{expression} = {answer}.", operators: ["+"], allow_parentheses: false, ...}

`dataset` defaults to the part's name, `weight` to 1. `question` and `solution` are optional wordings with {question},
{answer} and any field of the entry's metadata. Everything else goes to the generator. A problem's `source` says how to
generate its entry again, which is what the scorer needs: nothing of the entry has to be stored.
"""

from __future__ import annotations

import json
import random
import re
import warnings
from difflib import get_close_matches
from functools import lru_cache

from sdpg.types import Problem

with warnings.catch_warnings():
    warnings.simplefilter("ignore", SyntaxWarning)  # of a dependency of reasoning-gym, at its first import
    from reasoning_gym.factory import DATASETS, create_dataset

PREFIX = "reasoning-gym "
_FIELD = re.compile(r"\{(\w+)\}")


@lru_cache(maxsize=64)
def _dataset(name: str, options: str):
    """Make the generator of one part; options as JSON. Raises ValueError with the nearest name, or the option that is
    wrong.
    """
    if name not in DATASETS:
        near = get_close_matches(name, sorted(DATASETS), n=3, cutoff=0.5)
        hint = f"; nearest: {', '.join(near)}" if near else ""
        raise ValueError(f"reasoning-gym has no dataset {name!r}{hint}; it has {len(DATASETS)} datasets")
    try:
        return create_dataset(name, **json.loads(options))
    except (AssertionError, TypeError, ValueError) as error:
        raise ValueError(f"reasoning-gym dataset {name!r} does not take {options}: {error}") from error


def regenerate(source: str):
    """Return (dataset, entry) of a problem's `source`, for `dataset.score_answer(answer, entry)`."""
    if not source.startswith(PREFIX):
        raise ValueError(f"got a problem from {source[:80]!r}, expected one from reasoning-gym; choose another verifier")
    name, options, index = json.loads(source[len(PREFIX) :])
    dataset = _dataset(name, json.dumps(options, sort_keys=True))
    return dataset, dataset[index]


def gym_problems(mix: dict[str, dict], count: int, seed: int, prefix: str = "gym") -> list[Problem]:
    """Return `count` problems drawn from the parts of `mix` by weight; the same arguments give the same problems."""
    if not mix:
        raise ValueError("reasoning-gym: 'mix' is empty; name at least one dataset")
    if count < 1:
        raise ValueError(f"reasoning-gym: count must be >= 1, got {count}")
    parts = list(mix)
    weights = [float((mix[part] or {}).get("weight", 1.0)) for part in parts]
    if min(weights) < 0 or not sum(weights):
        raise ValueError(f"reasoning-gym: weights must be >= 0 and not all 0, got {dict(zip(parts, weights, strict=True))}")
    rng = random.Random(f"gym/{seed}")
    problems = []
    for i in range(count):
        part = rng.choices(parts, weights)[0]
        problems.append(_problem(f"{prefix}-{i:06d}", part, dict(mix[part] or {}), seed, i, count))
    return problems


def _problem(id: str, part: str, options: dict, seed: int, index: int, count: int) -> Problem:
    name = options.pop("dataset", part)
    options.pop("weight", None)
    question, solution = options.pop("question", "{question}"), options.pop("solution", None)
    # each part has its own stream, so two parts with one generator do not repeat each other
    options.setdefault("seed", random.Random(f"gym/{seed}/{part}").randrange(2**31))
    options.setdefault("size", count)
    entry = _dataset(name, json.dumps(options, sort_keys=True))[index]
    fields = {**entry["metadata"], "question": entry["question"], "answer": entry["answer"]}
    if solution is None:
        solution = "{answer_cot}" if "answer_cot" in fields else ""
    source = PREFIX + json.dumps([name, options, index], sort_keys=True)
    return Problem(id, _word(question, fields, part), str(entry["answer"]), _word(solution, fields, part), source)


def _word(template: str, fields: dict, part: str) -> str:
    """Fill a wording; an unknown {field} is an error that names the fields of the entry."""

    def value(match: re.Match) -> str:
        if match[1] not in fields:
            known = ", ".join(sorted(map(str, fields)))
            raise ValueError(f"reasoning-gym part {part!r}: the entry has no {{{match[1]}}}; it has {known}")
        return str(fields[match[1]])

    return _FIELD.sub(value, template)
