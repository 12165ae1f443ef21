"""Make the base model of a scale: results/<name>/model/base/ and model/base.json."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from sdpg.cli import config_from, parser, run


def main() -> None:
    """Parse the command line, make the model, and say what was measured."""
    args = parser(__doc__).parse_args()
    config = config_from(args)

    from sdpg.base_model import make_base_model

    report = make_base_model(config, Path("results") / config["name"] / "model", threads=args.threads)
    line = f"base model: {report['parameters']:,} parameters, {report['seconds']:.0f} s"
    if "student" in report:
        line += f", student accuracy {report['student']['accuracy']:.3f}, teacher {report['teacher']['accuracy']:.3f}"
    print(line)


if __name__ == "__main__":
    run(main)
