"""Make a base model of a scale: results/<name>/model/base<n>/ and base<n>.json."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from sdpg.cli import config_from, parser, run
from sdpg.config import base_config, base_seeds
from sdpg.startup import quick_imports


def main() -> None:
    """Parse the command line, make the model, and say what was measured."""
    p = parser(__doc__)
    p.add_argument("--base", type=int, default=0, metavar="N", help="which of the scale's base models (default: 0)")
    args = p.parse_args()
    config = config_from(args)
    seeds = base_seeds(config)
    if args.base not in range(len(seeds)):
        raise ValueError(f"--base: got {args.base}, this scale has base models 0 to {len(seeds) - 1}")

    with quick_imports():
        from sdpg.experiment.base_model import make_base_model

    folder = Path("results") / config["name"] / "model"
    report = make_base_model(base_config(config, args.base), folder, index=args.base, threads=args.threads)
    line = f"base model {args.base}: {report['parameters']:,} parameters, {report['seconds']:.0f} s"
    if "student" in report:
        line += f", student accuracy {report['student']['accuracy']:.3f}, teacher {report['teacher']['accuracy']:.3f}"
    print(line)


if __name__ == "__main__":
    run(main)
