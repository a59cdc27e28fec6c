"""Make `intervals.json` out of the full set of reference fits.

Usage: python export_intervals.py REFERENCE.json

Of every fit of lme4: Wald intervals of the fixed effects, profile intervals where
they were computed, R2 and ICC by their formulas, the trace of the hat matrix,
intervals with Satterthwaite's degrees of freedom and the covariance of
(theta, sigma) from the second derivatives of the criterion (lmerTest).
Numbers are copied digit by digit.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent


def main(reference: Path) -> None:
    fits = json.loads(reference.read_text())["fits"]
    kept = {name: trimmed(fit) for name, fit in fits.items() if fit.get("r2_formula")}
    lines = [f" {json.dumps(name)}: {json.dumps(fit)}" for name, fit in kept.items()]
    (HERE / "intervals.json").write_text("{\n" + ",\n".join(lines) + "\n}\n")


def trimmed(fit: dict[str, Any]) -> dict[str, Any]:
    r2 = {key: value for key, value in fit["r2_formula"].items() if key != "note"}
    kept = {"wald": fit["ci_wald95_z"], "r2": r2}
    if "hat_sum" in fit:
        kept["hat_sum"] = fit["hat_sum"]
    if "satterthwaite" in fit:
        kept["t"] = [fit["satterthwaite"][end] for end in ("lower95", "upper95")]
        kept["covariance_of_theta_and_sigma"] = fit["satterthwaite"]["vcov_varpar"]
    if "ci_profile95" in fit:
        table = fit["ci_profile95"]
        kept["profile"] = dict(zip(table["rows"], table["values"], strict=True))
    return kept


if __name__ == "__main__":
    main(Path(sys.argv[1]))
