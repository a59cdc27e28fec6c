"""Which levels of crossed factors are connected, by rows that they share.

Levels that no chain of rows connects (schools without an item in common, say)
do not meet in any matrix of the model.
"""

from __future__ import annotations

import numpy as np
from scipy import sparse
from scipy.sparse.csgraph import connected_components

from sklearn_lmm._engine.cross_products import CrossProducts
from sklearn_lmm._engine.linalg import consecutive
from sklearn_lmm._types import IntArray


def level_components(statistics: CrossProducts) -> list[IntArray]:
    """Return, per factor, the number of every level's component (G,).

    Stored zeros connect, too: the graph is that of the pattern of Z'Z.
    """
    places = consecutive(len(s) for s in statistics.s)
    rows, columns = [], []
    for (f, h), n in statistics.n.items():
        pairs = n.tocoo()
        rows.append(pairs.row // statistics.s[f].shape[1] + places[f].start)
        columns.append(pairs.col // statistics.s[h].shape[1] + places[h].start)
    entries = np.concatenate(rows), np.concatenate(columns)
    size = places[-1].stop
    graph = sparse.coo_array((np.ones(len(entries[0])), entries), (size, size))
    labels = connected_components(graph, directed=False)[1]
    return [labels[place] for place in places]


def is_connected(N: sparse.csr_array, Nt: sparse.csr_array) -> bool:
    """Say whether N leads from its first row to all others in some steps.

    Mostly so, and then far cheaper to see than to list components.  Entries that
    are 0, or cancel, may only make the answer too cautious.
    """
    reached = np.zeros(N.shape[0])
    reached[:1] = 1.0
    before, found = 0, 1
    while before < found < len(reached):
        reached = np.maximum(reached, N @ (Nt @ reached != 0.0) != 0.0)
        before, found = found, int(np.count_nonzero(reached))
    return found == len(reached)
