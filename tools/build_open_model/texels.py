# SPDX-License-Identifier: Apache-2.0
"""Where every texel lies on the head: position, part, and distances to the rims that anatomy hangs on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.spatial import KDTree

from .raster import nearest_texel, rasterize_uv
from .uv import eye_axis

FAR_RINGS = 40


@dataclass(frozen=True)
class Texels:
    """All covered texels as one list.

    Attributes:
        size: Side of the map.
        covered: [size, size] bool.
        position: [N, 3] millimetres, on the reference head; x is mirrored to the left side (>= 0).
        part: [N] index into `part_names`.
        part_names: Names of the mesh parts.
        lip_ring: [N] number of edge rings outside the rim where the lips meet the mouth's inside.
        lid_ring: [N] number of edge rings outside the rim where skin and eye socket meet.
        lid_distance: [N] millimetres to the rim of the eyelids.
        upper_lid: [N] bool, the nearest rim point belongs to the upper lid.
        mouth_distance: [N] millimetres to the rim of the mouth.
        eye_angle: [N] degrees from the optic axis (on eyeballs).
        eye_turn: [N] radians around the optic axis (on eyeballs).
        mouth_corner: Half width of the mouth in millimetres.
    """

    size: int
    covered: np.ndarray
    position: np.ndarray
    part: np.ndarray
    part_names: tuple[str, ...]
    lip_ring: np.ndarray
    lid_ring: np.ndarray
    lid_distance: np.ndarray
    upper_lid: np.ndarray
    mouth_distance: np.ndarray
    eye_angle: np.ndarray
    eye_turn: np.ndarray
    mouth_corner: float

    def on(self, *names: str) -> np.ndarray:
        """[N] bool, texels of the parts whose name begins with one of `names`."""
        wanted = [i for i, part in enumerate(self.part_names) if part.startswith(names)]
        return np.isin(self.part, wanted)

    def reduce(self, values: np.ndarray, factor: int) -> np.ndarray:
        """Averages values of covered texels over blocks and fills what no chart covers from its neighbours.

        Args:
            values: [N, 3].
            factor: Side of a block.

        Returns:
            [3, size / factor, size / factor] float32.
        """
        small = self.size // factor
        full = np.zeros((self.size, self.size, 4), dtype=np.float32)
        full[self.covered, :3] = values
        full[self.covered, 3] = 1.0
        blocks = full.reshape(small, factor, small, factor, 4).mean(axis=(1, 3))
        weight = blocks[..., 3]
        mean = blocks[..., :3] / np.maximum(weight, 1e-6)[..., None]
        rows, columns = nearest_texel(weight > 0.02)
        return np.ascontiguousarray(mean[rows, columns].transpose(2, 0, 1))


def build_texels(base: Mapping[str, Any], uv: np.ndarray, uv_triangles: np.ndarray, size: int) -> Texels:
    """Computes the texel fields of the open head.

    Args:
        base: reference [V, 3] metres, quads, quad_parts, triangles, triangle_parts, part_names,
            mirror_vertices.
        uv: [U, 2].
        uv_triangles: [T, 3].
        size: Side of the map.
    """
    drawn = rasterize_uv(uv, uv_triangles, size)
    covered = drawn.triangle_ids >= 0
    template, triangles = base["reference"] * 1000.0, base["triangles"]
    names = tuple(str(name) for name in base["part_names"])
    parts = base["triangle_parts"]
    vertices_of = {name: np.unique(triangles[parts == i]) for i, name in enumerate(names)}
    lip_rim = np.intersect1d(vertices_of["skin"], vertices_of["mouth_interior"])
    lid_rim = np.intersect1d(vertices_of["skin"], vertices_of["socket_left"])
    lid_rims = np.r_[lid_rim, base["mirror_vertices"][lid_rim]]
    quads = base["quads"][base["quad_parts"] == names.index("skin")]
    rings = np.stack([ring_numbers(quads, rim, len(template)) for rim in (lip_rim, lid_rims)], axis=1)
    values = drawn.lift(np.concatenate([template, rings], axis=1), triangles)[covered]
    position = values[:, :3].copy()
    position[:, 0] = np.abs(position[:, 0])
    rim, upper = _dense_rim(template, lid_rim)
    lid_distance, nearest = KDTree(rim).query(position)
    mouth_rim = template[lip_rim].copy()
    mouth_rim[:, 0] = np.abs(mouth_rim[:, 0])
    angle, turn = _eye_polar(template[vertices_of["eye_left"]], position)
    return Texels(
        size=size,
        covered=covered,
        position=position.astype(np.float32),
        part=parts[drawn.triangle_ids[covered]],
        part_names=names,
        lip_ring=values[:, 3].astype(np.float32),
        lid_ring=values[:, 4].astype(np.float32),
        lid_distance=lid_distance.astype(np.float32),
        upper_lid=upper[nearest],
        mouth_distance=KDTree(mouth_rim).query(position)[0].astype(np.float32),
        eye_angle=angle.astype(np.float32),
        eye_turn=turn.astype(np.float32),
        mouth_corner=float(np.abs(template[lip_rim, 0]).max()),
    )


def ring_numbers(quads: np.ndarray, rim: np.ndarray, vertex_count: int) -> np.ndarray:
    """Number of edges between each vertex and a rim.

    Args:
        quads: [Q, 4] vertex ids.
        rim: [R] vertices with number zero.
        vertex_count: V.

    Returns:
        [V] int64, at most `FAR_RINGS`.
    """
    edges = np.concatenate([quads[:, [i, (i + 1) % 4]] for i in range(4)])
    rings = np.full(vertex_count, FAR_RINGS)
    rings[rim] = 0
    for ring in range(1, FAR_RINGS):
        for a, b in ((0, 1), (1, 0)):
            reached = edges[rings[edges[:, a]] == ring - 1, b]
            rings[reached] = np.minimum(rings[reached], ring)
    return rings


def _dense_rim(template: np.ndarray, rim: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rim points and whether each is on the upper lid (above the line between the corners of the eye)."""
    points = template[rim]
    inner, outer = points[np.argmin(points[:, 0])], points[np.argmax(points[:, 0])]
    share = (points[:, 0] - inner[0]) / (outer[0] - inner[0])
    upper = points[:, 1] > inner[1] + share * (outer[1] - inner[1])
    order = np.argsort(np.arctan2(points[:, 1] - points[:, 1].mean(), points[:, 0] - points[:, 0].mean()))
    points, upper = points[order], upper[order]
    steps = np.linspace(0.0, 1.0, 9)[:-1, None, None]
    dense = points * (1.0 - steps) + np.roll(points, -1, axis=0) * steps
    return dense.reshape(-1, 3), np.broadcast_to(upper, (8, len(upper))).ravel()


def _eye_polar(eyeball: np.ndarray, position: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    axis, centre = eye_axis(eyeball)
    direction = position - centre
    direction /= np.maximum(np.linalg.norm(direction, axis=1, keepdims=True), 1e-9)
    right = np.cross([0.0, 1.0, 0.0], axis)
    right /= np.linalg.norm(right)
    angle = np.degrees(np.arccos(np.clip(direction @ axis, -1.0, 1.0)))
    return angle, np.arctan2(direction @ np.cross(axis, right), direction @ right)
