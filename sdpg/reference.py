"""Train with Self-Distilled Policy Gradient (SDPG, arXiv 2606.04036v1): one plain program, to be read first and whole.

    L = L_out + beta(k) L_OPD+ + alpha L_K(pi_theta, pi_ref)                                                 Eq. (3.1)

Everything is done the slow and obvious way: padded rows, all logits kept, every pass on every response, autograd, one
process. `sdpg.core.trainer.Trainer` with `sdpg.algorithms.sdpg.SDPG` does the same with less memory and time;
tests/test_reference_program.py trains both on the same rollouts and finds the same parameters.
`python -m sdpg.reference` trains a tiny model on a toy task in seconds.

Names and shapes
    N, G      prompts of a step, responses to each; B = N * G rows, row i * G + j is response j to prompt i
    T, V      tokens of the longest response; entries of the vocabulary
    x, cx, y  prompt; the same prompt with the privileged context c (the worked solution); response: B lists of ids each
    R, A      rewards and advantages, (N, G)
    p         student pi_theta(. | x, y_<t);      logp (B, T, V), differentiable
    q         teacher pi_theta(. | c, x, y_<t);   logq (B, T, V), the same weights, no gradient
    pi_ref    the initial model, fixed;           logr (B, T, V), no gradient
    log w     log pi_theta(y_t) - log pi_ref(y_t), (B, T)
    D, m      KL(p || SG[q]) at each token, (B, T); gate: 1 where a response is distilled, (B, 1); L_OPD+ is m D
    beta_k    weight of distillation at step k = 1, 2, ...; alpha: weight of the anchor L_K
    rho       pi_theta / pi_rollout: 1 here, as each batch is used for one update (appendix A.3 has the other case)
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.utils import clip_grad_norm_
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedModel, Qwen3Config, Qwen3ForCausalLM


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Hold the hyper-parameters; the defaults are those of section 4.1."""

    steps: int = 400  # the T of the schedule
    beta_base: float = 1e-3  # peak of beta(k)
    T_warm: int = 50  # beta rises over the first T_warm steps; 0: at its peak at once
    T_decay: int = 350  # and falls to 0 over the last T_decay; 0: does not fall
    alpha: float = 1e-3  # weight of the anchor
    anchor: str = "ufkl"  # ufkl or urkl
    gate: bool = True  # distil responses with A > 0 only
    temperature: float = 1.0  # at which responses were sampled; it divides all logits
    lr: float = 1e-6
    warmup_steps: int = 10  # the learning rate rises over so many steps
    betas: tuple[float, float] = (0.9, 0.999)  # of AdamW
    weight_decay: float = 0.1
    clip_grad_norm: float = 1.0


@dataclass(frozen=True)
class Rollouts:
    """Hold one step's data: prompts, teacher's prompts and responses of B rows, and rewards (N, G)."""

    x: list[list[int]]
    cx: list[list[int]]
    y: list[list[int]]
    R: Tensor


def beta(k: int, s: Settings) -> float:
    """Weigh distillation at step k: up over T_warm steps, then flat, then down to 0 at the last step (section 3.5.2)."""
    rise = min(1.0, k / s.T_warm) if s.T_warm else 1.0
    fall = min(1.0, (s.steps - k) / s.T_decay) if s.T_decay else 1.0
    return s.beta_base * rise * max(0.0, fall)


def advantages(R: Tensor) -> Tensor:
    """Compare each response with its group, Eq. (2.1): (N, G) -> (N, G); 0 for a group whose rewards are all equal."""
    A = (R - R.mean(1, keepdim=True)) / (R.std(1, keepdim=True) + 1e-6)  # (N, G), the unbiased std
    return A.masked_fill((R == R[:, :1]).all(1, keepdim=True), 0.0)  # exactly 0, whatever rounding does to the mean


def logits_of(model: PreTrainedModel, prompts: list[list[int]], responses: list[list[int]]) -> Tensor:
    """Read each response after its prompt: B lists of ids each -> the logits that predict the responses, (B, T, V)."""
    rows = list(zip(prompts, responses, strict=True))
    ids = pad_sequence([torch.tensor([*x, *y]) for x, y in rows], batch_first=True)  # (B, longest row)
    logits = model(input_ids=ids).logits  # (B, longest row, V); causal: what is padded on the right changes nothing
    parts = [z[len(x) - 1 : len(x) + len(y) - 1] for z, (x, y) in zip(logits, rows, strict=True)]  # t - 1 predicts t
    return pad_sequence(parts, batch_first=True)  # (B, T, V)


