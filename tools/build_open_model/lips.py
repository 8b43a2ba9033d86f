# SPDX-License-Identifier: Apache-2.0
"""Closes the mean mouth: the source leaves the lips' inner seam open and teeth shine through."""

from __future__ import annotations

import numpy as np

from .mesh import PART_NAMES, HeadMesh, boundary_loops

OVERLAP = 0.0006
"""How far the sealed seam overlaps, metres; it absorbs part of the differences between people."""
FADING = (1.0, 0.6, 0.25, 0.08)
"""Share of the seam's motion that each ring of vertices away from it takes."""


def seal_lips(head: HeadMesh, template: np.ndarray) -> np.ndarray:
    """Displacement that brings the upper and lower lip's seam together.

    Args:
        head: connectivity.
        template: ``[V, 3]`` mean head, metres.

    Returns:
        ``[V, 3]`` metres, zero a few vertices away from the seam.
    """
    seam = np.array(boundary_loops(head.quads[head.quad_parts == PART_NAMES.index("mouth_interior")])[0])
    points = template[seam]
    seam = np.roll(seam, -int(points[:, 0].argmin()))
    turn = int(template[seam, 0].argmax())
    sides = [seam[: turn + 1], np.concatenate([seam[turn:], seam[:1]])]
    upper, lower = sorted(sides, key=lambda side: -float(template[side, 1].mean()))
    moved = np.zeros_like(template)
    for side, other, sign in ((upper, lower, 1.0), (lower, upper, -1.0)):
        order = other[np.argsort(template[other, 0], kind="stable")]
        x = template[side, 0]
        across = np.stack([np.interp(x, template[order, 0], template[order, c]) for c in (1, 2)], axis=1)
        gap = sign * (template[side, 1] - across[:, 0])
        inside = np.clip(gap / 0.001, 0.0, 1.0)
        moved[side, 1] = -sign * 0.5 * inside * (gap + OVERLAP)
        moved[side, 2] = 0.5 * inside * (across[:, 1] - template[side, 2])
    return _spread(head, seam, moved)


def _spread(head: HeadMesh, seam: np.ndarray, moved: np.ndarray) -> np.ndarray:
    """Lets the rings around the seam follow: each vertex takes the mean motion of its reached neighbours."""
    edges = np.concatenate([head.quads[:, [i, (i + 1) % 4]] for i in range(4)])
    edges = np.concatenate([edges, edges[:, ::-1]])
    full, out = moved.copy(), moved.copy()
    reached = np.zeros(len(moved), dtype=bool)
    reached[seam] = True
    for share in FADING[1:]:
        along = edges[reached[edges[:, 0]] & ~reached[edges[:, 1]]]
        total = np.zeros_like(moved)
        np.add.at(total, along[:, 1], full[along[:, 0]])
        count = np.bincount(along[:, 1], minlength=len(moved))
        fresh = count > 0
        full[fresh] = total[fresh] / count[fresh, None]
        out[fresh] = share * full[fresh]
        reached |= fresh
    return out
