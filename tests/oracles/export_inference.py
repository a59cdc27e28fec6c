"""Make `inference.json` out of the full set of reference fits.

Usage: python export_inference.py REFERENCE.json

Of every fit of lme4: degrees of freedom by Satterthwaite and by Kenward and Roger
(of weighted fits those that were computed with the weights, which pbkrtest
ignores), and tables of tests of the terms (not that of a weighted fit by Kenward
and Roger, for the same reason).  Beside the fits: comparisons of models, tests of
random terms, of single terms, and of contrasts of several effects.  Numbers are
copied digit by digit.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
TABLE = {
    "Sum Sq": "sum_sq",
    "Mean Sq": "mean_sq",
    "NumDF": "num_df",
    "DenDF": "den_df",
    "F value": "statistic",
    "Pr(>F)": "p_value",
}
OTHERS = ("lrt_", "ranova_", "drop1_", "krmodcomp_")


def main(reference: Path) -> None:
    fits = json.loads(reference.read_text())["fits"]
    kept = {
        name: trimmed(fit) for name, fit in fits.items() if fit.get("satterthwaite")
    }
    kept |= {
        name: {key: value for key, value in fit.items() if key != "id"}
        for name, fit in fits.items()
        if name.startswith(OTHERS)
    }
    lines = [f" {json.dumps(name)}: {json.dumps(fit)}" for name, fit in kept.items()]
    (HERE / "inference.json").write_text("{\n" + ",\n".join(lines) + "\n}\n")


def trimmed(fit: dict[str, Any]) -> dict[str, Any]:
    names = fit["fixef"]["names"]

    def by_name(values: list[float]) -> dict[str, float]:
        return dict(zip(names, values, strict=True))

    satterthwaite = fit["satterthwaite"]
    kept = {
        "formula": fit["formula"],
        "method": fit["method"],
        "satterthwaite": {key: by_name(satterthwaite[key]) for key in ("df", "p")},
    }
    if "kenward_roger" in fit:
        table = fit["kenward_roger"]
        kept["kenward_roger"] = {
            key: by_name(table.get(f"{key}_correct", table[key]))
            for key in ("df", "se")
        }
    for key, rows in fit.items():
        wrong = fit["weights"] and key.endswith("kenward_roger")
        if key.startswith("anova_type") and rows and not wrong:
            kept[key] = {row["row"]: table_row(row) for row in rows}
    return kept


def table_row(row: dict[str, Any]) -> dict[str, float]:
    return {ours: row[theirs] for theirs, ours in TABLE.items()}


if __name__ == "__main__":
    main(Path(sys.argv[1]))
