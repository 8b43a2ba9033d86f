# SPDX-License-Identifier: Apache-2.0
"""Lids on a picture: lashes, eyeliner, and the shade that the upper lid throws on the eyeball."""

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
from hiface.synthetic.features import LashStyle
from hiface.synthetic.lights import Surroundings, plain_light
from hiface.synthetic.scene import Canvas
from hiface.synthetic.vectors import unit_rows

_FINE = 3
_OPEN_M = 0.0085
_SHADE_M = 0.0022
_CORNER_M = 0.0035
_LIFT_M = 0.0005


@cached_per_tensor
def _lids(template: Tensor, model: MorphableModel) -> Tensor | None:
    pairs = model.data.pairs.get("eyelid_pairs")
    if pairs is None or len(pairs) == 0:
        return None
    rows = []
    for sign in (1, -1):
        chosen = pairs[template[pairs[:, 0], 0] * sign > 0]
        rows.append(chosen[(template[chosen[:, 0], 0] * sign).argsort()])
    n = min(len(row) for row in rows)
    return torch.stack([row[:n] for row in rows]).transpose(1, 2)


def lid_vertices(model: MorphableModel) -> Tensor | None:
    """[2, 2, N] vertices of the lids' edges: left eye first, upper lid first, from the inner corner outwards.

    Args:
        model: Face model.

    Returns:
        Vertex numbers; None if the model has no lids.
    """
    return _lids(model.data.template, model)


