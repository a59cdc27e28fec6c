"""One side of a formula, turned into columns of numbers by formulaic.

What is learnt at fit (levels of categories, contrasts, knots, means) is kept in
formulaic's model spec, so that later rows get the same columns.  Columns have
R's names: the variable's and the level's, as in "MachineB".
"""

from __future__ import annotations

import ast
import builtins
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import pandas as pd

from sklearn_lmm._columns import listed
from sklearn_lmm._types import FloatArray
from sklearn_lmm.terms import INTERCEPT


@dataclass(frozen=True)
class FixedTerm:
    """A term of a formula, such as f, x or f:x; the intercept has no factors.

    columns : names of its columns of the design
    factors : the expressions that it is the product of
    variables : columns of X that it is made of
    """

    name: str
    columns: tuple[str, ...]
    factors: tuple[str, ...]
    variables: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Expansion:
    """What one side of a formula makes of the columns of X.

    spec : formulaic's, with what was learnt
    terms : in formulaic's order, by the number of factors
    """

    spec: Any
    terms: tuple[FixedTerm, ...]

    @property
    def intercept(self) -> bool:
        return any(not term.factors for term in self.terms)

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of all columns but the intercept."""
        return tuple(c for term in self.terms if term.factors for c in term.columns)

    @property
    def levels(self) -> dict[str, list[Any]]:
        """Levels of every expression that is categorical."""
        return {
            _shown(expr): list(state["categories"])
            for expr, (_, state) in self.spec.encoder_state.items()
            if "categories" in state
        }

    @property
    def categories(self) -> dict[str, list[Any]]:
        """Levels of the variables that are used as categories."""
        found = {}
        for expression, (_, state) in self.spec.encoder_state.items():
            names = list(
                _names(expression, "python" if "(" in expression else "lookup")
            )
            if "categories" in state and len(names) == 1:
                found[names[0]] = list(state["categories"])
        return found

    def values(
        self, data: pd.DataFrame, known: Mapping[str, FloatArray] | None = None
    ) -> FloatArray:
        """Return the columns (n, k), without the intercept, for rows of X.

        `known` are columns of another side of the formula, which are not
        computed again.

        Raises
        ------
        ValueError
            If a category was not there at fit, or a value cannot be computed.
        """
        if known is not None and {*self.columns} <= known.keys():
            found = [known[name] for name in self.columns]
            return np.column_stack(found) if found else np.empty((len(data), 0))
        data = data.copy(deep=False)
        levels = self.levels
        for name in {f for term in self.terms for f in term.factors} & {*data.columns}:
            # formulaic would take numbers for a covariate, and text for a category.
            if name in levels:
                _check_known(data[name], name, levels[name])
                data[name] = pd.Categorical(data[name], categories=levels[name])
            elif not pd.api.types.is_numeric_dtype(data[name].dtype):
                raise ValueError(
                    f"{name!r} was numeric at fit, but is {data[name].dtype} now."
                )
        return _without_intercept(_evaluated(self.spec, data)[1], self.terms)


def expand(text: str, data: pd.DataFrame) -> tuple[Expansion, FloatArray]:
    """Learn one side of a formula from rows; return it, and its columns (n, k).

    Ordered categories get orthogonal polynomials (contr.poly of R: Chambers and
    Hastie, 1992, Statistical Models in S, 2.3.2), others treatment contrasts.

    Raises
    ------
    ValueError
        If the text cannot be read, or a value cannot be computed.
    """
    formulaic = import_formulaic()
    terms = _with_polynomials(formula_terms(text), data)
    formula = formulaic.Formula(terms)
    spec = formulaic.ModelSpec(formula=formula, output="numpy", na_action="raise")
    spec, values = _evaluated(spec, data)
    learnt = tuple(_term(structure) for structure in spec.structure)
    return Expansion(spec, learnt), _without_intercept(values, learnt)


def import_formulaic() -> Any:
    """Return the package formulaic.

    Raises
    ------
    ImportError
        If it is not installed, with how to get it.
    """
    try:
        import formulaic
    except ImportError as error:
        raise ImportError(
            "Formulas need the package formulaic, which is not installed: "
            'pip install "sklearn-lmm[formula]".'
        ) from error
    return formulaic


@lru_cache(maxsize=256)
def formula_terms(text: str) -> tuple[Any, ...]:
    """Return the terms of one side of a formula, as formulaic reads it.

    Raises
    ------
    ValueError
        If it cannot be read.
    """
    formulaic = import_formulaic()
    try:
        terms = tuple(formulaic.Formula(text))
        for factor in (factor for term in terms for factor in term.factors):
            list(_names(factor.expr, factor.eval_method.value))
        return terms
    except (formulaic.errors.FormulaicError, SyntaxError) as error:
        raise ValueError(
            f"formula: cannot read {text!r}. {_plain(error)}. Names with dots or "
            "spaces go into backticks."
        ) from error


def names_in(text: str) -> set[str]:
    """Return the names in one side of a formula that are not known functions.

    Raises
    ------
    ValueError
        If it cannot be read.
    """
    found: set[str] = set()
    for term in formula_terms(text):
        for factor in term.factors:
            found |= set(_names(factor.expr, factor.eval_method.value))
    return found


# What stands for "o" where o is an ordered category.
_POLYNOMIAL = re.compile(r"^C\((`[^`]*`|[\w.]+), contr\.poly\)$")


def _shown(expression: str) -> str:
    match = _POLYNOMIAL.match(expression)
    return match[1].strip("`") if match else expression


def _names(expression: str, kind: str) -> Iterator[str]:
    if kind == "lookup":
        yield expression
    if kind != "python":
        return
    quoted = re.findall(r"`([^`]*)`", expression)
    for place, name in enumerate(quoted):
        expression = expression.replace(f"`{name}`", f"_quoted_{place}_")
    tree = ast.parse(expression, mode="eval")
    functions = {id(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
    transforms = {*import_formulaic().transforms.TRANSFORMS, *_functions()}
    for node in ast.walk(tree):
        if not isinstance(node, ast.Name) or id(node) in functions:
            continue
        match = re.fullmatch(r"_quoted_(\d+)_", node.id)
        if match:
            yield quoted[int(match[1])]
        elif node.id not in transforms and not hasattr(builtins, node.id):
            yield node.id


def _functions() -> dict[str, Any]:
    """Return what formulas may call beside formulaic's own functions."""
    formulaic = import_formulaic()
    return {"factor": formulaic.transforms.C, "sqrt": np.sqrt, "log1p": np.log1p}


