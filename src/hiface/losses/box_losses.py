# SPDX-License-Identifier: Apache-2.0
"""Losses of a dense detector: generalised IoU of boxes and the quality focal loss of scores."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def iou_and_giou(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Pairwise IoU and generalised IoU (Rezatofighi et al. 2019).

    Args:
        a: [*B, 4] x0, y0, x1, y1.
        b: [*B, 4].

    Returns:
        IoU [*B] in 0..1 and GIoU [*B] in -1..1.
    """
    low, high = torch.maximum(a[..., :2], b[..., :2]), torch.minimum(a[..., 2:], b[..., 2:])
    inter = (high - low).clamp_min(0).prod(dim=-1)
    area_a = (a[..., 2:] - a[..., :2]).clamp_min(0).prod(dim=-1)
    area_b = (b[..., 2:] - b[..., :2]).clamp_min(0).prod(dim=-1)
    union = (area_a + area_b - inter).clamp_min(1e-6)
    hull_low, hull_high = torch.minimum(a[..., :2], b[..., :2]), torch.maximum(a[..., 2:], b[..., 2:])
    hull = (hull_high - hull_low).prod(dim=-1).clamp_min(1e-6)
    iou = inter / union
    return iou, iou - (hull - union) / hull


def quality_focal(logits: Tensor, targets: Tensor, beta: float = 2.0) -> Tensor:
    """Quality focal loss (Li et al. 2020): |target - sigmoid|^beta times the cross entropy.

    Args:
        logits: [*B].
        targets: [*B] 0..1: 0 for background, the IoU of the predicted box at a face.
        beta: Focusing exponent.

    Returns:
        [*B].
    """
    cross = F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    return (targets - torch.sigmoid(logits)).abs().pow(beta) * cross
