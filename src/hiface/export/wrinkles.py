# SPDX-License-Identifier: Apache-2.0
"""Wrinkles for morph targets: what each expression folds, at the vertices of a finer mesh.

Dynamic detail is M+ D_com + M- D_str with masks that follow the skin's tension. A morph target at weight w
moves its vertices by w times the wrinkles of the full expression. Masks are proportional to tension up to a
fifth, so that this is near what SD-DeTail does for a single expression that is not extreme; several
expressions together make the sum of their wrinkles.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from hiface.detail.sd_detail import detailed_normals
from hiface.morphable import MorphableModel
from hiface.networks.sd_detail import SdDetail
from hiface.render.texture import sample_texture

DETAIL_STEPS = 2
"""Each triangle of the skin becomes 16: edges of the face are then some 1.2 mm long, as its texels are."""
_SHALLOWEST_M = 5e-6


@dataclass(frozen=True)
class Wrinkles:
    """How a person's expressions fold the skin.

    Attributes:
        expression: Number of one expression to displacement [1, S, S] in metres and the change of the normals
            [3, S, S] that it makes, object space, both at its full strength.
    """

    expression: Callable[[int], tuple[Tensor, Tensor]]

    def at(self, uv: np.ndarray, normals: np.ndarray, number: int) -> tuple[np.ndarray, np.ndarray]:
        """Displacement and change of normals [n, 3] at texture coordinates [n, 2], outward along normals."""
        displacement, change = self.expression(number)
        maps = torch.cat([displacement, change])
        found = sample_texture(maps, torch.from_numpy(uv).to(maps.dtype)).double().numpy()
        depth = np.where(np.abs(found[:, :1]) < _SHALLOWEST_M, 0.0, found[:, :1])
        return depth * normals, np.where(depth == 0.0, 0.0, found[:, 1:])


def wrinkles_of(model: MorphableModel, detail: SdDetail, identity: Tensor, static: Tensor) -> Wrinkles:
    """Wrinkles of a person.

    Args:
        model: Face model.
        detail: SD-DeTail.
        identity: [K] sigma.
        static: [S] static codes.

    Returns:
        Wrinkles; maps are made when they are asked for.
    """
    one = torch.eye(len(model.data.expression_names))

    def expression(number: int) -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            shape = model.shape(identity, one[number])
            relief = detail.maps(model, identity, one[number], static, "dynamic").displacement
            bent = detailed_normals(model, shape, relief)
            smooth = detailed_normals(model, shape, torch.zeros_like(relief))
        return relief, bent - smooth

    return Wrinkles(expression)