def _with_polynomials(terms: Sequence[Any], data: pd.DataFrame) -> list[Any]:
    """Give ordered categories their contrasts."""
    from formulaic.parser.types import Factor, Term

    def coded(factor: Any) -> Any:
        dtype = data.dtypes.get(factor.expr)
        if not (isinstance(dtype, pd.CategoricalDtype) and dtype.ordered):
            return factor
        return Factor(f"C(`{factor.expr}`, contr.poly)", eval_method="python")

    return [Term([coded(factor) for factor in term.factors]) for term in terms]


def _evaluated(spec: Any, data: pd.DataFrame) -> tuple[Any, FloatArray]:
    formulaic = import_formulaic()
    mismatch = formulaic.errors.DataMismatchWarning
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", mismatch)
            matrix = spec.get_model_matrix(data, context=_functions())
    except mismatch as error:
        _check_all_known(spec, data)
        raise ValueError(f"formula: new categories. {_plain(error)}") from error
    except (formulaic.errors.FormulaicError, ValueError, TypeError) as error:
        raise ValueError(
            f"formula: cannot compute {str(spec.formula)!r}. {_plain(error)}"
        ) from error
    return matrix.model_spec, np.asarray(matrix, dtype=np.float64)


def _check_known(column: pd.Series[Any], name: str, levels: list[Any]) -> None:
    """Refuse categories that were not there at fit."""
    present = pd.unique(column.dropna()).tolist()
    new = [level for level in present if level not in levels]
    if new:
        raise ValueError(
            f"{name!r} has categories that the fit has not seen: "
            f"{listed(new)}; known are {listed(levels)}. There is no fixed effect of "
            "a new category: leave such rows out, or let the intercept vary by it, as "
            f"in (1 | {name}). (Of rows that are fitted in batches the first need "
            "every category.)"
        )


def _check_all_known(spec: Any, data: pd.DataFrame) -> None:
    """Name the categories that formulaic has found to be new in C(...)."""
    for expression, (_, state) in spec.encoder_state.items():
        names = list(_names(expression, "python")) if "(" in expression else []
        if len(names) == 1 and "categories" in state:
            _check_known(data[names[0]], names[0], list(state["categories"]))


def _plain(error: Exception) -> str:
    """Return an error's text without marks for terminals."""
    return " ".join(re.sub(r"⧛?\x1b\[[\d;]*m⧚?", "", str(error)).split())


def _without_intercept(values: FloatArray, terms: Sequence[FixedTerm]) -> FloatArray:
    keep = [bool(term.factors) for term in terms for _ in term.columns]
    return values if all(keep) else values[:, keep]


def _term(structure: Any) -> FixedTerm:
    expressions = [f.expr for f in structure.term.factors if f.expr != "1"]
    kinds = {f.expr: f.eval_method.value for f in structure.term.factors}
    factors = [_shown(expression) for expression in expressions]
    variables = [name for e in expressions for name in _names(e, kinds[e])]
    return FixedTerm(
        name=":".join(factors) or INTERCEPT,
        columns=tuple(_column(c, structure.scoped_terms) for c in structure.columns),
        factors=tuple(factors),
        variables=tuple(dict.fromkeys(variables)),
    )


def _column(name: str, scoped_terms: Sequence[Any]) -> str:
    """Return R's name of a column that formulaic calls, say, f[T.b]:x."""
    for scoped in scoped_terms:
        pattern = ":".join(
            re.escape(factor.factor.expr) + r"(?:\[(.*)\])?"
            for factor in scoped.factors
        )
        match = re.fullmatch(pattern, name)
        if match and scoped.factors:
            parts = zip(scoped.factors, match.groups(), strict=True)
            return ":".join(_part(*part) for part in parts)
    return INTERCEPT


def _part(scoped: Any, field: str | None) -> str:
    name = _shown(scoped.factor.expr)
    if field is None:
        return name
    if scoped.reduced and re.match(r"[A-SU-Z]\.", field):
        # Contrasts that are asked for are not those to the first level.
        return f"{name}[{field}]"
    return name + (field.removeprefix("T.") if scoped.reduced else field)
