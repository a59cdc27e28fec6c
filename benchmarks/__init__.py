"""How fast a fit is, beside the other packages that can do it.

`python -m benchmarks` from the root of the checkout runs everything.
"""
