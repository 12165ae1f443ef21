r"""Numbers as people write them, read exactly, with their unit.

`-1,234.50`, `\frac{3}{4}`, `1\frac12`, `2 \times 10^{-3}`, `1e3`, `0.\overline{3}`, `\$42`, `42\%`, `5 \text{ cm}`

Two of them are equal if their values are, exactly. A reference with six or more decimals (and as many significant digits) is a
rounded one: a value that rounds to it is equal too. Units:

- where one side has none, it is left out: `42` and `42 \text{ apples}` are equal; two different units are not;
- `p%` is equal to the number p/100, and to the number p if that is above 1, since data sets leave the sign out.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction

MAX_EXPONENT = 2000  # of ten, and of other bases: a larger number is not worked out
ROUNDED = 6  # decimals from which on a reference counts as rounded

_DECIMAL = r"(?:\d+\.?\d*|\.\d+)"
_FRACTION = rf"(?:\\frac\{{ ?(-?) ?({_DECIMAL}) ?\}} ?\{{ ?(-?) ?({_DECIMAL}) ?\}}|({_DECIMAL}) ?/ ?({_DECIMAL}))"
_NUMBER = re.compile(
    rf"({_DECIMAL})(?:[eE]([+-]?\d{{1,4}})| ?(?:\\times|\\cdot|\*|x) ?10\^(?:\{{ ?([+-]? ?\d{{1,4}}) ?\}}|(\d)))?"
)
_REPEATING = re.compile(r"(\d*)\.(\d*)\\(?:overline|bar) ?\{(\d+)\}")
_MIXED = re.compile(rf"(\d+)(?: ?(?=\\frac)| (?=\d)){_FRACTION}")
_PLAIN_FRACTION = re.compile(_FRACTION)
_POWER = re.compile(r"(\d{1,9})\^(?:\{ ?([+-]?) ?(\d{1,4}) ?\}|(\d))")

_STYLED_UNIT = re.compile(
    r"(.*?[^\\^_{(\s])\s*\\(?:text(?:rm|bf)?|math(?:rm|bf)|mbox)\s*\{((?:[^{}]|\{\d\})*)\}(?:\s*\^\{?(\d)\}?)?", re.DOTALL
)
_WORD_UNIT = re.compile(r"([-+]?[^A-Za-z]*\d(?:\})?)\s+([A-Za-z][A-Za-z ./]*)(?:\^\{?(\d)\}?)?")
_TIGHT_UNIT = re.compile(r"([-+]?[\d.,]*\d)\s*(cm|mm|km|kg|mg|ml|mL|ft|in|lbs?|oz|mph|hrs?|min|sec|km/h|m/s)(?:\^\{?(\d)\}?)?")
_NUMERALS = """half halves third thirds quarter quarters hundred hundreds thousand thousands million millions billion billions
trillion trillions dozen dozens score gross k squared cubed plus minus times over by base mod modulo factorial choose to the
power of root less more than not e i and or pi percent"""
NUMERAL = frozenset(_NUMERALS.split())  # words that change a number are no unit


MONEY = {"€": "euro", "£": "pound", "¥": "yen", "₹": "rupee"}
SCALES = {"hundred": 100, "thousand": 1000, "million": 10**6, "billion": 10**9, "trillion": 10**12, "dozen": 12}
_SCALED = re.compile(rf"(.*[\d}}]) ?(?:\\text\{{ ?)?({'|'.join(SCALES)})\b ?\}}?")


@dataclass(frozen=True)
class Quantity:
    """An exact value, the decimals and significant digits that it was written with, and its unit ("" without one)."""

    value: Fraction
    decimals: int = 0
    digits: int = 0
    unit: str = ""


def split_unit(text: str) -> tuple[str, str]:
    r"""Return a cleaned text without its unit, and the unit ("" without one): `percent`, `degree`, `dollar`, or its word."""
    if match := re.match(r"(-?) ?\\?\$ ?(?=[\d.\\-])", text):
        return match[1] + text[match.end() :], "dollar"
    if text[:1] in MONEY:
        return text[1:].lstrip(), MONEY[text[0]]
    if text.endswith("%"):
        return text[:-1].rstrip(), "percent"
    if text.endswith(r"^{\circ}") and not re.search(r"\\(?:sin|cos|tan|cot|sec|csc)", text):
        return text.removesuffix(r"^{\circ}").rstrip(), "degree"
    for pattern in (_STYLED_UNIT, _TIGHT_UNIT, _WORD_UNIT):
        if (match := pattern.fullmatch(text)) and (unit := _unit(match[2], match[3])):
            return match[1].rstrip(), unit
    return text, ""


def _unit(words: str, power: str | None) -> str:
    if inside := re.fullmatch(r"(.*?)\^\{?(\d)\}?\s*", words):
        words, power = inside[1], inside[2]
    parts = re.findall(r"[A-Za-z]+", words)
    numerals = NUMERAL & {part.casefold() for part in parts if len(part) > 1 or part in "eik"}
    if not parts or numerals or re.search(r"[\d=<>+]", words):
        return ""
    one = " ".join(part if len(part) < 4 else re.sub(r"(?<!s)s$", "", part.casefold()) for part in parts)
    return {"deg": "degree", "USD": "dollar", "usd": "dollar", "buck": "dollar"}.get(one, one) + (f"^{power}" if power else "")


def read_value(text: str) -> Quantity | None:
    """Return the number that a cleaned text without unit is, or None."""
    sign = -1 if re.match(r"[-+]? ?", text)[0].startswith("-") else 1
    body = re.sub(r"^[-+] ?", "", text)
    if body.startswith("(") and body.endswith(")") and body.count("(") == 1:
        inner = read_value(body[1:-1].strip())
        return inner and Quantity(sign * inner.value, inner.decimals, inner.digits)
    if match := _NUMBER.fullmatch(body):
        exponent = int((match[2] or match[3] or match[4] or "0").replace(" ", ""))
        if abs(exponent) > MAX_EXPONENT:
            return None
        decimals = len(match[1].partition(".")[2])
        digits = len(match[1].replace(".", "").lstrip("0"))
        return Quantity(
            sign * Fraction(match[1]) * Fraction(10) ** exponent, max(0, decimals - exponent) if decimals else 0, digits
        )
    if match := _PLAIN_FRACTION.fullmatch(body):
        return _of(sign, _ratio(match.groups()))
    if (match := _MIXED.fullmatch(body)) and (part := _ratio(match.groups()[1:])) is not None and 0 <= part < 1:
        return _of(sign, int(match[1]) + part)
    if match := _REPEATING.fullmatch(body):
        once, again = match[2], match[3]
        value = int(match[1] or 0) + Fraction(int(once or 0), 10 ** len(once))
        return _of(sign, value + Fraction(int(again), (10 ** len(again) - 1) * 10 ** len(once)))
    if match := _POWER.fullmatch(body):
        exponent = int(match[3] or match[4]) * (-1 if match[2] == "-" else 1)
        if abs(exponent) <= MAX_EXPONENT and (int(match[1]) or exponent > 0):
            return _of(sign, Fraction(int(match[1])) ** exponent)
    return None


def _ratio(groups: tuple) -> Fraction | None:
    """Return the value of _FRACTION's groups, None if it has none."""
    top_sign, top, bottom_sign, bottom, a, b = groups
    if not Fraction(bottom or b):
        return None
    return Fraction(top or a) / Fraction(bottom or b) * (-1 if bool(top_sign) != bool(bottom_sign) else 1)


