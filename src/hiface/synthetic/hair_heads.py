# SPDX-License-Identifier: Apache-2.0
"""A whole head of hair: its locks, the fringe over the forehead, and tail or bun."""

from __future__ import annotations

import math

import numpy as np

from hiface.synthetic.hair_growth import (
    HANGING,
    UNDER,
    Locks,
    add_waves,
    direction_of,
    draw_luck,
    grow_main,
    keep_out_of_trunk,
    skull_radius,
    tangent_of,
    unit,
)
from hiface.synthetic.hair_styles import CUTS, HairStyle, hairline


def grow(style: HairStyle, table: np.ndarray, down: np.ndarray, share: float = 1.0) -> list[Locks]:
    """Grows the hair of a head.

    Args:
        style: Hair.
        table: [A, P] radius of the skin by azimuth and polar angle, metres.
        down: [3] unit vector to the ground.
        share: Share of the locks to grow, 0..1; the fewer, the wider they are.

    Returns:
        Groups of locks in head axes about the head's centre; none for a bald head.
    """
    if style.kind == "bald":
        return []
    rng = np.random.default_rng([style.seed, 1])
    main = grow_main(style, table, down, share, rng)
    groups = [main]
    if style.kind in HANGING:  # what is underneath first, to be seen between the strands above
        under = main.layer < UNDER
        groups = [main.only(under), main.only(~under)]
    if style.fringe[0] > 0:
        groups.append(_grow_fringe(style, table, down, rng))
    if CUTS[style.kind].flows == ("tail",):
        groups.append(_grow_tail(style, table, down, rng))
    return groups


def _grow_fringe(style: HairStyle, table: np.ndarray, down: np.ndarray, rng: np.random.Generator) -> Locks:
    """Locks from above the hairline that fall over the forehead."""
    n = 130
    theta = rng.uniform(-1.0, 1.0, n)
    slant = style.fringe[1]
    phi = hairline(style, theta) - rng.uniform(0.02, 0.3, n)
    roots = np.stack([np.sin(phi) * np.sin(theta), np.cos(phi), np.sin(phi) * np.cos(theta)], axis=1)
    roots = roots.astype(np.float32)
    layer = rng.random(n).astype(np.float32)
    position = roots * (skull_radius(table, roots) + 0.3 * style.volume[0])[:, None]
    forward = np.array([0.45 * slant, -0.35, 1.0], dtype=np.float32)
    spread = rng.normal(0, 0.09, (n, 3)).astype(np.float32)
    heading = unit(tangent_of(forward, roots) + 0.3 * style.lift * roots + spread)
    length = style.fringe[0] * rng.uniform(0.75, 1.1, n) * (1 + 0.25 * np.abs(theta))
    length = length + 0.10 * (hairline(style, theta) - phi)
    steps = 7
    fall = unit(down + np.array([0.5 * slant, 0, 0], dtype=np.float32))
    points, normals = [position], [roots]
    for _ in range(steps - 1):
        heading = unit(0.6 * heading + 0.4 * fall + 0.3 * spread)
        position = position + (length / (steps - 1))[:, None].astype(np.float32) * heading
        radius = np.sqrt((position**2).sum(axis=1))
        outward = position / radius[:, None]
        lowest = skull_radius(table, outward) + 0.003 + 0.5 * style.volume[0] * layer * rng.uniform(0.4, 1)
        position = outward * np.clip(radius, lowest, lowest + 0.004)[:, None]
        points.append(position)
        normals.append(outward)
    lines, out = np.stack(points, axis=1).astype(np.float32), np.stack(normals, axis=1).astype(np.float32)
    add_waves(style, lines, out, np.linspace(0, float(length.mean()), steps), rng.normal(0, 1, n))
    width = 0.0075 * rng.uniform(0.35, 1.2, n)
    return Locks(
        lines.astype(np.float32), out, width.astype(np.float32), 0.5 + 0.5 * layer, draw_luck(rng, n)
    )


def _grow_tail(style: HairStyle, table: np.ndarray, down: np.ndarray, rng: np.random.Generator) -> Locks:
    """The tail itself, or the bun."""
    away = direction_of(math.pi, style.anchor)
    anchor = away * (skull_radius(table, away[None])[0] + 0.008)
    if style.kind == "bun":
        n, steps, radius = 110, 8, rng.uniform(0.022, 0.040)
        axis = unit(rng.normal(0, 1, (n, 3)))
        first = unit(np.cross(axis, rng.normal(0, 1, (n, 3))))
        second = np.cross(axis, first)
        turn = np.linspace(0, 2.2, steps)[None, :, None]
        ball = first[:, None] * np.cos(turn) + second[:, None] * np.sin(turn)
        lines = anchor + away * radius * 0.8 + ball * radius * rng.uniform(0.86, 1.05, (n, 1, 1))
        width = 0.010 * rng.uniform(0.6, 1.3, n)
        layer = rng.uniform(0.4, 1, n)
        out = ball
    else:
        n, steps, length = 90, 11, rng.uniform(0.15, 0.34)
        spread = rng.normal(0, 0.13, (n, 3)) + 0.05 * rng.normal(0, 1, 3)
        layer = rng.random(n)
        heading = unit(away + spread)
        position = anchor + 0.007 * rng.normal(0, 1, (n, 3))
        points = [position]
        for _ in range(steps - 1):
            heading = unit(0.6 * heading + 0.4 * down + 0.15 * spread)
            position = position + length * rng.uniform(0.9, 1.1, (n, 1)) / (steps - 1) * heading
            radius = np.sqrt((position**2).sum(axis=1))
            direction = (position / radius[:, None]).astype(np.float32)
            lowest = skull_radius(table, direction) + 0.004
            position = direction * np.maximum(radius, np.where(direction[:, 1] > -0.8, lowest, 0))[:, None]
            keep_out_of_trunk(position)
            points.append(position)
        lines = np.stack(points, axis=1)
        middle = lines.mean(axis=0, keepdims=True)
        out = unit(lines - middle)
        width = 0.010 * rng.uniform(0.5, 1.3, n)
    lines, out, width, layer = (part.astype(np.float32) for part in (lines, out, width, layer))
    return Locks(lines, out, width, layer, draw_luck(rng, n))
