# SPDX-License-Identifier: Apache-2.0
"""Whether a code says who someone is: how little it changes between pictures of one person."""

from __future__ import annotations

from torch import Tensor

from hiface.errors import ShapeError


def variance_ratio(codes: Tensor, form: Tensor) -> float:
    """Variance within persons over variance between them.

    Args:
        codes: [N, V, n] codes of N persons in V pictures each.
        form: [n] weight of each coefficient, or [n, n] quadratic form: what a difference is worth on the
            surface (`ShapeMetric.aligned_form`, `StateBasis.variances`).

    Returns:
        0 for codes that depend on the person alone; 1 if pictures of one person differ as much as persons.

    Raises:
        ShapeError: Fewer than two persons or pictures.
    """
    if codes.dim() != 3 or min(codes.shape[:2]) < 2:
        raise ShapeError(f"expected codes [N, V, n] of at least 2 x 2 pictures, got {tuple(codes.shape)}")

    def worth(difference: Tensor) -> Tensor:
        if form.dim() == 1:
            return (difference.square() * form).sum(-1)
        return ((difference @ form) * difference).sum(-1)

    n_views = codes.shape[1]
    person = codes.mean(1, keepdim=True)
    within = worth(codes - person).sum() / (codes.shape[0] * (n_views - 1))
    between = worth(person[:, 0] - person[:, 0].mean(0)).sum() / (codes.shape[0] - 1)
    between = between - within / n_views  # the mean of few pictures still holds their noise
    return float(within / between.clamp_min(1e-12 * within + 1e-20))
