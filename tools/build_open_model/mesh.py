# SPDX-License-Identifier: Apache-2.0
"""Cuts the head out of the body mesh and puts it into the model's axes and units.

Parts: the skin (head, ears and a piece of neck), the sockets of mouth and eyes, eyeballs, teeth, tongue. The
supplied atlas has one island for the head and one for each socket, which tells them apart without any index.
Axes: metres, +Y up, +Z out of the face, +X to the face's own left. The origin is the midpoint between the two
eyeball centres of the mean head.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from scipy.sparse import coo_matrix, csr_matrix, identity, lil_matrix
from scipy.sparse.csgraph import connected_components

from .mpfb2 import BodyMesh

DECIMETRE = 0.1
NECK_RINGS = 4
"""Rings of quads added below the head island, down to where the shoulders begin."""

NECK_SMOOTHING = (16, 12, 8, 4, 2)
"""Smoothing steps along the neck's rings, from the border upwards."""

PART_NAMES = (
    "skin",
    "socket_left",
    "socket_right",
    "mouth_interior",
    "eye_left",
    "eye_right",
    "teeth_upper",
    "teeth_lower",
    "tongue",
)
_HELPER_GROUPS = {
    "eye_left": "helper-l-eye",
    "eye_right": "helper-r-eye",
    "teeth_upper": "helper-upper-teeth",
    "teeth_lower": "helper-lower-teeth",
    "tongue": "helper-tongue",
}


@dataclass(frozen=True)
class HeadMesh:
    """Connectivity of the head.

    Attributes:
        source_ids: ``[V]`` int64, vertex ids in the body mesh (ascending).
        quads: ``[Q, 4]`` int64.
        quad_parts: ``[Q]`` int64 into ``PART_NAMES``.
        triangles: ``[2Q, 3]`` int64, rows 2q and 2q+1 are the halves of quad q.
        triangle_parts: ``[2Q]`` int64.
        mirror_vertices: ``[V]`` int64.
        reference: ``[V, 3]`` metres, the unchanged base head; layout and colours are defined on it.
        neck_rings: closed rings of vertex ids around the neck, the border first, upwards.
    """

    source_ids: np.ndarray
    quads: np.ndarray
    quad_parts: np.ndarray
    triangles: np.ndarray
    triangle_parts: np.ndarray
    mirror_vertices: np.ndarray
    neck_rings: tuple[np.ndarray, ...] = ()
    reference: np.ndarray = field(default_factory=lambda: np.empty((0, 3)))

    def part_vertices(self, name: str) -> np.ndarray:
        """Sorted vertex ids used by one part (rims are shared with the skin)."""
        return np.unique(self.quads[self.quad_parts == PART_NAMES.index(name)])

    def as_base(self, template: np.ndarray) -> dict[str, Any]:
        """The plain dictionary that the other builders (UV, masks, landmarks, albedo) take.

        Args:
            template: ``[V, 3]`` mean head in metres.
        """
        return {
            "template": template,
            "quads": self.quads,
            "quad_parts": self.quad_parts,
            "triangles": self.triangles,
            "triangle_parts": self.triangle_parts,
            "part_names": np.array(PART_NAMES),
            "mirror_vertices": self.mirror_vertices,
            "source_ids": self.source_ids,
            "reference": self.reference,
        }


def extract_head(body: BodyMesh, mean_vertices: np.ndarray) -> HeadMesh:
    """Cuts the head out of the body.

    Args:
        body: the base mesh.
        mean_vertices: ``[N, 3]`` mean person (body vertex order); decides which diagonal splits a quad.

    Returns:
        The head's connectivity, exactly mirror-symmetric.
    """
    body_quads, parts, neck_rings = _head_quads(body)
    source_ids = np.unique(body_quads)
    inverse = np.full(len(body.vertices), -1, dtype=np.int64)
    inverse[source_ids] = np.arange(len(source_ids))
    quads = inverse[body_quads]
    mirror = inverse[body.mirror[source_ids]]
    if (mirror < 0).any():
        raise ValueError("the head's cut is not mirror-symmetric")
    triangles = split_quads(quads, mean_vertices[source_ids], mirror)
    rings = tuple(inverse[ring] for ring in neck_rings)
    head = HeadMesh(source_ids, quads, parts, triangles, np.repeat(parts, 2), mirror, rings)
    reference = symmetrise(body.vertices[source_ids], mirror)
    return replace(head, reference=to_model_axes(reference, eye_centres(head, reference).mean(axis=0)))


