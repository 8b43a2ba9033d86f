# SPDX-License-Identifier: Apache-2.0
"""Losses of predicted points with uncertainty, of rotations and of presence."""

from __future__ import annotations

import torch
from torch import Tensor


def gaussian_nll(points: Tensor, log_sigma: Tensor, truth: Tensor) -> Tensor:
    """Negative log likelihood of points under an isotropic 2D Gaussian, without its constant.

    Args:
        points: [*B, L, 2] predicted.
        log_sigma: [*B, L] logarithm of the standard deviation per axis, same unit.
        truth: [*B, L, 2].

    Returns:
        [*B, L]: |e|^2 / (2 sigma^2) + 2 log sigma.
    """
    squared = (points - truth).square().sum(dim=-1)
    return 0.5 * squared * torch.exp(-2.0 * log_sigma) + 2.0 * log_sigma


def point_distance(points: Tensor, truth: Tensor) -> Tensor:
    """Euclidean distance, smooth at zero: [*B, L, 2] twice to [*B, L]."""
    return ((points - truth).square().sum(dim=-1) + 1e-8).sqrt()


def weighted_mean(values: Tensor, weights: Tensor) -> Tensor:
    """Mean over all elements with weights of the same shape; zero if all weights are."""
    return (values * weights).sum() / weights.sum().clamp_min(1e-6)


def rotation_distance(R: Tensor, truth: Tensor) -> Tensor:
    """Squared Frobenius distance of rotation matrices, 4 (1 - cos angle): [*B, 3, 3] twice to [*B]."""
    return (R - truth).square().sum(dim=(-1, -2))
