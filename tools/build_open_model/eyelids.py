# SPDX-License-Identifier: Apache-2.0
"""Closing the eyes: the lids' rings, how far they are apart, and a blink that makes them meet.

The source's blink was sculpted on one head. On the mean adult the upper lid overshoots by 3-6 mm and the lid
line gets a hook at the outer corner. Here the travel of each column of the lid is set anew, from the lids'
own margins, while the source's blink keeps deciding how the motion fades out over lid and brow.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .mesh import PART_NAMES, HeadMesh, boundary_loops, next_ring

OVERSHOOT = 0.0022
"""How far the upper lid passes the line where the lids meet, at the middle of the mean head, metres. It
covers most of the spread of the opening between people (1.2 mm), so that the lids of others close too."""
LOWER_SHARE = 0.15
"""Part of the opening that the lower lid closes by rising."""
SKIN_CLEARANCE = 0.0006
"""Distance from the eyeball below which a moving lid keeps the distance that it has at rest, metres."""
REACH = 0.010
"""Distance from a lid's edge at which its own motion has faded out, metres."""
CLEARANCE = 0.0018
"""Smallest distance between the upper lid's closed edge and the eyeball, metres."""
LID_THICKNESS = 0.0030
"""Smallest distance between the closed upper lid's skin and the eyeball, metres."""


@dataclass(frozen=True)
class LidRings:
    """Rings of vertices around the left eye's opening, from the eyeball outwards.

    Attributes:
        rings: ``[4, 28]`` vertex ids: the socket's seam, the lid's inner edge, its outer edge, the skin.
            Columns run along the lower lid from the inner to the outer corner and back along the upper lid.
        upper: columns of the upper lid, from the inner to the outer corner, both corners included.
        lower: columns of the lower lid, in the same direction, both corners included.
    """

    rings: np.ndarray
    upper: np.ndarray
    lower: np.ndarray


def find_rings(head: HeadMesh, template: np.ndarray) -> LidRings:
    """Walks from the seam between left socket and skin outwards along the quads."""
    socket = head.quads[head.quad_parts == PART_NAMES.index("socket_left")]
    seam = np.array(boundary_loops(socket)[0])
    seam = np.roll(seam, -int(template[seam, 0].argmin()))
    skin = head.quads[head.quad_parts == PART_NAMES.index("skin")]
    rings = [seam]
    used = np.zeros(len(template), dtype=bool)
    for _ in range(3):
        used[rings[-1]] = True
        rings.append(next_ring(skin, rings[-1], used))
    table = np.stack(rings)
    edge = template[table[2]]
    outer = int(edge[:, 0].argmax())
    inner = int(edge[:, 0].argmin())
    n = table.shape[1]
    forward = np.arange(inner, inner + (outer - inner) % n + 1) % n
    backward = np.arange(outer, outer + (inner - outer) % n + 1) % n
    if template[table[2][forward], 1].mean() > template[table[2][backward], 1].mean():
        return LidRings(table, forward, backward[::-1])
    return LidRings(table, backward[::-1], forward)


