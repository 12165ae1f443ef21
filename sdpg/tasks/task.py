"""A task as training and evaluation see it: prompts as token ids, the ids that end a response, and the score."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path

from sdpg.tasks.chat import Chat, make_chats
from sdpg.tasks.plain_text import PromptEncoder
from sdpg.tasks.prompts import Template, load_template
from sdpg.tasks.verifiers import make_verifier
from sdpg.types import Problem, Rollout, Score, Settings

OWN_VERIFIER = {"reverse": "reverse"}  # problems from these sources are judged by their own rule whatever the task's is


def make_task(settings: Settings, tokenizer, *, name: str | None = None) -> Task:
    """Return the task of a config's block `task` for a checkpoint's tokenizer. name: of the model in errors, else the path of
    its tokenizer.

    Raises ValueError for an unknown template or verifier, a stop string of more than one character, a tokenizer without
    end-of-sequence token, and with `chat_template: true` for a chat template that is not there or does not work (see `Chat`).
    """
    chats = make_chats(settings, tokenizer, name or tokenizer.name_or_path)
    return Task(load_template(settings.template), settings.verifier, tokenizer, stop=tuple(settings.stop), chats=chats)


class Task:
    """Built by `make_task`. Attributes: template, verifier, stop, stop_token_ids."""

    def __init__(
        self,
        template: Template,
        verifier: str,
        tokenizer,
        *,
        stop: tuple[str, ...] = (),
        chats: tuple[Chat, Chat] | None = None,
    ):
        self.template, self.tokenizer, self.stop = template, tokenizer, stop
        self._student_chat, self._teacher_chat = chats or (None, None)
        self.verifier = make_verifier(verifier, template.answer_after)
        self._own = {source: make_verifier(name) for source, name in OWN_VERIFIER.items()}
        self.eos_token_ids = eos_token_ids(tokenizer)
        self.stop_token_ids: tuple[int, ...] = stop_token_ids(tokenizer, stop, self.eos_token_ids)

    def student_prompt(self, problem: Problem) -> list[int]:
        """Return token ids of what the policy sees: made from the question alone."""
        return self._encode(self.template.student_text, self._student_chat, {"question": problem.question}, problem)

    def teacher_prompt(self, problem: Problem) -> list[int]:
        """Return token ids of the prompt with the privileged context."""
        return self._hinted(problem, problem.solution)

    def sibling_prompt(self, problem: Problem, ids: list[int]) -> list[int]:
        """Return the teacher's prompt with a successful response (its ids) in the place of the worked solution (SDPO)."""
        return self._hinted(problem, self.text(ids))

    def wrong_prompt(self, problem: Problem, ids: list[int]) -> list[int] | None:
        """Return the same with a wrong response and the answer that it gives in the places of solution and answer (RLCSD).

        None if it says nothing, or gives no answer while the template shows one: it would be the right one.
        """
        text = self.text(ids)
        answer = self._own.get(problem.source, self.verifier).given(text) if self.template.shows_answer else problem.answer
        return self._hinted(problem, text, answer) if text.strip() and answer else None

    def text(self, ids: list[int]) -> str:
        """Return a response as text: without special tokens and end tokens, and cut at the first stop string."""
        if ids and ids[-1] in self.eos_token_ids:
            ids = ids[:-1]
        text = self.tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        for stop in self.stop:
            text = text.partition(stop)[0]
        return text

    def score(self, problem: Problem, ids: list[int], finish_reason: str) -> Score:
        """Return the verifier's judgement of one response. A response that did not stop by itself is wrong."""
        return _finished(self.score_text(problem, self.text(ids)), finish_reason)

    def score_many(self, problems: Sequence[Problem], rollouts: Sequence[Rollout]) -> list[Score]:
        """Return `score` of each rollout, a response to the problem at its place; several at once, where processes judge."""
        texts = ((p, self.text(r.ids)) for p, r in zip(problems, rollouts, strict=True))
        scores = self.verifier.map(lambda item: self.score_text(*item), texts)
        return [_finished(score, r.finish_reason) for score, r in zip(scores, rollouts, strict=True)]

    def score_text(self, problem: Problem, text: str) -> Score:
        """Return the same for a response that stopped and is text already (see `text`)."""
        return self._own.get(problem.source, self.verifier)(problem, text)

    @property
    def failures(self) -> dict[str, int]:
        """How often the verifier could not judge a response (and called it wrong), by reason."""
        return dict(self.verifier.failures)

    def close(self) -> None:
        """End the verifier's child processes, if there are any; they also end with this process."""
        self.verifier.close()

    @cached_property
    def encoder(self) -> PromptEncoder:
        """What makes token ids of prompts."""
        return PromptEncoder(self.tokenizer, self.eos_token_ids)

    def _hinted(self, problem: Problem, solution: str, answer: str | None = None) -> list[int]:
        answer = problem.answer if answer is None else answer
        content = {"question": problem.question, "answer": answer, "solution": solution}
        return self._encode(self.template.teacher_text, self._teacher_chat, content, problem)

    def _encode(self, fill: Callable[..., str], chat: Chat | None, content: Mapping[str, str], problem: Problem) -> list[int]:
        """Return the ids of a template filled with `content`, in the chat format if there is one. Raises ValueError."""

        def render(content: Mapping[str, str]) -> str:
            text = fill(**content)
            return chat.render(text) if chat else text

        try:  # a chat template writes BOS itself
            ids = self.encoder.encode(render, content, opening=chat is None)
        except ValueError as error:
            raise ValueError(f"problem {problem.id!r}: {error}") from error
        unknown = self.tokenizer.unk_token_id  # some tokenizers use one token for this and for the ends of a text
        if unknown in ids and not chat and unknown not in (*self.eos_token_ids, self.tokenizer.bos_token_id):
            raise ValueError(
                f"problem {problem.id!r}: its prompt has characters that the tokenizer does not know: "
                f"{render(content)[:120]!r}; take problems, or a template, that fit the model"
            )
        return ids


