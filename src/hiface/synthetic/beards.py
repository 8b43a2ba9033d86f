# SPDX-License-Identifier: Apache-2.0
"""Facial hair: where it grows, painted into the skin, and as locks where it is long."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from hiface.geometry.constants import cached_per_tensor
from hiface.morphable import MorphableModel
from hiface.synthetic.hair import Stand
from hiface.synthetic.hair_growth import Locks, draw_luck, unit
from hiface.synthetic.scene import Canvas
from hiface.synthetic.strands import Dye, draw_locks

KINDS = ("none", "shadow", "stubble", "moustache", "goatee", "short", "full", "long")
_SHARE = (0.43, 0.12, 0.13, 0.08, 0.06, 0.09, 0.06, 0.03)
_LENGTH_M = {"moustache": (0.006, 0.013), "goatee": (0.005, 0.022), "short": (0.004, 0.010)}
_LENGTH_M |= {"full": (0.012, 0.030), "long": (0.045, 0.14)}
# How far hair on the upper lip comes down: 0 to the lip's edge, 1 to the line where the lips meet.
_HANG = {
    "moustache": (-0.3, 1.5),
    "goatee": (-0.3, 1.1),
    "short": (-0.3, 0.7),
    "full": (-0.1, 1.4),
    "long": (0.1, 1.7),
}
_ROOTS = 9000
_MOST_LOCKS = 1500


@dataclass(frozen=True)
class BeardStyle:
    """Facial hair.

    Attributes:
        kind: One of `KINDS`; "shadow" and "stubble" are painted only.
        colour: [3] linear.
        length: Length of the locks, metres.
        shade: Opacity of the paint, 0..1.
        cheek: How high it grows on the cheeks, -1..1.
        bald_spots: How uneven it grows, 0..1.
        seed: Seed of the locks.
        hang: How far the hair on the upper lip comes down: 0 to the lip's edge, 1 to where the lips meet.
        parting: How far it is combed to the sides, 0..1.
    """

    kind: str
    colour: np.ndarray
    length: float
    shade: float
    cheek: float
    bald_spots: float
    seed: int
    hang: float
    parting: float


def sample_beard(rng: np.random.Generator, colour: np.ndarray, manly: bool) -> BeardStyle:
    """Draws facial hair.

    Args:
        rng: Source of randomness.
        colour: [3] linear colour of the hair on the head.
        manly: Whether there may be any.

    Returns:
        BeardStyle.
    """
    kind = str(rng.choice(KINDS, p=_SHARE))
    tone = np.exp(rng.normal(0, 0.2)) * np.array([1.1, 1.0, 0.93]) * colour
    length = rng.uniform(*_LENGTH_M.get(kind, (0.0, 0.0)))
    shade = {"none": 0.0, "shadow": rng.uniform(0.10, 0.3), "stubble": rng.uniform(0.25, 0.6)}.get(kind, 0.9)
    return BeardStyle(
        kind if manly else "none",
        np.clip(tone, 0.004, 0.7).astype(np.float32),
        float(length),
        float(shade) if manly else 0.0,
        float(rng.uniform(-1, 1)),
        float(rng.uniform(0.0, 0.6)),
        int(rng.integers(2**31)),
        float(rng.uniform(*_HANG.get(kind, (0.0, 0.0)))),
        float(rng.uniform(0.0, 1.0)),
    )


@dataclass(frozen=True)
class BeardTables:
    """Where beards grow on the mean head.

    Attributes:
        corners: [R, 3] vertices of the triangles of the candidates for roots.
        weights: [R, 3] barycentric coordinates.
        places: [R, 3] metres on the mean head.
        jaw: [R] 0..1, the part of the model's skin where beards grow.
        lip: [2, L] x and y of the upper lip's edge from the middle to the corner.
        rim: [2, L] the same of the line where the lips meet.
        below: [2, L] the same of the lower lip.
        nose_y: Height of the nose's base.
    """

    corners: Tensor
    weights: Tensor
    places: np.ndarray
    jaw: np.ndarray
    lip: np.ndarray
    rim: np.ndarray
    below: np.ndarray
    nose_y: float


def _smooth(x: np.ndarray, low: float, high: float) -> np.ndarray:
    t = ((x - low) / (high - low)).clip(0, 1)
    return t * t * (3 - 2 * t)


def jaw_map(model: MorphableModel, side: int) -> Tensor:
    """[side, side] 0..1 where the model's albedo knows a beard."""
    names = model.data.albedo_names
    if "beard" not in names:
        return torch.zeros(side, side)
    strength = model.data.albedo_basis[names.index("beard")].abs().sum(dim=0)
    strength = (strength / strength.max())[None, None]
    for _ in range(2):
        strength = F.avg_pool2d(strength, 15, 1, 7)
    strength = F.interpolate(strength, size=(side, side), mode="area")[0, 0]
    return (strength / strength.max() * 1.9 - 0.35).clamp(0, 1)


