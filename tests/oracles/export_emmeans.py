"""Make `emmeans.json` out of the full set of reference fits.

Usage: python export_emmeans.py REFERENCE.json

Marginal means and trends of R's emmeans 1.8.4 for lmer fits, with pairwise
comparisons, under each kind of degrees of freedom. Numbers are copied digit by digit.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

HERE = Path(__file__).parent


def main(reference: Path) -> None:
    fits = json.loads(reference.read_text())["fits"]
    kept = {
        name: {key: fit[key] for key in ("dataset", "formula", "trend_var", "tables")}
        for name, fit in fits.items()
        if fit["engine"].startswith("emmeans")
    }
    lines = [f" {json.dumps(name)}: {json.dumps(fit)}" for name, fit in kept.items()]
    (HERE / "emmeans.json").write_text("{\n" + ",\n".join(lines) + "\n}\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
