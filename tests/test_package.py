"""The package as a whole: what imports what, and what is documented."""

import ast
import importlib
import inspect
import re
import subprocess
import sys
from collections.abc import Iterator
from fnmatch import fnmatch
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import sklearn_lmm

ROOT = Path(sklearn_lmm.__file__).parent
# From the bottom up; a pattern makes one layer of several modules.  A module
# imports from its own layer and from those below it.
LAYERS = [
    "sklearn_lmm._types",
    "sklearn_lmm._progress",
    "sklearn_lmm.covariance",
    "sklearn_lmm._engine.memory",
    "sklearn_lmm._engine.linalg",
    "sklearn_lmm._engine.conjugate_gradients",
    "sklearn_lmm._engine.lanczos",
    "sklearn_lmm._engine.probes",
    "sklearn_lmm._engine.schur",
    "sklearn_lmm._engine.outer_sums",
    "sklearn_lmm._engine.design",
    "sklearn_lmm._engine.row_sums",
    "sklearn_lmm._engine.cross_products",
    "sklearn_lmm._engine.level_graph",
    "sklearn_lmm._engine.accumulator",
    "sklearn_lmm._engine.factor",
    "sklearn_lmm._engine.elimination",
    "sklearn_lmm._engine.crossing",
    "sklearn_lmm._engine.implicit_schur",
    "sklearn_lmm._engine.krylov_traces",
    "sklearn_lmm._engine.correlation",
    "sklearn_lmm._engine.autoregressive",
    "sklearn_lmm._engine.exchangeable",
    "sklearn_lmm._engine.block_correlation",
    "sklearn_lmm._engine.correlation_families",
    "sklearn_lmm._engine.error_sums",
    "sklearn_lmm._engine.errors",
    "sklearn_lmm._engine.error_squares",
    "sklearn_lmm._engine.factor*",
    "sklearn_lmm._engine.traces_*",
    "sklearn_lmm._engine.traces",
    "sklearn_lmm._engine.strategy",
    "sklearn_lmm._engine.start",
    "sklearn_lmm._engine.criterion",
    "sklearn_lmm._engine.levelwise",
    "sklearn_lmm._engine.error_traces",
    "sklearn_lmm._engine.error_criterion",
    "sklearn_lmm._engine.information",
    "sklearn_lmm._engine.variance_parameters",
    "sklearn_lmm._engine.held",
    "sklearn_lmm._engine.held_errors",
    "sklearn_lmm._engine.satterthwaite",
    "sklearn_lmm._engine.kenward_roger_errors",
    "sklearn_lmm._engine.kenward_roger",
    "sklearn_lmm._engine.monte_carlo",
    "sklearn_lmm._engine.steps",
    "sklearn_lmm._engine.profile",
    "sklearn_lmm._engine.optimize",
    "sklearn_lmm._engine.stochastic",
    "sklearn_lmm._engine.result",
    "sklearn_lmm._engine.fit",
    "sklearn_lmm._engine.description",
    "sklearn_lmm._engine.simulation",
    "sklearn_lmm._engine.refits",
    "sklearn_lmm._engine.null_draws",
    "sklearn_lmm._engine.reduced",
    "sklearn_lmm._engine.conditional",
    "sklearn_lmm._engine.summed_errors",
    "sklearn_lmm._engine.error_fit",
    "sklearn_lmm._engine.smaller",
    "sklearn_lmm._engine.prediction",
    "sklearn_lmm._engine.fitted_rows",
    "sklearn_lmm._engine.group_estimates",
    "sklearn_lmm._engine.carried",
    "sklearn_lmm._engine.error_draws",
    "sklearn_lmm._engine.whitening",
    "sklearn_lmm._engine.downdating",
    "sklearn_lmm._engine.deletion",
    "sklearn_lmm._engine.sandwich",
    "sklearn_lmm._engine.error_rows",
    "sklearn_lmm._engine",
    "sklearn_lmm.exceptions",
    "sklearn_lmm._notation",
    "sklearn_lmm._formula_notation",
    "sklearn_lmm.terms",
    "sklearn_lmm.residuals._base",
    "sklearn_lmm.residuals._variances",
    "sklearn_lmm.residuals._*",
    "sklearn_lmm.residuals",
    "sklearn_lmm._labels",
    "sklearn_lmm._stacking",
    "sklearn_lmm._grouping",
    "sklearn_lmm._groups",
    "sklearn_lmm._columns",
    "sklearn_lmm._covariates",
    "sklearn_lmm._expansion",
    "sklearn_lmm._formula_rows",
    "sklearn_lmm._formula",
    "sklearn_lmm._residual_data",
    "sklearn_lmm._residual_variances",
    "sklearn_lmm._residual_correlation",
    "sklearn_lmm._residual_columns",
    "sklearn_lmm._roles",
    "sklearn_lmm._numbering",
    "sklearn_lmm._row_labels",
    "sklearn_lmm._layout",
    "sklearn_lmm._residual_fit",
    "sklearn_lmm._totals",
    "sklearn_lmm._messages",
    "sklearn_lmm._results",
    "sklearn_lmm._uncertainty",
    "sklearn_lmm._updating",
    "sklearn_lmm._rows",
    "sklearn_lmm.forecasting",
    "sklearn_lmm._clusters",
    "sklearn_lmm.inference._*",
    "sklearn_lmm.inference",
    "sklearn_lmm.intervals._parameters",
    "sklearn_lmm.intervals._wald",
    "sklearn_lmm.intervals._likelihood",
    "sklearn_lmm.intervals._profile",
    "sklearn_lmm.intervals._draws",
    "sklearn_lmm.intervals._samplers",
    "sklearn_lmm.intervals._error_refits",
    "sklearn_lmm.intervals._bootstrap",
    "sklearn_lmm.intervals._simulate",
    "sklearn_lmm.intervals._confidence",
    "sklearn_lmm.intervals",
    "sklearn_lmm.diagnostics._*",
    "sklearn_lmm.diagnostics",
    "sklearn_lmm.summaries._*",
    "sklearn_lmm.summaries",
    "sklearn_lmm._predicting",
    "sklearn_lmm._regressor",
    "sklearn_lmm._lmer",
    "sklearn_lmm.dask",
    "sklearn_lmm._encod*",
    "sklearn_lmm.batches",
    "sklearn_lmm.displays._figure",
    "sklearn_lmm.displays._quantiles",
    "sklearn_lmm.displays._autocorrelation",
    "sklearn_lmm.displays._*",
    "sklearn_lmm.displays",
    "sklearn_lmm.metrics",
    "sklearn_lmm.model_selection",
    "sklearn_lmm.datasets._*",
    "sklearn_lmm.datasets",
    "sklearn_lmm",
]
OPTIONAL = {
    "dask",
    "distributed",
    "formulaic",
    "matplotlib",
    "polars",
    "pyarrow",
    "tqdm",
}


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


