"""When each token was spoken, by where the decoder looks for it (https://arxiv.org/abs/2212.04356, section 2.4.3)."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray


def salience(weights: torch.Tensor, width: int) -> NDArray[Any]:
    """How much each token looks at each moment, (tokens, moments), of the attention of heads (heads, tokens, moments).

    Each moment is measured by what other tokens make of it, and smoothed by a running median of `width`.
    """
    deviation, mean = torch.std_mean(weights, dim=1, keepdim=True, unbiased=False)
    smooth = _median((weights - mean) / deviation.clamp(min=1e-9), width)
    told: NDArray[Any] = smooth.mean(dim=0).cpu().numpy()
    return told


def align(weights: NDArray[Any]) -> NDArray[np.int64]:
    """The column at which each row of (rows, columns) begins on the monotonic path that collects the most weight.

    Dynamic time warping: steps go one row down, one column right, or both. Cells of one diagonal depend on those of
    the two before only, so that they are computed together.
    """
    rows, columns = weights.shape
    cost = np.full((rows + 1, columns + 1), np.inf)
    cost[0, 0] = 0.0
    for diagonal in range(2, rows + columns + 1):
        row = np.arange(max(1, diagonal - columns), min(rows, diagonal - 1) + 1)
        column = diagonal - row
        best = np.minimum(np.minimum(cost[row - 1, column], cost[row, column - 1]), cost[row - 1, column - 1])
        cost[row, column] = best - weights[row - 1, column - 1]
    begins = np.zeros(rows, dtype=np.int64)
    row, column = rows, columns
    while row > 0 and column > 0:
        begins[row - 1] = column - 1
        steps = ((row - 1, column - 1), (row - 1, column), (row, column - 1))
        row, column = min(steps, key=lambda cell: cost[cell])
    return begins


def _median(weights: torch.Tensor, width: int) -> torch.Tensor:
    """The running median over the last dimension, whose ends are mirrored."""
    reach = width // 2
    if weights.shape[-1] <= reach:
        return weights
    padded = torch.nn.functional.pad(weights, (reach, reach), mode="reflect")
    return padded.unfold(-1, width, 1).median(dim=-1).values
