# SPDX-License-Identifier: Apache-2.0
"""L_detail: predicted against true displacement, of each state and of the whole (HiFace)."""

from __future__ import annotations

import torch
from torch import Tensor

from hiface.detail.basis import DetailBasis, StateBasis
from hiface.detail.sd_detail import detail_values


def state_error(part: StateBasis, codes: Tensor, truth: Tensor) -> Tensor:
    """Squared error of a state's map over that of the mean map.

    The rows of a basis are orthogonal (under its weights), so the error of the map is a weighted sum of those
    of the codes; what the basis cannot hold is left out of both.

    Args:
        part: Basis of the state.
        codes: [*B, n] predicted.
        truth: [*B, n] true, standard deviations.

    Returns:
        [*B]; 1 on average if the mean is predicted for everybody. Differentiable.
    """
    worth = part.variances / part.variances.sum()
    return ((codes - truth).square() * worth).sum(dim=-1)


def dynamic_error(basis: DetailBasis, codes: Tensor, truth: Tensor) -> Tensor:
    """Mean of the errors of the compressed and of the stretched state, codes [*B, C + T] twice: [*B]."""
    n = basis.compressed.count
    compressed = state_error(basis.compressed, codes[..., :n], truth[..., :n])
    return 0.5 * (compressed + state_error(basis.stretched, codes[..., n:], truth[..., n:]))


def composed_error(
    basis: DetailBasis,
    static: Tensor,
    dynamic: Tensor,
    masks: tuple[Tensor, Tensor],
    true_static: Tensor,
    true_dynamic: Tensor,
    true_masks: tuple[Tensor, Tensor],
) -> Tensor:
    """Mean absolute error of the composed displacement, D_sta + M+ D_com + M- D_str, at the basis's texels.

    Args:
        basis: Detail basis.
        static: [B, S] predicted codes.
        dynamic: [B, C + T] predicted codes.
        masks: [B, P] each, of the predicted shape.
        true_static: [B, S].
        true_dynamic: [B, C + T].
        true_masks: [B, P] each, of the true shape.

    Returns:
        [B], micrometres. Differentiable.
    """
    still, moving = detail_values(basis, static, dynamic, masks)
    with torch.no_grad():
        true_still, true_moving = detail_values(basis, true_static, true_dynamic, true_masks)
        truth = true_still + true_moving
    return 1e6 * (still + moving - truth).abs().mean(dim=-1)