def _head_quads(body: BodyMesh) -> tuple[np.ndarray, np.ndarray, list[np.ndarray]]:
    skin = body.group_quads("body")
    islands = _uv_islands(body)
    ids = np.unique(islands)
    centre = {i: body.vertices[np.unique(skin[islands == i])].mean(axis=0) for i in ids}
    size = {i: int((islands == i).sum()) for i in ids}
    top = max(ids, key=lambda i: body.vertices[np.unique(skin[islands == i])][:, 1].max())
    chin = body.vertices[np.unique(skin[islands == top])][:, 1].min()
    inner = [i for i in ids if i != top and centre[i][1] > chin and size[i] < size[top] / 4]
    mouth = min(inner, key=lambda i: abs(centre[i][0]))
    left = max(inner, key=lambda i: centre[i][0])
    right = min(inner, key=lambda i: centre[i][0])
    head, neck_rings = _grow_neck(body, skin, islands, top)
    chosen = [("skin", head)]
    named = (("socket_left", left), ("socket_right", right), ("mouth_interior", mouth))
    chosen += [(name, skin[islands == i]) for name, i in named]
    chosen += [(name, body.group_quads(group)) for name, group in _HELPER_GROUPS.items()]
    quads = np.concatenate([q for _, q in chosen])
    parts = np.concatenate([np.full(len(q), PART_NAMES.index(name)) for name, q in chosen])
    return quads, parts.astype(np.int64), neck_rings


def _uv_islands(body: BodyMesh) -> np.ndarray:
    """Island label of each quad of the group ``body``: quads that share corners in the atlas."""
    corners = body.uv_quads[body.quad_groups == body.group_names.index("body")]
    rows = np.concatenate([corners[:, 0]] * 3)
    cols = np.concatenate([corners[:, 1], corners[:, 2], corners[:, 3]])
    n = len(body.uv)
    _, labels = connected_components(
        coo_matrix((np.ones(len(rows)), (rows, cols)), shape=(n, n)), directed=False
    )
    return labels[corners[:, 0]]


def _grow_neck(
    body: BodyMesh, skin: np.ndarray, islands: np.ndarray, top: int
) -> tuple[np.ndarray, list[np.ndarray]]:
    """The head island plus ``NECK_RINGS`` rings of quads below it, and the rings' borders, lowest first."""
    chosen = islands == top
    rings = []
    for _ in range(NECK_RINGS):
        rings.append(_neck_loop(body, skin[chosen]))
        chosen = chosen | np.isin(skin, rings[-1]).any(axis=1)
    rings.append(_neck_loop(body, skin[chosen]))
    return skin[chosen], rings[::-1]


def _neck_loop(body: BodyMesh, quads: np.ndarray) -> np.ndarray:
    return np.array(min(boundary_loops(quads), key=lambda loop: body.vertices[loop][:, 2].min()))


def boundary_loops(polygons: np.ndarray) -> list[list[int]]:
    """Border loops of a mesh, as vertex ids in the direction of the polygons' edges, the longest first."""
    following = np.roll(polygons, -1, axis=1)
    edges = set(zip(polygons.ravel().tolist(), following.ravel().tolist(), strict=True))
    border = {a: b for a, b in edges if (b, a) not in edges}
    loops = []
    while border:
        start = min(border)
        loop, vertex = [start], border.pop(start)
        while vertex != start:
            loop.append(vertex)
            vertex = border.pop(vertex)
        loops.append(loop)
    return sorted(loops, key=lambda loop: (-len(loop), loop[0]))


