"""Evaluate every checkpoint of one run: results/<scale>/eval/<method>/seed<n>/<set>.parquet, with --lm-eval also lm_eval.json.

--lm-eval runs lm-eval on the last checkpoint in the same process and engine, which saves a second start of vLLM.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from sdpg.cli import config_from, parser, run
from sdpg.startup import quick_imports


def main() -> None:
    """Parse the command line and evaluate."""
    p = parser(__doc__)
    p.add_argument("--method", required=True, help="a name from config/methods that the scale lists")
    p.add_argument("--seed", type=int, required=True, help="the run's seed")
    p.add_argument("--lm-eval", action="store_true", help="also run lm-eval on the last checkpoint")
    args = p.parse_args()
    config = config_from(args)
    root, name = Path("results") / config["name"], Path(args.method) / f"seed{args.seed}"

    with quick_imports():  # only once the command line is known to be right
        from sdpg.evaluation.run import evaluate_run
    evaluate_run(
        root / "runs" / name,
        config,
        seed=args.seed,
        data_dir=root / "data",
        out_dir=root / "eval" / name,
        threads=args.threads,
        lm_eval=args.lm_eval,
        title=f"{args.method} seed {args.seed}",
    )


if __name__ == "__main__":
    run(main)
