"""Build the training and evaluation sets of a scale: results/<name>/data/."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from sdpg.cli import config_from, parser, run


def main() -> None:
    """Parse the command line, build the sets, and say what they hold."""
    args = parser(__doc__).parse_args()
    config = config_from(args)

    from sdpg.tasks.data import build_data

    report = build_data(config, Path("results") / config["name"] / "data")
    sets = {"train": report["train"], **report["validation"], **report["evaluation"]}
    print("problems:", ", ".join(f"{name} {row['problems']}" for name, row in sets.items()))
    print(f"training problems removed because a held-out set has them: {report['train']['overlap_removed']}")


if __name__ == "__main__":
    run(main)