@cached_per_tensor
def _tables(template: Tensor, model: MorphableModel) -> BeardTables:
    data = model.data
    skin = data.triangle_parts == data.part_names.index("skin")
    a, b, c = (template[data.triangles[:, i]] for i in range(3))
    area = torch.linalg.cross(b - a, c - a).norm(dim=1)
    middle = (a + b + c) / 3
    low = skin & (middle[:, 1] < 0.012) & (middle[:, 1] > -0.135) & (middle[:, 2] > -0.075)
    rng = np.random.default_rng(5)
    share = (area * low).double().numpy()
    ids = torch.from_numpy(rng.choice(len(share), _ROOTS, p=share / share.sum()))
    weights = torch.from_numpy(rng.dirichlet((1, 1, 1), _ROOTS).astype(np.float32))
    corners = data.triangles[ids]
    places = (template[corners] * weights[..., None]).sum(dim=1)
    uv = (data.uv[data.uv_triangles[ids]] * weights[..., None]).sum(dim=1)
    jaw = F.grid_sample(jaw_map(model, 256)[None, None], (uv * 2 - 1)[None, None], align_corners=False)
    points = data.landmark_sets["ibug68"].positions(template, data.triangles).numpy()
    return BeardTables(
        corners,
        weights,
        places.numpy(),
        jaw.reshape(-1).numpy(),
        points[[51, 52, 53, 54], :2].T,
        points[[62, 63, 64, 54], :2].T,
        points[[57, 56, 55, 54], :2].T,
        float(points[33, 1]),
    )


def beard_tables(model: MorphableModel) -> BeardTables:
    """The tables of a model; made at the first call, then remembered."""
    return _tables(model.data.template, model)


def growth(style: BeardStyle, tables: BeardTables, places: np.ndarray, jaw: np.ndarray) -> np.ndarray:
    """How densely a beard grows.

    Args:
        style: Beard.
        tables: From `beard_tables`.
        places: [N, 3] metres on the mean head.
        jaw: [N] from `jaw_map` there.

    Returns:
        [N] 0..1.
    """
    x, y, z = np.abs(places[:, 0]), places[:, 1], places[:, 2]
    upper = np.interp(x, tables.lip[0], tables.lip[1])
    lower = np.interp(x, tables.below[0], tables.below[1])
    corner_x, corner_y = float(tables.lip[0, -1]), float(tables.lip[1, -1])
    front = z > -0.02
    reach = corner_x + (0.004 if style.kind == "moustache" else 0.010)
    above = _smooth(y - upper, 0.0005, 0.003) * _smooth(tables.nose_y - y, 0.0, 0.004)
    above = above * _smooth(reach - x, 0.0, 0.006) * _smooth(corner_y + 0.028 - y - 0.5 * x, -0.004, 0.004)
    beside = _smooth(x, corner_x + 0.001, corner_x + 0.004) * _smooth(corner_x + 0.014 - x, 0, 0.006)
    beside = beside * _smooth(corner_y + 0.012 - y, 0, 0.01) * _smooth(y - corner_y + 0.05, 0, 0.02)
    if style.kind == "moustache":
        return above * front
    chin = _smooth(lower - y, 0.003, 0.008) * _smooth(0.030 - x, 0.0, 0.010) * (y > -0.128)
    mouth = np.maximum(np.maximum(above, beside), chin) * front
    if style.kind == "goatee":
        return mouth
    lip_skin = (y < upper + 0.001) & (y > lower - 0.002) & (x < corner_x + 0.001) & (z > 0)
    line = corner_y + 0.012 + 0.010 * style.cheek + 0.9 * (x - 0.035).clip(0) + 2.2 * (x - 0.056).clip(0)
    cheek = _smooth(line - y, -0.007, 0.009)
    if style.kind in ("shadow", "stubble"):  # thin towards the ears
        cheek = cheek * _smooth(-0.004 - y, 0.0, 0.035)
    return np.where(lip_skin, 0.0, np.maximum(mouth, jaw * cheek))


