# SPDX-License-Identifier: Apache-2.0
"""Shading with the normals of a displaced surface on top of a rendered smooth one.

Detail changes the shading and not the outline, as in DECA (section 4.2).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from hiface.errors import ShapeError
from hiface.render.interpolate import to_images
from hiface.render.pipeline import RenderOutput
from hiface.render.shade import shade_rows
from hiface.render.texture import sample_fragments


@dataclass(frozen=True)
class DetailedRender:
    """A rendered face with detail.

    Attributes:
        image: [*B, 3, H, W] linear colour over the background of the smooth rendering.
        normals_cam: [*B, 3, H, W] unit normals in camera axes, 0 where there is no triangle.
        shading: [*B, 3, H, W] light on the detailed surface.
    """

    image: Tensor
    normals_cam: Tensor
    shading: Tensor


def render_normal_map(
    smooth: RenderOutput, normal_map: Tensor, R_cam_object: Tensor, light: Tensor
) -> DetailedRender:
    """Lights a rendered face anew with normals from a map.

    Args:
        smooth: From `render`.
        normal_map: [*B, 3, S, S] unit normals in object axes over the texture square; where they are 0 the
            smooth normals stay.
        R_cam_object: [*B, 3, 3].
        light: [*B, 9, 3] spherical harmonics in camera axes.

    Returns:
        DetailedRender; differentiable to the map, the light and whatever `smooth` is.

    Raises:
        ShapeError: The map is not [*B, 3, S, S].
    """
    if normal_map.dim() < 3 or normal_map.shape[-3] != 3:
        raise ShapeError(f"normal_map must be [*B, 3, S, S], got {tuple(normal_map.shape)}")
    batch, surface = smooth.triangle_id.shape[:-2], smooth.surface
    side = normal_map.shape[-2:]
    maps = normal_map.expand(*batch, 3, *side).reshape(-1, 3, *side)
    R = R_cam_object.expand(*batch, 3, 3).reshape(-1, 3, 3)
    lamp = light.expand(*batch, 9, 3).reshape(-1, 9, 3)
    turned = (R @ maps.flatten(2)).unflatten(-1, side)
    rows = sample_fragments(turned, surface.grid, surface.frags)
    there = rows.square().sum(dim=0, keepdim=True) > 0.25
    rows = torch.where(there, rows, surface.normals)
    unit, shading = shade_rows(rows, lamp, surface.frags).split(3)
    change = to_images(surface.albedo * (shading - surface.shading), surface.frags)

    def spread(values: Tensor) -> Tensor:
        images = to_images(values, surface.frags)
        return images.reshape(*batch, *images.shape[1:])

    image = smooth.image + change.reshape(smooth.image.shape)
    return DetailedRender(image, spread(unit), spread(shading))
