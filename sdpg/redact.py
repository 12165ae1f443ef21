"""Keys out of what is shown: messages of other libraries may quote the user's tokens, and logs are kept and shared."""

from __future__ import annotations

import os
import re

SECRET = re.compile(r"(KEY|TOKEN|SECRET|PASSWORD|CREDENTIALS?)$")  # the end of the name of a variable that holds one
SHORTEST = 6  # characters of a value that is taken out; a shorter one is a flag, not a key
TOKENS = re.compile(r"\b(hf_|wandb_v1_|sk-)\w{8,}|(?<=token=)[^\s&\"']+|(?<=Bearer )\S+|(?<=://)[^\s/@]+(?=@)")


def redacted(text: object, most: int = 300) -> str:
    """Return a text on one line, cut at `most` characters, with `***` for keys: values of the environment, and known forms."""
    line = " ".join(str(text).split())
    values = {value for name, value in os.environ.items() if SECRET.search(name.upper()) and len(value) >= SHORTEST}
    for value in sorted(values, key=len, reverse=True):
        line = line.replace(value, "***")
    line = TOKENS.sub("***", line)
    return line if len(line) <= most else f"{line[:most]}..."
