"""In-process engine on transformers: prefill each prompt once, expand its KV cache to n responses, decode together.

For tiny models and for machines without vLLM. Names: N prompts, n responses each, B = rows still decoding, V vocabulary.

A sampled token depends only on (seed of the prompt, response index, position) and on the model's probabilities: the
uniform numbers are drawn per prompt beforehand and mapped through the inverse CDF. So a response does not change with
what else is in the batch, or with the number of processes that share the prompts.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import torch
from transformers import AutoConfig, AutoModelForCausalLM, DynamicCache

from sdpg.rollout.context import attention_of, check_context
from sdpg.rollout.engine import check_prompts, prompt_seeds
from sdpg.rollout.placement import DEFAULT, IN_PROCESS_ROWS, Share
from sdpg.types import Rollout, Sampling

TEMPERATURES = (0.001, 1000.0)  # below, a logit's rounding in float32 is seen in the probabilities
COMPACT_BELOW = 0.75  # drop finished rows from the cache when fewer than this share of its rows are still decoding


class HFEngine:
    """Engine (see `sdpg.rollout.engine`) that owns a copy of the model in `dtype` on the best device of this process."""

    own_names = True

    def __init__(
        self,
        model_dir: str | Path,
        *,
        dtype: str,
        max_len: int,
        threads: int = 1,
        seed: int = 0,
        share: Share = DEFAULT,
        device: str | None = None,
        max_rows: int = IN_PROCESS_ROWS,
    ):
        """Load the model. max_len: prompt plus response tokens. max_rows: most responses decoded side by side (bounds the
        KV cache).

        threads, seed, share: not used; the process decides the threads, every call of `generate` brings its seeds, and each
        process has an engine of its own.
        """
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        config = AutoConfig.from_pretrained(model_dir)
        check_context(config, max_len, model_dir)
        how = {"dtype": getattr(torch, dtype), "attn_implementation": attention_of(config)}
        model = AutoModelForCausalLM.from_pretrained(model_dir, config=config, **how)
        self.model = model.to(self.device).eval().requires_grad_(False)
        self.max_len, self.max_rows, self.version = max_len, max_rows, 0

    def load_weights(self, named_tensors: Iterable[tuple[str, torch.Tensor]], version: int) -> None:
        """Copy (HF parameter name, tensor) pairs into the model in place; every parameter must be given."""
        parameters = self.model.state_dict(keep_vars=True)  # and buffers, which need not be given: nobody trains them
        own = {name for name, _ in self.model.named_parameters()}
        given, others = set(), {}
        for name, tensor in named_tensors:
            if name in parameters:
                parameters[name].copy_(tensor)
                given.add(name)
            else:
                others[name] = tensor
        for name, tensor in self._renamed(others) if others else ():
            parameters[name].copy_(tensor)
            given.add(name)
        if missing := sorted(own - given):
            raise ValueError(f"load_weights: {len(missing)} parameters were not given, first {missing[0]!r}")
        self.version = version

    def _renamed(self, tensors: dict[str, torch.Tensor]) -> Iterator[tuple[str, torch.Tensor]]:
        """Yield tensors of a checkpoint under the model's own names. Raises ValueError for a name that is neither."""
        model, info = type(self.model).from_pretrained(
            None, config=self.model.config, state_dict=tensors, dtype=self.model.dtype, output_loading_info=True
        )
        if unknown := sorted(info["unexpected_keys"]):
            raise ValueError(f"load_weights: the model has no parameter {unknown[0]!r}; send the names of its HF checkpoint")
        yield from ((name, x) for name, x in model.state_dict().items() if name not in info["missing_keys"])

    @torch.inference_mode()
    def generate(
        self, prompts: Sequence[Sequence[int]], n: int, sampling: Sampling, seed: int | Sequence[int]
    ) -> list[list[Rollout]]:
        """See `Engine.generate`."""
        check_prompts(prompts, sampling.max_tokens, self.max_len)
        seeds = prompt_seeds(seed, len(prompts))
        size = max(1, self.max_rows // n)
        out: list[list[Rollout]] = []
        for i in range(0, len(prompts), size):
            out += self._generate(prompts[i : i + size], n, sampling, seeds[i : i + size])
        return out

    def _generate(self, prompts, n, sampling, seeds) -> list[list[Rollout]]:
        rows = len(prompts) * n
        u = torch.cat([_uniform(seed, n, sampling.max_tokens) for seed in seeds]).to(self.device)  # (N*n, T)
        stop = torch.tensor(sorted(sampling.stop_token_ids), device=self.device)
        logits, mask, position, cache = self._prefill(prompts, n)  # rows of one prompt are neighbours
        ids = torch.zeros(rows, sampling.max_tokens, dtype=torch.long, device=self.device)
        logprobs = torch.zeros(rows, sampling.max_tokens, device=self.device)
        length = torch.full((rows,), sampling.max_tokens, device=self.device)
        stopped = torch.zeros(rows, dtype=torch.bool, device=self.device)
        active = torch.arange(rows, device=self.device)  # (B,) the row of the result that each cache row belongs to
        for t in range(sampling.max_tokens):
            logp = torch.log_softmax(logits.float() / (sampling.temperature or 1.0), -1)  # (B, V)
            token = _inverse_cdf(logp.exp(), u[active, t]) if sampling.temperature else logp.argmax(-1)  # (B,)
            alive = ~stopped[active]
            ids[active[alive], t] = token[alive]
            logprobs[active[alive], t] = logp.gather(1, token[:, None])[:, 0][alive]
            now = alive & torch.isin(token, stop)
            length[active[now]] = t + 1
            stopped[active[now]] = True
            alive &= ~now
            left = int(alive.sum())
            if left == 0 or t + 1 == sampling.max_tokens:
                break
            if left < COMPACT_BELOW * len(active):
                keep = alive.nonzero()[:, 0]
                cache.batch_select_indices(keep)
                active, token, position, mask = active[keep], token[keep], position[keep], mask[keep]
            mask = torch.cat([mask, mask.new_ones(len(active), 1)], 1)
            position = position + 1
            logits = self._forward(token[:, None], mask, position[:, None], cache)
        return self._collect(ids, logprobs, length, stopped, n)

    def _prefill(self, prompts, n):
        """Pad on the left, run the N prompts once, repeat the cache n times -> logits (N*n, V), mask, last position, cache."""
        width = max(map(len, prompts))
        ids = torch.zeros(len(prompts), width, dtype=torch.long)
        mask = torch.zeros(len(prompts), width, dtype=torch.long)
        for i, prompt in enumerate(prompts):
            ids[i, width - len(prompt) :] = torch.tensor(prompt)
            mask[i, width - len(prompt) :] = 1
        ids, mask = ids.to(self.device), mask.to(self.device)
        position = (mask.cumsum(1) - 1).clamp_min(0)
        cache = DynamicCache(config=self.model.config)
        logits = self._forward(ids, mask, position, cache)
        cache.batch_repeat_interleave(n)
        return logits.repeat_interleave(n, 0), mask.repeat_interleave(n, 0), position[:, -1].repeat_interleave(n), cache

    def _forward(self, ids, mask, position, cache):
        out = self.model(
            input_ids=ids, attention_mask=mask, position_ids=position, past_key_values=cache, use_cache=True, logits_to_keep=1
        )
        return out.logits[:, -1]  # (B, V)

    def _collect(self, ids, logprobs, length, stopped, n) -> list[list[Rollout]]:
        ids, logprobs, length, stopped = ids.tolist(), logprobs.tolist(), length.tolist(), stopped.tolist()
        rollouts = [
            Rollout(ids[i][: length[i]], logprobs[i][: length[i]], "stop" if stopped[i] else "length", self.version)
            for i in range(len(ids))
        ]
        return [rollouts[i : i + n] for i in range(0, len(rollouts), n)]

    def sleep(self) -> None:
        """Give nothing back: the KV cache lives only while generating, and this engine is for small models."""

    def close(self) -> None:
        """Drop the model."""
        self.model = None


def _uniform(seed: int, n: int, length: int) -> torch.Tensor:
    """Return (n, length) uniform numbers in [0, 1) of one prompt, always drawn on the CPU so that every device agrees."""
    return torch.rand(n, length, generator=torch.Generator().manual_seed(seed))


def _inverse_cdf(p: torch.Tensor, u: torch.Tensor) -> torch.Tensor:
    """Sample one index per row of probabilities p (B, V) with uniforms u (B,): the first index whose CDF exceeds u."""
    cdf = p.cumsum(-1)
    total = cdf[:, -1]
    target = torch.minimum(u * total, torch.nextafter(total, torch.zeros_like(total)))  # < total, so p[index] > 0
    found = torch.searchsorted(cdf, target[:, None], right=True)[:, 0]
    return found.clamp_max(p.shape[-1] - 1)  # of NaNs too, whose log-probs then say so


ENGINE = HFEngine
