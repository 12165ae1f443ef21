"""The lm-head with log-prob, entropy and exact reverse KL, forward and backward: time and memory, ours beside others.

    python -m benchmarks.head [--tokens 128 512 2048] [--vocabulary 8192 49152] [--hidden 576] [--repeats 5] [--no-peers]

What is compared, and on which loss: benchmarks/heads.py. All see the same inputs and take turns, call by call; a ratio is the
median over the repeats of (ours / theirs). Peak memory is measured in a separate process per implementation, after a call at
a small shape, and is what it needs beyond inputs and gradients. Gradients are compared on a sample of their entries and by
norm. An implementation that would not fit into the free memory is left out of that shape, and the table says so.
Writes benchmarks/results/head.json and .md, and head_* of summary.json.
"""

import argparse
import sys
from pathlib import Path

from benchmarks.heads import BASE, DIVERGENCE_ONLY, LIGER, OURS, PLAIN
from benchmarks.machine import (
    RESULTS,
    exponents,
    free_memory_mb,
    hardware_in_short,
    headline,
    in_words,
    machine,
    median,
    peer_versions,
    stem,
    write_report,
)
from benchmarks.workers import Worker, peer_python
from sdpg.cli import run
from sdpg.io import read_json

KEPT = 9  # [tokens, vocabulary] float32 tensors that an implementation that keeps them all may hold at once
KEEPS_ALL = ("materialising", "released", "liger-chunked")  # the last one of up to 2,047 tokens at once
SMALL = {"tokens": 64, "vocabulary": 512}
HEADLINES = {"head_time_vs_materialising", "head_memory_vs_materialising", "head_time_vs_liger"}


class Team:
    """The workers by implementation: one process for all of this environment, one for the peers."""

    def __init__(self, args):
        self.args = args
        self.names = [*PLAIN, *(LIGER if args.peers else ())]
        own = self.start(PLAIN[0])
        self.workers = dict.fromkeys(PLAIN, own)
        if args.peers:
            self.workers |= dict.fromkeys(LIGER, self.start(LIGER[0]))

    def start(self, name: str) -> Worker:
        """A new process that can run `name`."""
        a = self.args
        python = sys.executable if name in PLAIN else peer_python()
        arguments = ["--dtype", a.dtype, "--hidden", a.hidden, "--threads", a.threads]
        return Worker(python, "benchmarks/heads.py", arguments, threads=a.threads)

    def close(self) -> None:
        """End all workers."""
        for worker in set(self.workers.values()):
            worker.close()


def why_not(name: str, shape: dict, free_mb: float) -> str | None:
    """Why an implementation is left out of a shape; None if it should fit."""
    tokens = min(shape["tokens"], 2048) if name in LIGER else shape["tokens"]
    need = KEPT * tokens * shape["vocabulary"] * 4 / 2**20
    if name in KEEPS_ALL and need > free_mb:
        return f"left out: needs about {need / 2**10:.0f} GiB, {free_mb / 2**10:.0f} GiB are free"
    return None


def difference(own: dict[str, list[float]], base: dict[str, list[float]]) -> float:
    """Largest difference of two samples of gradients, relative to the base's largest entry of that part."""
    parts = []
    for name, values in base.items():
        scale = max(map(abs, values))
        parts.append(max(abs(a - b) for a, b in zip(own[name], values, strict=True)) / scale)
    return max(parts)


def measure_shape(team: Team, shape: dict, repeats: int) -> dict[str, dict]:
    """By implementation: median ms, ours / this, difference of the gradients; or `note`: why there is nothing."""
    rows: dict[str, dict] = {}
    base = {
        with_logp: team.workers[BASE].ask(do="gradients", name=BASE, with_logp=with_logp, **shape)["gradients"]
        if why_not(BASE, shape, free_memory_mb()) is None
        else None
        for with_logp in (True, False)
    }
    for name in team.names:
        if note := why_not(name, shape, free_memory_mb()):
            rows[name] = {"note": note}
            continue
        with_logp = name not in DIVERGENCE_ONLY
        answer = team.workers[name].ask(do="gradients", name=name, with_logp=with_logp, **shape)  # warms up, too
        if "error" in answer:
            rows[name] = {"note": answer["error"]}
            continue
        reference = base[with_logp]
        rows[name] = {"gradient_difference": difference(answer["gradients"], reference) if reference else None}
    running = [name for name in team.names if "note" not in rows[name]]
    seconds = {name: [] for name in running}
    for i in range(repeats):
        turn = i % len(running)
        for name in running[turn:] + running[:turn]:
            seconds[name].append(team.workers[name].ask(do="time", name=name, **shape)["seconds"])
    for name in running:
        ratios = [own / other for own, other in zip(seconds[OURS], seconds[name], strict=True)]
        rows[name] |= {"ms": round(1e3 * median(seconds[name]), 3), "ours_over_this": round(median(ratios), 3)}
    return rows


