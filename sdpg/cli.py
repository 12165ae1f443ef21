"""What every command line under workflows/scripts shares: its options, and one clear line instead of a traceback.

def main(argv=None):
    args = parser(__doc__).parse_args(argv)
    config = config_from(args)
    ...

if __name__ == "__main__":
    run(main)
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from sdpg.config import parse_overrides, resolve

if TYPE_CHECKING:  # reads files with pandas, which training need not load here
    from sdpg.analysis.results import Results


def parser(description: str | None, *, results: bool = False) -> argparse.ArgumentParser:
    """A parser that knows --scale, --set and --threads; `description` (often the script's docstring) opens its --help.

    results: also --results, for scripts that read result files only (`results_from`).
    """
    result = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    result.add_argument(
        "--scale", default="cpu", metavar="NAME|FILE", help="a scale in config/scales, or a YAML file (default: cpu)"
    )
    result.add_argument(
        "--set",
        dest="overrides",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="override one config key, for example train.steps=20; may be repeated",
    )
    if results:
        result.add_argument(
            "--results",
            type=_folder,
            metavar="DIR",
            help="the scale's folder, wherever it was copied to (default: results/NAME); what is made goes there too",
        )
    result.add_argument("--threads", type=_positive, default=1, metavar="N", help="CPU threads to use (default: 1)")
    return result


def config_from(args: argparse.Namespace) -> dict[str, Any]:
    """The resolved config that --scale and --set ask for. Raises ConfigError (a ValueError).

    Also tells OpenMP and MKL about --threads, so call it before torch is imported.
    """
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = str(args.threads)
    return resolve(args.scale, parse_overrides(args.overrides))


def results_from(args: argparse.Namespace) -> Results:
    """The results that --scale, --set and --results ask for. Raises ConfigError (a ValueError)."""
    from sdpg.analysis.results import Results

    return Results.from_config(config_from(args), args.results)


def finished_from(args: argparse.Namespace) -> tuple[Results, dict[str, Any]]:
    """(results, config) as `results_from`, under the overrides that the results' manifest says they were made with; --set
    goes on top. Without a manifest, --set alone.
    """
    from sdpg.analysis.results import Results
    from sdpg.artefacts.manifest import NAME, read_manifest

    root = results_from(args).root
    made = read_manifest(root).get("overrides", {}) if (root / NAME).is_file() else {}
    config = resolve(args.scale, made | parse_overrides(args.overrides))
    return Results.from_config(config, root), config


def snakemake_command(scale: str, overrides: Mapping[str, Any]) -> str:
    """The command that runs everything at a scale with these overrides (see `sdpg.config.from_snakemake`)."""
    words = ["snakemake", "reproduce-all", "--config", f"scale={scale}"]
    words += [f"{key}={json.dumps(value)}" for key, value in overrides.items() if "." not in key]
    dotted = [f"{key}={json.dumps(value)}" for key, value in overrides.items() if "." in key]
    return shlex.join(words + ([f"set={shlex.join(dotted)}"] if dotted else []))


def run(main: Callable[[], int | None]) -> NoReturn:
    """Call `main` and exit: 2 and one `error:` line for what the user can put right, 130 after Ctrl-C.

    Anything else is a bug and keeps its traceback; SDPG_DEBUG=1 keeps every traceback.
    """
    try:
        sys.exit(main())
    except KeyboardInterrupt as stop:
        if os.environ.get("SDPG_DEBUG"):
            raise
        print(str(stop) or "stopped by Ctrl-C", file=sys.stderr)
        sys.exit(130)
    except (ValueError, OSError, FloatingPointError) as error:  # the last: a run that diverged
        if os.environ.get("SDPG_DEBUG"):
            raise
        message = " ".join(str(error).split()) or type(error).__name__
        print(f"error: {message}", file=sys.stderr)
        sys.exit(2)


def _folder(text: str) -> Path:
    if not Path(text).is_dir():
        raise argparse.ArgumentTypeError(f"got {text!r}, expected a folder with a scale's results")
    return Path(text)


def _positive(text: str) -> int:
    try:
        value = int(text)
    except ValueError:
        value = 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"got {text!r}, expected a whole number >= 1")
    return value
