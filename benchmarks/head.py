"""The lm-head with log-prob, entropy and exact reverse KL, forward and backward: time and memory, ours beside two others.

    python benchmarks/head.py [--tokens 256 1024] [--vocabulary 8192 32768] [--hidden 1024] [--repeats 5]

- chunked: `token_signals_backward`, what training uses; checkpointed: `token_signals`, its two-pass form
- materialising: the same numbers from plain torch, everything kept until the backward pass
- released: as the authors' released code describes it: log-probs of student and teacher and the KL each over all tokens,
  beside an entropy of its own, softmax and KL in the compute precision, the KL clamped at 20 per token

All see the same inputs and take turns; a ratio is the median over the repeats of (ours / theirs). Memory is the peak beyond
what was held before. Writes benchmarks/results/head.json and .md, and the headline ratios of summary.json.
"""

import argparse
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.machine import RESULTS, extra_memory_mb, headline, in_words, machine, median
from sdpg.cli import run
from sdpg.io import write_atomic, write_json

OURS, BASE = "chunked", "materialising"


def implementations():
    """Name -> function of (hidden, head, targets, teacher_hidden, g_logp, g_div): one forward and backward pass."""
    import torch

    from sdpg.algorithms.divergences import Divergence
    from sdpg.core.head import token_signals, token_signals_backward

    kl = Divergence(kind="reverse_kl")

    def chunked(hidden, head, targets, teacher, g_logp, g_div):
        """What training uses."""
        _, gradient = token_signals_backward(
            hidden,
            head,
            targets,
            lambda s, j: (g_logp[j] * s.logp).sum() + (g_div[j] * s.div).sum(),
            divergence=kl,
            teacher_hidden=teacher,
            teacher_head=head,
        )
        hidden.backward(gradient)

    def checkpointed(hidden, head, targets, teacher, g_logp, g_div):
        s = token_signals(hidden, head, targets, divergence=kl, teacher_hidden=teacher, teacher_head=head)
        ((g_logp * s.logp).sum() + (g_div * s.div).sum()).backward()

    def materialising(hidden, head, targets, teacher, g_logp, g_div):
        """Plain torch, all of it kept."""
        logp = torch.log_softmax((hidden @ head.weight.T).float(), -1)
        with torch.no_grad():
            logq = torch.log_softmax((teacher @ head.weight.T).float(), -1)
            _ = -(logp.exp() * logp).sum(-1)
        div = (logp.exp() * (logp - logq)).sum(-1)
        ((g_logp * logp.gather(1, targets[:, None])[:, 0]).sum() + (g_div * div).sum()).backward()

    def released(hidden, head, targets, teacher, g_logp, g_div):
        """The released code's formulation, from its description."""
        logits = hidden @ head.weight.T
        logp = torch.log_softmax(logits.float(), -1).gather(1, targets[:, None])[:, 0]
        with torch.no_grad():
            p = torch.softmax(logits, -1)
            _ = torch.logsumexp(logits, -1) - (p * logits).sum(-1)
            teacher_logp = torch.log_softmax(teacher @ head.weight.T, -1)
        student_logp = torch.log_softmax(logits, -1)
        div = (student_logp.exp() * (student_logp - teacher_logp)).sum(-1).clamp(max=20.0)
        ((g_logp * logp).sum() + (g_div * div).sum()).backward()

    return {"chunked": chunked, "checkpointed": checkpointed, "materialising": materialising, "released": released}


def make_inputs(tokens: int, vocabulary: int, hidden_size: int, dtype, device):
    """Random hidden states of student and teacher, a head, targets and upstream gradients."""
    import torch

    from sdpg.core.head import Head

    g = torch.Generator().manual_seed(0)
    draw = lambda *shape: torch.randn(*shape, generator=g).to(device, dtype)  # noqa: E731
    weight = (draw(vocabulary, hidden_size) / hidden_size**0.5).requires_grad_()
    hidden, teacher = draw(tokens, hidden_size).requires_grad_(), draw(tokens, hidden_size)
    targets = torch.randint(0, vocabulary, (tokens,), generator=g).to(device)
    g_logp, g_div = (torch.randn(tokens, generator=g).to(device) for _ in range(2))
    return hidden, Head(weight), targets, teacher, g_logp, g_div