def split_quads(quads: np.ndarray, vertices: np.ndarray, mirror: np.ndarray) -> np.ndarray:
    """Splits quads along the shorter diagonal, the same one on both sides of the face.

    A diagonal's length is the mean of its own and its mirror image's, so the choice is symmetric; ties go to
    the diagonal with the smallest vertex id on the right side.

    Returns:
        ``[2Q, 3]`` triangles with the winding of the quads.
    """

    def length(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        here = np.linalg.norm(vertices[a] - vertices[b], axis=1)
        there = np.linalg.norm(vertices[mirror[a]] - vertices[mirror[b]], axis=1)
        return here + there

    a, b, c, d = quads.T
    first, second = length(a, c), length(b, d)
    lowest = np.minimum(quads, mirror[quads])
    tie = np.minimum(lowest[:, 0], lowest[:, 2]) <= np.minimum(lowest[:, 1], lowest[:, 3])
    use_first = np.where(np.abs(first - second) < 1e-9, tie, first < second)
    along_ac = np.stack([a, b, c, a, c, d], axis=1)
    along_bd = np.stack([b, c, d, b, d, a], axis=1)
    return np.where(use_first[:, None], along_ac, along_bd).reshape(-1, 3)


def to_model_axes(vertices_dm: np.ndarray, origin_dm: np.ndarray) -> np.ndarray:
    """Body coordinates in decimetres → metres about ``origin_dm``."""
    return (vertices_dm - origin_dm) * DECIMETRE


def eye_centres(head: HeadMesh, vertices: np.ndarray) -> np.ndarray:
    """Centres of the eyeballs, left first: ``[*B, V, 3]`` → ``[*B, 2, 3]``, the means of their vertices."""
    sides = [vertices[..., head.part_vertices(name), :].mean(axis=-2) for name in ("eye_left", "eye_right")]
    return np.stack(sides, axis=-2)


def symmetrise(vertices: np.ndarray, mirror: np.ndarray) -> np.ndarray:
    """Mean of a shape and its mirror image about x = 0; exact, ``[V, 3]``."""
    flipped = vertices[mirror] * np.array([-1.0, 1.0, 1.0])
    return 0.5 * (vertices + flipped)


def next_ring(quads: np.ndarray, ring: np.ndarray, used: np.ndarray) -> np.ndarray:
    """Walks one step away from a closed ring of vertices along the quads on its unused side.

    Args:
        quads: ``[Q, 4]``.
        ring: ``[n]`` vertex ids in order.
        used: ``[V]`` bool, vertices that the step must not touch.

    Returns:
        ``[n]`` the neighbour of each vertex, in the same order.
    """
    around = quads[np.isin(quads, ring).any(axis=1)]
    out = np.empty_like(ring)
    for i, (a, b) in enumerate(zip(ring, np.roll(ring, -1), strict=True)):
        both = (around == a).any(axis=1) & (around == b).any(axis=1)
        free = [q for q in around[both] if not used[np.setdiff1d(q, (a, b))].any()]
        at = int(np.flatnonzero(free[0] == a)[0])
        left, right = free[0][at - 1], free[0][(at + 1) % 4]
        out[i] = left if right == b else right
    return out


def neck_relaxation(head: HeadMesh) -> csr_matrix:
    """Smooths the lowest rings of the neck along themselves, so that the cut is an even curve.

    The quads of the source follow the trapezius and the collarbone, so a ring of them zigzags by centimetres.

    Returns:
        ``[V, V]`` sparse linear operator, the identity elsewhere.
    """
    count = len(head.mirror_vertices)
    matrix = lil_matrix(identity(count))
    for ring, steps in zip(head.neck_rings, NECK_SMOOTHING, strict=True):
        unit = np.eye(len(ring))
        step = 0.5 * unit + 0.25 * np.roll(unit, 1, axis=1) + 0.25 * np.roll(unit, -1, axis=1)
        matrix[np.ix_(ring, ring)] = np.linalg.matrix_power(step, steps)
    return csr_matrix(matrix)


def vertex_normals(triangles: np.ndarray, vertices: np.ndarray) -> np.ndarray:
    """Unit normals of vertices, weighted by area: ``[V, 3]``."""
    a, b, c = (vertices[triangles[:, i]] for i in range(3))
    flat = np.cross(b - a, c - a)
    sums = [
        np.bincount(triangles.ravel(), np.repeat(flat[:, i], 3), minlength=len(vertices)) for i in range(3)
    ]
    normal = np.stack(sums, axis=1)
    return normal / np.linalg.norm(normal, axis=1, keepdims=True).clip(min=1e-12)
