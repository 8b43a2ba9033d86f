# SPDX-License-Identifier: Apache-2.0
"""Surfaces that hang from the skull: the grid that hair, hats and scarves are made of.

The skull is known as a table: for azimuth and polar angle about the centre of the head, the outermost point
of the skin on the mean head, as triangle and barycentric coordinates; so it follows every identity and pose.
Azimuth 0 is the front and grows to the person's own left; the polar angle is 0 at the crown.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from hiface.geometry.constants import cached_per_tensor
from hiface.morphable import MorphableModel

N_AZIMUTH = 64
N_POLAR = 30
MAX_POLAR = math.radians(138)
CENTRE_M = (0.0, 0.01, -0.075)
_EAR_AZIMUTH = (math.radians(62), math.radians(122))
# Neck and shoulders as rings, from above: height, half width, half depth, centre in z; metres, at rest.
TRUNK_RINGS = np.array(
    [
        [-0.118, 0.059, 0.056, -0.088],
        [-0.132, 0.066, 0.063, -0.094],
        [-0.142, 0.085, 0.074, -0.098],
        [-0.156, 0.120, 0.088, -0.100],
        [-0.176, 0.165, 0.098, -0.098],
        [-0.205, 0.200, 0.108, -0.094],
        [-0.245, 0.218, 0.118, -0.090],
        [-0.310, 0.226, 0.128, -0.086],
        [-0.420, 0.222, 0.132, -0.086],
        [-0.600, 0.205, 0.125, -0.090],
    ]
)


@dataclass(frozen=True)
class SkullTable:
    """Outermost skin points by direction.

    Attributes:
        corners: [A * P, 3] int64 vertices.
        weights: [A * P, 3].
        ear: [A] 0..1, 1 where the ear sticks out.
    """

    corners: Tensor
    weights: Tensor
    ear: Tensor

    def points(self, vertices: Tensor) -> Tensor:
        """Table points [A, P, 3] on posed vertices [V, 3]."""
        flat = (vertices[self.corners] * self.weights[..., None]).sum(dim=1)
        return flat.reshape(N_AZIMUTH, N_POLAR, 3)


def azimuths() -> Tensor:
    """[A] azimuth of the columns, radians, -pi..pi without the end."""
    return (torch.arange(N_AZIMUTH) / N_AZIMUTH * 2 - 1) * math.pi


def outermost(verts: Tensor, triangles: Tensor, directions: Tensor) -> tuple[Tensor, Tensor]:
    """Outermost triangle hit by each ray from the origin.

    Args:
        verts: [V, 3].
        triangles: [T, 3] int64.
        directions: [N, 3].

    Returns:
        Triangles [N] and barycentric coordinates [N, 3].
    """
    a, b, c = (verts[triangles[:, i]] for i in range(3))
    normal = torch.linalg.cross(b - a, c - a)
    volume = (a * normal).sum(dim=1)
    ids, weights = [], []
    for ray in directions.split(64):
        u = ray @ torch.linalg.cross(b, c).T
        v = ray @ torch.linalg.cross(c, a).T
        w = ray @ torch.linalg.cross(a, b).T
        total = u + v + w
        inside = (torch.minimum(torch.minimum(u, v), w) >= -1e-9) & (total > 1e-12)
        distance = torch.where(inside, volume / total.clamp_min(1e-12), -1.0)
        best = distance.argmax(dim=1)
        bary = torch.stack([x.gather(1, best[:, None])[:, 0] for x in (u, v, w)], dim=1)
        ids.append(best)
        weights.append(bary / bary.sum(dim=1, keepdim=True).clamp_min(1e-12))
    return torch.cat(ids), torch.cat(weights)


@cached_per_tensor
def _table(template: Tensor, model: MorphableModel) -> SkullTable:
    data = model.data
    skin = data.triangles[data.triangle_parts == data.part_names.index("skin")]
    polar = torch.arange(N_POLAR) / (N_POLAR - 1) * MAX_POLAR + 1e-3
    theta, phi = torch.meshgrid(azimuths() + 1e-4, polar, indexing="ij")
    directions = torch.stack([phi.sin() * theta.sin(), phi.cos(), phi.sin() * theta.cos()], dim=-1)
    verts = (template - torch.tensor(CENTRE_M)).double()
    ids, weights = outermost(verts, skin, directions.reshape(-1, 3).double())
    theta = azimuths().abs()
    middle, half = sum(_EAR_AZIMUTH) / 2, (_EAR_AZIMUTH[1] - _EAR_AZIMUTH[0]) / 2
    ear = (1 - ((theta - middle) / half).abs()).clamp_min(0).sqrt()
    return SkullTable(skin[ids], weights.float(), ear)


def skull_table(model: MorphableModel) -> SkullTable:
    """The table of a model; computed at the first call, then remembered."""
    return _table(model.data.template, model)


@cache
def ring_triangles(columns: int, rows: int) -> Tensor:
    """[T, 3] triangles of `columns` lines of `rows` points, closed to a ring; always the same object."""
    i = torch.arange(columns)[:, None]
    j = torch.arange(rows - 1)[None, :]
    k = (i + 1) % columns
    a, b, c, d = i * rows + j, k * rows + j, i * rows + j + 1, k * rows + j + 1
    return torch.stack([torch.stack([a, c, d], -1), torch.stack([a, d, b], -1)]).reshape(-1, 3)


def grid_triangles(rows: int) -> Tensor:
    """[T, 3] triangles of `N_AZIMUTH` columns of `rows` points; always the same object."""
    return ring_triangles(N_AZIMUTH, rows)


@dataclass(frozen=True)
class ShellSpec:
    """Shape of one shell.

    Attributes:
        end_polar: [A] polar angle at which each column leaves the skull or ends, radians.
        thickness_m: [A, R1] distance from the skin.
        drop_m: [A] length that hangs down freely from there, metres.
        spread: Outward slope of the hanging part.
        wave: Amplitude in metres and length in metres of the waves of the hanging part.
        phase: [A] phase of the waves.
    """

    end_polar: Tensor
    thickness_m: Tensor
    drop_m: Tensor
    spread: float
    wave: tuple[float, float]
    phase: Tensor


def shell_points(points: Tensor, centre: Tensor, down: Tensor, spec: ShellSpec, hang_rows: int) -> Tensor:
    """Vertices of a shell.

    Args:
        points: [A, P, 3] from `SkullTable.points`, any space.
        centre: [3] the head's centre in that space.
        down: [3] unit vector along which loose ends hang.
        spec: Shape; its `thickness_m` fixes the number of rows on the skull.
        hang_rows: Rows of the hanging part (0 for none).

    Returns:
        [A, R1 + hang_rows, 3].
    """
    rows = spec.thickness_m.shape[1]
    position = torch.linspace(0, 1, rows) * spec.end_polar[:, None] / MAX_POLAR * (N_POLAR - 1)
    low = position.floor().clamp(0, N_POLAR - 2)
    weight = (position - low)[..., None]
    index = low.long()[..., None].expand(-1, -1, 3)
    base = points.gather(1, index) * (1 - weight) + points.gather(1, index + 1) * weight
    outward = F.normalize(base - centre, dim=-1)
    on_skull = base + outward * spec.thickness_m[..., None]
    if hang_rows == 0:
        return on_skull
    last = on_skull[:, -1]
    away = last - centre
    away = F.normalize(away - (away @ down)[:, None] * down, dim=-1)
    along = torch.linspace(0, 1, hang_rows + 1)[1:] * spec.drop_m[:, None]
    amplitude, length = spec.wave
    sway = (
        amplitude
        * torch.sin(along / length * 2 * math.pi + spec.phase[:, None])
        * (along / 0.05).clamp_max(1)
    )
    hanging = (
        last[:, None] + along[..., None] * down + (spec.spread * along + sway)[..., None] * away[:, None]
    )
    return torch.cat([on_skull, hanging], dim=1)
