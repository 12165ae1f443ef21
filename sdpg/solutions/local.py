"""A model on this machine, in a rollout engine."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from datetime import date
from pathlib import Path
from typing import Any

from sdpg.config.settings import Config
from sdpg.config.solutions import Local
from sdpg.io import path_of
from sdpg.rollout.engine import derive_seed
from sdpg.rollout.engines import make_engine
from sdpg.rollout.placement import own_gpu, share
from sdpg.solutions.asking import Answer, Ask, Refused, Stop
from sdpg.solutions.prompt import Prompt
from sdpg.tasks.plain_text import PromptEncoder
from sdpg.tasks.task import eos_token_ids
from sdpg.types import Sampling

AT_ONCE = 32  # prompts of a call of an engine that answers when all are done


class LocalWriter:
    """Writer (see `asking.Writer`). The engine starts with the first prompt.

    Raises ValueError for a model that cannot be loaded, or has too short a context.
    """

    host = "local"

    def __init__(self, settings: Local, config: Config, prompt: Prompt, threads: int):
        from transformers import AutoConfig, AutoTokenizer

        self.settings, self.prompt, self.threads, self.config = settings, prompt, threads, config
        self.folder = fetched(settings.model)
        try:
            self.tokenizer = AutoTokenizer.from_pretrained(self.folder)
            model = AutoConfig.from_pretrained(self.folder).get_text_config()
        except Exception as error:  # broken files of all kinds
            said = " ".join(str(error).split())[:300]
            raise ValueError(
                f"data.solutions.local.model: {settings.model} cannot be loaded: {type(error).__name__}: {said}"
            ) from error
        self.length = settings.max_prompt_tokens + settings.max_tokens
        context = getattr(model, "max_position_embeddings", None)
        if context and self.length > context:
            raise ValueError(
                f"data.solutions.local: max_prompt_tokens + max_tokens: got {settings.max_prompt_tokens} + "
                f"{settings.max_tokens}, but {settings.model} has {context} positions; lower one of them"
            )
        self.ends = eos_token_ids(self.tokenizer)
        self.encoder = PromptEncoder(self.tokenizer, self.ends)
        self.today = date.fromisoformat(config.task.chat_date)
        self.engine = None

    def cost(self, prompt_tokens: float, completion_tokens: float) -> float:
        """Return 0: nobody sends a bill."""
        return 0.0

    def close(self) -> None:
        """Free the engine's memory."""
        if self.engine is not None:
            self.engine.close()

    def ask(self, asks: Iterable[Ask], stop: Stop) -> Iterator[Answer | Refused]:
        """See `Writer.ask`."""
        fitting: list[tuple[Ask, list[int]]] = []
        for ask in asks:
            ids = self.encode(ask)
            if len(ids) > self.settings.max_prompt_tokens:
                yield Refused(ask, f"a prompt of more than max_prompt_tokens={self.settings.max_prompt_tokens}")
            else:
                fitting.append((ask, ids))
        if fitting and self.engine is None:
            self.engine = self._started()
        whole = hasattr(self.engine, "generate_each")
        size = len(fitting) if whole else AT_ONCE
        for start in range(0, len(fitting), size or 1):
            part, began = fitting[start : start + size], time.monotonic()
            for i, rollout in self._generated(part, whole):
                (ask, ids), seconds = part[i], round(time.monotonic() - began, 3)
                text = self.text(rollout.ids)
                yield Answer(ask, text, rollout.finish_reason, len(ids), len(rollout.ids), seconds, self.settings.model)
                if stop.asked:
                    return

    def encode(self, ask: Ask) -> list[int]:
        """Return a prompt's token ids, in the model's chat format if it has one; control tokens in the data are text."""
        chat = bool(getattr(self.tokenizer, "chat_template", None))
        try:
            return self.encoder.encode(
                self._chat if chat else self.prompt.render, self.prompt.content(ask.problem), opening=not chat
            )
        except ValueError as error:
            raise ValueError(f"data.solutions.local: problem {ask.problem.id!r}: {error}") from error

    def text(self, ids: list[int]) -> str:
        """Return a response as text, without its end token."""
        ids = ids[:-1] if ids and ids[-1] in self.ends else ids
        return self.tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)

    def _chat(self, content) -> str:
        try:
            return self.tokenizer.apply_chat_template(
                [{"role": "user", "content": self.prompt.render(content)}],
                tokenize=False,
                add_generation_prompt=True,
                strftime_now=self.today.strftime,
                **self.settings.chat_template_kwargs,
            )
        except Exception as error:  # templates are programs of others
            raise ValueError(f"the chat template of {self.settings.model} fails: {' '.join(str(error).split())}") from error

    def _started(self):
        given: Any = self.config.resources.vllm
        kept = {"memory": given.memory, "max_num_seqs": given.max_num_seqs, "prefix_caching": given.prefix_caching}
        room = share(own_gpu(), alone=True, **kept)
        how = {"dtype": self.settings.dtype, "max_len": self.length, "threads": self.threads}
        return make_engine(self.settings.engine, self.folder, **how, share=room)

    def _generated(self, part: list[tuple[Ask, list[int]]], whole: bool):
        """Yield (place in part, rollout) as they come; their seeds depend on the try and the problem alone."""
        prompts = [ids for _, ids in part]
        seeds = [derive_seed(ask.request) for ask, _ in part]
        sampling = Sampling(self.settings.temperature, self.settings.max_tokens, self.ends)
        if whole:
            yield from ((i, group[0]) for i, group in self.engine.generate_each(prompts, 1, sampling, seeds))
        else:
            yield from ((i, group[0]) for i, group in enumerate(self.engine.generate(prompts, 1, sampling, seeds)))


def identity(settings: Local, content: list[str]) -> dict[str, Any]:
    """Return all that a response depends on, but for the prompt and the number of the try. content: of a folder's files."""
    own = settings.model_dump(exclude={"tries", "prompt", "show_answer", "max_prompt_tokens"})
    return {**own, "kind": "local", "model": content or settings.model}


def fetched(model: str) -> Path:
    """Return a checkpoint's folder, which for a hub id is fetched into the hub's own cache. Raises ValueError."""
    folder = path_of(model)
    if folder.is_dir():
        return folder
    from huggingface_hub import snapshot_download

    name, _, revision = model.partition("@")
    try:
        return Path(
            snapshot_download(name, revision=revision or None, ignore_patterns=["*.pth", "*.msgpack", "*.h5", "*.onnx"])
        )
    except Exception as error:  # no network, no such id, a gated one ...
        said = " ".join(str(error).split())[:300]
        raise ValueError(f"data.solutions.local.model: {model} cannot be fetched: {type(error).__name__}: {said}") from error
