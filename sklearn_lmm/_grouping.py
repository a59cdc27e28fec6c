"""Grouping factors: the levels of one source of labels, or combinations of several."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sklearn_lmm._labels import Levels, learn_levels
from sklearn_lmm._types import AnyArray, IntArray


@dataclass(frozen=True, eq=False)
class FactorLevels:
    """The levels of a grouping factor, and how labels become its codes.

    An interaction has the occupied combinations of its parts' levels.  The pair
    (a, b) has the key a * G_b + b, and its code is that key's place among the
    sorted keys; a third part is paired with that code, and so on.

    labels : (n_levels,) tuples for an interaction
    parts : the levels of every source
    keys : for the second source, the third, …, the keys that occur
    """

    labels: AnyArray
    parts: tuple[Levels, ...]
    keys: tuple[Levels, ...]

    def texts(self) -> list[str]:
        """Return the labels as text, "a:b" for a combination."""
        return [
            ":".join(map(str, label)) if isinstance(label, tuple) else str(label)
            for label in self.labels.tolist()
        ]

    def match(self, columns: Sequence[Any]) -> IntArray:
        """Return the codes of rows, given the labels of every source.

        -1 where a label is unknown or missing, or the combination is new.
        """
        codes = [part.match(c) for part, c in zip(self.parts, columns, strict=True)]
        pairs = codes[0]
        for k, keys in enumerate(self.keys, start=1):
            pairs = keys.match(_key(pairs, codes[k], self.parts[k]))
        return pairs

    def joined(self, other: FactorLevels) -> FactorLevels:
        """Return these levels and those of another set of rows."""
        pairs = zip(self.parts, other.parts, strict=True)
        parts = [mine.joined(theirs) for mine, theirs in pairs]
        if not self.keys:
            return FactorLevels(parts[0].labels, tuple(parts), ())
        combinations = [*self.labels.tolist(), *other.labels.tolist()]
        columns = [np.array(c, object) for c in zip(*combinations, strict=True)]
        codes = [part.match(c) for part, c in zip(parts, columns, strict=True)]
        return learn_factor(codes, parts)[1]

    def part_codes(self) -> list[IntArray]:
        """Return for every level the codes (n_levels,) of its parts."""
        pairs, codes = np.arange(len(self.labels)), []
        for keys, part in zip(self.keys[::-1], self.parts[:0:-1], strict=True):
            pairs, other = np.divmod(keys.labels[pairs], len(part.labels))
            codes.append(other)
        return [pairs, *codes[::-1]]

    def positions(self, labels: AnyArray) -> IntArray:
        """Return where each of some levels' labels is among these levels, or -1."""
        if not self.keys:
            return self.parts[0].positions(labels)
        places = {label: code for code, label in enumerate(self.labels.tolist())}
        return np.array([places.get(x, -1) for x in labels.tolist()], dtype=np.intp)


def learn_factor(
    codes: Sequence[IntArray], parts: Sequence[Levels]
) -> tuple[IntArray, FactorLevels]:
    """Return the codes of a factor's rows and its levels, given those of its parts."""
    pairs, keys = codes[0], []
    for other, part in zip(codes[1:], parts[1:], strict=True):
        pairs, levels = learn_levels(_key(pairs, other, part), part.name)
        keys.append(levels)
    labels = parts[0].labels
    if keys:
        labels = _combinations(pairs, codes, parts, len(keys[-1].labels))
    return pairs, FactorLevels(labels, tuple(parts), tuple(keys))


def _key(pairs: IntArray, other: IntArray, part: Levels) -> IntArray:
    known = (pairs >= 0) & (other >= 0)
    return np.where(known, pairs * len(part.labels) + other, -1)


def _combinations(
    pairs: IntArray, codes: Sequence[IntArray], parts: Sequence[Levels], size: int
) -> AnyArray:
    """Return the labels of combinations as tuples, each read off one of its rows."""
    row = np.empty(size, dtype=np.intp)
    row[pairs] = np.arange(len(pairs))
    columns = [part.labels[c[row]] for c, part in zip(codes, parts, strict=True)]
    labels = np.empty(size, dtype=object)
    labels[:] = list(zip(*(column.tolist() for column in columns), strict=True))
    return labels