def _finished(score: Score, finish_reason: str) -> Score:
    """Return the score of a response that is wrong unless it stopped by itself."""
    if finish_reason == "stop":
        return score
    return Score(False, None if score.process is None else 0.0, score.unjudged)


def eos_token_ids(tokenizer) -> tuple[int, ...]:
    """Return the tokenizer's end token, and those of the checkpoint's generation_config.json if it lies beside the
    tokenizer.
    """
    ids = {tokenizer.eos_token_id} - {None}
    path = Path(tokenizer.name_or_path or "") / "generation_config.json"
    if path.is_file():
        try:
            listed = json.loads(path.read_text(encoding="utf-8")).get("eos_token_id")
        except (ValueError, AttributeError) as error:
            raise ValueError(f"{path} is no JSON object: {error}; mend it, or leave it out") from None
        listed = listed if isinstance(listed, list) else [] if listed is None else [listed]
        if bad := [i for i in listed if not isinstance(i, int) or isinstance(i, bool) or i < 0]:
            raise ValueError(f"{path}: eos_token_id has {bad[0]!r}, expected a token's id, or a list of them")
        ids |= set(listed)
    if not ids:
        raise ValueError(f"the tokenizer of {tokenizer.name_or_path!r} has no end-of-sequence token; set its eos_token")
    return tuple(sorted(ids))


def stop_token_ids(tokenizer, stop: tuple[str, ...], eos: tuple[int, ...]) -> tuple[int, ...]:
    """Return `eos` and every token of the vocabulary whose text contains one of the stop strings.

    One ASCII character each: such a character always lies inside one token, so that stopping on tokens is exact in every
    engine. A longer string can begin in one token and end in the next, which no list of tokens catches.
    """
    for text in stop:
        if len(text) != 1 or not text.isascii():
            raise ValueError(
                f"task.stop: got {text!r}, expected one ASCII character such as '\\n'. Responses end on tokens, and a "
                "longer string can be spread over several tokens, so stopping on it would differ between engines"
            )
    special = set(tokenizer.all_special_ids)
    found = set(eos)
    if stop:
        for i in range(len(tokenizer)):
            if i not in special and any(text in tokenizer.decode([i]) for text in stop):
                found.add(i)
    return tuple(sorted(found))