TREES = {
    module_name(path): ast.parse(path.read_text(encoding="utf-8"))
    for path in sorted(ROOT.rglob("*.py"))
}
each_module = pytest.mark.parametrize("module", TREES)


def layer(module: str) -> int:
    """Return the module's place in LAYERS, the first that it matches."""
    for place, pattern in enumerate(LAYERS):
        if fnmatch(module, pattern):
            return place
    raise LookupError(f"{module} is not in LAYERS: enter it where it belongs.")


def imports(nodes: Iterator[ast.AST]) -> set[str]:
    """Return the full names of what the import statements among `nodes` import."""
    found = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports hide the layer"
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                found.add(inner if inner in TREES else node.module)
    return found


def at_import(node: ast.AST) -> Iterator[ast.AST]:
    """Yield the nodes that run when the module is imported."""
    for child in ast.iter_child_nodes(node):
        typing_only = (
            isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING"
        )
        if not typing_only and not isinstance(
            child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda
        ):
            yield child
            yield from at_import(child)


def own_imports(module: str) -> set[str]:
    return imports(ast.walk(TREES[module])) & TREES.keys()


@each_module
def test_imports_point_downwards(module):
    place = layer(module)
    assert {name for name in own_imports(module) if layer(name) > place} == set()


def test_imports_have_no_cycle():
    TopologicalSorter({module: own_imports(module) for module in TREES}).prepare()


@pytest.mark.parametrize("module", [m for m in TREES if "._engine" in m])
def test_engine_knows_neither_pandas_nor_scikit_learn(module):
    packages = {name.split(".")[0] for name in imports(ast.walk(TREES[module]))}
    assert packages.isdisjoint({"pandas", "sklearn"})


@each_module
def test_optional_packages_are_imported_where_they_are_needed(module):
    packages = {name.split(".")[0] for name in imports(at_import(TREES[module]))}
    assert packages.isdisjoint(OPTIONAL)


def test_bare_import_loads_no_optional_package():
    # pandas itself imports pyarrow where that is installed.
    program = (
        "import sys, pandas, sklearn; before = set(sys.modules); import sklearn_lmm;"
        "print(*{name.split('.')[0] for name in set(sys.modules) - before})"
    )
    loaded = subprocess.run(
        [sys.executable, "-c", program],
        check=True,
        capture_output=True,
        text=True,
        cwd=ROOT.parent,
    ).stdout.split()
    assert "sklearn_lmm" in loaded
    assert OPTIONAL.isdisjoint(loaded)


def public_objects() -> dict[str, object]:
    """Return what the public modules list in `__all__`, by full name."""
    found = {}
    for module_name in TREES:
        if "._" not in module_name:
            module = importlib.import_module(module_name)
            for name in getattr(module, "__all__", []):
                found[f"{module_name}.{name}"] = getattr(module, name)
    return {name: value for name, value in found.items() if callable(value)}


@pytest.mark.parametrize(
    "value", [pytest.param(v, id=name) for name, v in public_objects().items()]
)
def test_public_objects_are_documented_with_an_example(value):
    assert value.__doc__
    doc = inspect.cleandoc(value.__doc__)
    # A warning is filtered by its name; there is nothing to run.
    if not (inspect.isclass(value) and issubclass(value, Warning)):
        assert "\nExamples\n--------\n" in doc
        assert ">>> " in doc


def test_public_objects_are_in_the_readme_or_an_example():
    top = Path(__file__).parents[1]
    pages = [top / "README.md", *(top / "examples").glob("*.py")]
    words = set(re.findall(r"\w+", "".join(page.read_text("utf-8") for page in pages)))
    names = {name.rpartition(".")[2] for name in public_objects()}
    assert names - words == set()
