"""The command `sdpg`: one line here for each thing that the project does outside Snakemake, and that its rules call."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from sdpg import cli, locks
from sdpg.cli import ArtefactName, Folder, Method, OneMethod, Scale, Seed, Set, Threads
from sdpg.config import run_config
from sdpg.experiment import at_once, builds, gpus, launch
from sdpg.startup import quick_imports

app = typer.Typer(
    name="sdpg",
    help="Self-Distilled Policy Gradient: train, evaluate and compare. The whole benchmark: `snakemake reproduce-all`.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
Base = Annotated[int | None, typer.Option("--base", metavar="N", help="Number of one of the scale's base models.")]
LmEval = Annotated[bool, typer.Option("--lm-eval", help="Also run lm-eval on the last checkpoint, in the same engine.")]
Reference = Annotated[
    Path | None, typer.Option("--reference", metavar="DIR", parser=cli.path_of, help="Default: results/reference/NAME.")
]
Step = Annotated[int | None, typer.Option("--step", metavar="N", min=0, help="Checkpoint (default: the last).")]
With = Annotated[
    Path | None,
    typer.Option("--with", metavar="FILE", parser=cli.path_of, help="An archive of `sdpg archive` in the reference's place."),
]


@app.command()
def data(scale: Scale = "cpu", set_: Set = None, threads: Threads = 1):
    """Build the training, validation and evaluation sets of a scale."""
    config = cli.config_of(scale, set_, threads)
    with quick_imports():
        from sdpg.experiment.problems import make_problems, summary

    cli.check_model(config)
    with locks.hold(locks.of(config.name, "data")):
        print(summary(make_problems(config, Path("results") / config.name / "data")))


@app.command()
def solutions(
    scale: Scale = "cpu",
    estimate: Annotated[bool, typer.Option("--estimate", help="Ask nothing; print what would be asked, and its cost.")] = False,
    set_: Set = None,
    threads: Threads = 1,
):
    """Write worked solutions for the training problems that have none, as data.solutions says.

    After a stop the same command goes on where it was, and asks nothing twice.
    """
    config = cli.config_of(scale, set_, threads)
    with quick_imports():
        from sdpg.experiment.solutions import make_solutions

    local = config.data.solutions is not None and config.data.solutions.local is not None and not estimate
    with locks.hold(locks.of(config.name, "solutions")), gpus.taken(min(1, config.resources.gpus) if local else 0):
        print(make_solutions(config, Path("results") / config.name, threads=threads, estimate=estimate))


@app.command("base-model")
def base_model(scale: Scale = "cpu", base: Base = 0, set_: Set = None, threads: Threads = 1):
    """Make a base model of a scale, and measure it."""
    config = cli.config_of(scale, set_, threads)
    cli.check_base(config, base)
    cli.check_model(config)
    with quick_imports():
        from sdpg.experiment.base_model import make_base_model

    folder = Path("results") / config.name / "model"
    with locks.hold(locks.of(config.name, f"base{base}")), gpus.taken(min(1, config.resources.gpus)):
        report = make_base_model(config, folder, index=base, threads=threads)
    line = f"base model {base}: {report['parameters']:,} parameters, {report['seconds']:.0f} s"
    if "student" in report:
        line += f", student accuracy {report['student']['accuracy']:.3f}, teacher {report['teacher']['accuracy']:.3f}"
    print(line)


@app.command()
def train(method: Method, seed: Seed, scale: Scale = "cpu", set_: Set = None, threads: Threads = 1) -> int:
    """Train one run. After a stop the same command goes on where it was.

    It starts as many processes as the scale's `resources` say, or is one of those that torchrun has started.
    """
    config = cli.config_of(scale, set_, threads)
    run_config(config, method, seed)  # an unknown method is refused before any process is started
    code = launch.train(config, method, seed, threads, sys.argv[1:])
    if code == 0 and config.resources.evaluate_at_once and config.sweep is None:
        at_once.evaluate_at_once(config, method, seed, threads)
    if code == 0:
        launch.settle(config, method, seed)
    return code


@app.command()
def evaluate(
    method: Method, seed: Seed, scale: Scale = "cpu", lm_eval: LmEval = False, set_: Set = None, threads: Threads = 1
) -> int:
    """Sample every checkpoint of one run on every evaluation set. After a stop the same command goes on where it was.

    It starts as many processes as the scale's `resources` say.
    """
    from sdpg.experiment import evaluate

    config = cli.config_of(scale, set_, threads)
    run_config(config, method, seed)  # an unknown method is refused before anything is loaded
    if config.resources.evaluate_at_once and not lm_eval:
        with locks.hold(locks.of(config.name, f"evaluate-{method}-seed{seed}")):
            if at_once.put_in_place(config, method, seed):
                print(f"{method} seed {seed}: evaluated when it was trained")
                return 0
    return evaluate.evaluate(config, method, seed, threads, lm_eval=lm_eval, words=sys.argv[1:])


@app.command("lm-eval")
def lm_eval(
    scale: Scale = "cpu", method: OneMethod = None, base: Base = None, seed: Seed = 0, set_: Set = None, threads: Threads = 1
):
    """Run lm-eval alone. The model is a run's last checkpoint (--method, --seed) or a base model (--base)."""
    if (method is None) == (base is None):
        raise ValueError("give one of --method (with --seed) and --base")
    config = cli.config_of(scale, set_, threads)
    cli.check_base(config, base) if method is None else run_config(config, method, seed)
    builds.check_build(config)
    root = Path("results") / config.name
    name = Path(f"base{base}") if method is None else Path(method) / f"seed{seed}"
    with quick_imports():
        from sdpg.evaluation.checkpoints import load_checkpoints
        from sdpg.evaluation.lm_eval_bridge import lm_evaluate

    model = root / "model" / name if method is None else load_checkpoints(root / "runs" / name)[-1].path
    lock = locks.of(config.name, "-".join(["lm-eval" if config.lm_eval_apart else "evaluate", *name.parts]))
    with locks.hold(lock), gpus.taken(min(1, config.resources.gpus)):
        lm_evaluate(model, config, seed=seed, data_dir=root / "data", out_dir=root / "eval" / name, threads=threads)


