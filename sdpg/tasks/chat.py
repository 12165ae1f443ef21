"""A tokenizer's chat template as student or teacher sees it: system prompt, options, and a day that never changes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from sdpg.types import Settings

PROBE = "What is 1 + 1?"


class Chat:
    """Puts a prompt's text into the chat template of `tokenizer`, as the user's message.

    who: "student" or "teacher", whose settings these are. system: its system prompt, None or "" for none. options: variables
    of the template, such as {"enable_thinking": False}. date: "YYYY-MM-DD", today for a template that asks. name: of the model.
    Raises ValueError if there is no template, if it fails on such a prompt or leaves out the message or the system prompt, and
    for an option that it does not read.
    """

    def __init__(self, tokenizer, *, who: str, system: str | None, options: Mapping[str, Any], date: str, name: str):
        self._tokenizer, self._who, self._system, self._options = tokenizer, who, system or None, dict(options)
        self._now = datetime.fromisoformat(date)
        self._where = name
        if not getattr(tokenizer, "chat_template", None):
            raise ValueError(
                f"task.chat_template is true, but the tokenizer of {name!r} has no chat template; "
                "set task.chat_template to false, or take a chat model"
            )
        file = Path(tokenizer.name_or_path or "") / "chat_template.jinja"
        self._where = str(file) if file.is_file() and name == tokenizer.name_or_path else name
        self._check_options()
        probe = self.render(PROBE)
        for what, text, mend in (
            ("the user's message", PROBE, "set task.chat_template to false"),
            ("the system prompt", self._system, f"put its text into task.template, and leave {self._key('system')} out"),
        ):
            if text and text.strip() not in probe:
                raise ValueError(f"the chat template of {self._where!r} leaves out {what} of the {who}; {mend}")

    def render(self, text: str) -> str:
        """Return the prompt with the chat template around it, ready for the response."""
        messages = [{"role": "system", "content": self._system}] if self._system else []
        messages.append({"role": "user", "content": text})
        try:
            return self._tokenizer.apply_chat_template(
                messages, tokenize=False, add_generation_prompt=True, strftime_now=self._now.strftime, **self._options
            )
        except Exception as error:  # templates are programs of others: they raise what they like
            said = " ".join(str(error).split()) or "no message"
            hint = f"; does it take a system prompt ({self._key('system')})?" if self._system else ""
            raise ValueError(
                f"the chat template of {self._where!r} fails on the {self._who}'s prompt: {type(error).__name__}: {said}{hint}"
                "; mend the template, or set task.chat_template to false"
            ) from error

    def _key(self, key: str) -> str:
        return f"task.{'teacher_' if self._who == 'teacher' else ''}{key}"

    def _check_options(self) -> None:
        """Refuse an option whose name the template does not have anywhere, since it would change nothing."""
        try:
            source = self._tokenizer.get_chat_template()
        except ValueError as error:  # several named templates, none of them the default
            said = " ".join(str(error).split())
            raise ValueError(f"the chat template of {self._where!r} cannot be chosen: {said}") from error
        words = sorted(set(re.findall(r"[^\W\d]\w*", source)))
        for option in self._options:
            if option not in words and option not in ("tools", "documents"):
                near = get_close_matches(option, words, n=1)
                hint = f"; nearest: {near[0]!r}" if near else ""
                raise ValueError(
                    f"{self._key('chat_template_kwargs')}.{option}: the chat template of {self._where!r} does not read "
                    f"{option!r}{hint}; leave it out"
                )


def make_chats(settings: Settings, tokenizer, name: str) -> tuple[Chat, Chat] | None:
    """Return the chat formats of student and teacher from a config's block `task`, None without chat_template.

    The teacher's system prompt and options are the student's unless given.
    """
    system, options = settings.system, settings.chat_template_kwargs
    own_system, own_options = settings.teacher_system, settings.teacher_chat_template_kwargs
    given = {"date": settings.chat_date, "name": name}
    if not settings.chat_template:
        return None
    student = Chat(tokenizer, who="student", system=system, options=options, **given)
    system, options = system if own_system is None else own_system, options if own_options is None else own_options
    return student, Chat(tokenizer, who="teacher", system=system, options=options, **given)