def measure_memory(team: Team, shapes: list[dict], rows: list[dict[str, dict]]) -> None:
    """Add `memory_mb` to the rows of all shapes: one new process per implementation."""
    for name in team.names:
        todo = [(shape, row) for shape, row in zip(shapes, rows, strict=True) if "note" not in row[name]]
        if not todo:
            continue
        with team.start(name) as worker:
            worker.ask(do="memory", name=name, **SMALL)  # libraries, threads and compiled code are in place after this
            for shape, row in todo:
                memory = worker.ask(do="memory", name=name, **shape)["memory_mb"]
                row[name]["memory_mb"] = None if memory is None else round(memory, 1)


def scaling(shapes: list[dict], rows: list[dict[str, dict]]) -> dict[str, dict]:
    """By implementation, exponents of tokens and vocabulary in time and memory, where enough shapes were measured."""
    result = {}
    for name in rows[0]:
        points = [(s, row[name]) for s, row in zip(shapes, rows, strict=True) if row[name].get("memory_mb")]
        for what in ("ms", "memory_mb"):
            fit = exponents([(s["tokens"], s["vocabulary"], row[what]) for s, row in points])
            if fit:
                result.setdefault(name, {})[what] = {"tokens": fit[0], "vocabulary": fit[1]}
    return result


def table(report: dict) -> str:
    """The report as Markdown."""
    setting = report["setting"]
    lines = [
        "# The lm-head: ours beside materialising torch, the released code's formulation and Liger",
        "",
        "Written by `benchmarks/head.py`; the same numbers are in `head.json`. What each row is: `benchmarks/heads.py`.",
        "",
        *in_words(report),
        *(["- Peers: " + ", ".join(f"{k} {v}" for k, v in report["peers"].items())] if report["peers"] else []),
        f"- Hidden size {setting['hidden']}, {setting['dtype']}, forward and backward, medians of {setting['repeats']} "
        "repeats that take turns. `ours / this`: time of `chunked` over this row's. `extra MiB`: peak beyond inputs and "
        "gradients, in a separate process. `difference`: of the gradients to `materialising`, relative to the largest entry.",
        "",
        "| tokens | vocabulary | implementation | ms | ours / this | extra MiB | difference |",
        "|" + "---|" * 7,
    ]
    for entry in report["shapes"]:
        for name, row in entry["implementations"].items():
            cells = [f"{entry['tokens']}", f"{entry['vocabulary']}", name]
            if "note" in row:
                cells += [row["note"], "-", "-", "-"]
            else:
                memory, gap = row.get("memory_mb"), row["gradient_difference"]
                cells += [f"{row['ms']:.0f}", f"{row['ours_over_this']:.2f}"]
                cells += ["-" if memory is None else f"{memory:.0f}", "-" if gap is None else f"{gap:.0e}"]
            lines.append("| " + " | ".join(cells) + " |")
    if report["scaling"]:
        lines += [
            "",
            "Growth as tokens^a x vocabulary^b, fitted over all shapes of the table (least squares of logarithms):",
            "",
        ]
        lines += ["| implementation | time: a | b | extra memory: a | b |", "|" + "---|" * 5]
        for name, fit in report["scaling"].items():
            cells = [f"{fit[what][axis]:.2f}" for what in ("ms", "memory_mb") for axis in ("tokens", "vocabulary")]
            lines.append("| " + " | ".join([name, *cells]) + " |")
    return "\n".join(lines) + "\n"