def measure_shape(shape: dict, dtype, device, repeats: int) -> dict[str, dict]:
    """Seconds (all repeats), median ratio to ours, peak extra MiB and the largest difference of the gradients, by name."""
    import torch

    inputs = make_inputs(shape["tokens"], shape["vocabulary"], shape["hidden"], dtype, device)
    hidden, weight = inputs[0], inputs[1].weight

    def clear():
        hidden.grad = weight.grad = None

    def timed(call) -> float:
        clear()
        _wait(device)
        start = time.perf_counter()
        call(*inputs)
        _wait(device)
        return time.perf_counter() - start

    functions = implementations()
    rows, gradients = {}, {}
    for name, call in functions.items():  # memory first, which warms up too
        clear()
        weight.grad, hidden.grad = torch.zeros_like(weight), torch.zeros_like(hidden)  # held by every way of training
        memory = extra_memory_mb(lambda call=call: call(*inputs))
        gradients[name] = (hidden.grad.double(), weight.grad.double())
        rows[name] = {"seconds": [], "memory_mb": None if memory is None else round(memory, 1)}
    names = list(functions)
    for i in range(repeats):
        turn = i % len(names)
        for name in names[turn:] + names[:turn]:
            rows[name]["seconds"].append(timed(functions[name]))
    seconds = {name: row.pop("seconds") for name, row in rows.items()}
    for name, row in rows.items():
        ratios = [own / other for own, other in zip(seconds[OURS], seconds[name], strict=True)]
        row["ours_over_this"] = round(median(ratios), 3)
        row["ms"] = round(1e3 * median(seconds[name]), 3)
        row["gradient_difference"] = max(
            float((a - b).abs().max() / b.abs().max()) for a, b in zip(gradients[name], gradients[BASE], strict=True)
        )
    return rows


def _wait(device) -> None:
    import torch

    if device.type == "cuda":
        torch.cuda.synchronize()


def table(report: dict) -> str:
    """The report as Markdown."""
    setting = report["setting"]
    lines = [
        "# The lm-head: ours beside materialising torch and the released code's formulation",
        "",
        "Written by `benchmarks/head.py`; the same numbers are in `head.json`.",
        "",
        *in_words(report),
        f"- Hidden size {setting['hidden']}, {setting['dtype']}, forward and backward, medians of {setting['repeats']} "
        "repeats that take turns. `ours / this`: time of `chunked` over this row's. `extra MiB`: peak beyond what was held "
        "before, the gradients' own memory among that. `difference`: of the gradients to `materialising`, relative to the "
        "largest entry.",
        "",
        "| tokens | vocabulary | implementation | ms | ours / this | extra MiB | difference |",
        "|" + "---|" * 7,
    ]
    for entry in report["shapes"]:
        for name, row in entry["implementations"].items():
            memory = "-" if row["memory_mb"] is None else f"{row['memory_mb']:.0f}"
            cells = [
                f"{entry['tokens']}",
                f"{entry['vocabulary']}",
                name,
                f"{row['ms']:.0f}",
                f"{row['ours_over_this']:.2f}",
            ]
            lines.append("| " + " | ".join([*cells, memory, f"{row['gradient_difference']:.0e}"]) + " |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Parse the command line, measure, and write the files."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--tokens", type=int, nargs="+", default=[256, 1024])
    p.add_argument("--vocabulary", type=int, nargs="+", default=[8192, 32768])
    p.add_argument("--hidden", type=int, default=1024)
    p.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    p.add_argument("--repeats", type=int, default=5)
    p.add_argument("--threads", type=int, default=1)
    p.add_argument("--out", type=Path, default=RESULTS)
    args = p.parse_args()

    import torch

    torch.set_num_threads(args.threads)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    shapes = []
    for vocabulary in args.vocabulary:
        for tokens in args.tokens:
            shape = {"tokens": tokens, "vocabulary": vocabulary, "hidden": args.hidden}
            rows = measure_shape(shape, getattr(torch, args.dtype), device, args.repeats)
            shapes.append(shape | {"implementations": rows})
            print(shape, {name: (row["ms"], row["memory_mb"]) for name, row in rows.items()}, flush=True)
    setting = {"hidden": args.hidden, "dtype": args.dtype, "repeats": args.repeats}
    report = {"setting": setting, **machine(args.threads), "shapes": shapes}
    write_json(args.out / "head.json", report)
    with write_atomic(args.out / "head.md") as file:
        file.write(table(report))
    hardware = report["hardware"]["gpu"] or report["hardware"]["processor"]
    rows = []
    for entry in shapes:
        ours, base = entry["implementations"][OURS], entry["implementations"][BASE]
        shape = f"{entry['tokens']} tokens x {entry['vocabulary']} vocabulary x {entry['hidden']} hidden, {args.dtype}"
        common = {"model": "random weights", "shape": shape, "device": device.type, "hardware": hardware}
        rows.append({"name": "head_time_vs_materialising", "value": base["ours_over_this"], **common})
        if base["memory_mb"]:
            ratio = round(ours["memory_mb"] / base["memory_mb"], 3)
            rows.append({"name": "head_memory_vs_materialising", "value": ratio, **common})
    headline(rows, names={"head_time_vs_materialising", "head_memory_vs_materialising"}, folder=args.out)
    print(table(report))


if __name__ == "__main__":
    run(main)
