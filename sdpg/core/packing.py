"""Responses with their prompts as model inputs, and the hidden states that predict each response token.

`Packed` lays all tokens of a micro-batch in one sequence without padding, and responses to the same prompt share its tokens:
the prompt is computed once for a group, forwards and backwards. `Padded` is one padded row per response, for models whose
attention cannot be replaced. Both give the same hidden states (up to rounding), which tests hold them to.

Names: B responses, U different prompts, S packed tokens, M response tokens, H heads, D their size.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, cached_property

import numpy as np
import torch
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedConfig, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from sdpg.core.flops import Work
from sdpg.rollout.context import head_dim

ATTENTION = "sdpg_packed"  # its name among transformers' attention functions
VARLEN_NEEDS = "packed sequences in bf16 or fp16 on CUDA need torch 2.11 or newer (make setup FLAVOUR=cuda installs one)"
SHORTEST = 2 / 3  # A block takes segments from this share of its longest on; what they are shorter by is padding.

Ids = Sequence[int]


class CannotPack(ValueError):
    """The model's attention does something that packed sequences do not cover."""


def prepare(model: PreTrainedModel, prompts: Sequence[Ids], responses: Sequence[Ids]) -> Packed | Padded:
    """Return the inputs of B prompts with their responses (at least one token each), in the form that the model takes."""
    kind = Packed if packs(model) else Padded
    return kind.of(prompts, responses, model.device)


def packs(model: PreTrainedModel) -> bool:
    """Return whether the model reads packed sequences (`enable_packing` succeeded)."""
    return model.config._attn_implementation == ATTENTION


