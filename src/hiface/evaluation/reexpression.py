# SPDX-License-Identifier: Apache-2.0
"""The re-expression test: reconstruct from one expression, animate to another, compare the wrinkles.

Exact truth for this exists in synthetic people only: the displacement of the same person under the other
expression. A method that keeps the map of the first expression (as one with an expression-blind detail code
does) shows wrinkles that the new expression does not have, and lacks those that it makes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import get_args

import torch
from torch import Tensor

from hiface.detail.basis import DetailBasis
from hiface.detail.sd_detail import Parts
from hiface.errors import ShapeError
from hiface.morphable import MorphableModel
from hiface.networks.sd_detail import SdDetail

WRINKLED_M = 4e-5  # texels whose displacement differs that much between people belong to wrinkles


@dataclass(frozen=True)
class DetailScores:
    """How near predicted displacement is to the truth, averaged over people.

    Attributes:
        rms_um: Root mean square error over the wrinkled texels, micrometres; mean over people.
        ratio: Sum of squared errors over that of no displacement at all.
        correlation: Pearson correlation over the wrinkled texels, mean over people; 0 for a constant map.
    """

    rms_um: float
    ratio: float
    correlation: float


def wrinkled_texels(basis: DetailBasis) -> Tensor:
    """[P] bool: texels of the basis where lines lie."""
    spread = [(part.rows * part.weight).square().sum(0) for part in (basis.static, basis.compressed)]
    return torch.stack(spread).amax(0).sqrt() > WRINKLED_M


def detail_scores(predicted: Tensor, truth: Tensor, texels: Tensor) -> DetailScores:
    """Scores of displacement maps.

    Args:
        predicted: [N, P] metres.
        truth: [N, P] metres.
        texels: [P] bool, where to compare.

    Returns:
        DetailScores.

    Raises:
        ShapeError: The shapes differ.
    """
    if predicted.shape != truth.shape or predicted.shape[-1:] != texels.shape:
        raise ShapeError(
            f"expected two maps [N, P] and texels [P], got {tuple(predicted.shape)}, {tuple(truth.shape)} "
            f"and {tuple(texels.shape)}"
        )
    a, b = predicted[:, texels].double(), truth[:, texels].double()
    squared = (a - b).square()
    a, b = a - a.mean(1, keepdim=True), b - b.mean(1, keepdim=True)
    scale = (a.square().sum(1) * b.square().sum(1)).sqrt()
    correlation = torch.where(scale > 1e-20, (a * b).sum(1) / scale.clamp_min(1e-20), 0.0)
    return DetailScores(
        float(1e6 * squared.mean(1).sqrt().mean()),
        float(squared.sum() / truth[:, texels].double().square().sum().clamp_min(1e-20)),
        float(correlation.mean()),
    )


def reexpressed(
    model: MorphableModel,
    detail: SdDetail,
    identity: Tensor,
    static: Tensor,
    seen: Tensor,
    target: Tensor,
) -> Mapping[str, Tensor]:
    """Displacement of reconstructed people under another expression, by every way to make it.

    Args:
        model: Face model.
        detail: SD-DeTail of the network.
        identity: [N, K] as reconstructed.
        static: [N, S] as reconstructed.
        seen: [N, E] expression as reconstructed.
        target: [N, E] expression to animate to.

    Returns:
        [N, P] metres by name: "none", "static", "dynamic", "both" for the target expression, and "frozen":
        both for the expression that was seen, kept.
    """
    gather = detail.basis.gather
    out = {
        parts: gather(detail.maps(model, identity, target, static, parts).displacement)
        for parts in get_args(Parts)
    }
    out["frozen"] = gather(detail.maps(model, identity, seen, static).displacement)
    return out
