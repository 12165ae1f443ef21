"""The one interface between rollouts and everything else. Every engine passes tests/rollout/test_contract.py."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import Protocol

from sdpg.types import Rollout, Sampling


class Engine(Protocol):
    """Samples responses from a copy of the policy that it owns.

    An engine that several processes hold together says in `processes` how many; all of them then make the same calls. One that
    has responses before the last is there also has `generate_each`, with the arguments of `generate`: it yields (i, the n
    responses to prompt i) as soon as these are complete, in any order. `own_names = True`: it takes the names of the model in
    memory as well as those of its checkpoint, which differ where transformers joins experts. `unmapped_bytes`: how much of what
    torch counts as allocated on this GPU is not there while it sleeps.
    """

    def generate(
        self, prompts: Sequence[Sequence[int]], n: int, sampling: Sampling, seed: int | Sequence[int]
    ) -> list[list[Rollout]]:
        """Sample `n` responses for each prompt (token ids): result[i][j] is response j to prompt i.

        seed: one for the call, or one per prompt; the same seed, prompt and weights give the same responses on the same
        machine. Raises ValueError for an empty prompt, or one that leaves no room for `sampling.max_tokens` tokens.
        """

    def load_weights(self, named_tensors: Iterable[tuple[str, object]], version: int) -> None:
        """Replace the weights in place by (HF parameter name, tensor) pairs; later rollouts carry `policy_version=version`."""

    def sleep(self) -> None:
        """Give back what memory can be given back until the next `load_weights`, before which nothing can be generated."""

    def close(self) -> None:
        """Free the engine's memory. It cannot be used afterwards."""


def check_prompts(prompts: Sequence[Sequence[int]], max_tokens: int, max_len: int) -> None:
    """Raise ValueError for an empty prompt, or one that leaves no room for `max_tokens` within `max_len` tokens."""
    for i, prompt in enumerate(prompts):
        if not len(prompt):
            raise ValueError(f"prompt {i} is empty: got 0 tokens, expected at least 1")
        if len(prompt) + max_tokens > max_len:
            raise ValueError(
                f"prompt {i} has {len(prompt)} tokens; with {max_tokens} response tokens that exceeds the engine's "
                f"max_len of {max_len}; raise max_len, or shorten the prompt or max_tokens"
            )


def prompt_seeds(seed: int | Sequence[int], count: int) -> list[int]:
    """Return one seed per prompt: a sequence is taken as it is, one number is spread so that the prompts draw differently."""
    if isinstance(seed, int):
        return [derive_seed(seed, i) for i in range(count)]
    if len(seed) != count:
        raise ValueError(f"got {len(seed)} seeds for {count} prompts; give one number, or one seed per prompt")
    return list(seed)


def derive_seed(*parts: int | str) -> int:
    """Return a 62-bit seed that depends on every part, and on nothing else (not on the process, machine or Python's hash
    seed).
    """
    digest = hashlib.blake2b("/".join(map(str, parts)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 2
