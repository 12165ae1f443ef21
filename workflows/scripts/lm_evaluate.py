"""Run lm-eval alone: on a run's last checkpoint (--method, --seed), or with --base N on a base model (eval/base<n>/)."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from sdpg.cli import config_from, parser, run
from sdpg.startup import quick_imports


def main() -> None:
    """Parse the command line and run lm-eval."""
    p = parser(__doc__)
    what = p.add_mutually_exclusive_group(required=True)
    what.add_argument("--method", help="a name from config/methods that the scale lists")
    what.add_argument("--base", type=int, metavar="N", help="base model number N, before any training")
    p.add_argument("--seed", type=int, default=0, help="the run's seed (default: 0)")
    args = p.parse_args()
    config = config_from(args)
    root = Path("results") / config["name"]
    base = None if args.base is None else f"base{args.base}"
    name = Path(base) if base else Path(args.method) / f"seed{args.seed}"

    with quick_imports():
        from sdpg.evaluation.checkpoints import load_checkpoints
        from sdpg.evaluation.lm_eval_bridge import lm_evaluate

    model = root / "model" / base if base else load_checkpoints(root / "runs" / name)[-1].path
    lm_evaluate(
        model, config, seed=args.seed, data_dir=root / "data", out_dir=root / "eval" / name, threads=args.threads
    )


if __name__ == "__main__":
    run(main)