def headlines(report: dict) -> list[dict]:
    """Rows of summary.json: one per shape and ratio that was measured; Liger's fastest row stands for it."""
    setting = report["setting"]
    common = {"model": f"random weights, hidden size {setting['hidden']}", **hardware_in_short(report)}
    rows = []
    for entry in report["shapes"]:
        parts = entry["implementations"]
        shape = f"{entry['tokens']} tokens x {entry['vocabulary']} vocabulary, {setting['dtype']}"
        values = {}
        if "ms" in parts[BASE]:
            values["head_time_vs_materialising"] = (parts[BASE]["ours_over_this"], shape)
            own, theirs = (parts[name].get("memory_mb") for name in (OURS, BASE))
            if own and theirs:  # what is too small for the system to notice has no ratio
                ratio = round(own / theirs, 4)
                values["head_memory_vs_materialising"] = (ratio, shape)
        ran = {name: parts[name]["ours_over_this"] for name in LIGER if "ms" in parts.get(name, {})}
        if ran:
            fastest = max(ran, key=ran.get)
            values["head_time_vs_liger"] = (ran[fastest], f"{shape}, {fastest}")
        rows += [{"name": name, "value": value, "shape": text, **common} for name, (value, text) in values.items()]
    return rows


def parse(argv=None):
    """The command line."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--tokens", type=int, nargs="+", default=[128, 512, 2048])
    p.add_argument("--vocabulary", type=int, nargs="+", default=[8192, 49152])
    p.add_argument("--extra", nargs="*", default=["512x151936"], help="more shapes, tokens x vocabulary: 512x151936")
    p.add_argument("--hidden", type=int, default=576, help="SmolLM2-135M's (576); Qwen3-1.7B has 2048, 4B 2560")
    p.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    p.add_argument("--repeats", type=int, default=5)
    p.add_argument("--threads", type=int, default=1)
    p.add_argument("--no-peers", dest="peers", action="store_false", help="leave Liger out (it needs `make peers`)")
    p.add_argument("--memory-only", action="store_true", help="of the shapes in --name's file; its times stay (2 minutes)")
    p.add_argument("--name", default="head", help="of the files that are written (head)")
    p.add_argument("--out", type=Path, default=RESULTS)
    return p.parse_args(argv)


def measure(args) -> dict:
    """The report: time, then memory."""
    sizes = [(tokens, vocabulary) for vocabulary in args.vocabulary for tokens in args.tokens]
    sizes += [tuple(map(int, text.split("x"))) for text in args.extra]
    shapes = [{"tokens": t, "vocabulary": v} for t, v in sorted(set(sizes), key=lambda size: (size[1], size[0]))]
    team = Team(args)
    try:
        rows = []
        for shape in shapes:
            rows.append(measure_shape(team, shape, args.repeats))
            print(shape, {name: row.get("ms", row.get("note")) for name, row in rows[-1].items()}, flush=True)
    finally:
        team.close()
    measure_memory(team, shapes, rows)
    return {
        "setting": {"hidden": args.hidden, "dtype": args.dtype, "repeats": args.repeats},
        **machine(args.threads),
        "peers": peer_versions() if args.peers else {},
        "scaling": scaling(shapes, rows),
        "shapes": [shape | {"implementations": row} for shape, row in zip(shapes, rows, strict=True)],
    }


def measure_memory_again(args) -> dict:
    """The report that lies there, with its memory measured again; ValueError if it is of other hardware or versions."""
    now = machine(args.threads)
    path = args.out / f"{stem(args.name, now)}.json"
    report = read_json(path)
    if changed := [key for key in now if report[key] != now[key]]:
        raise ValueError(f"--memory-only: {path} was measured with other {' and '.join(changed)}; measure all of it again")
    args.hidden, args.dtype, args.peers = (*(report["setting"][key] for key in ("hidden", "dtype")), bool(report["peers"]))
    shapes = [{key: entry[key] for key in ("tokens", "vocabulary")} for entry in report["shapes"]]
    rows = [entry["implementations"] for entry in report["shapes"]]
    team = Team(args)
    team.close()
    measure_memory(team, shapes, rows)
    return report | {"scaling": scaling(shapes, rows)}


def main() -> None:
    """Parse the command line, measure, and write the files."""
    args = parse()
    report = measure_memory_again(args) if args.memory_only else measure(args)
    write_report(args.out, args.name, report, table(report))
    headline(headlines(report), names=HEADLINES, folder=args.out)


if __name__ == "__main__":
    run(main)
