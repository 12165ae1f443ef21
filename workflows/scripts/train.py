"""Train one method with one seed: results/<scale>/runs/<method>/seed<n>/. Run again after a stop, it goes on where it was.

Several processes: torchrun --nproc-per-node 8 workflows/scripts/train.py --scale ... --method ... --seed ...
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from sdpg.cli import config_from, parser, run
from sdpg.startup import quick_imports


def main() -> None:
    """Parse the command line, train, and put the finished run in its place."""
    p = parser(__doc__)
    p.add_argument("--method", required=True, help="a name from config/methods that the scale lists")
    p.add_argument("--seed", type=int, required=True, help="decides the data order and every sample")
    args = p.parse_args()
    config = config_from(args)

    with quick_imports():  # of torch: only once the command line is known to be right
        from sdpg.experiment.compose import train_run

    train_run(config, args.method, args.seed, threads=args.threads)


if __name__ == "__main__":
    run(main)
