r"""One spelling for what people write in many: signs, spaces, brackets, fractions and groups of digits of a LaTeX answer.

Only the spelling changes, never the value: `½` and `\dfrac12` become `\frac{1}{2}`, `1\,000` and `1{,}000` become `1000`.
Some patterns take time quadratic in the text: it is for short ones (`MAX_ANSWER`).
"""

from __future__ import annotations

import re
import unicodedata

from sdpg.tasks.answers import closing

SIGNS = {
    **dict.fromkeys("−–—‒―﹣－", "-"),
    **dict.fromkeys("⁄∕÷", "/"),
    **dict.fromkeys("·⋅∙∗", r"\cdot "),
    **dict.fromkeys("°º˚", r"^{\circ}"),
    "×": r"\times ",
    "±": r"\pm ",
    "∞": r"\infty ",
    "≤": r"\le ",
    "≥": r"\ge ",
    "≠": r"\ne ",
    "≈": r"\approx ",
    "∈": r"\in ",
    "∪": r"\cup ",
    "∩": r"\cap ",
    "∖": r"\setminus ",
    "∅": r"\emptyset ",
    "ℝ": r"\mathbb{R}",
    "ℤ": r"\mathbb{Z}",
    "∑": r"\sum ",
    "∏": r"\prod ",
    "∫": r"\int ",
    "’": "'",
    "′": "'",
    "％": "%",
    **dict.fromkeys("“”„", '"'),
}
GREEK = ("alpha", "beta", "gamma", "delta", "epsilon", "theta", "lambda", "mu", "pi", "rho", "sigma", "tau", "phi", "omega")
SIGNS |= {unicodedata.lookup(f"GREEK SMALL LETTER {'lamda' if name == 'lambda' else name}"): f"\\{name} " for name in GREEK}
ROOTS = {"√": r"\sqrt", "∛": r"\sqrt[3]", "∜": r"\sqrt[4]"}
SPACE = r"(?:(?<!\\)\\[,;:> ]|~|\\(?:q?quad|enspace|thinspace|medspace|thickspace|hfill)(?![A-Za-z]))"
STYLE = r"\\(?:text(?:bf|rm|it|sf|tt|normal)?|mbox|math(?:rm|bf|it|sf|tt)|boxed|fbox|framebox|boldsymbol|bm)"

_SUPERSCRIPTS = re.compile("[⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻ⁿ]+")
_SUBSCRIPTS = re.compile("[₀₁₂₃₄₅₆₇₈₉]+")
_ROOT = re.compile(r"([√∛∜])\s*(?:(\d+(?:\.\d+)?)|([A-Za-z])|(?=[({\\]))")
_REWRITES = [
    (re.compile(pattern), to)
    for pattern, to in [
        (r"\\!", ""),
        (r"\\(?:[dtc])frac(?![A-Za-z])", r"\\frac"),
        (r"\\[dt]binom(?![A-Za-z])", r"\\binom"),
        (r"\\(?:left|right|[bB]igg?[lrm]?)(?![A-Za-z])\s*\.?(?=\s|\\|[()\[\]|<>/.]|$)", ""),
        (r"\\(?:displaystyle|textstyle|scriptstyle|limits|mathstrut|strut|nobreak)(?![A-Za-z])", ""),
        (r"\\(?:hspace|vspace|phantom|tag)\*?\{[^{}]*\}", " "),
        (r"\\[()]|\\\[(?!\d)|\\\](?!\d)", ""),
        (r"(?<=\d)\s*\{\s*,\s*\}\s*(?=\d{3}(?!\d))", "'"),
        (SPACE + r"+\s*(?=\d{3}(?!\d))", "'"),
        (SPACE, " "),
        (r"\\leqs?(?:lant)?(?![A-Za-z])", r"\\le "),
        (r"\\geqs?(?:lant)?(?![A-Za-z])", r"\\ge "),
        (r"\\(?:neq|not\s*=)(?![A-Za-z])", r"\\ne "),
        (r"\\[lr]vert(?![A-Za-z])", "|"),
        (r"\\lbrace(?![A-Za-z])", r"\\{"),
        (r"\\rbrace(?![A-Za-z])", r"\\}"),
        (r"\\l?brack(?![A-Za-z])", "["),
        (r"\\rbrack(?![A-Za-z])", "]"),
        (r"\\(?:varnothing|O)(?![A-Za-z])", r"\\emptyset "),
        (r"\\(?:degree|textdegree)(?![A-Za-z])", r"^{\\circ}"),
        (r"\^\s*\\circ(?![A-Za-z])", r"^{\\circ}"),
        (r"\^\s*\{\s*\\circ\s*\}", r"^{\\circ}"),
        (r"\*\*", "^"),
        (r"\\(?:text|mathrm)\s*\{\s*(\\?\$)\s*\}", r"\1"),
        (STYLE + r"\s*\{([^A-Za-z{}\\]*)\}", r"\1"),
        (r"(?<![A-Za-z\\])pi(?![A-Za-z])", r"\\pi "),
        (r"(?<![A-Za-z\\])sqrt(?=\s*[({])", r"\\sqrt"),
        (r"\\(text|mathrm|textrm|mbox)\s*\{\s*,?\s*(?:and|or)\s*\}", ","),
        (r"\s*,?\s+(?:and|or)\s+", ", "),
        (r"\\frac\s*(\d|[A-Za-z](?![A-Za-z]))\s*(\d|[A-Za-z](?![A-Za-z]))", r"\\frac{\1}{\2}"),
        (r"\\frac\s*(\d|[A-Za-z](?![A-Za-z]))\s*\{", r"\\frac{\1}{"),
        (r"(\\frac\s*\{[^{}]*\})\s*(\d|[A-Za-z](?![A-Za-z]))", r"\1{\2}"),
        (r"(\\frac)\s+\{", r"\1{"),
        (r"\\sqrt\s*(\d|[A-Za-z](?![A-Za-z]))", r"\\sqrt{\1}"),
        (r"([\^_])\s*(\d|[A-Za-z](?![A-Za-z]))", r"\1{\2}"),
        (r"\\%", "%"),
        (r"\s*(?<![A-Za-z\\{])(?:percent|per\s?cent|pct)(?![A-Za-z])", "%"),
        (r"\\(?:text|mathrm|textrm|mbox)\s*\{\s*(?:%|percent|per\s?cent|pct|percentage)\s*\}", "%"),
        (r"\s+", " "),
    ]
]
_GROUPS = re.compile(r"(?<![\d.,'])[1-9]\d{0,2}(?:'\d{3})+(?![\d'])")
_COMMAS = re.compile(r"(?<![\d.,])[1-9]\d{0,2}(?:,\d{3})+(?!\d|,\d)")
_BLANKS = re.compile(r"(?<![\d.,}] )(?<![\d.,'])[1-9]\d{0,2}(?: \d{3})+(?! ?[\d/])")


