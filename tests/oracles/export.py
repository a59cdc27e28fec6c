"""Make `lmer.json`, `levels.csv` and `data/` out of a full set of reference fits.

Usage: python export.py REFERENCE.json REFITTED.json

The full set holds more than these tests use (profiles, degrees of freedom,
other packages); this keeps the `lme4::lmer` fits and, of each, what is compared.
Numbers are copied digit by digit, those of the large InstEval from the output of
`make.R`: see README.md.  The data sets that sklearn_lmm ships are
not copied: the tests take those from `sklearn_lmm.datasets`.
"""

from __future__ import annotations

import csv
import json
import shutil
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
SHIPPED = {"Exam", "Penicillin", "Pastes", "InstEval"}
COPIED = {
    "dataset": "dataset",
    "formula": "formula",
    "method": "method",
    "weights": "weights",
    "singular": "isSingular",
    "n": "n",
    "n_parameters": "df",
    "criterion": "criterion",
    "sigma": "sigma",
    "ml_deviance_at_this_theta": "ml_deviance_at_this_theta",
    "pwrss": "pwrss",
    "ldL2": "ldL2",
    "ldRX2": "ldRX2",
    "theta": "theta",
    "fitted_first": "fitted_first",
    "resid_sumsq": "resid_sumsq",
    "newdata": "newdata",
    "predict_new_conditional": "predict_new_conditional",
    "predict_new_population": "predict_new_population",
}


def main(reference: Path, refitted: Path) -> None:
    full = json.loads(reference.read_text())
    again = json.loads(refitted.read_text())
    fits = {
        name: trimmed(fit)
        for name, fit in full["fits"].items()
        if fit["engine"] == "lme4::lmer"
    }
    for name, fit in fits.items():
        if fit["dataset"] == "InstEval":
            fit.update({key: again[name][key] for key in fit.keys() & again[name]})
    (HERE / "lmer.json").write_text(as_lines(fits))
    copied = sorted({fit["dataset"] for fit in fits.values()} - SHIPPED)
    for dataset in copied:
        shutil.copyfile(
            reference.parent / full["datasets"][dataset]["file"],
            HERE / "data" / f"{dataset}.csv",
        )
    write_levels({dataset: full["datasets"][dataset] for dataset in copied})


def trimmed(fit: dict[str, Any]) -> dict[str, Any]:
    """Return what the tests compare of one fit, names before numbers."""
    kept = {ours: fit[theirs] for ours, theirs in COPIED.items() if theirs in fit}
    fixed = fit["fixef"]
    kept["beta"] = dict(zip(fixed["names"], fixed["estimate"], strict=True))
    kept["se"] = dict(zip(fixed["names"], fixed["se"], strict=True))
    kept["vcov"] = fit["vcov_fixef"]["values"]
    kept["dropped"] = fit["dropped_columns"] or []
    kept["covariances"] = {
        block: {"coefficients": value["names"], "values": value["cov"]}
        for block, value in fit["covariances"].items()
    }
    kept["effects"] = {name: effects(value) for name, value in fit["ranef"].items()}
    return kept


def effects(ranef: dict[str, Any]) -> dict[str, Any]:
    """Return the first levels' effects, and their conditional variances.

    `variances` has one row a level, one column a coefficient: the diagonals of
    lme4's `condVar`, which comes in pieces where a factor has several terms.
    """
    pieces = ranef.get("condVar_list") or {"all": ranef["condVar_first"]}
    variances = [
        [piece[i][i] for piece in level for i in range(len(piece))]
        for level in zip(*pieces.values(), strict=True)
    ]
    return {
        "coefficients": ranef["columns"],
        "levels": ranef["levels"][: len(ranef["values"])],
        "values": ranef["values"],
        "squares": ranef["colsums_sq"],
        "variances": variances,
    }


def as_lines(fits: dict[str, dict[str, Any]]) -> str:
    """Return JSON with one line for each field of each fit."""
    blocks = []
    for name, fit in fits.items():
        fields = [f"  {json.dumps(k)}: {json.dumps(v)}" for k, v in fit.items()]
        blocks.append(f" {json.dumps(name)}: {{\n" + ",\n".join(fields) + "\n }")
    return "{\n" + ",\n".join(blocks) + "\n}\n"


def write_levels(datasets: dict[str, Any]) -> None:
    with (HERE / "levels.csv").open("w", newline="") as stream:
        rows = csv.writer(stream, lineterminator="\n")
        rows.writerow(["dataset", "column", "level"])
        for dataset, entry in datasets.items():
            for column, described in entry["columns"].items():
                rows.writerows(
                    [dataset, column, level] for level in described.get("levels", [])
                )


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
