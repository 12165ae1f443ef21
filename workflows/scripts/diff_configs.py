"""Print what differs between two configs, defaults included, as a Markdown table.

diff_configs.py paper-qwen3-4b released-qwen3-4b                        two scales or presets, all methods that both have
diff_configs.py paper-qwen3-4b released-qwen3-4b --method grpo          one method's runs under either
diff_configs.py matched --method-a grpo --method-b sdpg-urkl            two methods of one scale
diff_configs.py cpu cpu --set train.steps=20                            --set goes on top of the second
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from sdpg.cli import run
from sdpg.config import parse_overrides, resolve
from sdpg.config.diff import complete, difference, markdown


def main() -> None:
    """Parse the command line and print the table."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("a", metavar="A", help="a name in config/scales or config/presets, or a YAML file")
    p.add_argument("b", metavar="B", nargs="?", help="the other one (default: A)")
    p.add_argument("--method", metavar="M", help="compare the runs of this method only")
    p.add_argument("--method-a", metavar="M", help="the method under A, where it is not that under B")
    p.add_argument("--method-b", metavar="N", help="the method under B")
    p.add_argument(
        "--set", dest="overrides", action="append", default=[], metavar="KEY=VALUE", help="override a key of B"
    )
    args = p.parse_args()
    method_a, method_b = args.method_a or args.method, args.method_b or args.method
    if (method_a is None) != (method_b is None):
        p.error("--method-a and --method-b go together; --method sets both")
    if args.b is None and method_a == method_b and not args.overrides:
        p.error("nothing to compare: give a second config, --method-a and --method-b, or --set")
    name_b = args.b or args.a
    a, b = resolve(args.a), resolve(name_b, parse_overrides(args.overrides))
    labels = [args.a, name_b + (" with --set" if args.overrides else "")]
    if method_a:
        labels = [f"{label}: {method}" for label, method in zip(labels, (method_a, method_b), strict=True)]
    else:  # a method that only one of them lists is one line, not its every field
        for x, y in ((a, b), (b, a)):
            if alone := [name for name in x["methods"] if name not in y["methods"]]:
                print(f"Only in {labels[x is b]}: {', '.join(alone)}.\n")
        both = [name for name in a["methods"] if name in b["methods"]]
        a, b = ({**x, "methods": {name: x["methods"][name] for name in both}} for x in (a, b))
    print(markdown(difference(complete(a, method_a), complete(b, method_b)), *labels), end="")


if __name__ == "__main__":
    run(main)
