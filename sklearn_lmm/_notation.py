"""lme4's notation for random effects, as in "(1 + x | school) + (1 | student)".

The parser knows nothing of data, and returns what is written, term by term.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple, NoReturn

_TOKEN = re.compile(
    r"\s*(?:(?P<name>[^\W\d][\w.]*|\.[^\W\d][\w.]*)|(?P<number>\d[\w.]*)"
    r"|`(?P<quoted>[^`]+)`|(?P<string>\"[^\"]*\"|'[^']*')"
    r"|(?P<symbol>\|\||\S)|(?P<end>$))"
)


class NotedTerm(NamedTuple):
    """One term as written.

    group : names of the factors whose interaction groups the rows
    slopes : names of columns
    intercept : whether there is one
    independent : whether the bar was double
    """

    group: tuple[str, ...]
    slopes: tuple[str, ...]
    intercept: bool
    independent: bool


class Token(NamedTuple):
    """A piece of the text: its kind, the text without quotes, and its place."""

    kind: str
    text: str
    start: int
    end: int


def parse_notation(text: str) -> list[NotedTerm]:
    """Return the terms in the order written; a/b gives that of a, then of a:b.

    Raises
    ------
    ValueError
        With the text, and a caret under the place that it breaks off at.
    """
    return list(Parser(text).terms())


class Parser:
    """Recursive descent, one method for each rule of the grammar.

    terms  := term ("+" term)*
    term   := "(" coefs ("|" | "||") groups ")"
    coefs  := ["+" | "-"] coef (("+" | "-") coef)*      coef := "0" | "1" | name
    groups := factor ("/" factor)*                      factor := name (":" name)*
    """

    where = "random"

    def __init__(self, text: str) -> None:
        # Line breaks would part the text from the caret below it.
        self.text = re.sub(r"\s", " ", text)
        self.tokens = list(self._tokenize())
        self.at = 0

    def _tokenize(self) -> Iterator[Token]:
        position = 0
        while True:
            match = _TOKEN.match(self.text, position)
            assert match is not None and match.lastgroup is not None
            kind = match.lastgroup
            start = match.start(kind) - (kind == "quoted")
            yield Token(kind, match[kind], start, match.end())
            if kind == "end":
                return
            position = match.end()

    def terms(self) -> Iterator[NotedTerm]:
        yield from self._term()
        while self._accept("+"):
            yield from self._term()
        if self._now.kind != "end":
            self._fail("expected '+' and another term in parentheses, or the end")

    def _term(self) -> Iterator[NotedTerm]:
        self._expect(
            "(",
            "expected '(': every term is in parentheses, and the fixed part is "
            "chosen by `fixed`, not here",
        )
        intercept, slopes = self._coefficients()
        independent = self._accept("|", "||") == "||"
        for group in self._groups():
            yield NotedTerm(group, slopes, intercept, independent)
        self._expect(")", self._after_factor())

    def _coefficients(self) -> tuple[bool, tuple[str, ...]]:
        """Read up to the bar, which is left for the caller."""
        intercepts: set[bool] = set()
        slopes: list[str] = []
        sign = self._accept("+", "-")
        while True:
            if self._now.kind == "number":
                intercepts.add(self._intercept(sign, intercepts))
            else:
                slopes.append(self._slope(sign, slopes))
            if self._at("|", "||"):
                break
            sign = self._accept("+", "-")
            if not sign:
                self._fail(
                    "expected '+', '|' or '||': a slope is a column of X, so compute "
                    "products and functions first and name the new column"
                )
        if not slopes and intercepts == {False}:
            self._fail("no coefficient is left to vary before this bar")
        return intercepts != {False}, tuple(slopes)

    def _intercept(self, sign: str, before: set[bool]) -> bool:
        number = self._now.text
        if number not in ("0", "1") or (number == "0" and sign == "-"):
            self._fail(
                "expected 1 (intercept), 0 or -1 (none); a column by its position "
                "is written RandomEffect(group, slopes=[position])"
            )
        wanted = number == "1" and sign != "-"
        if before and wanted not in before:
            self._fail("the term both asks for an intercept and takes it away")
        self.at += 1
        return wanted

    def _slope(self, sign: str, before: list[str]) -> str:
        if sign == "-":
            self._fail("only the intercept can be taken away, as in '-1'")
        if self._now.text in before:
            self._fail("this slope is there already")
        return self._name("the name of a column")

    def _groups(self) -> Iterator[tuple[str, ...]]:
        """Yield the factors: a/b is a, then a:b."""
        path: list[str] = []
        while True:
            path.append(self._factor_name(path))
            while self._accept(":"):
                path.append(self._factor_name(path))
            yield tuple(path)
            if not self._accept("/"):
                return

    def _factor_name(self, before: list[str]) -> str:
        if self._now.text in before:
            self._fail("this factor is there already")
        return self._name("the name of a grouping factor")

    def _after_factor(self) -> str:
        if self._at("+", "*"):
            return "crossed factors are terms of their own, as in (1 | a) + (1 | b)"
        return "expected '/', ':' or ')' after a grouping factor"

    def _name(self, what: str) -> str:
        token = self._now
        if token.kind not in ("name", "quoted"):
            self._fail(f"expected {what}; odd names go into backticks")
        self.at += 1
        return token.text

    @property
    def _now(self) -> Token:
        return self.tokens[self.at]

    def _at(self, *symbols: str) -> bool:
        return self._now.kind == "symbol" and self._now.text in symbols

    def _accept(self, *symbols: str) -> str:
        """Step over one of the symbols and return it, or else return ''."""
        if not self._at(*symbols):
            return ""
        self.at += 1
        return self.tokens[self.at - 1].text

    def _expect(self, symbol: str, message: str) -> None:
        if not self._accept(symbol):
            self._fail(message)

    def _fail(self, message: str) -> NoReturn:
        place = self._now.start
        raise ValueError(
            f"Bad notation in {self.where}: {message}.\n"
            f"    {self.text}\n    {' ' * place}^"
        )