@app.command()
def show(
    method: Method,
    seed: Seed,
    problem: Annotated[str, typer.Option("--problem", metavar="ID|N", help="Its id, or its number in the set, from 0.")],
    scale: Scale = "cpu",
    step: Step = None,
    sample: Annotated[int | None, typer.Option("--sample", metavar="N", min=0, help="One response alone.")] = None,
    right: Annotated[bool | None, typer.Option("--right/--wrong", help="Right responses alone, or wrong ones.")] = None,
    train: Annotated[bool, typer.Option("--train", help="A training problem: its prompts.")] = False,
    results: Folder = None,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="NAME|KEY=VALUE", help="Evaluation set (default: the first); or a config key, as elsewhere."
        ),
    ] = None,
):
    """Print a problem of a run: prompt, the teacher's prompt, responses and verdicts.

    sdpg show --scale cpu --method grpo --seed 0 --problem 7 --wrong
    """
    from sdpg.experiment import show

    named = [text for text in set_ or [] if "=" not in text]
    if len(named) > 1:
        raise ValueError(f"--set: got {' and '.join(map(repr, named))}, expected one evaluation set")
    config = cli.config_of(scale, [text for text in set_ or [] if "=" in text])
    run_config(config, method, seed)
    chosen = {"set_name": named[0] if named else None, "step": step, "sample": sample, "right": right, "train": train}
    sys.stdout.reconfigure(errors="backslashreplace")  # a terminal that lacks a character shows its number
    for text in show.show(config, method, seed, problem, results=results, **chosen):
        print(text, end="")


@app.command()
def make(artefact: ArtefactName, scale: Scale = "cpu", results: Folder = None, set_: Set = None, threads: Threads = 1):
    """Make one artefact from finished runs. `sdpg artefacts` lists their names: figures/cost, tables/main, scores, ..."""
    from sdpg import artefacts
    from sdpg.artefacts.declare import AcrossSpec

    job = cli.job_of(scale, set_, results, threads)
    there = artefacts.planned(job.config)
    if artefacts.lookup(artefact).name not in there:
        raise ValueError(f"artefact {artefact!r} is not planned at scale {job.config.name}, which has {', '.join(there)}")
    if isinstance(there[artefact].spec, AcrossSpec):
        if results is not None:
            raise ValueError(f"--results: {artefact} is made from several scales, each in its own results/<name>; leave it out")
        cells = [cli.job_of(cell, set_, None, threads).results for cell in job.config.matrix]
        paths = artefacts.make_across(artefact, cells, job.results.root.with_name(f"{job.config.name}-{artefact}"))
    else:
        paths = artefacts.make(artefact, job)
    for path in paths:
        print(path)
        if path.suffix in (".md", ".yaml") and "/" not in artefact:
            print(path.read_text(encoding="utf-8"))


