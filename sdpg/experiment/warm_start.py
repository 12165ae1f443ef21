"""Supervised warm start of the tiny base model: demonstrations with a noise model, and the training loop.

The student's level is set by the noise of the demonstrations, not by stopping early: each fact (a, op, b) has its own
fixed error rate, so the base model is wrong about particular facts and can learn them by trial. Hinted demonstrations
have no wrong values but skip to the answer more often: a teacher that is right, and biased towards a shortcut.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Collection
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from sdpg.config.settings import WarmStart
from sdpg.progress import Progress
from sdpg.tasks.chain import ANSWER_MARK, DIGITS, MODULUS, OPERATORS, apply, draw_question, parse_question, work
from sdpg.tasks.pauses import LONGEST, MARK

GROUPS = 2  # a batch is run in this many parts of similar length, so that short demonstrations are not padded to long ones


@dataclass(frozen=True)
class Demonstration:
    """A prompt and the response to imitate, as text; the end-of-sequence token is added when it is tokenised."""

    prompt: str
    response: str


class Demonstrator:
    """An endless, seeded stream of demonstrations.

    prompts: (question, answer, solution, hinted) -> prompt text; questions in `exclude` (the evaluation sets) never occur.
    """

    def __init__(
        self, config: WarmStart, seed: int, prompts: Callable[[str, str, str, bool], str], exclude: Collection[str] = ()
    ):
        self.config, self.prompts, self.exclude = config, prompts, frozenset(exclude)
        self.rng = random.Random(f"demonstrations/{seed}")
        self.error_rate = fact_error_rates(config.error_rate, seed)
        self.slip: dict[tuple[int, str, int], int] = {}  # a fact's wrong value less the right one, where it is always the same
        self.misconceptions: frozenset[tuple[int, str, int]] = frozenset()
        if config.pauses:
            facts, rng = sorted(self.error_rate), random.Random(f"misconceptions/{seed}")
            self.slip = {fact: rng.randrange(1, MODULUS) for fact in facts}
            self.misconceptions = frozenset(rng.sample(facts, round(config.pauses.misconceptions * len(facts))))
            self.error_rate |= dict.fromkeys(self.misconceptions, config.pauses.misconception_rate)

    def draw(self) -> Demonstration:
        """Return one demonstration: `reverse`, a hinted chain or a plain chain, by the configured shares."""
        c, rng = self.config, self.rng
        if rng.random() < c.reverse:
            text = "".join(rng.choice(DIGITS) for _ in range(rng.choice((4, 5, 6))))
            return Demonstration(f"<{text}?", text[::-1])
        question = draw_question(rng, rng.choice(c.operations))
        while question in self.exclude:
            question = draw_question(rng, rng.choice(c.operations))
        hinted = rng.random() < c.hinted
        solution, answer = work(question)
        return Demonstration(self.prompts(question, answer, solution, hinted), self._response(question, answer, hinted))

    def _response(self, question: str, answer: str, hinted: bool) -> str:
        """Return the chain with running values; a wrong value is carried on, a jump ends the chain with the right answer."""
        jump = self.config.jump_hinted if hinted else self.config.jump_plain
        value, steps = parse_question(question)
        text = str(value)
        pauses = self._pauses(hinted)
        for op, b in steps:
            if self.rng.random() < jump and not pauses:  # who takes time skips nothing
                return f"{text}{ANSWER_MARK}{answer}"
            right = apply(value, op, b)
            wrong = not hinted and self.rng.random() < self.error_rate[value, op, b]
            slip = (self.slip.get((value, op, b)) or self.rng.randrange(1, MODULUS)) if wrong else 0
            value = (right + slip) % MODULUS
            text += f"{op}{b}={value}{self._marks() if pauses else ''}"
        return f"{text}{ANSWER_MARK}{value}"

    def _pauses(self, hinted: bool) -> bool:
        """Return whether the next demonstration pauses after its values."""
        p = self.config.pauses
        return p is not None and self.rng.random() < (p.hinted if hinted else p.plain)

    def _marks(self) -> str:
        """Return a pause."""
        marks = MARK
        while len(marks) < LONGEST and self.rng.random() < self.config.pauses.goes_on:
            marks += MARK
        return marks


def fact_error_rates(mean: float, seed: int) -> dict[tuple[int, str, int], float]:
    """Return a fixed error rate for each fact (a, op, b), uniform on the widest interval in [0, 1] that is centred on
    `mean`.
    """
    rng = random.Random(f"facts/{seed}")
    half = min(mean, 1 - mean)
    return {
        (a, op, b): mean + half * (2 * rng.random() - 1) for a in range(MODULUS) for op in OPERATORS for b in range(MODULUS)
    }


def batch_parts(demonstrations: list[Demonstration], tokenizer) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Return [(ids [B, T], labels [B, T])] in GROUPS parts by length, padded right; labels are -100 on prompt and padding."""
    texts = [d.prompt for d in demonstrations] + [d.response for d in demonstrations]
    ids = tokenizer(texts, add_special_tokens=False)["input_ids"]
    rows = []
    for prompt, response in zip(ids[: len(demonstrations)], ids[len(demonstrations) :], strict=True):
        response = [*response, tokenizer.eos_token_id]
        rows.append((prompt + response, [-100] * len(prompt) + response))
    rows.sort(key=lambda row: len(row[0]))
    size = -(-len(rows) // GROUPS)
    parts = []
    for i in range(0, len(rows), size):
        part = rows[i : i + size]
        width = len(part[-1][0])
        ids = torch.tensor([x + [tokenizer.pad_token_id] * (width - len(x)) for x, _ in part])
        labels = torch.tensor([y + [-100] * (width - len(y)) for _, y in part])
        parts.append((ids, labels))
    return parts


def train(model, tokenizer, demonstrator: Demonstrator, config: WarmStart) -> float:
    """Train `model` in place (AdamW, cosine schedule, clip 1.0, token mean over responses); returns the last loss."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=config.lr, betas=(0.9, 0.99), weight_decay=0.01)
    warm = max(1, config.steps // 20)
    model.train()
    loss_value = math.nan
    with Progress(config.steps, "warm start", "step") as progress:
        for k in range(config.steps):
            share = min(1.0, (k + 1) / warm) * 0.5 * (1 + math.cos(math.pi * k / config.steps))
            for group in optimizer.param_groups:
                group["lr"] = config.lr * share
            parts = batch_parts([demonstrator.draw() for _ in range(config.batch_size)], tokenizer)
            tokens = sum(int((labels[:, 1:] != -100).sum()) for _, labels in parts)
            total = torch.zeros(())
            for ids, labels in parts:
                # causal and padded on the right: no response token sees padding, so no attention mask is needed
                logits = model(input_ids=ids[:, :-1], use_cache=False).logits  # (B, T-1, V)
                loss = F.cross_entropy(logits.flatten(0, 1), labels[:, 1:].flatten(), reduction="sum") / tokens
                loss.backward()
                total += loss.detach()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            loss_value = float(total)
            progress.update(1, f"loss {loss_value:.3f}")
    model.eval()
    return loss_value
