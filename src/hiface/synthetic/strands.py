# SPDX-License-Identifier: Apache-2.0
"""Draws locks of hair: ribbons cut into strands by noise, lit along the strands."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from torch import Tensor

from hiface.render.shade import sh_basis
from hiface.synthetic.hair_growth import Locks, unit
from hiface.synthetic.lights import Surroundings
from hiface.synthetic.noise import noise_pool, sample_noise
from hiface.synthetic.scene import Canvas

LABEL_HAIR = 4
_PRIMARY, _SECONDARY = 80.0, 14.0  # sharpness of the white and of the coloured highlight
_MOST_LOCKS = 4096
_FAR_SIDE = 0.45  # cosine between line of sight and outward direction from which on locks are hidden
_SHIFT = 0.12  # by how much they are moved to root and tip, after Scheuermann 2004


@dataclass(frozen=True)
class Dye:
    """Colour of locks.

    Attributes:
        colour: [3] linear.
        streaks: [3] linear, of the lightest locks.
        gloss: Strength of the white highlight.
        fineness: Strands across a lock, about.
        seed: Chooses the noise.
    """

    colour: np.ndarray
    streaks: np.ndarray
    gloss: float
    fineness: float
    seed: int


@cache
def _ribbons(steps: int) -> Tensor:
    """Triangles of `_MOST_LOCKS` ribbons with two vertices a step."""
    first = (torch.arange(_MOST_LOCKS)[:, None] * steps + torch.arange(steps - 1)[None]) * 2
    a, b, c, d = first, first + 1, first + 2, first + 3
    return torch.stack([torch.stack([a, c, b], -1), torch.stack([b, c, d], -1)], dim=2).reshape(-1, 3)


def ribbon_triangles(count: int, steps: int) -> Tensor:
    """[count * (steps - 1) * 2, 3] triangles of up to 4096 ribbons with two vertices a step."""
    return _ribbons(steps)[: count * (steps - 1) * 2]


def _shine(
    tangent: np.ndarray,
    outward: np.ndarray,
    view: np.ndarray,
    dye: Dye,
    jitter: np.ndarray,
    lights: Surroundings,
) -> np.ndarray:
    """[N, S, 3] highlights along strands: a white one and a broader one in the colour of the hair."""
    total = np.zeros((*tangent.shape[:2], 3), dtype=np.float32)
    for direction, colour, kappa in zip(
        lights.lobe_directions, lights.lobe_colours, lights.lobe_sharpness, strict=True
    ):
        half = unit(view + direction)
        along = (tangent * half).sum(axis=-1)
        lit = (0.35 + (outward @ direction)).clip(0, 1) / np.float32(kappa)
        first = np.exp(-_PRIMARY / 2 * (along + _SHIFT + jitter) ** 2) * lit * dye.gloss
        second = np.exp(-_SECONDARY / 2 * (along - _SHIFT + jitter) ** 2) * lit * 0.9
        total += (first[..., None] + second[..., None] * dye.colour) * colour
    return total


def draw_locks(
    canvas: Canvas,
    locks: Locks,
    dye: Dye,
    K: Tensor,
    lights: Surroundings,
    polar: np.ndarray | None = None,
    max_polar: float | None = None,
    close: bool = False,
) -> None:
    """Draws locks of hair, labelled as hair.

    Args:
        canvas: With what is drawn already.
        locks: In camera space, metres.
        dye: Colour.
        K: [3, 3] intrinsics in sub-pixels.
        lights: Light in camera axes.
        polar: [N, S] polar angle of the points about the head's centre, needed for `max_polar`.
        max_polar: Hair above this polar angle is under a hat and is not drawn.
        close: Whether all locks lie close to the skin, so that those on the far side cannot be seen.
    """
    if close:
        facing = (locks.outward * unit(locks.points)).sum(axis=-1).min(axis=1) < _FAR_SIDE
        locks, polar = locks.only(facing), None if polar is None else polar[facing]
    n, steps, _ = locks.points.shape
    if n == 0:
        return
    tone, jitter, twist = locks.luck.T * np.array([[1.0], [0.06], [0.35]], dtype=np.float32)
    tangent = np.empty_like(locks.points)
    tangent[:, 1:-1] = locks.points[:, 2:] - locks.points[:, :-2]
    tangent[:, 0] = locks.points[:, 1] - locks.points[:, 0]
    tangent[:, -1] = locks.points[:, -1] - locks.points[:, -2]
    tangent = unit(tangent)
    side = unit(np.cross(tangent, locks.outward))
    side = unit(side + twist[:, None, None].astype(np.float32) * locks.outward)
    along = np.linspace(0, 1, steps, dtype=np.float32)
    taper = (1 + (locks.swell - 0.55) * along**2) * (0.75 + 0.25 * (along * 4).clip(0, 1))
    half = (0.5 * locks.width[:, None] * taper)[..., None] * side
    verts = np.stack([locks.points - half, locks.points + half], axis=2).reshape(-1, 3)
    normals = np.stack([locks.outward - 0.35 * side, locks.outward + 0.35 * side], axis=2).reshape(-1, 3)
    light = (sh_basis(torch.from_numpy(unit(normals))) @ lights.sh_light()).clamp_min(0.01)
    depth = (0.58 + 0.42 * locks.layer)[:, None] * (0.65 + 0.35 * (along * 3).clip(0, 1))
    shine = _shine(
        tangent, locks.outward, unit(-locks.points), dye, jitter[:, None].astype(np.float32), lights
    )
    shine = shine * depth[..., None].astype(np.float32)
    light = light * torch.from_numpy(np.repeat(depth.reshape(-1, 1), 2, axis=0).astype(np.float32))
    rows = [light, torch.from_numpy(np.repeat(shine.reshape(-1, 3), 2, axis=0))]
    per_vertex = np.empty((n, steps, 2, 4), dtype=np.float32)
    per_vertex[..., 0] = along[None, :, None]
    per_vertex[..., 1] = np.array([-1, 1], dtype=np.float32)
    per_vertex[..., 2] = tone[:, None, None]
    per_vertex[..., 3] = 9.0 if polar is None else polar[..., None]
    rows.append(torch.from_numpy(per_vertex.reshape(-1, 4)))
    drawn = canvas.trace(torch.from_numpy(verts), ribbon_triangles(n, steps), K, torch.cat(rows, dim=1))
    if drawn is None:
        return
    s, c, lock, crown = drawn.rows[6:].unbind(0)
    tile = noise_pool("strand")[dye.seed % 8]
    fine = sample_noise(tile, c * (dye.fineness / 512) + lock * 17, s * 0.4 + lock * 5)
    tip = ((s - locks.ends) / (1 - locks.ends)).clamp_min(0)
    keep = 1.05 * c * c + 0.9 * tip * tip + 0.28 * fine < 1.0
    if max_polar is not None:
        keep &= crown > max_polar
    shade = (0.24 * fine + 0.45 * (lock - 0.5)).exp()
    mix = ((lock - 0.45) * 2).clamp(0, 1) if not np.allclose(dye.colour, dye.streaks) else lock * 0
    base, second = torch.from_numpy(dye.colour)[:, None], torch.from_numpy(dye.streaks)[:, None]
    colour = (base + (second - base) * mix) * shade * drawn.rows[:3]
    colour = colour + drawn.rows[3:6] * (0.7 + 0.5 * fine).clamp_min(0.05)
    canvas.put(drawn, colour, LABEL_HAIR, keep)


def polar_of(points: np.ndarray) -> np.ndarray:
    """[...] polar angle of points [..., 3] in head axes about the head's centre."""
    return np.arccos(unit(points)[..., 1].clip(-1, 1)).astype(np.float32)
