"""Small real data sets with their sources, and a generator of data.

Every ``load_...`` function returns a `sklearn.utils.Bunch` with the attributes

data
    the columns other than the target, grouping columns among them: a
    DataFrame in which factors are categoricals with their levels in the order
    of the source, or (``as_frame=False``) an array of dtype object
target
    the response: a Series, or an array
frame
    DataFrame of data and target in the order of the file; None without frames
feature_names, target_name
    names of the columns of ``data``, and of the target
DESCR
    what was observed, the columns with their units, source and citation
filename
    path of the CSV file

and, with ``return_X_y=True``, the pair ``(data, target)`` alone.
"""

from sklearn_lmm.datasets._real import (
    load_cake,
    load_exam,
    load_insteval,
    load_ovary,
    load_pastes,
    load_penicillin,
    load_sleepstudy,
)
from sklearn_lmm.datasets._synthetic import make_mixed_regression

__all__ = [
    "load_cake",
    "load_exam",
    "load_insteval",
    "load_ovary",
    "load_pastes",
    "load_penicillin",
    "load_sleepstudy",
    "make_mixed_regression",
]
