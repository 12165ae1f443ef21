"""The implementations that benchmarks/head.py compares, and the worker that times and weighs them.

    python -m benchmarks.heads --dtype float32 --hidden 576 --threads 1   (asked over stdin)

All compute the log-prob of the target, the entropy where they have it, and the exact reverse KL to a teacher's head, forward
and backward, for the loss sum_t g_logp log p(y_t) + g_div KL(p_t || q_t), with g_logp = -1/M and g_div = 1/M.

- chunked: `token_signals_backward`, what training uses; checkpointed: `token_signals`, its two-pass form
- materialising: the same numbers from plain torch, everything kept until the backward pass
- released: as the authors' released code describes it: log-probs of student and teacher and the KL each over all tokens,
  beside its own entropy, softmax and KL in the compute precision, the KL clamped at 20 per token
- liger-triton: `LigerFusedLinearJSD`, Triton kernels, the divergence alone, and only where there is CUDA
- liger-chunked: `liger_kernel.chunked_loss.LigerFusedLinearJSDLoss`, torch under `torch.compile` in chunks of 1,024 tokens, as
  it comes; cross-entropy and divergence, averaged over the tokens; no entropy
"""

import argparse
import time

from benchmarks.machine import extra_memory_mb
from benchmarks.workers import Channel

OURS, BASE = "chunked", "materialising"
PLAIN = ("chunked", "checkpointed", "materialising", "released")
LIGER = ("liger-triton", "liger-chunked")
DIVERGENCE_ONLY = ("liger-triton",)  # no log-prob among their outputs
SAMPLED = 16  # rows of each gradient, and columns, that are compared


def chunked(hidden, head, targets, teacher, g_logp, g_div):
    """What training uses."""
    from sdpg.algorithms.divergences import Divergence
    from sdpg.core.head.api import token_signals_backward

    _, gradient = token_signals_backward(
        hidden,
        head,
        targets,
        lambda s, j: (g_logp[j] * s.logp).sum() + (g_div[j] * s.div).sum(),
        divergence=Divergence(kind="reverse_kl"),
        teacher_hidden=teacher,
        teacher_head=head,
    )
    hidden.backward(gradient)


def checkpointed(hidden, head, targets, teacher, g_logp, g_div):
    """The two-pass form, for losses that couple tokens."""
    from sdpg.algorithms.divergences import Divergence
    from sdpg.core.head.api import token_signals

    kl = Divergence(kind="reverse_kl")
    s = token_signals(hidden, head, targets, divergence=kl, teacher_hidden=teacher, teacher_head=head)
    ((g_logp * s.logp).sum() + (g_div * s.div).sum()).backward()


def materialising(hidden, head, targets, teacher, g_logp, g_div):
    """Plain torch, all of it kept."""
    import torch

    logp = torch.log_softmax((hidden @ head.weight.T).float(), -1)
    with torch.no_grad():
        logq = torch.log_softmax((teacher @ head.weight.T).float(), -1)
        _ = -(logp.exp() * logp).sum(-1)
    div = (logp.exp() * (logp - logq)).sum(-1)
    ((g_logp * logp.gather(1, targets[:, None])[:, 0]).sum() + (g_div * div).sum()).backward()


def released(hidden, head, targets, teacher, g_logp, g_div):
    """The released code's formulation, from its description."""
    import torch

    logits = hidden @ head.weight.T
    logp = torch.log_softmax(logits.float(), -1).gather(1, targets[:, None])[:, 0]
    with torch.no_grad():
        p = torch.softmax(logits, -1)
        _ = torch.logsumexp(logits, -1) - (p * logits).sum(-1)
        teacher_logp = torch.log_softmax(teacher @ head.weight.T, -1)
    student_logp = torch.log_softmax(logits, -1)
    div = (student_logp.exp() * (student_logp - teacher_logp)).sum(-1).clamp(max=20.0)
    ((g_logp * logp).sum() + (g_div * div).sum()).backward()


def liger(name: str):
    """Liger's `name` as a function like the others; built once, so that compiled code is kept."""
    if name == "liger-triton":
        from liger_kernel.transformers.fused_linear_jsd import LigerFusedLinearJSD

        layer = LigerFusedLinearJSD(jsd_beta=1.0)
    else:
        from liger_kernel.chunked_loss import LigerFusedLinearJSDLoss

        layer = LigerFusedLinearJSDLoss(weight_hard_loss=1.0, weight_soft_loss=1.0, beta=1.0)

    def call(hidden, head, targets, teacher, g_logp, g_div):
        layer(hidden, head.weight, teacher, head.weight.detach(), targets).backward()

    return call