@dataclass(frozen=True)
class Padded:
    """One right-padded row per response. No attention mask is needed: attention is causal and padding comes last."""

    ids: Tensor  # (B, L)
    row: Tensor  # (M,) and
    before: Tensor  # (M,): where the hidden state before each response token lies
    work: Work  # without the padding

    @classmethod
    def of(cls, prompts: Sequence[Ids], responses: Sequence[Ids], device: torch.device) -> Padded:
        """Concatenate each prompt with its response and pad with 0."""
        rows = [torch.tensor([*p, *r]) for p, r in zip(prompts, responses, strict=True)]
        ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True).to(device)
        P, R = _lengths(prompts), _lengths(responses)
        before = np.repeat(P - 1, R) + _counting(R)
        row, before = torch.from_numpy(np.stack([np.repeat(np.arange(len(R)), R), before])).to(device)
        L = P + R
        return cls(ids, row, before, Work(int(L.sum()), int((L * (L + 1) // 2).sum()), len(row)))

    def hidden(self, model: PreTrainedModel) -> Tensor:
        """Return the hidden states that predict the response tokens, response by response: (M, d)."""
        return model.base_model(input_ids=self.ids, use_cache=False).last_hidden_state[self.row, self.before]


@dataclass(frozen=True)
class Packed:
    """U prompts, then B responses without their last token, one after the other. Responses see their prompt and themselves."""

    ids: Tensor  # (1, S)
    position_ids: Tensor  # (1, S)
    before: Tensor  # (M,) the packed token before each response token
    blocks: tuple[Block, ...]  # what sees what

    @classmethod
    def of(cls, prompts: Sequence[Ids], responses: Sequence[Ids], device: torch.device) -> Packed:
        """Lay out B prompts and responses; equal prompts become one. With nothing to share, whole rows are one segment each."""
        inputs = [r[:-1] for r in responses]  # nothing is predicted after the last token
        unique: dict[tuple[int, ...], int] = {}
        owner = np.array([unique.setdefault(tuple(p), len(unique)) for p in prompts])
        P, T = _lengths(prompts), _lengths(inputs)
        shared = len(unique) < len(prompts)
        heads = list(unique) if shared else []
        tails = inputs if shared else [[*p, *t] for p, t in zip(prompts, inputs, strict=True)]
        length, seen = _lengths(tails), P if shared else np.zeros_like(P)
        order = np.argsort(-length, kind="stable")  # of the tails in the sequence
        head = _lengths(heads)
        start = _starts(np.concatenate([head, length[order]]))
        own = np.empty_like(length)
        own[order] = start[len(head) :]
        prompt = start[owner] if shared else own  # where each response's prompt starts
        blocks = [Block(start[: len(head)], head)] if shared else []
        sees = lambda i: (prompt[i], seen[i]) if shared else ()  # noqa: E731
        blocks += [Block(own[i], length[i], *sees(i)) for i in _alike(length, order)]
        first = _counting(T + 1) == 0  # a response's first token is predicted by the end of its prompt
        last = np.repeat(own + length - T - 1, T + 1)  # one before the response's own first token
        before = np.where(first, np.repeat(prompt + P - 1, T + 1), last + _counting(T + 1))
        position = np.concatenate([_counting(head), np.repeat(seen[order], length[order]) + _counting(length[order])])
        segments = [*heads, *(tails[i] for i in order)]
        ids = np.concatenate([np.asarray(x, dtype=np.int64) for x in segments])
        ids, position, before = (torch.from_numpy(x).to(device) for x in (ids, position, before))
        return cls(ids[None], position[None], before, tuple(block.to(device) for block in blocks))

    @property
    def work(self) -> Work:
        """What reading it takes."""
        return Work(self.ids.shape[1], sum(block.pairs for block in self.blocks), len(self.before))

    def hidden(self, model: PreTrainedModel) -> Tensor:
        """Return the hidden states that predict the response tokens, response by response: (M, d)."""
        hidden = model.base_model(
            input_ids=self.ids, position_ids=self.position_ids, use_cache=False, packed=self
        ).last_hidden_state
        return hidden[0].index_select(0, self.before)

    @cached_property
    def varlen(self) -> tuple[Tensor, Tensor, Tensor, int, int]:
        """For a variable-length kernel: packed tokens of all keys, cumulative lengths of queries and keys, the longest of each.

        Segments come in packed order, so the queries are the packed tokens as they lie.
        """
        queries, keys = (np.concatenate(x) for x in zip(*((b.own, b.own + b.seen) for b in self.blocks), strict=True))
        index = torch.cat([b.key_index[b.key_real] for b in self.blocks])
        cumulative = [torch.from_numpy(np.append(0, n.cumsum())).int().to(index.device) for n in (queries, keys)]
        return index, *cumulative, int(queries.max()), int(keys.max())


class Block:
    """n segments of queries that attend causally to themselves, after all of another segment (their prompt), if they have one.

    query_index (n * T,): packed tokens of the queries, padded with token 0. key_index (n * (P + T),): of the keys, what is
    seen before first. query_real, key_real: which of these are no padding. own, seen (n,): how long they are.
    """

    def __init__(self, start: np.ndarray, own: np.ndarray, seen_start: np.ndarray | None = None, seen=None):
        """Lay out n segments. start, own (n,): first packed token and length of each segment. seen_start, seen (n,): of
        what it sees before.
        """
        self.own, self.seen, self.n = own, np.zeros_like(own) if seen is None else seen, len(own)
        queries, real = _grid(start, own)
        keys, key_real = queries, real
        if seen is not None:
            prompt, prompt_real = _grid(seen_start, seen)
            keys, key_real = np.concatenate([prompt, queries], 1), np.concatenate([prompt_real, real], 1)
        self.query_index, self.key_index = (torch.from_numpy(x.ravel()) for x in (queries, keys))
        self.query_real, self.key_real = (torch.from_numpy(x.ravel().nonzero()[0]) for x in (real, key_real))

    def to(self, device: torch.device) -> Block:
        """Move this block's index tensors there, before anything is read with it, and return it."""
        for name in ("query_index", "key_index", "query_real", "key_real"):
            setattr(self, name, getattr(self, name).to(device))
        return self

    @cached_property
    def mask(self) -> Tensor | None:
        """What a query sees, (n, 1, T, P + T) bool, on the indices' device; None where that is causal attention over T.

        It is made when `attend` first asks for it: a variable-length kernel does without.
        """
        device, T, P = self.query_index.device, int(self.own.max()), int(self.seen.max())
        if not P:
            return None
        prompt = torch.arange(P, device=device) < torch.from_numpy(self.seen).to(device)[:, None]
        causal = torch.ones(T, T, dtype=torch.bool, device=device).tril_()
        return torch.cat([prompt[:, None].expand(-1, T, -1), causal.expand(self.n, -1, -1)], 2)[:, None]

    @property
    def pairs(self) -> int:
        """Pairs of a query and a key that it may see."""
        return int((self.own * (self.own + 1) // 2 + self.own * self.seen).sum())

    def attend(self, q: Tensor, k: Tensor, v: Tensor, scale: float | None) -> Tensor:
        """Return attention of the block's queries over packed q (S, H, D) and k, v (S, H', D) -> (its real queries, H, D)."""
        q = _rows(q, self.query_index, self.n)
        k, v = (_rows(x, self.key_index, self.n) for x in (k, v))
        out = torch.nn.functional.scaled_dot_product_attention(
            q, k, v, attn_mask=self.mask, is_causal=self.mask is None, scale=scale, enable_gqa=q.shape[1] != k.shape[1]
        )  # (n, H, T, D)
        return out.transpose(1, 2).flatten(0, 1).index_select(0, self.query_real)


def packed_attention(module, query, key, value, attention_mask, scaling=None, dropout=0.0, packed=None, **kwargs):
    """Attend, as a function of transformers: query (1, H, S, D), key and value (1, H', S, D) -> (1, S, H, D), None.

    Without `packed` it is torch's scaled dot product attention over rows. Raises CannotPack for what it does not cover.
    """
    if packed is None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **kwargs)
    if extra := sorted(name for name in ("sliding_window", "softcap", "s_aux", "position_bias") if _given(kwargs.get(name))):
        raise CannotPack(f"{type(module).__name__} uses {', '.join(extra)}")
    q, k, v = (x[0].transpose(0, 1) for x in (query, key, value))  # (S, H, D)
    if _has_varlen(q):
        return _varlen(q, k, v, packed, scaling)[None], None
    parts = [block.attend(q, k, v, scaling) for block in packed.blocks]
    return (torch.cat(parts) if len(parts) > 1 else parts[0])[None], None


def _given(value) -> bool:
    return value is not None and (isinstance(value, Tensor) or bool(value))


def _has_varlen(q: Tensor) -> bool:
    """Return whether torch has a variable-length kernel for such queries."""
    return q.is_cuda and q.dtype in (torch.bfloat16, torch.float16)


def check_kernel(device: torch.device, dtype: torch.dtype, config: PreTrainedConfig) -> None:
    """Raise CannotPack if passes in `dtype` on `device` want a variable-length kernel that this torch does not have.

    Also if the kernel takes no heads of the model's size, or not on this GPU: it would say so only in the middle of a pass.
    """
    if device.type != "cuda" or dtype not in (torch.bfloat16, torch.float16):
        return
    _shares_heads(_kernel())
    size = head_dim(config.get_text_config())
    if size % 8 or size > 256:
        raise CannotPack(f"its heads have {size} entries, and varlen_attn takes multiples of 8 up to 256")
    if (capability := torch.cuda.get_device_capability(device)) < (8, 0):
        raise CannotPack(f"varlen_attn needs compute capability 8.0, this GPU has {capability[0]}.{capability[1]}")


def _kernel() -> Callable:
    try:
        from torch.nn.attention.varlen import varlen_attn
    except ImportError:
        raise CannotPack(f"torch {torch.__version__} has no torch.nn.attention.varlen; {VARLEN_NEEDS}") from None
    return varlen_attn


def _varlen(q: Tensor, k: Tensor, v: Tensor, packed: Packed, scale: float | None) -> Tensor:
    """Return the same with one call of a variable-length kernel: its causal mask is aligned at the last query and key."""
    varlen_attn = _kernel()
    shares_heads = _shares_heads(varlen_attn)
    index, cu_q, cu_k, max_q, max_k = packed.varlen
    k, v = k.index_select(0, index), v.index_select(0, index)
    options = {}
    if (groups := q.shape[1] // k.shape[1]) > 1:
        if shares_heads:
            options["enable_gqa"] = True
        else:
            k, v = k.repeat_interleave(groups, 1), v.repeat_interleave(groups, 1)
    return varlen_attn(q.contiguous(), k, v, cu_q, cu_k, max_q, max_k, scale=scale, window_size=(-1, 0), **options)


@cache
def _shares_heads(varlen_attn: Callable) -> bool:
    """Return whether the kernel lets several heads of queries read one of keys. Raises CannotPack for one without a window."""
    takes = inspect.signature(varlen_attn).parameters
    if missing := [name for name in ("scale", "window_size") if name not in takes]:
        raise CannotPack(f"varlen_attn of torch {torch.__version__} does not take {' and '.join(missing)}; {VARLEN_NEEDS}")
    return "enable_gqa" in takes


def enable_packing(model: PreTrainedModel) -> None:
    """Switch the model to packed sequences. Raises CannotPack, and leaves the model as it was, where they do not fit.

    They are tried on a few tokens: hidden states of packed and of padded rows must agree.
    """
    before, training = model.config._attn_implementation, model.training
    prompts, responses = [[5, 6, 7], [5, 6, 7], [8, 9]], [[1, 2, 3, 4], [2, 1], [3, 3, 2]]
    V = model.config.get_text_config().vocab_size
    prompts, responses = ([[i % V for i in x] for x in rows] for rows in (prompts, responses))
    model.eval()
    try:
        with torch.no_grad():
            padded = Padded.of(prompts, responses, model.device).hidden(model)
            model.set_attn_implementation(ATTENTION)
            if not packs(model):
                raise CannotPack(f"{type(model).__name__} does not let its attention be replaced")
            packed = Packed.of(prompts, responses, model.device).hidden(model)
        gap = ((packed - padded).abs().max() / padded.abs().max()).item()
        if not gap < (1e-3 if model.dtype == torch.float32 else 5e-2):
            raise CannotPack(f"{type(model).__name__} gives other hidden states for packed sequences ({gap:.2g})")
    except (CannotPack, TypeError) as error:
        model.set_attn_implementation(before)
        if isinstance(error, CannotPack):
            raise
        raise CannotPack(f"{type(model).__name__} does not hand `packed` on to its attention: {error}") from error
    finally:
        model.train(training)


def _lengths(segments: Sequence[Ids]) -> np.ndarray:
    return np.array([len(x) for x in segments], dtype=np.int64)


def _starts(lengths: np.ndarray) -> np.ndarray:
    return lengths.cumsum() - lengths


def _counting(lengths: np.ndarray) -> np.ndarray:
    """Return 0, 1, ..., n - 1 for every length n, one after the other."""
    return np.arange(lengths.sum()) - np.repeat(_starts(lengths), lengths)


def _alike(lengths: np.ndarray, order: np.ndarray) -> Iterator[np.ndarray]:
    """Split `order`, longest first, into runs whose shortest is at least SHORTEST of the longest; without those of length 0."""
    order = order[lengths[order] > 0]
    while len(order):
        alike = lengths[order] >= SHORTEST * lengths[order[0]]
        yield order[alike]
        order = order[~alike]


def _grid(start: np.ndarray, lengths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return rows start, start + 1, ... of these lengths, padded with 0, and where they are no padding: (n, longest) each."""
    column = np.arange(lengths.max())
    real = column < lengths[:, None]
    return np.where(real, start[:, None] + column, 0), real


def _rows(x: Tensor, index: Tensor, n: int) -> Tensor:
    """Return (S, H, D) -> (n, H, width, D)."""
    return x.index_select(0, index).view(n, -1, *x.shape[1:]).transpose(1, 2)


def _mask(*args, attention_mask=None, **kwargs):
    """Return None for causal attention; a mask is needed only where a caller brings one."""
    return None if attention_mask is None else sdpa_mask(*args, attention_mask=attention_mask, **kwargs)


AttentionInterface.register(ATTENTION, packed_attention)
AttentionMaskInterface.register(ATTENTION, _mask)