@dataclass(frozen=True)
class Lids:
    """Edges of the lids in camera space.

    Attributes:
        edges_cam: [2, 2, N, 3] metres: left eye first, upper lid first, from the inner corner outwards.
        eyes_cam: [2, 3] centres of the eyeballs.
        up_cam: [3] unit vector to the top of the head.
        own_left_cam: [3] unit vector to the person's own left.
    """

    edges_cam: Tensor
    eyes_cam: Tensor
    up_cam: Tensor
    own_left_cam: Tensor

    def openness(self) -> Tensor:
        """[2] 0 for closed eyes, 1 for open ones."""
        n = self.edges_cam.shape[2]
        gap = (self.edges_cam[:, 0] - self.edges_cam[:, 1])[:, n // 3 : 2 * n // 3].mean(dim=1)
        return (gap @ self.up_cam / _OPEN_M).clamp(0, 1)


def lid_shade(lids: Lids, eye: int, outward: np.ndarray, strength: float) -> np.ndarray:
    """Factor on the light of eyeball fragments: dark under the upper lid and in the corners.

    Args:
        lids: Edges of the lids.
        eye: 0 left, 1 right.
        outward: [3, P] float32 unit vectors from the eye's centre, camera axes.
        strength: 0..1.

    Returns:
        [P] 0..1.
    """
    sign = np.float32(1 if eye == 0 else -1)
    edges = (lids.edges_cam[eye] - lids.eyes_cam[eye]).numpy()
    radius = np.sqrt((edges * edges).sum(axis=-1)).mean()
    axes = np.stack([sign * lids.own_left_cam.numpy(), lids.up_cam.numpy()])
    x, y = np.moveaxis(edges @ axes.T, -1, 0)
    fx, fy = axes @ outward * radius
    below = np.interp(fx, x[0], y[0]).astype(np.float32) - fy
    above = fy - np.interp(fx, x[1], y[1]).astype(np.float32)
    ends = np.minimum(fx - x[0, 0], x[0, -1] - fx)
    shade = np.float32(strength) * np.exp(-((np.maximum(below, 0) / _SHADE_M) ** 2))
    shade += np.float32(0.30) * np.exp(np.maximum(above, 0) / np.float32(-0.0012))
    shade += np.float32(0.40) * np.exp(np.maximum(ends, 0) / np.float32(-_CORNER_M))
    return np.minimum(np.maximum(1 - shade, np.float32(0.12)), np.float32(1))


def _finer(line: Tensor) -> Tensor:
    """[..., N, C] to [..., 3 N - 2, C], linear."""
    n = line.shape[-2]
    flat = line.reshape(-1, n, line.shape[-1]).transpose(1, 2)
    out = F.interpolate(flat, size=_FINE * (n - 1) + 1, mode="linear", align_corners=True)
    return out.transpose(1, 2).reshape(*line.shape[:-2], -1, line.shape[-1])


@cache
def _ribbon(strips: int, columns: int, rows: int) -> Tensor:
    """[T, 3] triangles, both faces, of `strips` grids of `columns` times `rows` points."""
    i = torch.arange(columns - 1)[:, None] * rows + torch.arange(rows - 1)[None]
    i = (torch.arange(strips)[:, None] * columns * rows + i.reshape(1, -1)).reshape(-1)
    first = torch.stack([i, i + 1, i + rows + 1], dim=1)
    second = torch.stack([i, i + rows + 1, i + rows], dim=1)
    return torch.cat([first, second, first.flip(1), second.flip(1)])


@dataclass(frozen=True)
class _Frame:
    """Axes along both lids' edges, camera space; `n` points an edge, from the inner corner outwards.

    Attributes:
        base: [2, 2, n, 3] edges a little in front of the skin, left eye first, upper lid first.
        outward: [2, 2, n, 3] away from the eyeball.
        up: [3].
        temple: [2, 1, 3] sideways.
        along: [n] 0 at the inner corner, 1 at the outer.
    """

    base: Tensor
    outward: Tensor
    up: Tensor
    temple: Tensor
    along: Tensor


def _frame(lids: Lids) -> _Frame:
    edges = _finer(lids.edges_cam)
    outward = unit_rows(edges - lids.eyes_cam[:, None, None])
    temple = torch.stack([lids.own_left_cam, -lids.own_left_cam])[:, None]
    base = edges + _LIFT_M * outward
    return _Frame(base, outward, lids.up_cam, temple, torch.linspace(0, 1, edges.shape[2]))


def _line(frame: _Frame, style: LashStyle) -> tuple[Tensor, Tensor]:
    """The dark line along the upper lid's edge: points [2, n, 4, 3] and opacity [2, n, 4]."""
    along, edge = frame.along, frame.base[:, 0]
    if style.wing_m > 0:
        rise = ((along - 0.88) / 0.12).clamp(0, 1)[:, None] * style.wing_m
        edge = edge + rise * (frame.temple + 0.45 * frame.up)
    height = style.line_m * torch.sin(along.clamp(0.02, 0.98) * math.pi) ** 0.5
    rows = torch.tensor([-0.0006, 0.0, 0.6, 1.2])
    shift = torch.where(rows < 0, rows, rows * height[:, None])
    verts = (edge + 0.6 * _LIFT_M * frame.outward[:, 0])[:, :, None] + shift[..., None] * frame.up
    return verts, style.line * torch.tensor([0.45, 1.0, 0.9, 0.0]).expand(2, len(along), 4)


def _row(frame: _Frame, lid: int, length: Tensor, lift: Tensor, roots: Tensor) -> tuple[Tensor, Tensor]:
    """One row of lashes, points [2, n, 4, 3] and opacity [2, n, 4].

    Args:
        frame: Axes.
        lid: 0 upper, 1 lower.
        length: [n] metres.
        lift: [2, 1, 1] upward part of the tips' direction.
        roots: [n] opacity at the roots.
    """
    fan = (frame.along[:, None] - 0.35) * 0.9 * frame.temple
    steps, bend = torch.tensor([-0.06, 0.0, 0.35, 1.0]), torch.tensor([0.0, 0.0, 0.55, 1.0])
    path = steps[:, None] * frame.outward[:, lid, :, None]
    path = path + bend[:, None] * (lift * frame.up + fan)[:, :, None]
    verts = frame.base[:, lid, :, None] + length[:, None, None] * path
    opacity = roots[:, None] * torch.tensor([0.7, 1.0, 0.6, 0.0])
    return verts, opacity.expand(2, -1, -1)


def draw_lashes(canvas: Canvas, lids: Lids, style: LashStyle, K: Tensor, lights: Surroundings) -> None:
    """Draws the dark line of the lash roots (or eyeliner) and both rows of lashes.

    Args:
        canvas: With the head on it.
        lids: Edges of the lids.
        style: Lashes and eyeliner.
        K: [3, 3] intrinsics in sub-pixels.
        lights: Light in camera axes.
    """
    if style.upper == style.lower == style.line == 0:
        return
    frame = _frame(lids)
    n = len(frame.along)
    clumps = torch.from_numpy(style.clumps)[None, None]
    clumps = F.interpolate(clumps, size=n, mode="linear", align_corners=True)[0, 0]
    wide = (frame.along / 0.12).clamp(0, 1) * ((1.02 - frame.along) / 0.06).clamp(0, 1)
    length = style.length_m * (0.45 + 0.55 * frame.along) * clumps * (0.3 + 0.7 * wide)
    opened = lids.openness()[:, None, None]
    lift = opened * (0.35 + 0.75 * style.curl) - (1 - opened) * 0.75
    upper = _row(frame, 0, length, lift, style.upper * (0.35 + 0.65 * wide))
    thin = style.lower * wide * frame.along.clamp_min(0.25)
    lower = _row(frame, 1, 0.5 * length, torch.full((2, 1, 1), -0.6), thin)
    line = _line(frame, style)
    light = plain_light(torch.tensor([[0.0, 0.0, -1.0]]), lights)
    colour = torch.from_numpy(style.colour)[:, None] * light
    _sheets(canvas, K, [line, lower], colour)
    _sheets(canvas, K, [upper], colour)


def _sheets(canvas: Canvas, K: Tensor, parts: list[tuple[Tensor, Tensor]], colour: Tensor) -> None:
    """Blends grids of points [2, n, 4, 3] and opacity [2, n, 4] in one colour [3, 1] over the picture."""
    verts = torch.stack([verts for verts, _ in parts])
    opacity = torch.stack([opacity for _, opacity in parts])
    strips, columns, rows = 2 * len(parts), verts.shape[2], verts.shape[3]
    triangles = _ribbon(strips, columns, rows)
    drawn = canvas.trace(verts.reshape(-1, 3), triangles, K, opacity.reshape(-1, 1))
    if drawn is not None:
        canvas.blend(drawn, colour.expand(3, drawn.rows.shape[1]), drawn.rows[0].clamp(0, 1))
