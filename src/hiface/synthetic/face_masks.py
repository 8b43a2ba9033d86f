# SPDX-License-Identifier: Apache-2.0
"""Masks over nose and mouth, and scarves around neck and chin."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from hiface.geometry.constants import cached_per_tensor
from hiface.geometry.normals import vertex_normals
from hiface.morphable import MorphableModel
from hiface.synthetic.accessories import LABEL_ACCESSORY
from hiface.synthetic.hair import Stand
from hiface.synthetic.lights import plain_light
from hiface.synthetic.noise import noise_pool, sample_noise
from hiface.synthetic.scene import Canvas
from hiface.synthetic.shells import CENTRE_M, outermost, ring_triangles

_CENTRE_M = (0.0, -0.055, -0.060)
_COLUMNS, _HEIGHTS, _ROWS = 33, 26, 14
_SIDE = math.radians(84)
_TOP, _BOTTOM = math.radians(52), math.radians(-68)
_CLOTH = np.array(
    [[0.30, 0.55, 0.72], [0.78, 0.80, 0.80], [0.012, 0.012, 0.013], [0.36, 0.62, 0.55], [0.10, 0.16, 0.30]]
)
_SCARF_RINGS, _SCARF_COLUMNS = 7, 40


@dataclass(frozen=True)
class FaceMask:
    """A mask.

    Attributes:
        kind: "surgical", "cloth", "cup" or "bandana".
        colour: [3] linear.
        top_m: Height of its edge on the nose (0 is the eyes), metres.
        slack_m: Distance from the skin.
        pattern: Strength of print or folds.
        seed: Seed of folds.
    """

    kind: str
    colour: np.ndarray
    top_m: float
    slack_m: float
    pattern: float
    seed: int


@dataclass(frozen=True)
class NeckScarf:
    """A scarf around the neck.

    Attributes:
        colour: [3] linear.
        second: [3] linear, of its stripes.
        stripes: Stripes a metre, 0 for none.
        top_m: Height of its edge in front, metres.
        width: Factor on its girth.
        seed: Seed of folds.
    """

    colour: np.ndarray
    second: np.ndarray
    stripes: float
    top_m: float
    width: float
    seed: int


def _any_colour(rng: np.random.Generator) -> np.ndarray:
    level = math.exp(rng.uniform(math.log(0.012), math.log(0.65)))
    return np.clip(level * np.exp(rng.normal(0, 0.5, 3)), 0.006, 0.8).astype(np.float32)


def sample_face_mask(rng: np.random.Generator) -> FaceMask:
    """Draws a mask."""
    kind = str(rng.choice(["surgical", "cloth", "cup", "bandana"], p=[0.5, 0.27, 0.15, 0.08]))
    plain = _CLOTH[int(rng.choice(len(_CLOTH), p=[0.42, 0.22, 0.22, 0.07, 0.07]))] * np.exp(
        rng.normal(0, 0.12)
    )
    other = _any_colour(rng)
    colour = other if kind in ("cloth", "bandana") else _CLOTH[1] if kind == "cup" else plain
    return FaceMask(
        kind,
        np.clip(colour, 0.006, 0.85).astype(np.float32),
        float(rng.normal(-0.014, 0.005)) if rng.random() < 0.93 else -0.055,
        float(rng.uniform(0.003, 0.008)),
        float(rng.uniform(0.1, 0.5)),
        int(rng.integers(2**31)),
    )


def sample_neck_scarf(rng: np.random.Generator) -> NeckScarf:
    """Draws a scarf; one in three covers the chin."""
    top = rng.uniform(-0.110, -0.062) if rng.random() < 0.35 else rng.uniform(-0.135, -0.110)
    stripes = rng.uniform(20, 70) if rng.random() < 0.4 else 0.0
    return NeckScarf(
        _any_colour(rng),
        _any_colour(rng),
        float(stripes),
        float(top),
        float(rng.uniform(0.95, 1.2)),
        int(rng.integers(2**31)),
    )


@dataclass(frozen=True)
class FaceTable:
    """Outermost points of the lower face by azimuth and elevation.

    Attributes:
        corners: [C * H, 3] int64 vertices.
        weights: [C * H, 3].
        height: [C, H] metres, y on the mean head.
    """

    corners: Tensor
    weights: Tensor
    height: Tensor


@cached_per_tensor
def _table(template: Tensor, model: MorphableModel) -> FaceTable:
    data = model.data
    skin = data.triangles[data.triangle_parts == data.part_names.index("skin")]
    azimuth = torch.linspace(-_SIDE, _SIDE, _COLUMNS) + 1e-4
    elevation = torch.linspace(_TOP, _BOTTOM, _HEIGHTS)
    theta, phi = torch.meshgrid(azimuth, elevation, indexing="ij")
    directions = torch.stack([phi.cos() * theta.sin(), phi.sin(), phi.cos() * theta.cos()], dim=-1)
    verts = (template - torch.tensor(_CENTRE_M)).double()
    ids, weights = outermost(verts, skin, directions.reshape(-1, 3).double())
    corners, weights = skin[ids], weights.float()
    places = (template[corners] * weights[..., None]).sum(dim=1)
    return FaceTable(corners, weights, places[:, 1].reshape(_COLUMNS, _HEIGHTS))


def _outline(mask: FaceMask) -> tuple[Tensor, Tensor]:
    """Heights [C] of the upper and lower edge, metres on the mean head."""
    theta = torch.linspace(-_SIDE, _SIDE, _COLUMNS).abs() / _SIDE
    top = mask.top_m - 0.016 * (theta / 0.35).clamp(0, 1) - 0.010 * ((theta - 0.35) / 0.65).clamp(0, 1)
    low = -0.128 + 0.010 * theta + 0.040 * ((theta - 0.4) / 0.6).clamp(0, 1) ** 1.5
    if mask.kind == "bandana":
        low = -0.20 + 0.05 * theta
    return top, low


def _surface(mask: FaceMask, model: MorphableModel, verts_cam: Tensor, centre: Tensor) -> Tensor:
    """[C, R, 3] points of the mask in camera space, stretched from nose to cheeks and chin."""
    table = _table(model.data.template, model)
    skin = (verts_cam[table.corners] * table.weights[..., None]).sum(dim=1).reshape(_COLUMNS, _HEIGHTS, 3)
    top, low = _outline(mask)
    wanted = torch.lerp(top[:, None], low[:, None], torch.linspace(0, 1, _ROWS))
    order = table.height.cummin(dim=1).values
    place = torch.searchsorted(-order, -wanted.contiguous()).clamp(1, _HEIGHTS - 1)
    upper, lower = order.gather(1, place - 1), order.gather(1, place)
    share = ((upper - wanted) / (upper - lower).clamp_min(1e-5)).clamp(0, 1)[..., None]
    index = place[..., None].expand(-1, -1, 3)
    points = torch.lerp(skin.gather(1, index - 1), skin.gather(1, index), share)
    away = points - centre
    radius = away.norm(dim=-1, keepdim=True)
    high = F.max_pool2d(radius[None, None, :, :, 0], 3, 1, 1)[0]
    wide = F.pad(high, (2, 2, 3, 3), mode="replicate")[None]
    tent = F.avg_pool2d(wide, (7, 5), 1)[0, 0, ..., None]
    middle = torch.linspace(-1, 1, _ROWS)[None, :, None].abs()
    slack = mask.slack_m * (1 - 0.6 * middle**4)
    grown = torch.maximum(high[0, ..., None] + 0.4 * slack, tent + slack)
    if mask.kind == "cup":
        theta = torch.linspace(-1, 1, _COLUMNS)[:, None, None].abs()
        grown = grown + 0.018 * (1 - theta * 2.2).clamp_min(0) * (1 - middle**2)
    out = centre + away / radius * grown
    if mask.kind == "bandana":
        fall = torch.linspace(0, 1, _ROWS)[None, :, None]
        out = out + 0.01 * fall * away / radius
    return out


def draw_face_mask(
    canvas: Canvas, mask: FaceMask, model: MorphableModel, verts_cam: Tensor, stand: Stand
) -> None:
    """Draws a mask over nose and mouth with its straps, labelled as accessory.

    Args:
        canvas: With the head on it.
        mask: What to draw.
        model: Face model.
        verts_cam: [V, 3] posed, metres.
        stand: Camera and light.
    """
    shift = torch.tensor(_CENTRE_M) - torch.tensor(CENTRE_M)
    points = _surface(mask, model, verts_cam, stand.centre_cam + stand.R_cam_head @ shift)
    used = slice(3, -3) if mask.kind == "surgical" else slice(2, -2) if mask.kind == "cup" else slice(0, None)
    straps = points[:, [1, -3]] if mask.kind != "bandana" else points[:0]
    points = points[used]
    columns = len(points)
    verts = points.reshape(-1, 3)
    triangles = _sheet(columns, _ROWS)
    normals = vertex_normals(verts, triangles)
    outward = ((normals * (verts - stand.centre_cam)).sum(dim=1, keepdim=True) > 0).float() * 2 - 1
    light = plain_light(normals * outward, stand.lights)
    u = torch.linspace(-1, 1, columns)[:, None].expand(-1, _ROWS).reshape(-1, 1)
    v = torch.linspace(0, 1, _ROWS).expand(columns, -1).reshape(-1, 1)
    drawn = canvas.trace(verts, triangles, stand.K, torch.cat([light.T, u, v], dim=1))
    if drawn is not None:
        across, along = drawn.rows[3:]
        tile = noise_pool("cloud")[mask.seed % 8]
        folds = sample_noise(tile, across * 0.35, along * 0.5)
        weave = sample_noise(noise_pool("pink")[mask.seed % 8], across * 2, along * 2)
        tone = 0.10 * folds + 0.03 * weave
        if mask.kind == "surgical":
            pleat = (along * 5.0 - 0.5).frac()
            tone = tone - 0.22 * ((pleat - 0.75) * 4).clamp(0, 1) * ((along > 0.2) & (along < 0.85))
            tone = tone + 0.12 * ((along < 0.07) | (along > 0.94))
        colour = torch.from_numpy(mask.colour)[:, None].expand(3, across.numel())
        if mask.kind in ("cloth", "bandana") and mask.seed % 3 == 0:
            print_on = (sample_noise(tile, across * 1.1 + 0.3, along * 1.1) > 0.5).float()
            colour = torch.lerp(colour, colour.flip(0) * 0.4 + 0.15, print_on * mask.pattern * 2)
        canvas.put(drawn, colour * drawn.rows[:3] * tone.exp(), LABEL_ACCESSORY)
    if len(straps):
        _draw_straps(canvas, straps, stand, 0.75 if mask.kind != "cloth" else 0.05)


def _sheet(columns: int, rows: int) -> Tensor:
    """Triangles of `columns` lines of `rows` points, not closed."""
    return ring_triangles(columns, rows)[: (columns - 1) * (rows - 1) * 2]


def _draw_straps(canvas: Canvas, lines: Tensor, stand: Stand, albedo: float) -> None:
    """Elastic bands along the cheeks, [C, 2, 3] points of both, to the ears."""
    up = -0.0016 * stand.down_cam
    out = stand.centre_cam + (lines - stand.centre_cam) * 1.004
    for side in (out[:6], out[-6:]):
        for band in (side[:, 0], side[:, 1]):
            verts = torch.stack([band + up, band - up], dim=1).reshape(-1, 3)
            light = plain_light(F.normalize(verts - stand.centre_cam, dim=1), stand.lights)
            drawn = canvas.trace(verts, _sheet(len(band), 2), stand.K, light.T)
            if drawn is not None:
                canvas.put(drawn, albedo * drawn.rows, LABEL_ACCESSORY)


def draw_neck_scarf(canvas: Canvas, scarf: NeckScarf, stand: Stand) -> None:
    """Draws a scarf around the neck, labelled as accessory.

    Args:
        canvas: With head and body on it.
        scarf: What to draw.
        stand: Where the head is, camera and light.
    """
    rng = np.random.default_rng(scarf.seed)
    angle = torch.arange(_SCARF_COLUMNS) / _SCARF_COLUMNS * 2 * math.pi
    t = torch.linspace(0, 1, _SCARF_RINGS)
    swell = torch.tensor([0.90, 1.02, 1.08, 1.02, 1.10, 1.16, 1.05]) * scarf.width
    lumps = torch.from_numpy(rng.normal(0, 0.035, (_SCARF_COLUMNS, _SCARF_RINGS)).astype(np.float32))
    lumps = (lumps + lumps.roll(1, 0) + lumps.roll(2, 0)) / 1.7
    size = swell[None] * (1 + lumps)
    lean = 0.018 * (1 - angle.cos()) + float(rng.normal(0, 0.008)) * angle.sin()
    tilt = lean[:, None] * (1 - t)[None]
    y = torch.lerp(torch.tensor(scarf.top_m), torch.tensor(-0.20), t)[None] + tilt
    x = 0.080 * size * angle.sin()[:, None]
    z = -0.068 + 0.090 * size * angle.cos()[:, None]
    points = torch.stack([x, y.expand_as(x), z], dim=-1) - torch.tensor(CENTRE_M)
    verts = points.reshape(-1, 3) @ stand.R_cam_head.T + stand.centre_cam
    triangles = ring_triangles(_SCARF_COLUMNS, _SCARF_RINGS)
    light = plain_light(vertex_normals(verts, triangles), stand.lights)
    u = angle[:, None].expand(-1, _SCARF_RINGS).reshape(-1, 1)
    rows = torch.cat([light.T, u, y.expand_as(x).reshape(-1, 1)], dim=1)
    drawn = canvas.trace(verts, triangles, stand.K, rows)
    if drawn is None:
        return
    around, height = drawn.rows[3:]
    tile = noise_pool("strand")[scarf.seed % 8]
    knit = sample_noise(tile, height * 6, around * 0.25) * 0.16
    folds = sample_noise(noise_pool("cloud")[scarf.seed % 8], around * 0.2, height * 5) * 0.18
    colour = torch.from_numpy(scarf.colour)[:, None].expand(3, height.numel())
    if scarf.stripes > 0:
        on = ((height * scarf.stripes + 0.2 * around).frac().abs() > 0.5).float()
        colour = torch.lerp(colour, torch.from_numpy(scarf.second)[:, None], on)
    canvas.put(drawn, colour * drawn.rows[:3] * (knit + folds).exp(), LABEL_ACCESSORY)
