# SPDX-License-Identifier: Apache-2.0
"""The rasterizer's specification in plain torch: slow, any device, equal to the kernels to the last id.

Rules, in order:

1. A triangle takes part if its three corners are finite with |x|, |y| < 2^22 px and z >= `NEAR_M`, and its
area on
   the pixel grid is not zero. Its facing does not matter.
2. x and y are rounded to 1/256 px, half to even; everything about coverage is exact integer arithmetic from
here.
3. A pixel is covered if its centre (column + 0.5, row + 0.5) is inside, or on a top or left edge.
4. Nearness is w = 1/z, affine on the screen: w = (w_a + e_b * d_b) + e_c * d_c, in float32 without fused
operations,
   clamped at zero.
5. Among the triangles that cover a pixel the largest w wins, among equals the lowest id.
"""

from __future__ import annotations

import torch
from torch import Tensor

NEAR_M = 1e-3
MAX_COORD_PX = float(2**22)
SUBPIXEL = 256

_NO_KEY = torch.iinfo(torch.int64).max
_CANDIDATES_PER_CHUNK = 1 << 22


def prepare_corners(verts: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Rounds one image's vertices to the grid.

    Args:
        verts: [V, 3] float32 (x px, y px, z).

    Returns:
        [V, 2] int64 coordinates in 1/256 px, [V] float32 nearness 1/z, [V] bool usable.
    """
    xy, z = verts[:, :2], verts[:, 2]
    usable = (xy.abs() < MAX_COORD_PX).all(dim=1) & (z >= NEAR_M) & (z <= 3.0e38)
    grid = torch.where(usable[:, None], torch.round(xy * SUBPIXEL), 0.0).to(torch.int64)
    return grid, torch.where(usable, 1.0 / z, 0.0), usable


def _cross(a: Tensor, b: Tensor, p: Tensor) -> Tensor:
    """Edge function of a -> b at p, integers: twice the signed area of (a, b, p)."""
    return (b[..., 0] - a[..., 0]) * (p[..., 1] - a[..., 1]) - (b[..., 1] - a[..., 1]) * (
        p[..., 0] - a[..., 0]
    )


def _inside(a: Tensor, b: Tensor, edge: Tensor) -> Tensor:
    """Top-left rule for the edge a -> b of a triangle with positive area (y down)."""
    dx, dy = b[..., 0] - a[..., 0], b[..., 1] - a[..., 1]
    top_left = (dy < 0) | ((dy == 0) & (dx > 0))
    return (edge > 0) | ((edge == 0) & top_left)


def _candidate_boxes(grid: Tensor, triangles: Tensor, height: int, width: int) -> Tensor:
    """[T, 4] int64: first column and row, number of columns and rows of each triangle's pixel box."""
    corners = grid[triangles]
    low, high = corners.amin(dim=1), corners.amax(dim=1)
    half = SUBPIXEL // 2
    size = torch.tensor([width, height], device=grid.device)
    first = (low + half - 1).div(SUBPIXEL, rounding_mode="floor").clamp_min(0)
    last = torch.minimum((high - half).div(SUBPIXEL, rounding_mode="floor"), size - 1)
    return torch.cat([first, (last - first + 1).clamp_min(0)], dim=1)


def _keys(corners: Tensor, nearness: Tensor, pixel: Tensor, ids: Tensor) -> Tensor:
    """Sort key of candidates; smaller is nearer, and the lower id among equals.

    Args:
        corners: [N, 3, 2] int64 grid coordinates, positive area.
        nearness: [N, 3] float32.
        pixel: [N, 2] int64 grid coordinates of the pixel centre.
        ids: [N] int64 triangle ids.

    Returns:
        [N] int64; the largest int64 where the pixel is outside.
    """
    a, b, c = corners[:, 0], corners[:, 1], corners[:, 2]
    edge_a, edge_b, edge_c = _cross(b, c, pixel), _cross(c, a, pixel), _cross(a, b, pixel)
    inside = _inside(b, c, edge_a) & _inside(c, a, edge_b) & _inside(a, b, edge_c)
    inv_area = 1.0 / _cross(a, b, c).to(torch.float32)
    d_b = (nearness[:, 1] - nearness[:, 0]) * inv_area
    d_c = (nearness[:, 2] - nearness[:, 0]) * inv_area
    w = (nearness[:, 0] + edge_b.to(torch.float32) * d_b) + edge_c.to(torch.float32) * d_c
    w = torch.where(w > 0, w, torch.zeros_like(w))
    # The bits of a non-negative float sort like the float.
    farness = 0x7FFFFFFF - w.view(torch.int32).to(torch.int64)
    return torch.where(inside, (farness << 32) | ids, _NO_KEY)


def _rasterize_image(verts: Tensor, triangles: Tensor, height: int, width: int) -> Tensor:
    keys = torch.full((height * width,), _NO_KEY, dtype=torch.int64, device=verts.device)
    grid, nearness, usable = prepare_corners(verts)
    in_range = ((triangles >= 0) & (triangles < verts.shape[0])).all(dim=1)
    safe = torch.where(in_range[:, None], triangles, 0)
    corners = grid[safe]
    area = _cross(corners[:, 0], corners[:, 1], corners[:, 2])
    order = torch.where(area[:, None] < 0, safe[:, [0, 2, 1]], safe)
    box = _candidate_boxes(grid, safe, height, width)
    count = torch.where(in_range & usable[safe].all(dim=1) & (area != 0), box[:, 2] * box[:, 3], 0)
    ends = count.cumsum(0)
    start = 0
    while start < triangles.shape[0]:
        before = int(ends[start] - count[start])
        stop = max(int(torch.searchsorted(ends, before + _CANDIDATES_PER_CHUNK, right=True)), start + 1)
        ids = torch.repeat_interleave(torch.arange(start, stop, device=verts.device), count[start:stop])
        rank = torch.arange(ids.shape[0], device=verts.device) - (ends[ids] - count[ids] - before)
        column = box[ids, 0] + rank % box[ids, 2]
        row = box[ids, 1] + rank.div(box[ids, 2], rounding_mode="floor")
        pixel = torch.stack([column, row], dim=1) * SUBPIXEL + SUBPIXEL // 2
        key = _keys(grid[order[ids]], nearness[order[ids]], pixel, ids)
        keys.scatter_reduce_(0, row * width + column, key, reduce="amin")
        start = stop
    return torch.where(keys == _NO_KEY, -1, keys & 0xFFFFFFFF).to(torch.int32).reshape(height, width)


def rasterize(verts: Tensor, triangles: Tensor, height: int, width: int) -> Tensor:
    """Nearest triangle of every pixel.

    Args:
        verts: [B, V, 3] float32 (x px, y px, z).
        triangles: [T, 3] int64.
        height: Image height in pixels.
        width: Image width in pixels.

    Returns:
        [B, height, width] int32 triangle ids, -1 where there is none.
    """
    ids = torch.full((verts.shape[0], height, width), -1, dtype=torch.int32, device=verts.device)
    if triangles.shape[0] and height * width:
        for image in range(verts.shape[0]):
            ids[image] = _rasterize_image(verts[image], triangles, height, width)
    return ids
