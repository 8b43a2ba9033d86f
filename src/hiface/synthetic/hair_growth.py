# SPDX-License-Identifier: Apache-2.0
"""Grows locks of hair over the skull: combed along a flow, pulled down, kept out of skull and shoulders.

Everything is in head axes (+Y up, +Z out of the face) about the head's centre `shells.CENTRE_M`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cache

import numpy as np

from hiface.synthetic.hair_styles import CUTS, HairStyle, hairline
from hiface.synthetic.shells import CENTRE_M, MAX_POLAR, TRUNK_RINGS

_ROOM_M = 0.014  # between the rings of the trunk and hair that lies on clothes
UNDER = 0.4  # locks of lower layers are wide and close the gaps of the others
HANGING = ("bob", "long", "curly")
_FREE_POLAR = math.radians(84)  # below this, locks may hang away from the skull
_SIDEWAYS, _UP, _FORWARD = np.eye(3, dtype=np.float32)


@dataclass(frozen=True)
class Locks:
    """Locks as lines.

    Attributes:
        points: [N, S, 3] metres, in head axes about the head's centre or in camera space.
        outward: [N, S, 3] unit, away from what the locks grow on.
        width: [N] metres.
        layer: [N] 0 for locks underneath, 1 for the outermost.
        luck: [N, 3] random numbers of tone (0..1), shine and twist (normal).
        ends: Share of the length from which on strands part.
        swell: How much wider locks get towards their ends, 0 for tapering ones.
    """

    points: np.ndarray
    outward: np.ndarray
    width: np.ndarray
    layer: np.ndarray
    luck: np.ndarray
    ends: float = 0.5
    swell: float = 0.0

    def only(self, chosen: np.ndarray) -> Locks:
        """The locks of a mask [N]."""
        return replace(
            self,
            points=self.points[chosen],
            outward=self.outward[chosen],
            width=self.width[chosen],
            layer=self.layer[chosen],
            luck=self.luck[chosen],
        )


def unit(vectors: np.ndarray) -> np.ndarray:
    """[..., 3] vectors as unit vectors."""
    squares = vectors[..., 0] ** 2 + vectors[..., 1] ** 2 + vectors[..., 2] ** 2
    return vectors / np.sqrt(np.maximum(squares, 1e-12))[..., None]


def angles(directions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Azimuth and polar angle [...] of unit vectors [..., 3]."""
    return np.arctan2(directions[..., 0], directions[..., 2]), np.arccos(directions[..., 1].clip(-1, 1))


@cache
def _candidates(count: int) -> np.ndarray:
    """[count, 3] evenly spread directions, in no order."""
    i = np.arange(count) + 0.5
    y = 1 - 2 * i / count
    turn = i * (math.pi * (3 - math.sqrt(5)))
    r = np.sqrt(1 - y * y)
    points = np.stack([r * np.sin(turn), y, r * np.cos(turn)], axis=1).astype(np.float32)
    return points[np.random.default_rng(count).permutation(count)]


def skull_radius(table: np.ndarray, directions: np.ndarray) -> np.ndarray:
    """[N] radius of the skin in unit directions [N, 3], from a table [A, P] (bilinear)."""
    columns, rows = table.shape
    theta, phi = angles(directions)
    x = (theta / (2 * math.pi) + 0.5) * columns
    y = np.minimum(phi / MAX_POLAR * (rows - 1), rows - 1.001)
    x0, y0 = np.floor(x).astype(np.int64), np.floor(y).astype(np.int64)
    fx, fy = (x - x0).astype(np.float32), (y - y0).astype(np.float32)
    x0 %= columns
    x1 = (x0 + 1) % columns
    low = table[x0, y0] * (1 - fx) + table[x1, y0] * fx
    high = table[x0, y0 + 1] * (1 - fx) + table[x1, y0 + 1] * fx
    return low * (1 - fy) + high * fy


def tangent_of(vector: np.ndarray, outward: np.ndarray) -> np.ndarray:
    """[N, 3] unit, the part of a vector [3] or [N, 3] that is square to unit normals [N, 3]."""
    dot = (vector * outward).sum(axis=-1, keepdims=True)
    return unit(vector - dot * outward)