def _lip_lengths(
    style: BeardStyle, tables: BeardTables, places: np.ndarray, aside: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """[N] metres of the locks of a moustache: they end, raggedly, at one line above, on or below the lip."""
    x, y = np.abs(places[:, 0]), places[:, 1]
    edge, rim = np.interp(x, *tables.lip), np.interp(x, *tables.rim)
    drop = y - edge + style.hang * (edge - rim).clip(0.004)
    ragged = 0.0012 * rng.normal(size=len(x)) + 0.002  # the first step leads out of the skin
    return ((drop + ragged) * np.hypot(1, aside)).clip(0.002, 0.028)


def draw_beard(
    canvas: Canvas, style: BeardStyle, model: MorphableModel, verts_cam: Tensor, stand: Stand
) -> None:
    """Draws the locks of a beard; what is only painted has none.

    Args:
        canvas: With the head on it.
        style: Beard.
        model: Face model.
        verts_cam: [V, 3] posed, metres.
        stand: Where the head is, camera and light.
    """
    if style.length <= 0 or style.kind == "none":
        return
    tables = beard_tables(model)
    rng = np.random.default_rng([style.seed, 3])
    share = growth(style, tables, tables.places, tables.jaw)
    chosen = np.flatnonzero(share > 0.15 + 0.7 * rng.random(len(share)))[:_MOST_LOCKS]
    n = len(chosen)
    if n == 0:
        return
    corners = verts_cam[tables.corners[chosen]]
    roots = (corners * tables.weights[chosen][..., None]).sum(dim=1).numpy()
    facet = unit(torch.linalg.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]).numpy())
    R, down = stand.R_cam_head.numpy(), stand.down_cam.numpy()
    places = tables.places[chosen]
    is_lip = (places[:, 1] > tables.lip[1, -1] - 0.004) & (np.abs(places[:, 0]) < 0.035)
    aside = (0.15 + 0.85 * style.parting) * np.tanh(places[:, 0] / 0.008)
    fall = 0.75 * -R[:, 1] + 0.25 * down
    comb = np.where(is_lip[:, None], aside[:, None] * R[:, 0] + fall, fall + 0.15 * R[:, 2])
    spread = rng.normal(0, 0.16, (n, 3))
    length = style.length * rng.uniform(0.6, 1.1, n)
    length *= np.where(places[:, 1] > -0.07, 0.55, 1.0)  # shorter on the cheeks
    length = np.where(is_lip, _lip_lengths(style, tables, places, aside, rng), length)
    steps = 7 if style.kind == "long" else 4
    heading = unit(0.75 * facet + unit(comb) + spread)
    points, normals = [roots + 0.0005 * facet], [facet]
    inward = -np.clip(places[:, :1] / 0.06, -1, 1) * R[:, 0] * (0.35 if style.kind == "long" else 0.1)
    for _ in range(steps - 1):
        points.append(points[-1] + (length / (steps - 1))[:, None] * heading)
        normals.append(unit(facet + 0.2 * heading))
        heading = unit(0.6 * heading + 0.4 * unit(comb) + 0.4 * inward * ~is_lip[:, None] + 0.5 * spread)
    lines = np.stack(points, axis=1).astype(np.float32)
    width = (0.0033 if style.kind in ("short", "moustache") else 0.0055) * rng.uniform(0.5, 1.3, n)
    layer = rng.random(n).astype(np.float32) ** 0.5
    if steps > 4:  # wide locks underneath close the gaps
        width = np.where(layer < 0.5, 2.2 * width, 1.3 * width)
    out = np.stack(normals, axis=1).astype(np.float32)
    locks = Locks(
        lines, out, width.astype(np.float32), layer, draw_luck(rng, n), 0.6, 0.3 if steps > 4 else 0.0
    )
    dye = Dye(style.colour, np.clip(style.colour * 1.2, 0, 0.75), 0.015, 7.0, style.seed)
    close = style.length < 0.012
    for part in [locks] if steps <= 4 else [locks.only(layer < 0.5), locks.only(layer >= 0.5)]:
        draw_locks(canvas, part, dye, stand.K, stand.lights, close=close)
