"""Expressions: read by latex2sympy2-extended, the grammar of math-verify, and compared by sympy without rounding.

Runs in judging processes only. A number is exact (a decimal is a fraction); one of more than MAX_BITS is not worked out.
"""

from __future__ import annotations

import re
from fractions import Fraction
from functools import lru_cache
from math import log2

import sympy
from latex2sympy2_extended.latex2sympy2 import ConversionConfig, NormalizationConfig, latex2sympy, normalize_latex
from sympy import Expr, Rational, S

from sdpg.tasks.judge import Unjudged

MAX_BITS = 20_000  # of a number, about 6,000 digits
DIGITS = 60  # a difference that is not 0 shows in them, unless it is far smaller than its terms
MORE_DIGITS = 1000
_NORMAL = NormalizationConfig(
    basic_latex=True, units=False, malformed_operators=True, nits=False, boxed="none", equations=False
)
_LETTERS = ConversionConfig(lowercase_symbols=False)
_APART = re.compile(r"\d \d")
_IMAGINARY = re.compile(r"(?<![A-Za-z\\])i(?![A-Za-z])|\\imath")


@lru_cache(maxsize=64)
def read(text: str, whose: str):
    """Return the sympy object of a text. Raises Unjudged; whose: "reference" or "given", for the message."""
    who = f"the reference answer {text[:80]!r}" if whose == "reference" else "the answer"
    if re.search(r"\d[eE][+-]?\d", text):
        raise Unjudged("a number too large to work out")
    if _APART.search(re.sub(r"(?:\\(?:frac|binom|sqrt|begin|end)|[_^])\{[^{}]*\}", "x", text)):
        raise Unjudged(f"{who} could not be read: digits apart")
    try:
        latex = normalize_latex(text, _NORMAL)
        found = latex2sympy(
            latex,
            is_real=not _IMAGINARY.search(latex),
            convert_degrees=True,
            normalization_config=None,
            conversion_config=_LETTERS,
        )
        if found is None:
            raise ValueError("nothing read")
    except Exception as error:  # the grammar raises bare exceptions, and others from what it builds
        raise Unjudged(f"{who} could not be read") from error
    return exact(found)


def exact(found):
    """Return the same object worked out, with fractions for decimals. Raises Unjudged for what would be too large."""
    if isinstance(found, sympy.MatrixBase):
        return found.applyfunc(exact)
    if not isinstance(found, sympy.Basic):
        raise Unjudged("an object without value")
    _bits(found)
    decimals = {number: Rational(str(number)) for number in found.atoms(sympy.Float)}
    imaginary = {symbol: S.ImaginaryUnit for symbol in found.free_symbols if symbol.name == "i"}
    return found.xreplace({**decimals, **imaginary}).doit()


def _bits(e) -> float:
    """Return an upper bound of log2 of an expression's numbers, before anything of it is worked out."""
    if isinstance(e, sympy.Rational):
        bits = max(abs(e.p), e.q).bit_length()
    elif not e.args:
        bits = 64 if isinstance(e, sympy.Number) else 2
    else:
        parts = [_bits(arg) for arg in e.args if isinstance(arg, sympy.Basic)]
        bits = sum(parts)
        if isinstance(e, (sympy.Pow, sympy.exp)):
            power = e.exp
            size = float(abs(power)) if isinstance(power, sympy.Number) else 2.0 ** min(_bits(power), 64)
            base = e.base if isinstance(e, sympy.Pow) else S.Exp1
            bits = _bits(base) * max(size, 1.0) if base not in (S.One, S.Zero, S.NegativeOne) else 1
        elif isinstance(e, sympy.factorial):
            n = 2.0 ** min(parts[0], 64)
            bits = n * max(1.0, log2(n)) if n > 1 else 1
    if bits > MAX_BITS:
        raise Unjudged("a number too large to work out")
    return bits


def equal(a, b, tolerance: Fraction = Fraction(0)) -> bool:
    """Are two objects equal, or within `tolerance` of each other? Raises Unjudged if neither can be shown."""
    if isinstance(a, sympy.MatrixBase) or isinstance(b, sympy.MatrixBase):
        if not (isinstance(a, sympy.MatrixBase) and isinstance(b, sympy.MatrixBase)) or a.shape != b.shape:
            return False
        return all(equal(x, y) for x, y in zip(a.flat(), b.flat(), strict=True))
    if a == b:
        return a is not S.NaN and a is not S.ComplexInfinity
    if not isinstance(a, Expr) or not isinstance(b, Expr):
        return _sets(a, b)
    if a.has(S.Infinity, S.NegativeInfinity, S.ComplexInfinity, S.NaN) or b.has(
        S.Infinity, S.NegativeInfinity, S.ComplexInfinity, S.NaN
    ):
        return False
    if tolerance and a.is_number and b.is_number:
        gap = abs((a - b).evalf(DIGITS))
        return bool(gap.is_comparable and gap <= Rational(tolerance.numerator, tolerance.denominator))
    return zero(a - b)


