"""A formula taken apart: "y ~ x + offset(o) + (1 + x | g)".

The response, the fixed part, offsets and what stands before a bar stay text;
only the grouping factors are read here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from sklearn_lmm._notation import Parser

_COVARIANCES = {
    "us": "unstructured",
    "diag": "diagonal",
    "cs": "compound_symmetry",
    "homdiag": "identity",
}
"""What may stand before the parenthesis of a random term: diag(1 + x | g)."""


class BarTerm(NamedTuple):
    """One random term.

    group : names of the factors whose interaction groups the rows
    coefficients : the text before the bar
    covariance : "diagonal" if the bar is double
    """

    group: tuple[str, ...]
    coefficients: str
    covariance: str


class ParsedFormula(NamedTuple):
    """A formula in its parts.

    response : the text before the tilde, "" if there is none
    fixed : the text of the fixed part, "1" if there is none
    offsets : the arguments of offset(...)
    """

    text: str
    response: str
    fixed: str
    offsets: tuple[str, ...]
    bars: tuple[BarTerm, ...]

    @property
    def said(self) -> str:
        """The formula, as the subject of a message."""
        return f"The formula {self.text!r}"


def parse_formula(text: str) -> ParsedFormula:
    """Take a formula apart; ^ becomes Python's **.

    Raises
    ------
    ValueError
        With the text, and a caret under the place that it breaks off at.
    """
    return _FormulaParser(text).parsed()


class _FormulaParser(Parser):
    """Splits at + and - outside parentheses, and reads the pieces with a bar.

    formula := [text "~"] piece (("+" | "-") piece)*
    piece   := "offset(" text ")" | [structure] "(" text bar groups ")" | text
    """

    where = "formula"

    def __init__(self, text: str) -> None:
        powers = r"(`[^`]*`|\"[^\"]*\"|'[^']*')|\^"
        super().__init__(re.sub(powers, lambda match: match[1] or "**", text))

    def parsed(self) -> ParsedFormula:
        response = self._response()
        fixed: list[str] = []
        offsets: list[str] = []
        bars: list[BarTerm] = []
        for sign, start, end in self._pieces():
            self.at = start
            if self._symbol(start) == ".":
                self._fail("'.' is not understood: name the columns")
            if self._is_call("offset", end):
                self._only_added(sign)
                offsets.append(self._text(start + 2, end - 1))
            elif bar := self._bar(start, end):
                self._only_added(sign)
                bars += self._bar_term(bar, end)
            else:
                fixed += [sign, self._text(start, end)]
        whole = " ".join(fixed).removeprefix("+").strip() or "1"
        return ParsedFormula(self.text, response, whole, tuple(offsets), tuple(bars))

    def _response(self) -> str:
        tildes = [i for i, t in enumerate(self.tokens) if self._symbol(i) == "~"]
        if not tildes:
            return ""
        if len(tildes) > 1:
            self.at = tildes[1]
            self._fail("expected one '~' at most")
        self.at = tildes[0] + 1
        return self._text(0, tildes[0])

    def _pieces(self) -> Iterator[tuple[str, int, int]]:
        """Yield the sign and the tokens, start to end, of every piece."""
        sign, start, depth = "", self.at, 0
        for i in range(self.at, len(self.tokens)):
            symbol = self._symbol(i)
            depth += (symbol in {"(", "[", "{"}) - (symbol in {")", "]", "}"})
            ends = self.tokens[i].kind == "end"
            if ends or (depth == 0 and symbol in {"+", "-"}):
                if i > start:
                    yield sign, start, i
                elif sign or ends:
                    self.at = i
                    self._fail("expected a term")
                sign, start = symbol, i + 1

    def _bar(self, start: int, end: int) -> int:
        """Return where the bar of a random term is, 0 if the piece is none."""
        bars = [
            i
            for i in range(start, end)
            if self._symbol(i) in {"|", "||"} and not self._inside_call(start, i)
        ]
        if not bars:
            return 0
        if self._symbol(start) == "(" or self.tokens[start].text in _COVARIANCES:
            return bars[0]
        self.at = bars[0]
        self._fail("a random term is in parentheses of its own, and added by '+'")

    def _inside_call(self, start: int, bar: int) -> bool:
        """Say whether a bar is an operator of Python, as in I(a | b)."""
        calls = [False]
        for i in range(start, bar):
            if self._symbol(i) in {"(", "[", "{"}:
                before = self.tokens[i - 1]
                named = before.kind == "name" and before.end == self.tokens[i].start
                covariance = i == start + 1 and before.text in _COVARIANCES
                calls.append(calls[-1] or (i > start and named and not covariance))
            elif self._symbol(i) in {")", "]", "}"}:
                calls.pop()
        return calls[-1]

    def _bar_term(self, bar: int, end: int) -> Iterator[BarTerm]:
        covariance = "unstructured"
        if self._now.kind == "name":
            covariance = _COVARIANCES[self._now.text]
            self.at += 1
        self._expect("(", "expected '('")
        coefficients = self._text(self.at, bar)
        self.at = bar
        if not coefficients:
            self._fail("expected what varies before the bar, such as 1")
        if self._accept("|", "||") == "||":
            covariance = "diagonal"
        groups = list(self._groups())
        self._expect(")", self._after_factor())
        if self.at != end:
            self._fail("a random term stands alone: expected '+' or the end")
        for group in groups:
            yield BarTerm(group, coefficients, covariance)

    def _is_call(self, name: str, end: int) -> bool:
        start = self.at
        return (
            self.tokens[start].text == name
            and self._symbol(start + 1) == "("
            and self._symbol(end - 1) == ")"
        )

    def _only_added(self, sign: str) -> None:
        if sign == "-":
            self._fail("this can be added only; to leave it out, do not write it")

    def _symbol(self, i: int) -> str:
        token = self.tokens[i]
        return token.text if token.kind == "symbol" else ""

    def _text(self, start: int, end: int) -> str:
        """Return the text of the tokens from start to before end, as written."""
        if start == end:
            return ""
        return self.text[self.tokens[start].start : self.tokens[end - 1].end].strip()
