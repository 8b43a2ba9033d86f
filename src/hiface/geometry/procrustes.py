# SPDX-License-Identifier: Apache-2.0
"""Best rigid or similarity transform between corresponding points."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from hiface.errors import ShapeError


@dataclass(frozen=True)
class Similarity:
    """x -> scale R x + t.

    Attributes:
        R: [*B, 3, 3] rotation.
        t: [*B, 3] translation, unit of the target.
        scale: [*B] scale.
    """

    R: Tensor
    t: Tensor
    scale: Tensor

    def apply(self, points: Tensor) -> Tensor:
        """Transforms points [*B, N, 3]."""
        turned = points @ self.R.transpose(-1, -2)
        return self.scale[..., None, None] * turned + self.t[..., None, :]


def procrustes(
    source: Tensor, target: Tensor, weights: Tensor | None = None, with_scale: bool = False
) -> Similarity:
    """Transform of `source` that minimises sum_i w_i |scale R source_i + t - target_i|^2.

    Umeyama, "Least-squares estimation of transformation parameters between two point patterns", PAMI 1991,
    equations 40 to 43; never a reflection.

    Args:
        source: [*B, N, 3] points.
        target: [*B, N, 3] corresponding points.
        weights: [*B, N] or [N], at least 0; all 1 if None.
        with_scale: Whether to estimate the scale too; it is 1 otherwise.

    Returns:
        Similarity with the batch shape of the points.

    Raises:
        ShapeError: The point sets do not correspond.
    """
    if source.shape[-2:] != target.shape[-2:] or source.shape[-1] != 3 or source.shape[-2] < 3:
        raise ShapeError(
            f"procrustes needs two sets of at least 3 corresponding 3D points, got {tuple(source.shape)} "
            f"and {tuple(target.shape)}"
        )
    if weights is None:
        weights = torch.ones(source.shape[:-1], dtype=source.dtype, device=source.device)
    w = (weights / weights.sum(-1, keepdim=True))[..., None]
    mean_source, mean_target = (w * source).sum(-2), (w * target).sum(-2)
    a, b = source - mean_source[..., None, :], target - mean_target[..., None, :]
    U, singular, Vh = torch.linalg.svd((w * b).transpose(-1, -2) @ a)
    sign = torch.ones_like(singular)
    sign[..., 2] = torch.linalg.det(U @ Vh).sign()
    R = (U * sign[..., None, :]) @ Vh
    scale = torch.ones_like(singular[..., 0])
    if with_scale:
        scale = (singular * sign).sum(-1) / (w * a**2).sum((-1, -2))
    t = mean_target - scale[..., None] * (R @ mean_source[..., None])[..., 0]
    return Similarity(R, t, scale)