def _of(sign: int, value: Fraction | None) -> Quantity | None:
    return None if value is None else Quantity(sign * value)


def read_quantity(text: str) -> Quantity | None:
    """Return the number with its unit that a cleaned text is, or None."""
    if (plain := read_value(text)) is not None:
        return plain
    if scaled := _SCALED.fullmatch(text):
        found = read_value(scaled[1].rstrip())
        return found and Quantity(found.value * SCALES[scaled[2]])
    body, unit = split_unit(text)
    found = read_value(body) if unit else None
    return found and Quantity(found.value, found.decimals, found.digits, unit)


def tolerance(reference: Quantity) -> Fraction:
    """Return how far an equal value may be from the reference: half of its last decimal if it is a rounded one, else 0."""
    rounded = min(reference.decimals, reference.digits) >= ROUNDED
    return Fraction(1, 2 * 10**reference.decimals) if rounded else Fraction(0)


def units_agree(a: str, b: str) -> bool:
    """May a side with unit `a` be equal to one with unit `b`?"""
    return not a or not b or a == b


def same_quantity(reference: Quantity, given: Quantity) -> bool:
    """Is `given` equal to the reference?"""
    near, equal = tolerance(reference), abs(given.value - reference.value) <= tolerance(reference)
    units = {reference.unit, given.unit}
    if units != {"percent", ""}:
        return equal and units_agree(reference.unit, given.unit)
    if reference.unit:
        return given.value * 100 == reference.value or (equal and abs(reference.value) > 1)
    return abs(given.value / 100 - reference.value) <= near or (equal and abs(reference.value) > 1)
