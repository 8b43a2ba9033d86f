# SPDX-License-Identifier: Apache-2.0
"""Irises of a texture in somebody's own colour, as fine as the texture is."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from hiface.geometry.constants import cached_per_tensor
from hiface.morphable import MorphableModel
from hiface.morphable.iris_cones import iris_cones
from hiface.render.pyramid import resize, smoothstep
from hiface.render.uv_space import uv_space
from hiface.synthetic.irises import iris_paint

_PARTS = ("eye_left", "eye_right")
_PUPIL = 0.38  # of the radius of the iris
_WHITE = (1.6, 2.4)  # radii of the iris between which the model's texture is white
_REACH = (1.3, 1.6)  # and between which the paint ends


@dataclass(frozen=True)
class _EyeTexels:
    """Texels of one eyeball.

    Attributes:
        texel: [N] int64 index into the flattened map.
        angle: [N] from the pupil in radii of the iris.
        around: [N] turn about the pupil, -0.5..0.5.
    """

    texel: Tensor
    angle: Tensor
    around: Tensor


@cached_per_tensor
def _eye_texels(uv: Tensor, model: MorphableModel, size: int) -> list[_EyeTexels]:
    """Left eye first; empty for a model without eyeballs."""
    data, cones = model.data, iris_cones(model)
    if cones is None or not set(_PARTS) <= set(data.part_names):
        return []
    space = uv_space(uv, model.uv_triangles, model.triangles, data.n_vertices, size)
    points = space.lift(model.template.to(uv)).flatten(1).T
    part = space.of_triangles(data.triangle_parts, -1).flatten()
    eyes = []
    for side, name in enumerate(_PARTS):
        texel = (part == data.part_names.index(name)).nonzero()[:, 0]
        axis = cones.axes[side].to(uv)
        out = F.normalize(points[texel] - cones.centres[side].to(uv), dim=1)
        angle = torch.acos((out @ axis).clamp(-1.0, 1.0)) / cones.radius_rad
        around = torch.atan2(out[:, 1] - axis[1], out[:, 0] - axis[0]) / (2.0 * torch.pi)
        eyes.append(_EyeTexels(texel, angle, around))
    return eyes


def paint_irises(model: MorphableModel, albedo: Tensor, colour: Tensor) -> Tensor:
    """Paints irises over those of a texture.

    Args:
        model: The face model; nothing is painted if it has no eyeballs.
        albedo: [3, S, S] linear.
        colour: [3] linear albedo of the irises.

    Returns:
        [3, S, S] linear.
    """
    size = albedo.shape[-1]
    flat = albedo.flatten(1).clone()
    for side, eye in enumerate(_eye_texels(model.uv, model, size)):
        here = flat[:, eye.texel]
        ring = (eye.angle > _WHITE[0]) & (eye.angle < _WHITE[1])
        if not bool(ring.any()):
            continue
        white = here[:, ring].median(dim=1).values
        angle, around = (values.cpu().float().numpy() for values in (eye.angle, eye.around))
        paint = iris_paint(angle, around, side, colour.cpu().numpy(), white.cpu().numpy(), _PUPIL)
        share = 1.0 - smoothstep(eye.angle, *_REACH)
        flat[:, eye.texel] = here + share * (torch.from_numpy(paint).to(here) - here)
    return flat.reshape_as(albedo)


def with_eyes_of(model: MorphableModel, albedo: Tensor, texture: Tensor) -> Tensor:
    """An albedo map with the eyeballs of a texture.

    Args:
        model: The face model.
        albedo: [3, A, A] linear.
        texture: [3, S, S] linear.

    Returns:
        [3, S, S] linear.
    """
    flat = resize(albedo, texture.shape[-1]).flatten(1).clone()
    for eye in _eye_texels(model.uv, model, texture.shape[-1]):
        flat[:, eye.texel] = texture.flatten(1)[:, eye.texel].to(flat)
    return flat.reshape_as(texture)