def loss(model: PreTrainedModel, reference: PreTrainedModel, batch: Rollouts, k: int, s: Settings) -> Tensor:
    """Compute SDPG's loss at step k, Eq. (3.1): a scalar, differentiable in the weights of `model`."""
    N, G = batch.R.shape
    A = advantages(batch.R).reshape(N * G, 1)  # (B, 1)
    y = pad_sequence([torch.tensor(ids) for ids in batch.y], batch_first=True)  # (B, T)
    mask = pad_sequence([torch.ones(len(ids)) for ids in batch.y], batch_first=True)  # (B, T), 1 on response tokens

    logp = (logits_of(model, batch.x, batch.y) / s.temperature).log_softmax(-1)  # (B, T, V)
    with torch.no_grad():
        logq = (logits_of(model, batch.cx, batch.y) / s.temperature).log_softmax(-1)  # (B, T, V)
        logr = (logits_of(reference, batch.x, batch.y) / s.temperature).log_softmax(-1)  # (B, T, V)
    log_pi, log_ref = (z.gather(-1, y[..., None])[..., 0] for z in (logp, logr))  # (B, T), of the sampled token
    logw = log_pi - log_ref  # (B, T)

    L_out = -A * log_pi  # (B, T), REINFORCE: rho = 1, no clipping, section 3.2
    D = (logp.exp() * (logp - logq)).sum(-1)  # (B, T), KL(p || SG[q]) over the whole vocabulary, Eq. (3.2)
    m = (A > 0).float() if s.gate else torch.ones_like(A)  # (B, 1), Eq. (3.5)
    K = {"ufkl": (-logw).exp() + logw, "urkl": logw.square() / 2}  # (B, T): 1/w + log w, (log w)^2 / 2, section 3.4
    L_K, beta_k = K[s.anchor], beta(k, s)
    L = L_out + beta_k * m * D + s.alpha * L_K  # (B, T), Eq. (3.1)

    L, mask = (L * mask).view(N, -1), mask.view(N, -1)  # (N, G * T)
    return (L.sum(1) / mask.sum(1)).mean()  # token mean within each group, then the mean over prompts


def make_optimizer(model: PreTrainedModel, s: Settings) -> torch.optim.AdamW:
    """Make AdamW over all parameters (section 4.1)."""
    return torch.optim.AdamW(model.parameters(), lr=s.lr, betas=s.betas, weight_decay=s.weight_decay)


def train_step(model, reference, optimizer, batch: Rollouts, k: int, s: Settings) -> float:
    """Take step k = 1, 2, ... on rollouts sampled from `model` as it is now -> the loss before the step."""
    value = loss(model, reference, batch, k, s)
    optimizer.zero_grad()
    value.backward()
    clip_grad_norm_(model.parameters(), s.clip_grad_norm)
    optimizer.param_groups[0]["lr"] = s.lr * (min(1.0, k / s.warmup_steps) if s.warmup_steps else 1.0)
    optimizer.step()
    return value.item()


@torch.no_grad()
def sample(model: PreTrainedModel, prompts: list[list[int]], length: int) -> list[list[int]]:
    """Sample a response of `length` tokens at temperature 1 to each of B prompts that are equally long."""
    ids = torch.tensor(prompts)  # (B, prompt)
    for _ in range(length):
        p = model(input_ids=ids).logits[:, -1].softmax(-1)  # (B, V)
        ids = torch.cat([ids, torch.multinomial(p, 1)], 1)  # (B, prompt + 1, + 2, ...)
    return ids[:, len(prompts[0]) :].tolist()


def main() -> None:
    """Train a tiny random model to name the larger of two numbers somewhere in its answer; print the reward."""
    torch.manual_seed(0)
    size = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "head_dim": 16, "vocab_size": 16}
    model = Qwen3ForCausalLM(Qwen3Config(**size, num_attention_heads=2, num_key_value_heads=1))
    reference = copy.deepcopy(model)
    s = Settings(steps=40, beta_base=0.1, T_warm=3, T_decay=20, lr=3e-3, warmup_steps=2)
    optimizer, N, G = make_optimizer(model, s), 16, 8
    for k in range(1, s.steps + 1):
        x = torch.randint(1, 16, (N, 2)).repeat_interleave(G, 0).tolist()  # B prompts of two numbers
        y = sample(model, x, length=4)
        R = torch.tensor([float(max(xi) in yi) for xi, yi in zip(x, y, strict=True)]).view(N, G)
        batch = Rollouts(x, [[*xi, 0, max(xi)] for xi in x], y, R)  # the teacher also reads "0, answer"
        value = train_step(model, reference, optimizer, batch, k, s)
        print(f"step {k:2d}   beta {beta(k, s):.3f}   loss {value:7.4f}   reward {R.mean().item():.3f}")


if __name__ == "__main__":
    main()