@app.command()
def artefacts(scale: Scale = "cpu", set_: Set = None):
    """List the artefacts of a scale: what each is, and its files."""
    from sdpg.artefacts import planned

    for name, item in planned(cli.config_of(scale, set_)).items():
        print(f"{name:28} {item.about}\n{'':28} {', '.join(item.outputs)}")


@app.command()
def explain(
    key: Annotated[str, typer.Argument(metavar="KEY", help="train.lr, data.train, ..., or a method's beta_base")],
    scale: Scale = "cpu",
    method: OneMethod = None,
    set_: Set = None,
):
    """Print a setting's value and where it comes from. The layers stand in order, from the default to the one in force."""
    from sdpg.config import parse_overrides
    from sdpg.config.layers import render

    print(render(key, scale, parse_overrides(set_ or []), method=method), end="")


@app.command()
def diff(
    a: Annotated[str, typer.Argument(metavar="A", help="A scale, preset or YAML file")],
    b: Annotated[str | None, typer.Argument(metavar="B", help="The other one (default: A)")] = None,
    method: OneMethod = None,
    method_a: Annotated[str | None, typer.Option(help="The method under A, where it is not that under B.")] = None,
    method_b: Annotated[str | None, typer.Option(help="The method under B.")] = None,
    set_: Set = None,
):
    """Print what differs between two configs. It is a Markdown table, defaults included; --set goes on top of B.

    sdpg diff paper-qwen3-4b released-qwen3-4b             two scales or presets, all methods that both have
    sdpg diff matched --method-a grpo --method-b rlsd      two methods of one scale
    """
    from sdpg.config.diff import compare

    print(compare(a, b, method_a or method, method_b or method, set_ or []), end="")


@app.command()
def plan(
    scale: Scale = "cpu",
    gpus: Annotated[
        int | None, typer.Option(metavar="N", min=0, max=64, help="GPUs of a node (default: the scale's resources).")
    ] = None,
    nodes: Annotated[int | None, typer.Option(metavar="N", min=1, max=1000, help="Nodes.")] = None,
    gpu: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="h100, a100, h200, b200, l40s, l4, rtx4090 or rtx3090 (default: by memory)."),
    ] = None,
    gpu_memory: Annotated[
        float | None, typer.Option(metavar="GB", min=1, max=10_000, help="A card's memory (default: 80).")
    ] = None,
    mfu: Annotated[
        float | None, typer.Option(metavar="SHARE", min=0.01, max=1, help="Share of a card's FLOPs reached (default: 0.4).")
    ] = None,
    response_tokens: Annotated[
        float | None, typer.Option(metavar="MEAN", help="Mean length of a response (default: 0.63 of the longest).")
    ] = None,
    set_: Set = None,
) -> int:
    """Print what a scale's runs need of memory, time and disk. Nothing is loaded; the exit code is 1 if they do not fit.

    sdpg plan --scale paper-qwen3-4b --gpus 8 --gpu-memory 80
    """
    from sdpg.experiment.machine import card, placement
    from sdpg.experiment.plan_text import render
    from sdpg.experiment.plan_time import MFU
    from sdpg.experiment.planner import make_plan, misfit

    config = cli.config_of(scale, set_)
    if gpus is None and config.resources.gpus == 0 and (gpu or gpu_memory):
        gpus = 1
    on = card(gpu, gpu_memory)
    planned = make_plan(config, gpu=on, place=placement(config, on, gpus, nodes), response_tokens=response_tokens)
    print(render(planned, mfu or MFU), end="")
    return 1 if misfit(planned) else 0


@app.command()
def verify(scale: Scale = "cpu", results: Folder = None, set_: Set = None) -> int:
    """Check results against their manifest, code and config. The exit code is 1 if any does not match."""
    from sdpg.artefacts.manifest import read_manifest
    from sdpg.provenance.verify import summary, verify

    there, config = cli.finished(scale, set_, results)
    found = verify(there.root, config)
    print(summary(found, read_manifest(there.root)), end="")
    return 1 if found else 0


