r"""Are two answers in LaTeX mathematically equal? Exactly, or not at all: nothing is compared in floating point.

Structure first, by the brackets and commas of the text (a list, a set, an ordered pair, an interval, an equation), then number
by number and expression by expression. math-verify's grammar (latex2sympy2-extended) reads an expression, sympy decides.
math-verify's own comparison is not used: it takes 2^-98 for 2^-99, 3d for 3 and 5 cm for 5 m.
"""

from __future__ import annotations

import re

from sdpg.tasks.answers import normalise
from sdpg.tasks.judge import Unjudged
from sdpg.tasks.quantities import read_quantity, read_value, same_quantity, split_unit, tolerance, units_agree
from sdpg.tasks.spelling import STYLE, letters, unwrapped

MAX_DEPTH = 10  # of brackets; the parser's time doubles with each in bad cases
MAX_ITEMS = 60  # of a list
OPEN, CLOSE = "([{", ")]}"
_CHOICE = re.compile(r"\(?([A-Ja-j])\)?")
_UNFINISHED = re.compile(
    r"\\(?:i*int|oint|sum|prod|lim|limsup|liminf|partial|nabla|frac\{d\}\{d[a-z]\}|det|cdots|ldots|dots)(?![A-Za-z])|\.\.\."
)
_BASED = re.compile(r"-?\d\w*_\{\w+\}")  # 1101_2: the same digits in the same base, or wrong
_GROWS = re.compile(r"\\(?:binom|choose|gcd|lcm|Gamma|operatorname)(?![A-Za-z])")
_TOWER = re.compile(r"(?:\^(?:\w|\{[^{}]*\})\s*){2}")  # no LaTeX either
_NAME = re.compile(r"[A-Za-z|\\(].*")


def quick(answer: str, given: str) -> bool | None:
    """Compare two cleaned answers as far as that takes no library: the same letters, numbers, words, units. None: ask on."""
    if letters(answer) == letters(given):
        return True
    a, b = read_quantity(answer), read_quantity(given)
    if a and b:
        return same_quantity(a, b)
    if _BASED.fullmatch(answer) or _BASED.fullmatch(given):
        return False
    (plain_a, words_a), (plain_b, words_b) = _words(answer), _words(given)
    if words_a or words_b:
        return normalise(plain_a) == normalise(plain_b)
    if answer.casefold() == given.casefold() and re.fullmatch(r"[A-Za-z]{3,}|[Nn]o", answer, re.IGNORECASE):
        return True
    first, second = _CHOICE.fullmatch(answer), _CHOICE.fullmatch(given)
    if first and second and first[1].isupper():
        return first[1] == second[1].upper() and (first[1] in "ABCDE" or first[1] == second[1])
    return None if units_agree(split_unit(answer)[1], split_unit(given)[1]) else False


def refuse(answer: str, given: str) -> None:
    """Raise Unjudged for a cleaned answer that is given to no reader: too deep, too long, an operation not carried out."""
    depth = deepest = 0
    for char in given:
        depth += (char in OPEN) - (char in CLOSE)
        deepest = max(deepest, depth)
    if deepest > MAX_DEPTH or given.count("|") > MAX_DEPTH:
        raise Unjudged(f"brackets nested deeper than {MAX_DEPTH}")
    if max(given.count(","), given.count("&"), given.count("="), given.count(";"), given.count(r"\pm")) > MAX_ITEMS:
        raise Unjudged(f"more than {MAX_ITEMS} items")
    unfinished = {match[0] for match in _UNFINISHED.finditer(given)} - {match[0] for match in _UNFINISHED.finditer(answer)}
    if unfinished:
        raise Unjudged("an operation that is not carried out (an integral, a sum, a limit, dots)")
    if _TOWER.search(given) or given.count("^") > MAX_ITEMS or (_GROWS.search(given) and re.search(r"\d{5}|\d!|\^", given)):
        raise Unjudged("a number too large to work out")


def _words(text: str) -> tuple[str, bool]:
    """Return the text without styles, and whether it is words rather than mathematics."""
    plain = re.sub(STYLE + r"\s*\{([^{}]*)\}", r"\1", text)
    styled = plain != text
    words = re.fullmatch(r"[A-Za-z][A-Za-z ,.;:'?!()-]*", plain) is not None
    return plain, words and bool(re.search(r"[A-Za-z]{4}" if not styled else r"[A-Za-z]{2}", plain) or plain.count(" ") > 1)


def same(answer: str, given: str) -> bool:
    """Compare two cleaned answers. Raises Unjudged: either cannot be read, or equality can be neither shown nor ruled out."""
    answer, given = _whole(answer), _whole(given)
    if (found := quick(answer, given)) is not None:
        return found
    lists = [text.count(",") + text.count(";") > 0 and len(_split(text, "[,;]")) > 1 for text in (answer, given)]
    if not any(lists):
        chains = [_split(text, r"=|\\approx(?![A-Za-z])") for text in (answer, given)]
        if max(map(len, chains)) > 1:
            return _chains(*chains)
    (kind_a, items_a), (kind_b, items_b) = _structure(answer), _structure(given)
    if kind_a is None and kind_b is None:
        return _leaves(answer, given)
    if kind_a is None or kind_b is None:
        return _single(answer if kind_a is None else given, kind_a or kind_b, items_a or items_b, answer, given)
    return _collections(kind_a, items_a, kind_b, items_b)


