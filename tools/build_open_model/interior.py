# SPDX-License-Identifier: Apache-2.0
"""Lets what lies close under the skin move with the skin, so that no person shows it."""

from __future__ import annotations

import numpy as np
from scipy.spatial import KDTree

from .mesh import HeadMesh, vertex_normals

INSIDE = ("mouth_interior", "socket_left", "socket_right")
REACH_M = 0.012
"""Skin further away than this moves nothing."""
SPREAD_M = 0.003
"""How far the skin's motion is averaged."""
CLOSE_M, DEEP_M = 0.005, 0.010
"""Depth down to which the skin decides alone, and from which on it does not count."""
LIPS_M = (-0.0600, -0.0560)
"""Height of the lips' line; what lies below keeps the mouth's own motion."""


def follow_skin(head: HeadMesh, template: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Basis rows with sockets and the mouth's vestibule tied to the skin in front of them.

    The sculpted targets move the inside of the mouth hardly at all, so a person whose cheeks are flat beside
    the nose would show it there. Skin, eyes, teeth and tongue keep their rows.

    Args:
        head: connectivity.
        template: ``[V, 3]`` mean vertices, metres.
        rows: ``[K, V, 3]`` metres.

    Returns:
        ``[K, V, 3]``.
    """
    skin = head.part_vertices("skin")
    inside = {name: np.setdiff1d(head.part_vertices(name), skin) for name in INSIDE}
    normal = vertex_normals(head.triangles, template)[skin]
    tree, out = KDTree(template[skin]), rows.copy()
    for name, vertices in inside.items():
        for i in vertices:
            near = np.array(tree.query_ball_point(template[i], REACH_M), dtype=np.int64)
            away = template[skin[near]] - template[i]
            depth = (normal[near] * away).sum(axis=1)
            near, away, depth = near[depth > 0], away[depth > 0], depth[depth > 0]
            if not len(near):
                continue
            weight = np.exp(-(away**2).sum(axis=1) / (2 * SPREAD_M**2))
            weight /= weight.sum()
            share = 1.0 - _smoothstep(float(weight @ depth), CLOSE_M, DEEP_M)
            if name == "mouth_interior":
                share *= _smoothstep(template[i, 1], *LIPS_M)
            out[:, i] += share * (np.einsum("j,kjc->kc", weight, rows[:, skin[near]]) - rows[:, i])
    return out


def _smoothstep(value: float, low: float, high: float) -> float:
    t = min(max((value - low) / (high - low), 0.0), 1.0)
    return t * t * (3.0 - 2.0 * t)