class Bench:
    """Inputs of one shape, and what an implementation does with them."""

    def __init__(self, tokens: int, vocabulary: int, hidden: int, dtype, device):
        import torch

        from sdpg.core.head.api import Head

        g = torch.Generator().manual_seed(0)
        draw = lambda *shape: torch.randn(*shape, generator=g).to(device, dtype)  # noqa: E731
        self.device, self.tokens = device, tokens
        self.weight = (draw(vocabulary, hidden) / hidden**0.5).requires_grad_()
        self.hidden, teacher = draw(tokens, hidden).requires_grad_(), draw(tokens, hidden)
        targets = torch.randint(0, vocabulary, (tokens,), generator=g).to(device)
        self.inputs = (self.hidden, Head(self.weight), targets, teacher)

    def upstream(self, with_logp: bool = True):
        """g_logp, g_div (M,)."""
        import torch

        ones = torch.ones(self.tokens, device=self.device)
        return -ones / self.tokens * with_logp, ones / self.tokens

    def seconds(self, call) -> float:
        """One forward and backward pass."""
        self.hidden.grad = self.weight.grad = None
        g = self.upstream()
        self._wait()
        start = time.perf_counter()
        call(*self.inputs, *g)
        self._wait()
        return time.perf_counter() - start

    def memory_mb(self, call) -> float | None:
        """Peak MiB beyond inputs and gradients, which every way of training holds."""
        import torch

        self.weight.grad, self.hidden.grad = torch.zeros_like(self.weight), torch.zeros_like(self.hidden)
        g = self.upstream()
        return extra_memory_mb(lambda: call(*self.inputs, *g))

    def gradients(self, call, with_logp: bool = True) -> dict[str, list[float]]:
        """A sample of the entries and the norm of both gradients."""
        self.hidden.grad = self.weight.grad = None
        call(*self.inputs, *self.upstream(with_logp))
        rows = self.inputs[2][:SAMPLED]
        parts = {
            "hidden": self.hidden.grad.double()[:SAMPLED, :SAMPLED],
            "weight": self.weight.grad[rows, :SAMPLED].double(),
            "norms": (self.hidden.grad.double().norm()[None], self.weight.grad.double().norm()[None]),
        }
        hidden_norm, weight_norm = parts.pop("norms")
        return {name: part.flatten().tolist() for name, part in parts.items()} | {
            "hidden_norm": hidden_norm.tolist(),
            "weight_norm": weight_norm.tolist(),
        }

    def _wait(self) -> None:
        import torch

        if self.device.type == "cuda":
            torch.cuda.synchronize()


def refusal(name: str, device) -> str | None:
    """Why an implementation cannot run here; None if it can."""
    if name == "liger-triton" and device.type != "cuda":
        return "needs CUDA (its Triton kernels have no CPU backend)"
    return None


def main() -> None:
    """Answer requests {do: time | memory | gradients, name, tokens, vocabulary}."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    p.add_argument("--hidden", type=int, default=576)
    p.add_argument("--threads", type=int, default=1)
    args = p.parse_args()
    channel = Channel()

    import torch

    torch.set_num_threads(args.threads)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    calls: dict = {}
    bench, shape = None, None
    channel.send(device=device.type)
    for r in channel.requests():
        if why := refusal(r["name"], device):
            channel.send(error=why)
            continue
        if shape != (r["tokens"], r["vocabulary"]):
            shape, bench = (r["tokens"], r["vocabulary"]), None  # the old inputs are freed before the new ones are made
            bench = Bench(*shape, args.hidden, getattr(torch, args.dtype), device)
        if r["name"] not in calls:
            calls[r["name"]] = globals()[r["name"]] if r["name"] in PLAIN else liger(r["name"])
        call = calls[r["name"]]
        if r["do"] == "time":
            channel.send(seconds=bench.seconds(call))
        elif r["do"] == "memory":
            channel.send(memory_mb=bench.memory_mb(call))
        else:
            channel.send(gradients=bench.gradients(call, r["with_logp"]))


if __name__ == "__main__":
    main()
