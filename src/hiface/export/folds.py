# SPDX-License-Identifier: Apache-2.0
"""Skin that lies folded in a photo: the lids of open eyes, creases of a smile.

A few rows of pixels are all that a photo shows of it, and a fit that is off by one of them reads lashes or
the white of the eye. Spread out again when the eye shuts, they would be streaks.
"""

from __future__ import annotations

import torch
from torch import Tensor

from hiface.morphable import MorphableModel
from hiface.render.pyramid import smoothstep
from hiface.types import FaceParams

UNFOLDED = (0.4, 0.7)
"""Area over that of the skin spread out between which a photo begins to count and counts fully."""
_SHUT = ("eyeBlinkLeft", "eyeBlinkRight")


def unfolded(model: MorphableModel, params: FaceParams) -> Tensor:
    """How far skin lies open in an expression.

    Args:
        model: The face model.
        params: One face, without batch dimensions.

    Returns:
        [V] 0..1, from the area around a vertex over its area with shut lids and all else at rest.
    """
    spread = torch.zeros_like(params.expression)
    for name in _SHUT:
        if name in model.data.expression_names:
            spread[model.expression_index(name)] = 1.0
    rest = _areas(model.vertices(params.identity, spread, torch.zeros_like(params.pose)), model.triangles)
    now = _areas(model.vertices(params.identity, params.expression, params.pose), model.triangles)
    share = torch.minimum(now, rest)
    sums = torch.zeros(model.data.n_vertices, 2).to(rest)
    for corner in range(3):
        sums.index_add_(0, model.triangles[:, corner], torch.stack([share, rest], dim=1))
    return smoothstep(sums[:, 0] / sums[:, 1].clamp_min(1e-12), *UNFOLDED)


def _areas(vertices: Tensor, triangles: Tensor) -> Tensor:
    """[T] twice the areas of triangles, square metres."""
    a, b, c = vertices[triangles].unbind(1)
    return torch.linalg.cross(b - a, c - a).norm(dim=1)