def direction_of(theta: float, phi: float) -> np.ndarray:
    """[3] unit vector of an azimuth and a polar angle, radians."""
    return np.array(
        [math.sin(phi) * math.sin(theta), math.cos(phi), math.sin(phi) * math.cos(theta)], dtype=np.float32
    )


def comb(style: HairStyle, outward: np.ndarray) -> np.ndarray:
    """Direction in which hair is combed.

    Args:
        style: Its `flow` is "forward" (away from the whorl), "side", "middle", "back" or "tail".
        outward: [N, 3] unit, the places.

    Returns:
        [N, 3] unit tangents.
    """
    falling = tangent_of(-_UP, outward)
    if style.flow == "tail":
        return tangent_of(direction_of(math.pi, style.anchor) - outward, outward)
    if style.flow == "forward":
        whorl = direction_of(math.pi - style.part, 0.42)
        return tangent_of(outward * (outward @ whorl)[:, None] - whorl, outward)
    steep = ((0.75 - outward[:, 1]) / 0.6).clip(0, 1)[:, None]
    if style.flow == "back":
        across = outward * _SIDEWAYS * 0.35 - _FORWARD
        return unit(tangent_of(across, outward) * (1 - 0.5 * steep) + 0.5 * falling * steep)
    part = style.part if style.flow == "side" else 0.15 * style.part
    side = np.sign(outward[:, 0] - np.float32(part))
    across = side[:, None] * _SIDEWAYS + 0.25 * _FORWARD
    return unit(tangent_of(across, outward) * (1 - steep) + falling * steep)