def zero(d: Expr) -> bool:
    """Is this expression 0, for all values of its symbols? Raises Unjudged if neither can be shown."""
    if d.is_Rational:
        return d == 0
    if d.is_number and not _vanishes(d):
        return False
    if d.free_symbols and _differs(d):
        return False
    if d.is_number and d.is_algebraic:
        x = sympy.Dummy("x")
        return sympy.minimal_polynomial(d, x) == x
    for way in (sympy.expand, sympy.simplify, sympy.radsimp):
        if way(d) == 0:
            return True
    if (found := d.equals(0)) is not None:
        return bool(found)
    raise Unjudged("equality that could neither be shown nor ruled out")


def _vanishes(d: Expr) -> bool:
    """May the number d be 0? False is certain."""
    for digits in (DIGITS, MORE_DIGITS):
        value = d.evalf(digits, maxn=2 * digits)
        if value.is_comparable is False and value.is_real is not False and not value.has(S.ImaginaryUnit):
            continue
        real, imaginary = value.as_real_imag()
        if any(part.is_Float and part._prec > 1 and abs(part) > sympy.Float(10) ** -digits for part in (real, imaginary)):
            return False
    return True


def _differs(d: Expr) -> bool:
    """Is d another number than 0 at one of a few points? True is certain."""
    symbols = sorted(d.free_symbols, key=lambda symbol: symbol.name)
    for k in (1, 2):
        point = {symbol: Rational(7 * i + 3 * k + 11, 13 + 2 * k) for i, symbol in enumerate(symbols)}
        value = d.subs(point)
        if value.is_number and value.is_finite is not False and value.is_extended_real and not _vanishes(value):
            return True
    return False


def proportional(a, b) -> bool:
    """Are `a = 0` and `b = 0` the same equation up to a constant factor?"""
    if not isinstance(a, Expr) or not isinstance(b, Expr) or a.free_symbols != b.free_symbols or not a.free_symbols:
        return False
    ratio = sympy.cancel(a / b)
    return bool(ratio.is_number and ratio.is_finite and ratio != 0)


def _sets(a, b) -> bool:
    """Compare sets, and relations of one variable as sets; relations of several by their two sides."""
    if isinstance(a, Expr) or isinstance(b, Expr):
        return False
    a, b = (_as_set(x) for x in (a, b))
    if not isinstance(a, sympy.Set) or not isinstance(b, sympy.Set):
        return _relations(a, b)
    if isinstance(a, sympy.Interval) and isinstance(b, sympy.Interval):
        open_ends = (a.left_open, a.right_open) == (b.left_open, b.right_open)
        return open_ends and equal(a.start, b.start) and equal(a.end, b.end)
    return a == b or a.symmetric_difference(b).doit() == S.EmptySet


def _as_set(x):
    if isinstance(x, sympy.Set) or len(x.free_symbols) != 1:
        return x
    try:
        return x.as_set()
    except (NotImplementedError, TypeError, AttributeError):
        return x


def _relations(a, b) -> bool:
    kinds = {
        sympy.StrictLessThan: 1,
        sympy.LessThan: 1,
        sympy.StrictGreaterThan: -1,
        sympy.GreaterThan: -1,
        sympy.Unequality: 0,
    }
    if type(a) not in kinds or type(b) not in kinds:
        return False
    strict = (sympy.StrictLessThan, sympy.StrictGreaterThan)
    if isinstance(a, strict) != isinstance(b, strict) or bool(kinds[type(a)]) != bool(kinds[type(b)]):
        return False
    left, right = (x.lhs - x.rhs for x in (a, b))
    if not left.free_symbols or left.free_symbols != right.free_symbols:
        return False
    ratio = sympy.cancel(left / right)
    return bool(ratio.is_number and ratio != 0 and (not kinds[type(a)] or ratio * kinds[type(a)] * kinds[type(b)] > 0))
