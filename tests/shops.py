"""Sales of crossed shops and items, for the tests of the encoder."""

import numpy as np
import pandas as pd
import pytest

N_SHOPS = 30
ignore_singular = pytest.mark.filterwarnings(
    "ignore::sklearn_lmm.exceptions.SingularFitWarning"
)


def sales(n=600, seed=0):
    """Return rows of two crossed factors with effects, a covariate and a slope."""
    rng = np.random.default_rng(seed)
    shop, item = rng.integers(0, N_SHOPS, n), rng.integers(0, 12, n)
    price = rng.normal(size=n) + 0.05 * shop
    shop_effect, item_effect = rng.normal(size=N_SHOPS), 0.7 * rng.normal(size=12)
    slope = 2.0 + 0.8 * rng.normal(size=N_SHOPS)
    y = 10 + shop_effect[shop] + item_effect[item] + slope[shop] * price
    X = pd.DataFrame({"price": price, "shop": shop, "item": item})
    X["shop"] = "s" + X["shop"].astype(str)
    X["item"] = pd.Categorical("i" + X["item"].astype(str))
    return X, pd.Series(y + rng.normal(size=n))


X, Y = sales()
