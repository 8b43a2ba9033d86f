# SPDX-License-Identifier: Apache-2.0
"""What each vertex of a head sees of its surroundings: soft shadows and occlusion as a small table."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor
from torch.nn import functional as F

from hiface.geometry.constants import cached_per_tensor
from hiface.geometry.normals import vertex_normals
from hiface.morphable import MorphableModel
from hiface.render.interpolate import interpolate_surface
from hiface.render.rasterize import fragments, rasterize
from hiface.render.shade import COSINE_LOBE, rotate_light, sh_basis

N_DIRECTIONS = 96
_DEPTH_PX = 192
_DISTANCE_M = 8.0
_BIAS_M = 0.003
_JAW_OPEN = 0.7
_CONE = 4.0  # concentration of the normals about a vertex's own for which its shadow is fitted
_RIDGE = 1e-3
_PART_FLOOR = {"mouth_interior": 0.10, "teeth_upper": 0.38, "teeth_lower": 0.3, "tongue": 0.3}


@cache
def sphere_directions(count: int = N_DIRECTIONS) -> Tensor:
    """Evenly spread unit vectors (Fibonacci sphere), [count, 3]; always the same object."""
    i = torch.arange(count, dtype=torch.float64) + 0.5
    z = 1 - 2 * i / count
    angle = i * (math.pi * (3 - math.sqrt(5)))
    r = (1 - z * z).sqrt()
    return torch.stack([r * angle.cos(), r * angle.sin(), z], dim=1).float()


def visibility_table(verts_object: Tensor, triangles: Tensor, normals: Tensor) -> Tensor:
    """How much of each direction every vertex sees, by depth maps taken from far away.

    Args:
        verts_object: [V, 3] metres.
        triangles: [T, 3] int64.
        normals: [V, 3] unit.

    Returns:
        [V, 96] in 0..1.
    """
    lifted = verts_object + _BIAS_M * 0.7 * normals
    columns = []
    for direction in sphere_directions():
        up = (
            torch.tensor([0.0, 1.0, 0.0]) if abs(float(direction[1])) < 0.9 else torch.tensor([1.0, 0.0, 0.0])
        )
        right = F.normalize(torch.linalg.cross(up, direction), dim=0)
        R = torch.stack([right, torch.linalg.cross(direction, right), -direction])
        centre = verts_object.mean(dim=0)
        focal = _DEPTH_PX * 0.92 * _DISTANCE_M / 0.36

        def project(points: Tensor, R: Tensor = R, centre: Tensor = centre, focal: float = focal) -> Tensor:
            cam = (points - centre) @ R.T
            z = cam[:, 2] + _DISTANCE_M
            return torch.stack([focal * cam[:, 0] / z, focal * cam[:, 1] / z, z], dim=1) + torch.tensor(
                [_DEPTH_PX / 2, _DEPTH_PX / 2, 0.0]
            )

        px = project(verts_object)
        frags = fragments(rasterize(px, triangles, _DEPTH_PX, _DEPTH_PX)[None])
        nothing = px.new_zeros(1, len(px), 1), px.new_zeros(len(triangles), 3, 0)
        z = interpolate_surface(px[None], *nothing, triangles, frags)[0]
        depth = torch.full((_DEPTH_PX * _DEPTH_PX,), 1e3).index_copy(0, frags.pixel, z)
        columns.append(_percentage_closer(depth.reshape(_DEPTH_PX, _DEPTH_PX), project(lifted)))
    return torch.stack(columns, dim=1)


def _percentage_closer(depth: Tensor, px: Tensor) -> Tensor:
    """Share of the four nearest depth texels that do not hide each point, weighted bilinearly."""
    x, y = px[:, 0] - 0.5, px[:, 1] - 0.5
    x0, y0 = x.floor(), y.floor()
    seen = torch.zeros_like(x)
    for dx in (0, 1):
        for dy in (0, 1):
            column = (x0 + dx).clamp(0, depth.shape[1] - 1).long()
            row = (y0 + dy).clamp(0, depth.shape[0] - 1).long()
            weight = (1 - (x - x0 - dx).abs()) * (1 - (y - y0 - dy).abs())
            seen += weight * (px[:, 2] <= depth[row, column] + _BIAS_M).float()
    return seen.clamp(0, 1)


@dataclass(frozen=True)
class HeadVisibility:
    """Visibility tables of the mean head.

    Attributes:
        closed: [V, 96] with the mouth closed.
        opened: [V, 96] with the jaw wide open.
    """

    closed: Tensor
    opened: Tensor

    def blend(self, jaw_open: float) -> Tensor:
        """Table [V, 96] for a mouth that is `jaw_open` (0..1) open."""
        weight = self.weight(jaw_open)
        return torch.lerp(self.closed, self.opened, weight) if weight > 0 else self.closed

    @staticmethod
    def weight(jaw_open: float) -> float:
        """Share of `opened`, 0..1."""
        weight = min(1.0, jaw_open / _JAW_OPEN)
        return 0.0 if weight < 0.02 else weight


@cached_per_tensor
def _tables(template: Tensor, model: MorphableModel) -> HeadVisibility:
    data = model.data
    floor = torch.zeros(data.n_vertices)
    for part, level in _PART_FLOOR.items():
        if part in data.part_names:
            floor[data.triangles[data.triangle_parts == data.part_names.index(part)].unique()] = level
    opened = torch.zeros_like(template)
    if "jawOpen" in data.expression_names:
        opened = _JAW_OPEN * data.expression_basis[data.expression_names.index("jawOpen")]
    tables = []
    for verts in (template, template + opened):
        table = visibility_table(verts, data.triangles, vertex_normals(verts, data.triangles))
        tables.append(torch.maximum(table, floor[:, None]))
    return HeadVisibility(tables[0], tables[1])


def head_visibility(model: MorphableModel) -> HeadVisibility:
    """Visibility tables of a model's mean head; computed at the first call, then remembered.

    Args:
        model: A face model.

    Returns:
        HeadVisibility. Mouth interior, teeth and tongue have a floor, so that they are dark but never black.
    """
    return _tables(model.data.template, model)


@cached_per_tensor
def _transfer(template: Tensor, model: MorphableModel, opened: bool) -> Tensor:
    tables = head_visibility(model)
    normals = vertex_normals(template, model.data.triangles)
    directions = sphere_directions()
    basis, cosine = sh_basis(directions), (directions @ directions.T).clamp_min(0)
    hidden = 1.0 - (tables.opened if opened else tables.closed)
    lost = torch.einsum("vd,nd,dj->vnj", hidden, cosine, basis) * (4.0 / N_DIRECTIONS) / COSINE_LOBE
    near = ((normals @ directions.T - 1.0) * _CONE).exp()
    squares = torch.einsum("vn,nj,nk->vjk", near, basis, basis) + _RIDGE * torch.eye(9)
    return torch.eye(9) - torch.linalg.solve(squares, torch.einsum("vn,nj,vnk->vjk", near, basis, lost))


def light_transfer(model: MorphableModel, jaw_open: float = 0.0) -> Tensor:
    """How the head's own shadow changes the light at each vertex, in spherical harmonics.

    What a matte surface loses to the shadow depends on its normal; about the normal of the vertex that is a
    combination of the same nine harmonics (precomputed radiance transfer: Sloan, Kautz and Snyder, SIGGRAPH
    2002), found by least squares.

    Args:
        model: A face model; its mean head is looked at.
        jaw_open: How far its mouth is open, 0..1.

    Returns:
        [V, 9, 9]: in head axes, shading = SH(normal) @ transfer @ light for normals near the vertex's own;
        light that comes from behind the surface is lost as well when the normal turns there. On the CPU,
        remembered as long as the model lives.
    """
    closed, weight = _transfer(model.data.template, model, False), HeadVisibility.weight(jaw_open)
    if weight == 0.0:
        return closed
    return torch.lerp(closed, _transfer(model.data.template, model, True), weight)


def reaching_light(model: MorphableModel, light: Tensor, R: Tensor, jaw_open: float = 0.0) -> Tensor:
    """Light that reaches the vertices of a turned head: light [9, 3] in camera axes to [V, 9, 3], same axes.

    Args:
        model: A face model.
        light: [9, 3].
        R: [3, 3] rotation from head axes to camera axes.
        jaw_open: How far the mouth is open, 0..1.
    """
    return turned_transfer(light_transfer(model, jaw_open).to(light), R) @ light


def turned_transfer(transfer: Tensor, R: Tensor) -> Tensor:
    """Transfer matrices [*S, 9, 9] in axes turned by R [3, 3] (from the old to the new ones)."""
    turn = rotate_light(torch.eye(9, dtype=transfer.dtype, device=transfer.device), R)
    return turn @ transfer @ rotate_light(torch.eye(9, dtype=transfer.dtype, device=transfer.device), R.T)
