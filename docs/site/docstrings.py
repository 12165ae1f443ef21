"""Griffe extension: docstrings are plain text, in which `<scale>` is no tag of HTML and no `*` begins an emphasis."""

from __future__ import annotations

import re

from griffe import Extension, Object

PLAIN = re.compile(r"(`[^`]*`)|[<*_\[\]]")


class PlainDocstrings(Extension):
    """Escape what Markdown would take for markup, outside backticks."""

    def on_object(self, *, obj: Object, **_) -> None:
        """Escape one object's docstring, unless it has a block of code."""
        if obj.docstring and "```" not in obj.docstring.value:
            obj.docstring.value = PLAIN.sub(lambda found: found[1] or "\\" + found[0], obj.docstring.value)
