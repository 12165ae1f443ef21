"""Prompts as token ids, in which a problem's text cannot write control tokens.

A prompt has a frame, written by the chat template and the prompt template, and content: the question, answer, solution or
response that is filled in. Control tokens are those that the tokenizer marks as special, those that end a response, and
added tokens written <|...|> or <｜...｜>. In the frame they are what they are; in the content their text is text, cut as the
tokenizer would cut it if it had no such token. Other added tokens (Qwen3's <think>) are text by their tokenizer's own mark:
they stay single ids wherever they stand, so that a response read as text and encoded again is the same ids.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property

from tokenizers import Tokenizer

MARKER = re.compile(r"<[|｜].+[|｜]>", re.DOTALL)
SHORTEST = 3  # characters; a shorter one, such as a "!" that pads, is a character of ordinary text as well
PRIVATE = range(0xE000, 0xF900)  # code points without a meaning


def control_tokens(tokenizer, end_ids: Sequence[int] = ()) -> dict[str, int]:
    """Return {text: id} of the tokenizer's control tokens; end_ids: tokens that end a response."""
    named = {*tokenizer.all_special_ids, *end_ids}
    return {
        token.content: i
        for i, token in tokenizer.added_tokens_decoder.items()
        if len(token.content.strip()) >= SHORTEST and (token.special or i in named or MARKER.fullmatch(token.content.strip()))
    }


class PromptEncoder:
    """Encodes prompts for one tokenizer. Attributes: control, {text: id}; opening, the ids that it puts before a text."""

    def __init__(self, tokenizer, end_ids: Sequence[int] = ()):
        self.tokenizer, self.control = tokenizer, control_tokens(tokenizer, end_ids)
        self.opening = _opening(tokenizer)
        self._ids = set(self.control.values())
        longest_first = sorted(self.control, key=len, reverse=True)
        self._pattern = re.compile("|".join(map(re.escape, longest_first)) or r"(?!)")
        self._frames: dict[str, list[int]] = {}

    def encode(self, render: Callable[[Mapping[str, str]], str], content: Mapping[str, str], *, opening: bool) -> list[int]:
        """Return the ids of `render(content)`, a prompt with these texts in it.

        opening: begin with what the tokenizer puts before a text (BOS), once, also where the frame writes it itself. What
        it puts behind a text is left out: a prompt goes on. Raises ValueError for a tokenizer that cannot do it.
        """
        ids = self._plain(render(content))
        if self._controls(ids) != self._frame_controls(render(dict.fromkeys(content, ""))):
            ids = self._careful(render, content)
        return self._opened(ids) if opening else ids

    def encode_text(self, text: str) -> list[int]:
        """Return the ids of a text that is all frame, with the opening."""
        return self._opened(self._plain(text))

    def _opened(self, ids: list[int]) -> list[int]:
        return ids if ids[: len(self.opening)] == self.opening else [*self.opening, *ids]

    def _plain(self, text: str) -> list[int]:
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def _controls(self, ids: list[int]) -> list[int]:
        return [i for i in ids if i in self._ids]

    def _frame_controls(self, frame: str) -> list[int]:
        if frame not in self._frames:
            self._frames[frame] = self._controls(self._plain(frame))
        return self._frames[frame]

    def _careful(self, render, content: Mapping[str, str]) -> list[int]:
        """Encode with the frame's control tokens under names that no content has (see `_renamed`)."""
        whole = render(content)
        mark = next(chr(code) for code in PRIVATE if chr(code) not in whole)
        marked = render({key: self._broken(text, mark) for key, text in content.items()})
        if self.tokenizer.is_fast:
            core, names = self._renamed
            return core.encode(self._pattern.sub(lambda m: names[m[0]], marked).replace(mark, ""), add_special_tokens=False).ids
        return self._pieces(marked, mark)

    def _broken(self, text: str, mark: str) -> str:
        """Put `mark` into every control token's text."""
        found = 1
        while found:  # again, where two of them overlapped
            text, found = self._pattern.subn(lambda m: m[0][0] + mark + m[0][1:], text)
        return text

    @cached_property
    def _renamed(self) -> tuple[Tokenizer, dict[str, str]]:
        """A copy of the tokenizer whose control tokens have other names, and {text: name}.

        Everything else of it is the same: normaliser, what a control token strips around it, merges at the seams. So the
        ids are those of the tokenizer itself, but for control tokens' texts, which mean nothing to the copy.
        """
        nonce = secrets.token_hex(8)
        names = {text: f"{nonce}{i:06d}" for i, text in enumerate(self.control)}
        state = json.loads(self.tokenizer.backend_tokenizer.to_str())
        state |= {"truncation": None, "padding": None}
        for token in state["added_tokens"]:
            token["content"] = names.get(token["content"], token["content"])
        model = state["model"]
        if isinstance(model["vocab"], dict):
            model["vocab"] = {names.get(text, text): i for text, i in model["vocab"].items()}
        else:
            model["vocab"] = [[names.get(text, text), score] for text, score in model["vocab"]]
        if model.get("unk_token") in names:
            model["unk_token"] = names[model["unk_token"]]
        if model.get("merges"):  # one that makes a control token of ordinary pieces would be another way to write it
            prefix = model.get("continuing_subword_prefix") or ""
            pairs = [pair if isinstance(pair, list) else pair.split(" ", 1) for pair in model["merges"]]
            model["merges"] = [[a, b] for a, b in pairs if not {a, b, a + b.removeprefix(prefix)} & names.keys()]
        core = Tokenizer.from_str(json.dumps(state))
        for text, i in self.control.items():
            if core.encode(names[text], add_special_tokens=False).ids.count(i) != 1:
                raise ValueError(self._unable(f"its token {text!r} cannot be told apart from the same characters"))
        return core, names

    def _pieces(self, marked: str, mark: str) -> list[int]:
        """Encode between the frame's control tokens, for tokenizers written in Python."""
        ids: list[int] = []
        for i, piece in enumerate(re.split(f"({self._pattern.pattern})", marked)):
            if i % 2:
                ids.append(self.control[piece])
            elif piece:
                tokens = self.tokenizer.tokenize(piece.replace(mark, ""), split_special_tokens=True)
                found = self.tokenizer.convert_tokens_to_ids(tokens)
                if bad := set(self._controls(found)) - {self.tokenizer.unk_token_id}:
                    raise ValueError(self._unable(f"it makes control tokens (ids {sorted(bad)}) of ordinary text"))
                ids += found
        return ids

    def _unable(self, why: str) -> str:
        return (
            f"a problem's text has a control token's characters in it, and the tokenizer of {self.tokenizer.name_or_path!r} "
            f"cannot encode them as text: {why}; take these characters out of the problem"
        )


def _opening(tokenizer) -> list[int]:
    """Return the ids that the tokenizer puts before every text."""
    bare, whole = (list(tokenizer("1", add_special_tokens=added)["input_ids"]) for added in (False, True))
    starts = [i for i in range(len(whole) - len(bare) + 1) if whole[i : i + len(bare)] == bare]
    return whole[: starts[0]] if starts else []
