"""Make `diagnostics.json` out of a full set of reference fits.

Usage: python export_diagnostics.py REFERENCE.json
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent


def main(reference: Path) -> None:
    fits = json.loads(reference.read_text())["fits"]
    rows = {
        name: {
            "hat": fit["hat_first"],
            "hat_sum": fit["hat_sum"],
            "cook": fit["cooks_first"],
            "scaled_quantiles": fit["scaled_resid_quantiles"],
        }
        for name, fit in fits.items()
        if "hat_first" in fit
    }
    nlme = {
        name: {
            kind: fit[f"resid_{kind}_first"]
            for kind in ("response", "pearson", "normalized")
        }
        for name, fit in fits.items()
        if "resid_normalized_first" in fit
    }
    deletion = fits["deletion_sleep_subject"]
    keys = ("left_out", "fixef", "se", "theta", "sigma", "reml")
    groups = [{key: d[key] for key in keys} for d in deletion["deletions"]]
    cook = deletion["cooks_distance_group"]["values"]
    write({"rows": rows, "nlme": nlme, "without": groups, "cook": cook})


def write(content: dict[str, Any]) -> None:
    """Write one line for each fit."""
    parts = [f'"cook": {json.dumps(content["cook"])}']
    lines = ",\n ".join(map(json.dumps, content["without"]))
    parts.append(f'"without": [\n {lines}\n]')
    for key in ("rows", "nlme"):
        lines = ",\n ".join(
            f"{json.dumps(name)}: {json.dumps(row)}"
            for name, row in content[key].items()
        )
        parts.append(f'"{key}": {{\n {lines}\n}}')
    (HERE / "diagnostics.json").write_text("{" + ",\n".join(parts) + "}\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
