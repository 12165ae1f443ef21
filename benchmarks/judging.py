"""How long a step's answers take to judge, with hostile ones among them.

    python -m benchmarks.judging [--answers 1024] [--hostile 100]

Answers are numbers and expressions, each another one, so that none is known already; hostile ones (towers of powers, nested
integrals, 50 brackets, and one in ten that only the time limit ends) are spread over them. Prints seconds and reasons.
"""

import argparse
import time

from sdpg.tasks.verifiers import make_verifier
from sdpg.types import Problem

KINDS = (
    r"9^{{9^{{9^{{{i}}}}}}}",
    r"({i}0^8)!",
    r"\int_0^{i}\int_0^1\int_0^1 e^{{xyz}} dx dy dz",
    "(" * 50 + "{i}" + ")" * 50,
    r"\sum_{{n=1}}^{{{i}000000}} \frac{{1}}{{n^2}}",
    r"\sqrt{{{i}+" * 50 + "2" + "}}" * 50,
    "{i}e999999999",
    r"\binom{{{i}0^9}}{{10^8}}",
    "{i}.1^{{999999999}}",
)
PRIMES = (2, 3, 5, 7, 11, 13, 17)  # a sum of roots that is 0, which sympy does not show in time
PAIRS = "".join(f"+2\\sqrt{{{a * b}}}" for i, a in enumerate(PRIMES) for b in PRIMES[:i])
HANGS = f"+\\sqrt{{{sum(PRIMES)}{PAIRS}}}" + "".join(f"-\\sqrt{{{a}}}" for a in PRIMES)


def answers(count: int, hostile: int) -> list[tuple[str, str]]:
    """Return pairs of a reference and an answer."""
    kinds = (r"\frac{{{i}}}{{7}}", "{i}", r"{i}\sqrt{{2}}", r"\frac{{\sqrt{{{i}}}}}{{2}}", "x^2+{i}")
    found = [(kinds[i % 5].format(i=i), kinds[i % 5].format(i=i + i % 2)) for i in range(count - hostile)]
    bad = [(str(i), f"{i}{HANGS}" if i % 10 == 9 else KINDS[i % 10].format(i=i + 2)) for i in range(hostile)]
    every = max(1, len(found) // max(1, hostile))
    for place, pair in enumerate(bad):
        found.insert(place * (every + 1), pair)
    return found


def main() -> None:
    """Judge them, and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--answers", type=int, default=1024)
    parser.add_argument("--hostile", type=int, default=100)
    args = parser.parse_args()
    verifier = make_verifier("math-verify")
    pairs = answers(args.answers, args.hostile)
    started = time.perf_counter()
    scores = verifier.map(lambda pair: verifier(Problem("p", "", pair[0], "", ""), f"\\boxed{{{pair[1]}}}"), pairs)
    seconds = time.perf_counter() - started
    verifier.close()
    right = sum(score.correct for score in scores)
    most = verifier.judges.most
    print(f"{len(scores)} answers, {args.hostile} of them hostile: {seconds:.1f} s with {most} processes; {right} right")
    for reason, count in verifier.failures.most_common():
        print(f"  {count:4d}  {reason}")


if __name__ == "__main__":
    main()