def ascii_signs(text: str) -> str:
    r"""Return the text with its mathematical Unicode signs as LaTeX, and digits and letters of any width as plain ones."""
    text = _SUPERSCRIPTS.sub(lambda m: "^{" + unicodedata.normalize("NFKC", m[0]).replace("−", "-") + "}", text)
    text = _SUBSCRIPTS.sub(lambda m: "_{" + unicodedata.normalize("NFKC", m[0]) + "}", text)
    text = _ROOT.sub(lambda m: ROOTS[m[1]] + (f"{{{m[2] or m[3]}}}" if m[2] or m[3] else ""), text)
    return re.sub(r"\\sqrt(\[\d\])?\(([^()]*)\)", r"\\sqrt\1{\2}", "".join(map(_sign, text)))


def _sign(char: str) -> str:
    if char.isascii():
        return char
    if char in SIGNS:
        return SIGNS[char]
    if unicodedata.category(char) in ("Cf", "Cc"):  # of no width
        return ""
    if (digit := unicodedata.decimal(char, None)) is not None:
        return str(digit)
    plain = unicodedata.normalize("NFKC", char)
    if "⁄" in plain:
        top, _, bottom = plain.partition("⁄")
        return f"\\frac{{{top}}}{{{bottom}}}"
    return plain if plain == char else ascii_signs(plain)


def unwrapped(text: str) -> str:
    r"""Take away what is around the whole text: dollars, braces, boxes and styles such as `\text{...}`, and a full stop."""
    while True:
        before = text
        text = re.sub(r"(?:\s|\\+|\\newline|(?<!\\)[.,;:](?!\\))+$", "", text.strip())
        if len(text) > 1 and text[0] == text[-1] == "$" and text[-2] != "\\":
            text = text.strip("$")
        if len(text) > 1 and text[0] == text[-1] and text[0] in '*"`':
            text = text.strip(text[0])
        head = re.match(rf"(?:{STYLE}\s*)?(?=\{{)", text)
        if head and closing(text, head.end()) == len(text) - 1:
            text = text[head.end() + 1 : -1]
        text = re.sub(r"^(?:=|:|\\approx(?![A-Za-z]))\s*", "", text)
        if text == before:
            return text


def clean(text: str) -> str:
    """Return an answer in the one spelling; the same for a text that has it already."""
    text = unwrapped(ascii_signs(text))
    for pattern, to in _REWRITES:
        text = pattern.sub(to, text)
    text = re.sub(r"(?<!\\)\$(?=.*(?<!\\)\$)|(?<=\S)(?<!\\)\$", "", text)  # a pair of them is no money
    text = re.sub(r",'(?=\d{3})", "'", unwrapped(text))
    text = _GROUPS.sub(lambda m: m[0].replace("'", ""), text)
    text = _BLANKS.sub(lambda m: m[0].replace(" ", ""), text)
    return _COMMAS.sub(lambda m: m[0].replace(",", "") if _outside(text, m.start()) else m[0], text)


def _outside(text: str, place: int) -> bool:
    """Is this place in no bracket? In `(1,200)` the comma parts two numbers."""
    before = text[:place]
    return all(before.count(a) == before.count(b) for a, b in ("()", "[]", "{}"))


def letters(text: str) -> str:
    """Return what two spellings with the same letters share: no spaces but those between letters or digits."""
    return re.sub(r"(?<![A-Za-z0-9]) | (?![A-Za-z0-9])", "", text)