@app.command()
def compare(
    scale: Scale = "cpu", results: Folder = None, reference: Reference = None, with_: With = None, set_: Set = None
) -> int:
    """Compare a run with the committed reference. The exit code is 1 if a score or claim differs beyond sampling error."""
    from sdpg.analysis.reference import FOLDER, compare
    from sdpg.sharing.compare import compare_with

    there, _ = cli.finished(scale, set_, results)
    agreement = compare_with(there, with_, reference) if with_ else compare(there, reference or FOLDER / there.name)
    print(agreement.headline)
    print("p_holm: corrected for all of these comparisons; a difference counts where it is 0.05 or less.")
    print("Claims stand on the scale of their test: logarithms where the effect is relative.\n")
    print(agreement.rows.drop(columns="p").to_string(index=False, float_format="{:.3f}".format))
    print("".join(f"\nnote: {note}" for note in agreement.notes))
    return 0 if agreement.holds else 1


@app.command()
def archive(
    scale: Scale = "cpu",
    results: Folder = None,
    to: Annotated[
        Path | None, typer.Option("--to", metavar="FILE", parser=cli.path_of, help="Default: results/NAME.zip.")
    ] = None,
    checkpoints: Annotated[str, typer.Option(metavar="none|last|all", help="Checkpoints of each run to pack.")] = "none",
    force: Annotated[bool, typer.Option("--force", help="Also results that do not match their manifest.")] = False,
    set_: Set = None,
):
    """Pack results, generations and manifest into one file, to be published. The same results give the same bytes."""
    from sdpg.sharing.archive import pack

    if checkpoints not in ("none", "last", "all"):
        raise ValueError(f"--checkpoints: got {checkpoints!r}, expected none, last or all")
    there, config = cli.finished(scale, set_, results)
    path = to or there.root.parent / f"{there.name}.zip"
    print(pack(there, config, path, checkpoints=checkpoints, force=force))


@app.command()
def push(
    method: Method,
    seed: Seed,
    to: Annotated[str, typer.Option("--to", metavar="OWNER/NAME", help="A model repository of the hub.")],
    scale: Scale = "cpu",
    step: Step = None,
    public: Annotated[bool, typer.Option("--public", help="For all to see; otherwise private.")] = False,
    licence: Annotated[str | None, typer.Option("--licence", metavar="ID", help="For the card: apache-2.0, mit, ...")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Write the folder and print the card; no network.")] = False,
    results: Folder = None,
    set_: Set = None,
):
    """Put a run's checkpoint on the Hugging Face hub. Its model card is made of what the run left.

    sdpg push --scale cpu --method grpo --seed 0 --to me/grpo --dry-run
    """
    from sdpg.sharing import push

    push.check_name(to)
    if not dry_run:
        push.check_token()
    there, config = cli.finished(scale, set_, results)
    run_config(config, method, seed)
    folder, step = push.prepare(there, method, seed, to=to, step=step, licence=licence)
    if dry_run:
        print((folder / "README.md").read_text(encoding="utf-8"))
        print(f"not pushed; this is {folder}/README.md, and what would go to {to} lies in that folder", file=sys.stderr)
    else:
        print(f"step {step} of {method} seed {seed} is at {push.push(folder, to, step=step, private=not public)}")


@app.command()
def reference(
    scale: Annotated[str | None, typer.Option("--scale", metavar="NAME|FILE", help="Default: cpu; of --check, all.")] = None,
    results: Folder = None,
    set_: Set = None,
    check: Annotated[bool, typer.Option("--check", help="Make nothing; say which references are stale, and of what.")] = False,
) -> int:
    """Make a scale's results the committed reference. They must match their manifest, the code and the config.

    With --check: one line for each committed reference, whether the present code and config are those that made it; the exit
    code is 1 if any is stale. With --scale as well, what has changed.
    """
    from sdpg.experiment import references

    return references.check(scale) if check else references.make(*cli.finished(scale or "cpu", set_, results))


@app.command()
def docs(check: Annotated[bool, typer.Option("--check", help="Write nothing; exit code 1 if a file is old.")] = False) -> int:
    """Write what is generated: config/schema.json, docs/artefacts.md, and the numbers of README.md and docs/."""
    from sdpg.experiment.docs import generate

    changed = generate(write=not check)
    print("\n".join(f"{'old' if check else 'written'}: {path}" for path in changed) or "everything generated is current")
    return 1 if check and changed else 0


def main() -> None:
    """Run the command line."""
    cli.run(lambda: app(standalone_mode=False, prog_name="sdpg"))


if __name__ == "__main__":
    main()
