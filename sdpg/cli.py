"""What the commands of `sdpg` share: their options with completion of names, and one clear line instead of a traceback."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
from typer.exceptions import TyperException

from sdpg.artefacts import Job, declared, files_of
from sdpg.config import METHODS, available_presets, available_scales, base_seeds, parse_overrides, resolve
from sdpg.config.files import shorter
from sdpg.io import kind_of, path_of
from sdpg.progress import Interrupted
from sdpg.slurm import requeueing

if TYPE_CHECKING:  # reads files with pandas, which training need not load here
    from sdpg.analysis.results import Results
    from sdpg.config.settings import Config


STOPPED = 130  # exit code after a wish to stop
ALONE = 75  # of a process whose others are gone
LOST = ("Connection closed by peer", "Connection reset by peer", "NCCL", "gloo")  # in torch's words for that


def _names(names: Callable[[], list[str]]) -> Callable[[str], list[str]]:
    """Return a function that completes a beginning to one of these names."""
    return lambda incomplete: [name for name in names() if name.startswith(incomplete)]


def _scales() -> list[str]:
    return [*available_scales(), *available_presets()]


def _methods() -> list[str]:
    return sorted(path.stem for path in METHODS.glob("*.yaml"))


def folder_of(text: str) -> Path:
    """Return an existing folder. Raises typer.BadParameter."""
    path = path_of(text)
    if (there := kind_of(path)) != "folder":
        what = "is a file" if there else "does not exist"
        raise typer.BadParameter(f"dir {shorter(path)} {what}")
    return path


Scale = Annotated[
    str,
    typer.Option(
        "--scale",
        metavar="NAME|FILE",
        help="A scale in config/scales, a preset in config/presets, or a YAML file.",
        autocompletion=_names(_scales),
    ),
]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override one config key: train.steps=20. May be repeated."),
]
Threads = Annotated[int, typer.Option("--threads", metavar="N", min=1, help="CPU threads.")]
Folder = Annotated[
    Path | None,
    typer.Option(
        "--results",
        metavar="DIR",
        parser=folder_of,
        help="The scale's folder, wherever it was copied to; what is made goes there too. Default: results/NAME.",
    ),
]
Method = Annotated[
    str, typer.Option("--method", metavar="NAME", help="A method of the scale.", autocompletion=_names(_methods))
]
OneMethod = Annotated[str | None, typer.Option("--method", metavar="NAME", help="A method.", autocompletion=_names(_methods))]
Seed = Annotated[
    int,
    typer.Option("--seed", metavar="N", min=0, max=2**63 - 1, help="The run's seed: decides the data order and every sample."),
]
ArtefactName = Annotated[
    str, typer.Argument(metavar="ARTEFACT", help="See `sdpg artefacts`.", autocompletion=_names(lambda: list(declared())))
]


def config_of(scale: str, overrides: list[str] | None, threads: int = 1) -> Config:
    """Return the resolved config. Tells OpenMP and MKL about the threads, so call it before torch is imported."""
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = str(threads)
    return resolve(scale, parse_overrides(overrides or []))


def job_of(scale: str, overrides: list[str] | None, folder: Path | None, threads: int = 1) -> Job:
    """Return the results, config and files that an artefact is made from. Raises ConfigError."""
    from sdpg.analysis.results import Results

    config = config_of(scale, overrides, threads)
    results = Results.from_config(config, folder)
    return Job(results, config, files_of(config, results.root.as_posix()), scale, parse_overrides(overrides or []))


def finished(scale: str, overrides: list[str] | None, folder: Path | None) -> tuple[Results, Config]:
    """Return results and config under the overrides that the results' manifest says they were made with; --set on top."""
    from sdpg.analysis.results import Results
    from sdpg.artefacts.manifest import NAME, read_manifest

    root = job_of(scale, overrides, folder).results.root
    made = read_manifest(root).get("overrides", {}) if (root / NAME).is_file() else {}
    config = resolve(scale, made | parse_overrides(overrides or []))
    return Results.from_config(config, root), config


def check_base(config: Config, base: int | None) -> None:
    """Raise ValueError where the scale has no base model of this number."""
    last = len(base_seeds(config)) - 1
    if base not in range(last + 1):
        known = f"base models 0 to {last}" if last else "base model 0 alone"
        raise ValueError(f"--base: got {base}; scale {config.name} has {known}")


def check_model(config: Config) -> None:
    """Raise ConfigError for a folder that is no checkpoint, as the dry run does: it would be taken for a hub id otherwise."""
    if config.model.pretrained:
        from sdpg.experiment.inputs import check_model, engines_of

        check_model(config.model.pretrained, engines_of(config))


def _in_thread(args: threading.ExceptHookArgs) -> None:
    """Leave an OSError of a thread (TensorBoard's, on a full disk) to whoever waits for it: it is raised there again."""
    if not isinstance(args.exc_value, OSError):
        threading.__excepthook__(args)


def run(main: Callable[[], Any]) -> NoReturn:
    """Call `main` and exit: 2 and one `error:` line for what the user can correct, 130 after Ctrl-C or another wish to stop.

    Anything else is a bug and keeps its traceback; SDPG_DEBUG=1 keeps every traceback. Of several processes the first says why
    the run stopped, and the others name themselves in their errors. A job of Slurm that was told to end is queued again.
    """
    with requeueing(STOPPED):
        _run(main)


def _run(main: Callable[[], Any]) -> NoReturn:
    debug, rank = bool(os.environ.get("SDPG_DEBUG")), os.environ.get("RANK", "0")
    who = "error" if rank == "0" else f"error in process {rank}"
    if not debug:
        threading.excepthook = _in_thread
    try:
        code = main()
        if code == STOPPED and rank == "0":  # what Ctrl-C becomes in typer
            print("stopped by Ctrl-C", file=sys.stderr)
        sys.exit(code)
    except Interrupted as stop:
        if rank == "0":
            print(stop, file=sys.stderr)
        sys.exit(STOPPED)
    except (typer.Abort, KeyboardInterrupt):
        if debug:
            raise
        print("stopped by Ctrl-C", file=sys.stderr)
        sys.exit(STOPPED)
    except TyperException as error:  # of the command line
        if debug:
            raise
        message = error.format_message() if hasattr(error, "format_message") else str(error)
        print(f"error: {message}; see --help", file=sys.stderr)
        sys.exit(2)
    except (ValueError, OSError, FloatingPointError) as error:  # the last: a run that diverged
        if debug:
            raise
        print(f"{who}: {' '.join(str(error).split()) or type(error).__name__}", file=sys.stderr)
        sys.exit(2)
    except RuntimeError as error:
        if debug or "RANK" not in os.environ or not any(word in str(error) for word in LOST):
            raise
        print(f"{who}: lost the other processes: {' '.join(str(error).split())[:200]}", file=sys.stderr)
        sys.exit(ALONE)  # as a rule another one ended, and has said why
