r"""
=======================
More rows than memory
=======================

What a mixed model needs to know of its rows are sums: of products of columns, for all
rows and for the rows of each group. They do not grow with the number of rows, and they
can be made in portions. So a fit can read files that together are larger than memory,
one batch after another, and it is not an approximation: the result is that of one fit
to all rows. The same sums can be made by the workers of a cluster.

The data here are small, so that this runs in seconds; nothing would change with a
thousand times as many.
"""

import pickle
import tempfile
import textwrap
from pathlib import Path

import dask.dataframe as dd
import numpy as np
import pandas as pd

from sklearn_lmm import MixedEffectsRegressor, RandomEffect
from sklearn_lmm.batches import ParquetBatches
from sklearn_lmm.dask import fit, predict


def say(text):
    """Print sentences as a paragraph."""
    print(textwrap.fill(" ".join(text.split()), 80, break_on_hyphens=False))


# %%
# A file a month
# ~~~~~~~~~~~~~~
# A chain has 2000 shops, which differ in what they sell in a day and in what the
# weather does to it. New shops open all the time: which shops there are is known only
# when the last file has been read. Shops have numbers of no particular order.

rng = np.random.default_rng(4)
N_SHOPS, N_MONTHS, ROWS = 2000, 6, 20_000
number = rng.choice(10**9, N_SHOPS, replace=False)
own = rng.multivariate_normal([0, 0], [[9.0, 1.0], [1.0, 1.0]], N_SHOPS)


def month(k):
    """Draw the sales of a month, in which some shops are new."""
    shop = rng.integers(0, N_SHOPS * (5 + k) // (5 + N_MONTHS), ROWS)
    frame = pd.DataFrame(
        {
            "temperature": rng.normal(size=ROWS),
            "weekend": rng.choice([0.0, 1.0], ROWS, p=[5 / 7, 2 / 7]),
            "shop": number[shop],
        }
    )
    mean = 20 + 2 * frame["temperature"] + 5 * frame["weekend"]
    mean += own[shop, 0] + own[shop, 1] * frame["temperature"]
    return frame.assign(sales=mean + rng.normal(scale=4, size=ROWS))


directory = tempfile.TemporaryDirectory()
folder = Path(directory.name)
for k in range(N_MONTHS):
    month(k).to_parquet(folder / f"month-{k}.parquet")

# %%
# One fit, batch by batch
# ~~~~~~~~~~~~~~~~~~~~~~~
# ``ParquetBatches`` reads the files in turn; at no time is more than a batch in memory.
# ``fit_batches`` takes any iterable of tuples (X, y), so rows may as well come from a
# database. On a terminal a long pass shows a bar, if tqdm is installed.

model = MixedEffectsRegressor(RandomEffect("shop", slopes=["temperature"]))
batches = ParquetBatches(folder, y="sales", batch_size=15_000)
model.fit_batches(batches)
n_rows = sum(len(y) for _, y, _, _ in batches)
sd = np.sqrt(np.diag(model.covariances_["shop"]))
say(
    f"{n_rows} rows of {len(model.effects_['shop'])} shops came in {len(batches)} "
    f"batches. The standard deviations between shops are {sd[0]:.2f} (true: 3) and "
    f"{sd[1]:.2f} a unit of temperature (true: 1); the residual one is "
    f"{model.sigma_:.2f} (true: 4)."
)

# %%
# All rows at once fit into memory here, so we can look whether that is the same.

rows = pd.concat([pd.read_parquet(file) for file in batches.files])
X, y = rows.drop(columns="sales"), rows["sales"]
whole = MixedEffectsRegressor(model.random).fit(X, y)
apart = np.abs(whole.predict(X) - model.predict(X)).max()
size = len(pickle.dumps(model))
say(
    f"No prediction is more than {'1e-6' if apart < 1e-6 else apart} away from that of "
    f"a fit to all rows at once. As a pickle the model has {size / 1e6:.1f} MB, "
    "however many rows there are: it keeps some numbers for each shop."
)

# %%
# The next month
# ~~~~~~~~~~~~~~
# Because the sums are kept, another month does not mean reading the old ones again.

new = month(N_MONTHS)
before = len(model.effects_["shop"])
model.partial_fit(new.drop(columns="sales"), new["sales"])
say(
    f"With the next month there are {len(model.effects_['shop']) - before} more shops. "
    f"The fixed effect of the weekend is {model.fixed_effects_['weekend']:.3f} "
    "(true: 5)."
)

# %%
# On a cluster
# ~~~~~~~~~~~~
# For Dask a partition is what a batch is here: its sums are made where it lies, and
# added up in a tree. Without a client, as here, that happens in threads of this
# process; ``distributed.Client(address)`` before it is all that a cluster needs.
# Predictions are lazy.

partitions = dd.read_parquet(folder)
inputs = partitions[["temperature", "weekend", "shop"]]
cluster_model = fit(MixedEffectsRegressor(model.random), inputs, partitions["sales"])
same = np.allclose(cluster_model.theta_, whole.theta_, atol=1e-7)
lazy = predict(cluster_model, inputs)
error = np.sqrt(((lazy - partitions["sales"]) ** 2).mean().compute())
say(
    f"From {partitions.npartitions} partitions Dask has "
    f"{'the same' if same else 'other'} parameters. The predictions miss the sales by "
    f"{error:.2f} (root mean square)."
)
directory.cleanup()