def _roots(style: HairStyle, count: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """[N, 3] directions of the roots, fewer in thin patches, and [N] angle behind the hairline, radians."""
    points = _candidates(round(count * 2.3))
    theta, phi = angles(points)
    inside = hairline(style, theta) - phi + rng.normal(0, 0.025, len(phi))
    keep = inside > 0.01
    if style.kind == "horseshoe":
        top = math.radians(60) + 0.25 * np.cos(theta)
        keep &= (phi > top + rng.normal(0, 0.05, len(phi))) & (np.abs(theta) > math.radians(52))
    if style.crown > 0:
        angle = np.arccos((points @ direction_of(math.pi, 0.35)).clip(-1, 1))
        keep &= (angle > style.crown) | (rng.random(len(phi)) < 0.12)
    return points[keep], inside[keep].astype(np.float32)


def keep_out_of_trunk(points: np.ndarray) -> None:
    """Moves points [N, 3] inside neck and shoulders to before or behind them, in place."""
    y = points[:, 1] + CENTRE_M[1]
    low = np.flatnonzero(y < -0.11)
    if not len(low):
        return
    rows = [np.interp(-y[low], -TRUNK_RINGS[:, 0], TRUNK_RINGS[:, i]) for i in (1, 2, 3)]
    width, depth, centre = (row.astype(np.float32) for row in rows)
    width, depth = width + _ROOM_M, depth + _ROOM_M
    x, z = points[low, 0], points[low, 2] + CENTRE_M[2] - centre
    size = np.sqrt((x / width) ** 2 + (z / depth) ** 2).clip(1e-3, None)
    neck = y[low] > -0.15
    grow_by = np.where(neck, np.maximum(1 / size, 1), 1)
    share = (1 - (x / width) ** 2).clip(0, None)
    reach = depth * np.sqrt(share)
    front = z > 0.012
    inside = ~neck & (np.abs(z) < reach) & (reach - np.abs(z) < 0.05)
    pushed = np.where(front, reach, -reach)
    aside = np.where(inside & front, np.where(x < 0, -1, 1) * np.maximum(np.abs(x), 0.06), x)
    points[low, 0] = aside * grow_by
    points[low, 2] = np.where(inside, pushed, z * grow_by) + centre - CENTRE_M[2]


def _keep_off_the_face(points: np.ndarray, face: np.ndarray, line: np.ndarray) -> np.ndarray:
    """Points [N, 3] in front of the face turned aside, so that hanging hair frames it.

    Args:
        points: In head axes.
        face: [N] azimuth that stays free, radians.
        line: [128] polar angle of the hairline by azimuth.
    """
    radius = np.sqrt((points**2).sum(axis=1))
    theta, phi = angles(points / radius[:, None])
    line = line[((theta / (2 * math.pi) + 0.5) * len(line)).astype(np.int64) % len(line)]
    limit = face * ((phi - line + 0.02) / 0.30).clip(0, 1) ** 0.7
    turned = np.where(theta < 0, -1, 1) * np.maximum(np.abs(theta), limit)
    flat = radius * np.sin(phi)
    out = np.stack([flat * np.sin(turned), points[:, 1], flat * np.cos(turned)], axis=1)
    return out.astype(np.float32)


def draw_luck(rng: np.random.Generator, count: int) -> np.ndarray:
    """[count, 3] random numbers for `Locks.luck`."""
    return np.concatenate([rng.random((count, 1)), rng.normal(0, 1, (count, 2))], axis=1).astype(np.float32)


def add_waves(
    style: HairStyle, points: np.ndarray, outward: np.ndarray, arc: np.ndarray, chance: np.ndarray
) -> None:
    """Adds waves and curls to locks, in place; neighbours wave together.

    Args:
        style: Hair.
        points: [N, S, 3] metres.
        outward: [N, S, 3] unit.
        arc: [S] length from the root, metres.
        chance: [N] normal random numbers.
    """
    amplitude, length = style.wave
    if amplitude <= 0:
        return
    along = np.gradient(points, axis=1)
    side = unit(np.cross(along, outward))
    curly = style.kind in ("curly", "afro")
    spread = math.pi if curly else 0.35
    close = 5.0 if curly else 2.0
    phase = close * (points[:, 0, 0] + 0.8 * points[:, 0, 2]) / 0.05 + spread * chance
    turn = 2 * math.pi * arc[None] / length + phase[:, None]
    ramp = amplitude * (arc / 0.03).clip(0, 1)[None]
    points += (ramp * np.sin(turn))[..., None] * side
    points += (ramp * np.cos(turn) * (0.8 if curly else 0.4))[..., None] * outward


def grow_main(
    style: HairStyle, table: np.ndarray, down: np.ndarray, share: float, rng: np.random.Generator
) -> Locks:
    """Grows all locks but those of the fringe and of a tail.

    Args:
        style: Hair, not "bald".
        table: [A, P] radius of the skin by azimuth and polar angle, metres.
        down: [3] unit vector to the ground.
        share: Share of the locks to grow, 0..1; the fewer, the wider they are.
        rng: Source of randomness.

    Returns:
        Locks in head axes about the head's centre.
    """
    cut = CUTS[style.kind]
    roots, behind = _roots(style, cut.count, rng)
    # Numbers are drawn for all locks, so that those of a farther head are some of those of a near one.
    dice, normal, luck = (
        rng.random((len(roots), 6)),
        rng.normal(0, 1, (len(roots), 4)),
        draw_luck(rng, len(roots)),
    )
    n = max(1, round(share * len(roots)))
    roots, edge, dice, normal = roots[:n], (behind[:n] / 0.35).clip(0, 1), dice[:n], normal[:n]
    layer = np.sqrt(dice[:, 0]).astype(np.float32)
    steps = int(
        np.clip(round(style.length / (0.3 * style.wave[1] if style.wave[0] > 0.003 else 0.03)), 3, 14)
    )
    if style.flow == "tail":
        to_anchor = np.arccos((roots @ direction_of(math.pi, style.anchor)).clip(-1, 1)).astype(np.float32)
        length = 0.1 * to_anchor
        steps = 7
    else:
        length = style.length * (0.75 + 0.35 * dice[:, 1]).astype(np.float32)
        if cut.length[1] < 0.12:  # short cuts are shorter at the sides and at the nape
            length *= 0.45 + 0.55 * ((roots[:, 1] + 0.1) / 0.6).clip(0, 1)
            length *= 0.55 + 0.45 * edge  # fine short hair at the hairline
    flyaway = dice[:, 2] < 0.05
    height = style.volume[0] * (
        style.volume[1] + (1 - style.volume[1]) * ((roots[:, 1] - 0.1) / 0.6).clip(0, 1)
    )
    height = height * layer
    if style.kind == "afro":
        height = style.volume[0] * (0.35 + 0.65 * layer) * (0.85 + 0.15 * dice[:, 3])
    free = 0.05 if style.kind in ("bob", "long") else 0.10
    spread = np.where(flyaway, 4 * free, free)[:, None] * normal[:, :3]
    locks = _walk(
        style,
        (roots, height.astype(np.float32), layer),
        (length, steps),
        spread.astype(np.float32),
        table,
        down,
        (dice[:, 4], normal[:, 3]),
    )
    width = cut.width / share**0.6 * (0.6 + 0.7 * dice[:, 5]) * np.where(flyaway, 0.3, 0.5 + 0.5 * edge)
    hanging = style.kind in HANGING
    if hanging:  # wide locks underneath close the gaps
        under = layer < UNDER
        width = np.where(under, 2.6 * width, width)
    ends, swell = (0.75, 0.5) if hanging else (0.5, 0.0)
    return Locks(locks[0], locks[1], width.astype(np.float32), layer, luck[:n], ends, swell)


def _walk(
    style: HairStyle,
    roots: tuple[np.ndarray, np.ndarray, np.ndarray],
    sizes: tuple[np.ndarray, int],
    spread: np.ndarray,
    table: np.ndarray,
    down: np.ndarray,
    chance: tuple[np.ndarray, np.ndarray],
) -> tuple[np.ndarray, np.ndarray]:
    """Points and outward directions [N, S, 3] of locks that start at `roots` (direction, height, layer)."""
    directions, height, layer = roots
    length, steps = sizes
    slack = CUTS[style.kind].slack
    stride = (length / (steps - 1)).astype(np.float32)[:, None]
    outward = directions
    floor = height if style.kind == "afro" else 0.2 * height
    position = directions * (skull_radius(table, directions) + floor)[:, None]
    heading = unit(comb(style, outward) + style.lift * outward + spread)
    points, normals = [position], [outward]
    arc = np.linspace(0, 0.9 * style.length, steps)
    hanging = style.kind in HANGING
    line = hairline(style, np.linspace(-math.pi, math.pi, 128, endpoint=False)).astype(np.float32)
    inertia = 0.3 if hanging else 0.45
    face = (style.face + 0.25 * chance[0] * (1 - layer)).astype(np.float32)
    for step in range(1, steps):
        pull = style.gravity + (0.5 if hanging else 0.0) * ((0.35 - outward[:, 1]) / 0.5).clip(0, 1)
        wish = comb(style, outward) * (1 - pull)[:, None] + down * pull[:, None] + 0.6 * spread
        if hanging:  # falls close to the neck
            girth = np.sqrt(position[:, 0] ** 2 + position[:, 2] ** 2)
            inward = 0.8 * (0.25 - outward[:, 1]).clip(0, 1) * ((girth - 0.085) / 0.03).clip(0, 1)
            wish = wish - inward[:, None] * outward * np.array([1, 0, 1], dtype=np.float32)
        heading = unit(inertia * heading + (1 - inertia) * wish)
        position = position + stride * heading
        radius = np.sqrt((position**2).sum(axis=1))
        outward = position / radius[:, None]
        rise = min(1.0, 0.3 + 0.7 * float(arc[step]) / 0.02)
        lowest = skull_radius(table, outward) + np.maximum(floor, height * rise) + 0.002
        highest = np.where(outward[:, 1] > math.cos(_FREE_POLAR), lowest + slack * (0.2 + layer), 9.0)
        if not hanging:
            highest = np.minimum(highest, lowest + slack * (0.2 + layer))
        position = outward * np.clip(radius, lowest, highest)[:, None]
        if hanging:
            position = _keep_off_the_face(position, face, line)
            keep_out_of_trunk(position)
        points.append(position)
        normals.append(outward)
    lines = np.stack(points, axis=1).astype(np.float32)
    normals = np.stack(normals, axis=1).astype(np.float32)
    add_waves(style, lines, normals, arc, chance[1])
    return lines.astype(np.float32), normals