def lid_curves(
    rings: LidRings, vertices: np.ndarray, ring: int, x: np.ndarray, values: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """What the upper and the lower lid's ring carry at given x, interpolated along the ring.

    Args:
        rings: from ``find_rings``.
        vertices: ``[V, 3]``.
        ring: row of ``rings.rings``.
        x: ``[n]``, clamped at the corners.
        values: ``[V, 3]`` what to interpolate; default the vertices themselves.

    Returns:
        Two ``[n, 3]`` arrays, upper and lower.
    """
    carried = vertices if values is None else values

    def along(columns: np.ndarray) -> np.ndarray:
        ids = rings.rings[ring, columns]
        ids = ids[np.argsort(vertices[ids, 0], kind="stable")]
        return np.stack([np.interp(x, vertices[ids, 0], carried[ids, c]) for c in range(3)], axis=-1)

    return along(rings.upper), along(rings.lower)


def lid_gap(rings: LidRings, vertices: np.ndarray, samples: int = 9) -> np.ndarray:
    """Height of the opening between the lids' outer edges, left eye, at even steps between the corners.

    Returns:
        ``[samples]`` metres, negative where the lids overlap.
    """
    edge = vertices[rings.rings[2], 0]
    x = np.linspace(edge.min(), edge.max(), samples + 2)[1:-1]
    upper, lower = lid_curves(rings, vertices, 2, x)
    return upper[:, 1] - lower[:, 1]


def rebuild_blink(head: HeadMesh, rings: LidRings, template: np.ndarray, blink: np.ndarray) -> np.ndarray:
    """A blink of the left eye that closes on this head.

    Args:
        head: connectivity.
        rings: from ``find_rings``.
        template: ``[V, 3]`` mean head.
        blink: ``[V, 3]`` the source's blink; decides how the motion fades out from the upper lid's edge.

    Returns:
        ``[V, 3]`` displacements, zero away from the lids.
    """
    centre, radius = eyeball(head, template)
    x = template[:, 0]
    upper, lower = lid_curves(rings, template, 2, x)
    gap = np.maximum(upper[:, 1] - lower[:, 1], 0.0)
    meeting = _meeting_line(rings, template, x)
    goal = meeting.copy()
    goal[:, 1] -= OVERSHOOT * np.sqrt(gap / gap.max())
    floor = np.maximum(np.linalg.norm(meeting - centre, axis=1) + 0.0004, radius + CLEARANCE)
    travel = _push_out(goal, centre, floor) - upper
    edge, _ = lid_curves(rings, template, 2, x, blink)
    fade = np.linalg.norm(blink, axis=1) / np.maximum(np.linalg.norm(edge, axis=1), 0.002)
    fade = np.minimum(fade, 1.08) * _smoothstep(gap / 0.004)
    fade = np.maximum(fade, _smoothstep(1.0 - np.linalg.norm(template - upper, axis=1) / REACH))
    reach = _smoothstep(1.0 - np.linalg.norm(template - lower, axis=1) / REACH)
    is_upper = template[:, 1] > 0.5 * (upper + lower)[:, 1]
    is_upper[rings.rings[:, rings.lower[1:-1]]] = False
    is_upper[rings.rings[:, rings.upper[1:-1]]] = True
    out = np.where(is_upper[:, None], fade[:, None] * travel, reach[:, None] * (meeting - lower))
    skin = np.isin(np.arange(len(x)), head.part_vertices("skin"))
    lid = is_upper & skin & (fade > 0.02) & (np.linalg.norm(template - centre, axis=1) < 2 * radius)
    lid[rings.rings] = False
    out[~skin & ~np.isin(np.arange(len(x)), head.part_vertices("socket_left"))] = 0.0
    cleared = _push_out(template + out, centre, np.full(len(x), radius + LID_THICKNESS)) - template
    return np.where(lid[:, None], cleared, out)


def keep_clear(head: HeadMesh, rings: LidRings, template: np.ndarray, motion: np.ndarray) -> np.ndarray:
    """A motion of the left eye's lids that does not push them into the eyeball, half-way or at its end.

    Args:
        head: connectivity.
        rings: from ``find_rings``; the two inner ones touch the eyeball and are left alone.
        template: ``[V, 3]`` mean head.
        motion: ``[V, 3]`` displacements.

    Returns:
        ``[V, 3]`` displacements, the same wherever lids stay clear.
    """
    centre, radius = eyeball(head, template)
    skin = head.part_vertices("skin")
    near = skin[np.linalg.norm(template[skin] - centre, axis=1) < 2 * radius]
    near = near[~np.isin(near, rings.rings[:2])]
    rest = template[near]
    floor = np.minimum(np.linalg.norm(rest - centre, axis=1), radius + SKIN_CLEARANCE)
    out = motion.copy()
    for share in (1.0, 0.5):
        out[near] = (_push_out(rest + share * out[near], centre, floor) - rest) / share
    return out


def eyeball(head: HeadMesh, vertices: np.ndarray) -> tuple[np.ndarray, float]:
    """Centre ``[3]`` and mean radius of the left eyeball, metres."""
    points = vertices[head.part_vertices("eye_left")]
    centre = points.mean(axis=0)
    return centre, float(np.linalg.norm(points - centre, axis=1).mean())


def _meeting_line(rings: LidRings, template: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Where the closed lids meet: near the lower lid's edge, a smooth cubic from corner to corner."""
    edge = template[rings.rings[2], 0]
    steps = np.linspace(edge.min(), edge.max(), 41)
    upper, lower = lid_curves(rings, template, 2, steps)
    line = lower + LOWER_SHARE * (upper - lower)
    height = np.polynomial.Polynomial.fit(steps, line[:, 1], 3)
    inside = np.clip(x, edge.min(), edge.max())
    out = np.stack([np.interp(inside, steps, line[:, c]) for c in range(3)], axis=1)
    out[:, 1] = height(inside)
    return out


def _push_out(points: np.ndarray, centre: np.ndarray, floor: np.ndarray) -> np.ndarray:
    """Moves points that are nearer to the centre than ``floor`` out to it."""
    offset = points - centre
    distance = np.linalg.norm(offset, axis=1)
    return centre + offset * np.maximum(floor / distance, 1.0)[:, None]


def _smoothstep(value: np.ndarray) -> np.ndarray:
    t = np.clip(value, 0.0, 1.0)
    return t * t * (3.0 - 2.0 * t)