def _whole(text: str) -> str:
    r"""Take away what says nothing: `x \in` before a set, a box or a style around all of it."""
    text = unwrapped(re.sub(r"^[A-Za-z](?:_\{\w+\})? ?\\in(?![A-Za-z]) ?", "", unwrapped(text)))
    while text[:1] in ("(", "[") and text[-1:] == CLOSE[OPEN.index(text[0])] and _one_bracket(text[1:-1]):
        if len(_split(text[1:-1], "[,;]")) > 1 or not text[1:-1].strip():
            break
        text = unwrapped(text[1:-1])
    return text


def _split(text: str, pattern: str) -> list[str]:
    r"""Split a text where the pattern matches outside of brackets. `\{` opens and closes as `{` does."""
    parts, depth, last = [], 0, 0
    for match in re.finditer(rf"(?P<at>{pattern})|\\begin|\\end|[(\[{{]|[)\]}}]|\\.", text):
        token = match[0].removeprefix("\\")
        if match["at"] is not None and not depth:
            if text[match.start() - 1 : match.start()] in (*"<>!:",):
                continue
            parts.append(text[last : match.start()].strip())
            last = match.end()
        elif token in ("begin", *OPEN):
            depth += 1
        elif token in ("end", *CLOSE):
            depth -= 1
    return [*parts, text[last:].strip()]


def _structure(text: str) -> tuple[str | None, list[str]]:
    r"""Return the brackets of a collection ("" for a plain list) and its items; (None, []) for anything else."""
    items = _split(text, r"[,;]")
    if len(items) > 1:
        return "", [item for item in items if item]
    if text.count(r"\pm") == 1:
        return "", [text.replace(r"\pm", "+").removeprefix("+"), text.replace(r"\pm", "-")]
    match = re.fullmatch(r"(\\\{|[(\[])(.*?)(\\\}|[)\]])", text, re.DOTALL)
    if not match or not _one_bracket(match[2]):
        return None, []
    brackets, items = match[1].removeprefix("\\") + match[3].removeprefix("\\"), _split(match[2], r"[,;]")
    if brackets == "{}" or len(items) > 1:
        return brackets, items if match[2].strip() else []
    return None, []


def _one_bracket(inner: str) -> bool:
    """Do the brackets inside close each other, so that the outer two belong together?"""
    depth = 0
    for char in inner:
        depth += (char in OPEN) - (char in CLOSE)
        if depth < 0:
            return False
    return depth == 0


def _single(alone: str, kind: str, items: list[str], answer: str, given: str) -> bool:
    """Compare a single expression with a collection: a set of one, the empty set, or an interval in another form."""
    if kind == "{}" and len(items) < 2:
        if not items:
            return letters(alone) == r"\emptyset"
        return same(items[0], given) if alone == given else same(answer, items[0])
    return kind not in ("", "{}") and _leaves(answer, given)


def _collections(kind_a: str, a: list[str], kind_b: str, b: list[str]) -> bool:
    """Compare two collections. Brackets left out on one side are no mistake; where they say that order counts, it does."""
    kinds = {kind_a, kind_b}
    if kinds == {""}:
        return len(a) == len(b) and _paired(a, b)
    if kinds <= {"", "{}"}:
        return all(_among(x, b) for x in a) and all(any(same(x, y) for x in a) for y in b)
    if kinds != {"()", ""} and kind_a != kind_b:
        return False
    return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))


def _among(x: str, items: list[str]) -> bool:
    return any(same(x, y) for y in items)


def _paired(a: list[str], b: list[str]) -> bool:
    """Does every item of `a` have one of `b` to itself?"""
    left = list(b)
    for x in a:
        found = next((i for i, y in enumerate(left) if same(x, y)), None)
        if found is None:
            return False
        del left[found]
    return True


def _chains(a: list[str], b: list[str]) -> bool:
    """Compare where there are equations: `x = 3` is equal to `3`, since it names the value; `2x = 6` is not."""
    if len(b) > 1 and len(a) == 1:
        return same(a[0], b[-1]) and all(_names(part) or same(a[0], part) for part in b[:-1])
    if len(a) > 1 and len(b) == 1:
        return _names(a[0]) and not re.search(r"\d|[-+]", a[0]) and same(a[-1], b[0])
    if letters(a[0]) == letters(b[0]):
        return same(a[-1], b[-1])
    if len(a) > 2 or len(b) > 2:
        return False
    from sdpg.tasks.algebra import proportional, read

    sides = [(read(x, "reference"), read(y, "reference")) for x, y in [a]] + [
        (read(x, "given"), read(y, "given")) for x, y in [b]
    ]
    return proportional(*(left - right for left, right in sides))


def _names(part: str) -> bool:
    """Does one side of an equation name a value (`x`, `f(3)`, `m+n`), rather than state one (`41`, `2x`)?"""
    return _NAME.fullmatch(part) is not None and re.search(r"[A-Za-z]", re.sub(r"\\[A-Za-z]+", "", part)) is not None


def _leaves(answer: str, given: str) -> bool:
    """Compare two expressions without their units."""
    from sdpg.tasks.algebra import equal, read

    (a, unit_a), (b, unit_b) = split_unit(answer), split_unit(given)
    if {unit_a, unit_b} == {"degree", ""}:
        if unit_b and r"\pi" in a:
            b = rf"\frac{{({b})\pi}}{{180}}"
        elif unit_a and r"\pi" in b:
            a = rf"\frac{{({a})\pi}}{{180}}"
    number = read_value(a)
    return equal(read(a, "reference"), read(b, "given"), tolerance(number) if number else 0)
