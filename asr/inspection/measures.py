"""Two numbers that describe the attention of a head."""

from __future__ import annotations

import numpy as np


def entropy(weights: np.ndarray) -> np.ndarray:
    """The mean entropy of the rows of weights (..., Q, K), in nats: (...).

    0 if each row has one weight of 1, log K if all weights are equal. Weights of 0 contribute nothing.
    """
    logs = np.log(weights, out=np.zeros_like(weights), where=weights > 0)
    return -(weights * logs).sum(-1).mean(-1)


def diagonality(weights: np.ndarray) -> np.ndarray:
    """How near weights (..., Q, K) are to the diagonal from the first query and key to the last: (...).

    One minus the mean distance of the weights from the diagonal, where the positions of queries and of keys
    each go from 0 to 1. It is 1 if all weights are on the diagonal, and 2/3 if many weights are all equal.
    For self-attention it equals, except for rounding, the cumulative attention diagonality of Shim et al.
    2022.
    """
    queries, keys = weights.shape[-2:]
    distance = np.abs(np.linspace(0, 1, queries)[:, None] - np.linspace(0, 1, keys))  # (Q, K)
    return 1 - (weights * distance).sum(-1).mean(-1)
