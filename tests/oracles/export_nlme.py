"""Make `nlme.json` out of the full set of reference fits.

Usage: python export_nlme.py REFERENCE.json

Of every fit of nlme, and of those of glmmTMB that a residual structure can express:
criterion, fixed effects with standard errors, sigma, covariances of the random
effects, parameters of correlation and variance functions.  Where the fit was
polished by Newton steps, these numbers; `exact` says that they are the optimum.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
GLMMTMB = {f"tmb_{m}_{r}" for m in ("sleep_disp", "ovary_ar1") for r in ("reml", "ml")}
NOT_OPTIMAL = ("lme_sleep_ar1", "lme_chick_car1", "lme_chick_varexp")
"""What the optimiser left up to 9e-5 above the optimum."""


def main(reference: Path) -> None:
    fits = json.loads(reference.read_text())["fits"]
    kept = {
        name: trimmed(name, fit)
        for name, fit in fits.items()
        if fit["engine"].startswith("nlme") or name in GLMMTMB
    }
    lines = [f" {json.dumps(name)}: {json.dumps(fit)}" for name, fit in kept.items()]
    (HERE / "nlme.json").write_text("{\n" + ",\n".join(lines) + "\n}\n")


def trimmed(name: str, fit: dict[str, Any]) -> dict[str, Any]:
    names = fit["fixef"]["names"]
    best = fit.get("polished") or {
        "criterion": fit["criterion"],
        "sigma": fit["sigma"],
        "fixef": fit["fixef"]["estimate"],
        "se": fit["fixef"]["se"],
    }
    return {
        "call": fit.get("call") or f"{fit['formula']}, disp {fit['dispformula']}",
        "dataset": fit["dataset"],
        "method": fit["method"],
        "exact": not name.startswith(NOT_OPTIMAL) and name not in GLMMTMB,
        "criterion": best["criterion"],
        "sigma": None if name in GLMMTMB else best["sigma"],
        "beta": dict(zip(names, best["fixef"], strict=True)),
        "se": dict(zip(names, best["se"], strict=True)),
        "covariances": {
            factor: value["cov"] for factor, value in best.get("random", {}).items()
        },
        "correlation": parameters(best, fit, "corStruct"),
        "deviations": parameters(best, fit, "varStruct"),
    }


def parameters(best: dict[str, Any], fit: dict[str, Any], kind: str) -> Any:
    """Return the parameters of a correlation or variance function, None if none."""
    return best.get(f"{kind}_coef", fit.get(kind, {}).get("coef"))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
