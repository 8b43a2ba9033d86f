# SPDX-License-Identifier: Apache-2.0
"""Lid creases, eye shadow, bags, faded brows and lips, painted into a person's albedo map.

Places come from the model: the edges of the lids, the brow axes of its albedo and its mask of the lips.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from hiface.geometry.constants import cached_per_tensor
from hiface.morphable import MorphableModel
from hiface.render.interpolate import interpolate_surface
from hiface.render.rasterize import fragments, rasterize
from hiface.synthetic.eyes import lid_vertices
from hiface.synthetic.features import FeatureStyle, LidStyle
from hiface.synthetic.noise import noise_pool

_REACH_M = 0.030
_FAR_M = 1.0
_FILL_PX = 21


@dataclass(frozen=True)
class Window:
    """A rectangle of texels with a mask.

    Attributes:
        rows: First row and the row after the last.
        columns: The same for columns.
        mask: [h, w] 0..1.
    """

    rows: tuple[int, int]
    columns: tuple[int, int]
    mask: Tensor

    def cut(self, texture: Tensor) -> Tensor:
        """View [..., h, w] of that part of a texture [..., H, W]."""
        return texture[..., self.rows[0] : self.rows[1], self.columns[0] : self.columns[1]]


@dataclass(frozen=True)
class PaintTables:
    """Where the features of a model lie in its texture.

    Attributes:
        texels: [N] int64 texels of skin near an eye.
        above_m: [N] distance above the upper lid's edge, `_FAR_M` elsewhere.
        below_m: [N] distance below the lower lid's edge, `_FAR_M` elsewhere.
        across: [N] 0 at the inner corner of the eye, 1 at the outer.
        brows: Brow hair, or None.
        lips: Lips, or None.
    """

    texels: Tensor
    above_m: Tensor
    below_m: Tensor
    across: Tensor
    brows: Window | None
    lips: Window | None


def _surface(model: MorphableModel, side: int, values: Tensor) -> tuple[Tensor, Tensor]:
    """Skin texels [N] of a square texture and vertex values [V, C] there as [C, N]."""
    data = model.data
    chosen = data.triangle_parts == data.part_names.index("skin")
    px = torch.cat([data.uv * side, torch.ones(len(data.uv), 1)], dim=1)
    uv_triangles = data.uv_triangles[chosen]
    frags = fragments(rasterize(px, uv_triangles, side, side)[None])
    nothing = px.new_zeros(1, len(px), 0)
    corners = values[data.triangles[chosen]]
    rows = interpolate_surface(px[None], nothing, corners, uv_triangles, frags)
    return frags.pixel, rows[1:]


def _to_line(points: Tensor, line: Tensor) -> Tensor:
    """[N] distance of points [N, 3] from a polyline [L, 3]."""
    start, step = line[:-1], line[1:] - line[:-1]
    t = (((points[:, None] - start) * step).sum(-1) / (step * step).sum(-1).clamp_min(1e-12)).clamp(0, 1)
    return (points[:, None] - start - t[..., None] * step).norm(dim=-1).min(dim=1).values


def _around_eyes(model: MorphableModel, side: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    data = model.data
    lids = lid_vertices(model)
    if lids is None:
        return torch.zeros(0, dtype=torch.int64), torch.zeros(0), torch.zeros(0), torch.zeros(0)
    texels, places = _surface(model, side, data.template)
    places = places.T
    found = []
    for sign, (upper, lower) in zip((1, -1), data.template[lids], strict=True):
        low, high = sign * upper[0, 0], sign * upper[-1, 0]
        near = (places - upper.mean(dim=0)).norm(dim=1) < _REACH_M + (high - low) / 2
        near = near.nonzero().reshape(-1)
        points = places[near]
        across = (sign * points[:, 0] - low) / (high - low)
        middle = torch.lerp(upper[0, 1], upper[-1, 1], across.clamp(-0.3, 1.3))
        over = points[:, 1] > middle
        above = torch.where(over, _to_line(points, upper), _FAR_M)
        below = torch.where(over, _FAR_M, _to_line(points, lower))
        found.append((texels[near], above, below, across))
    merged = [torch.cat(rows) for rows in zip(*found, strict=True)]
    return merged[0], merged[1], merged[2], merged[3]


def _window(weight: Tensor, margin: int) -> Window | None:
    """The part of a map [H, W] around what is not zero."""
    rows, columns = (weight > 0.02).nonzero().unbind(1)
    if len(rows) == 0:
        return None
    low_r, high_r = max(0, int(rows.min()) - margin), min(len(weight), int(rows.max()) + margin + 1)
    low_c, high_c = max(0, int(columns.min()) - margin), min(len(weight), int(columns.max()) + margin + 1)
    return Window((low_r, high_r), (low_c, high_c), weight[low_r:high_r, low_c:high_c].clone())


def _soften(weight: Tensor, width: int) -> Tensor:
    return F.avg_pool2d(weight[None, None], width, 1, width // 2)[0, 0]


def _brow_window(model: MorphableModel, basis: Tensor) -> Window | None:
    names = [i for i, name in enumerate(model.data.albedo_names) if name.startswith("brow_")]
    if not names:
        return None
    strength = basis[names].abs().sum(dim=(0, 1))
    return _window(_soften((strength / (0.35 * strength.max())).clamp(0, 1), 3), 8)


def _lip_window(model: MorphableModel, side: int) -> Window | None:
    mask = model.data.vertex_masks.get("lips")
    if mask is None or not bool(mask.any()):
        return None
    texels, weight = _surface(model, side, mask.float()[:, None])
    return _window(
        _soften(torch.zeros(side * side).index_copy(0, texels, weight[0]).reshape(side, side), 3), 8
    )


def paint_tables(model: MorphableModel, side: int) -> PaintTables:
    """Where lids, brows and lips lie in a texture of `side` texels; found at the first call."""
    return _tables(model.data.template, model, side)


def surface_places(model: MorphableModel, side: int) -> tuple[Tensor, Tensor]:
    """Skin texels [N] of a square texture and where they lie on the mean head, [N, 3] metres."""
    texels, places = _surface(model, side, model.data.template)
    return texels, places.T.contiguous()


@cached_per_tensor
def _tables(template: Tensor, model: MorphableModel, side: int) -> PaintTables:
    basis = model.data.albedo_basis
    if basis.shape[-1] != side:
        basis = F.interpolate(basis, size=(side, side), mode="area")
    return PaintTables(*_around_eyes(model, side), _brow_window(model, basis), _lip_window(model, side))


def _bump(x: Tensor, centre: float, width: float) -> Tensor:
    return torch.exp(-(((x - centre) / width) ** 2))


def _ramp(x: Tensor, low: float, high: float) -> Tensor:
    """0 below `low`, 1 above `high` (or the other way round)."""
    return ((x - low) / (high - low)).clamp(0, 1)


def _paint_lids(texture: Tensor, tables: PaintTables, style: LidStyle) -> None:
    above, below, across = tables.above_m, tables.below_m, tables.across
    flat = texture.view(3, -1)
    skin = flat.index_select(1, tables.texels)
    within = _ramp(across, -0.12, 0.12) * _ramp(across, 1.35, 1.05)
    height = style.crease_m * (0.45 + 0.55 * torch.sin(across.clamp(0, 1) * 2.6 + 0.25))
    crease = _bump(above - height, 0.0, 0.0012) * within * style.crease
    hood = (above < height).float() * within * style.hood
    bag = _bump(below - style.bag_m * (0.5 + 0.5 * _bump(across, 0.42, 0.5)), 0.0, 0.0015)
    fold = _bump(below - 0.42 * style.bag_m, 0.0, 0.0012)
    lines = (bag + 0.5 * fold) * _ramp(across, -0.1, 0.15) * _ramp(across, 1.0, 0.6) * style.bag
    circle = _bump(below, 0.5 * style.bag_m, 0.006) * _ramp(across, 1.1, 0.5) * style.circle
    dark = 1.1 * crease + hood + 0.5 * lines + 0.6 * circle
    tint = torch.tensor([0.75, 1.0, 1.05])[:, None]
    skin = skin * (-dark * tint).exp()
    if style.shadow > 0:
        cover = style.shadow * _ramp(above, style.shadow_m * 1.3, style.shadow_m * 0.5) * within
        skin = torch.lerp(skin, torch.from_numpy(style.shadow_colour)[:, None], cover)
    rim = _bump(below, 0.0, 0.0012) * within * style.rim
    skin = skin * (rim * torch.tensor([0.25, 0.12, 0.10])[:, None]).exp()
    flat.index_copy_(1, tables.texels, skin)


def _paint_brows(texture: Tensor, window: Window, style: FeatureStyle, tile: Tensor) -> None:
    part, mask = window.cut(texture), window.mask
    free = 1 - mask.clamp(0, 1)
    both = torch.cat([part * free, free[None]])[None]
    for shape in ((_FILL_PX, 1), (1, _FILL_PX)):
        both = F.avg_pool2d(both, shape, 1, (shape[0] // 2, shape[1] // 2), count_include_pad=False)
    both = both[0]
    skin = both[:3] / both[3:].clamp_min(1e-3)
    grain = tile[: mask.shape[0], : mask.shape[1]]
    fade = (style.brow_fade + style.brow_ragged * (0.35 + 0.6 * grain).clamp(0, 1)).clamp(0, 0.95)
    part.copy_(torch.lerp(part, skin, mask * fade))


def paint_features(
    model: MorphableModel, texture: Tensor, style: FeatureStyle, rng: np.random.Generator
) -> None:
    """Paints lids, brows and lips into an albedo map, in place.

    Args:
        model: Face model.
        texture: [3, h, w] linear albedo of a person.
        style: What to paint.
        rng: Source of randomness.
    """
    tables = paint_tables(model, texture.shape[-1])
    lids = style.lids
    if len(tables.texels) and any((lids.crease, lids.hood, lids.shadow, lids.bag, lids.circle, lids.rim)):
        _paint_lids(texture, tables, style.lids)
    tile = noise_pool("curl")[int(rng.integers(8))]
    if tables.brows is not None and (style.brow_fade or style.brow_ragged):
        _paint_brows(texture, tables.brows, style, tile)
    if tables.lips is not None and style.lip_fade:
        part, mask = tables.lips.cut(texture), tables.lips.mask
        rim = (mask < 0.1).float()
        skin = (part * rim).sum(dim=(1, 2)) / rim.sum().clamp_min(1)
        part.copy_(torch.lerp(part, skin[:, None, None], 0.85 * style.lip_fade * mask))
