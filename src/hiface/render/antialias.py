# SPDX-License-Identifier: Apache-2.0
"""Silhouettes that have a gradient: an edge splat along the outlines of a rasterized mesh.

A pixel's centre sees one triangle or another, so moving a silhouette changes nothing until it jumps over a
centre. Here each silhouette edge is cut with the rows and columns of pixel centres. A cut between two
neighbouring pixels, at distance s (0..1 px) from the centre of the nearer surface's pixel, blends the pixel
it lies in towards the other by |0.5 - s| n^2, where n is the component of the edge's normal along the pair.
An edge of normal (nx, ny) cuts |nx| rows and |ny| columns per unit of length, each cut moving by 1/n of the
edge's motion, so the covered area changes by (nx^2 + ny^2) = 1 times the edge's motion: area has the right
derivative.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from hiface.errors import ShapeError
from hiface.geometry.constants import cached_per_tensor
from hiface.render.kernels import fused, outline
from hiface.render.kernels.reference import MAX_COORD_PX

# A neighbour is behind, and not the same surface seen obliquely, if its 1/z is smaller by this fraction.
DEPTH_GAP = 5e-4


@dataclass(frozen=True)
class MeshEdges:
    """Edges of a mesh and the triangles on their two sides.

    Attributes:
        vertices: [2, E] int64 end points.
        sides: [2, E] int64 triangles; the second is T (one past the last) for an edge that has not exactly
            two.
    """

    vertices: Tensor
    sides: Tensor


@cached_per_tensor
def mesh_edges(triangles: Tensor) -> MeshEdges:
    """Lists the edges of a mesh once each.

    Args:
        triangles: [T, 3] int64.

    Returns:
        MeshEdges on the same device.
    """
    n_triangles = triangles.shape[0]
    triangles = triangles.to(torch.int64)
    ends = torch.cat([triangles[:, [0, 1]], triangles[:, [1, 2]], triangles[:, [2, 0]]]).sort(dim=1).values
    owner = torch.arange(n_triangles, device=triangles.device).repeat(3)
    unique, inverse, count = torch.unique(ends, dim=0, return_inverse=True, return_counts=True)
    order = torch.argsort(inverse, stable=True)
    first = count.cumsum(0) - count
    side_a = owner[order[first]]
    side_b = owner[order[(first + 1).clamp_max(order.shape[0] - 1)]]
    side_b = torch.where(count == 2, side_b, n_triangles)
    return MeshEdges(unique.t().contiguous(), torch.stack([side_a, side_b]))


@dataclass(frozen=True)
class Links:
    """Pairs of neighbouring pixels that an outline runs between.

    Attributes:
        target: [M] int64 pixel to change, index into the flattened [B, H, W].
        source: [M] int64 pixel whose colour is mixed in.
        weight: [M] share of the source, 0..0.5; differentiable to the vertices.
    """

    target: Tensor
    source: Tensor
    weight: Tensor


@dataclass(frozen=True)
class Cuts:
    """Cuts of edges with lines through pixel centres; one axis is "along" the lines, one "across".

    Attributes:
        start: [M] int64 vertex, index into the flattened [B, V].
        end: [M] int64 likewise.
        line: [M] coordinate of the line across, pixels.
        horizontal: [M] bool, the line is a row: along is x.
        before: [M] int64 pixel whose centre comes before the cut, index into the flattened [B, H, W].
        after: [M] int64 the next pixel on the line.
        before_px: [M] coordinate of the centre of `before` along the line, pixels.
    """

    start: Tensor
    end: Tensor
    line: Tensor
    horizontal: Tensor
    before: Tensor
    after: Tensor
    before_px: Tensor


def _silhouette_edges(x: Tensor, y: Tensor, w: Tensor, triangles: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Edges between front and back sides, and borders: [S] image, start and end vertex in flat [B * V]."""
    edges = mesh_edges(triangles)
    n_images, n_verts = x.shape
    a, b, c = triangles.t().contiguous().unbind(0)
    xa, ya = x.index_select(1, a), y.index_select(1, a)
    area = (x.index_select(1, b) - xa) * (y.index_select(1, c) - ya)
    area = area - (y.index_select(1, b) - ya) * (x.index_select(1, c) - xa)
    # 0 or 1 for the two sides, 2 for the missing one, so that borders always differ.
    side = torch.full((n_images, triangles.shape[0] + 1), 2, dtype=torch.int8, device=x.device)
    side[:, :-1] = area > 0
    differs = side.index_select(1, edges.sides[0]) != side.index_select(1, edges.sides[1])
    image, edge = differs.nonzero().unbind(1)
    start, end = (v.index_select(0, edge) + image * n_verts for v in edges.vertices)
    usable = ((w > 0) & (x.abs() < MAX_COORD_PX) & (y.abs() < MAX_COORD_PX)).reshape(-1)
    drawn = (usable.index_select(0, start) & usable.index_select(0, end)).nonzero().reshape(-1)
    return image.index_select(0, drawn), start.index_select(0, drawn), end.index_select(0, drawn)


def _all_cuts(
    x: Tensor, y: Tensor, silhouette: tuple[Tensor, Tensor, Tensor], height: int, width: int
) -> Cuts:
    """All cuts that lie between two pixels of the image."""
    image, start, end = silhouette
    parts = []
    for horizontal in (True, False):
        lines, steps = (height, width) if horizontal else (width, height)
        rows = (x.reshape(-1), y.reshape(-1)) if horizontal else (y.reshape(-1), x.reshape(-1))
        along_start, across_start = (row.index_select(0, start) for row in rows)
        along_end, across_end = (row.index_select(0, end) for row in rows)
        first = torch.ceil(torch.minimum(across_start, across_end) - 0.5).clamp_(0, lines)
        stop = torch.ceil(torch.maximum(across_start, across_end) - 0.5).clamp_(0, lines)
        count = (stop - first).to(torch.int64)
        which = torch.repeat_interleave(torch.arange(count.shape[0], device=x.device), count)
        begin = (first.to(torch.int64) - (count.cumsum(0) - count)).index_select(0, which)
        line = (begin + torch.arange(which.shape[0], device=x.device)).to(x.dtype)
        slope = (along_end - along_start) / (across_end - across_start)
        intercept = along_start - slope * (across_start - 0.5) - 0.5
        before = torch.floor(intercept.index_select(0, which) + slope.index_select(0, which) * line)
        keep = ((before >= 0) & (before < steps - 1)).nonzero().reshape(-1)
        which, line, before = (value.index_select(0, keep) for value in (which, line, before))
        row, column = (line, before) if horizontal else (before, line)
        pixel = (row * width + column).to(torch.int64) + image.index_select(0, which) * (height * width)
        flags = torch.full(which.shape, horizontal, device=x.device)
        ends = (start.index_select(0, which), end.index_select(0, which))
        parts.append((*ends, line + 0.5, flags, pixel, pixel + (1 if horizontal else width), before + 0.5))
    return Cuts(*(torch.cat(pair) for pair in zip(*parts, strict=True)))


def _measure(cuts: Cuts, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Distance behind the centre of `before`, share of the edge and n^2 of each cut; differentiable."""
    xs, xe, ys, ye = (c.index_select(0, v) for c in (x, y) for v in (cuts.start, cuts.end))
    along_start, along_end = torch.where(cuts.horizontal, xs, ys), torch.where(cuts.horizontal, xe, ye)
    across_start, across_end = torch.where(cuts.horizontal, ys, xs), torch.where(cuts.horizontal, ye, xe)
    d_along, d_across = along_end - along_start, across_end - across_start
    share = (cuts.line - across_start) / d_across
    distance = along_start + share * d_along - cuts.before_px
    normal_sq = d_across.square() / (d_across.square() + d_along.square())
    return distance, share, normal_sq


def _select(cuts: Cuts, index: Tensor) -> Cuts:
    return Cuts(*(getattr(cuts, name).index_select(0, index) for name in Cuts.__dataclass_fields__))


def _visible_cuts(cuts: Cuts, x: Tensor, y: Tensor, w: Tensor, nearness: Tensor) -> tuple[Cuts, Tensor]:
    """Outermost cut of each pixel pair at a visible gap, and whether the nearer pixel comes before it."""
    distance, share, _ = _measure(cuts, x, y)
    w_start = w.index_select(0, cuts.start)
    w_cut = w_start + share * (w.index_select(0, cuts.end) - w_start)
    w_before, w_after = nearness.index_select(0, cuts.before), nearness.index_select(0, cuts.after)
    inside_before = w_before > w_after
    w_far, w_near = torch.minimum(w_before, w_after), torch.maximum(w_before, w_after)
    limit = w_far * (1 + DEPTH_GAP)
    keep = ((w_near > limit) & (w_cut > limit)).nonzero().reshape(-1)
    inside_before, distance = inside_before.index_select(0, keep), distance.index_select(0, keep)
    cuts = _select(cuts, keep)
    outward = torch.where(inside_before, distance, 1 - distance).to(torch.float64)
    pair = cuts.before * 2 + cuts.horizontal
    order = torch.argsort(pair.to(torch.float64) * 2 + outward)
    pair = pair[order]
    last = torch.ones_like(pair, dtype=torch.bool)
    last[:-1] = pair[1:] != pair[:-1]
    keep = order[last]
    return _select(cuts, keep), inside_before.index_select(0, keep)


def find_cuts_plain(
    rows: tuple[Tensor, Tensor, Tensor], nearness: Tensor, triangles: Tensor
) -> tuple[Cuts, Tensor]:
    """`find_cuts` in plain torch, for any device and dtype."""
    height, width = nearness.shape[1:]
    silhouette = _silhouette_edges(*rows, triangles)
    cuts = _all_cuts(rows[0], rows[1], silhouette, height, width)
    x, y, w = (row.reshape(-1) for row in rows)
    return _visible_cuts(cuts, x, y, w, nearness.reshape(-1))


@torch.no_grad()
def find_cuts(
    rows: tuple[Tensor, Tensor, Tensor], nearness: Tensor, triangles: Tensor
) -> tuple[Cuts, Tensor]:
    """Visible cuts of silhouette edges, the outermost one of each pair of neighbouring pixels.

    Args:
        rows: x px, y px and 1/z of the vertices, each [B, V].
        nearness: [B, H, W] 1/z of the visible surface, 0 where there is none.
        triangles: [T, 3] int64.

    Returns:
        M cuts in no particular order, and [M] bool whether the nearer pixel comes before the cut.
    """
    if not fused.is_available(*rows, nearness):
        return find_cuts_plain(rows, nearness, triangles)
    edges = mesh_edges(triangles)
    tables = (triangles.to(torch.int64), edges.vertices, edges.sides)
    links, places, flags = outline.find_cuts(rows, nearness, tables, 1 + DEPTH_GAP)
    start, end, before, after = links.unbind(0)
    line, before_px = places.unbind(0)
    horizontal, inside_before = flags.unbind(0)
    return Cuts(start, end, line, horizontal, before, after, before_px), inside_before


def silhouette_links(rows: tuple[Tensor, Tensor, Tensor], nearness: Tensor, triangles: Tensor) -> Links:
    """Finds the pixel pairs that outlines run between, and how much each pair is blended.

    Args:
        rows: x px, y px and 1/z of the vertices, each [B, V]; x and y may require gradients.
        nearness: [B, H, W] 1/z of the visible surface, 0 where there is none.
        triangles: [T, 3] int64.

    Returns:
        Links; the weights are differentiable to x and y.
    """
    x, y = (row.reshape(-1) for row in rows[:2])
    cuts, inside_before = find_cuts(rows, nearness, triangles)
    distance, _, normal_sq = _measure(cuts, x, y)
    outward = torch.where(inside_before, distance, 1 - distance)
    signed = (0.5 - outward) * normal_sq
    target_before = (signed >= 0) == inside_before
    target = torch.where(target_before, cuts.before, cuts.after)
    source = torch.where(target_before, cuts.after, cuts.before)
    return Links(target, source, signed.abs())


class _Blend(torch.autograd.Function):
    """Mixes entries of a flat image: out[target] += weight (image[source] - image[target]).

    Going back through plain indexing would make two zero images and add them up; this adds to one copy.
    """

    @staticmethod
    def forward(ctx: Any, image: Tensor, weight: Tensor, target: Tensor, source: Tensor) -> Tensor:
        ctx.save_for_backward(image, weight, target, source)
        change = (image.index_select(0, source) - image.index_select(0, target)) * weight
        return image.index_add(0, target, change)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Any) -> Any:
        image, weight, target, source = ctx.saved_tensors
        (grad,) = grad_outputs
        at_target = grad.index_select(0, target)
        moved = at_target * weight
        grad_image = grad.index_add(0, torch.cat([source, target]), torch.cat([moved, -moved]))
        change = image.index_select(0, source) - image.index_select(0, target)
        return grad_image, at_target * change, None, None


def blend(image: Tensor, links: Links) -> Tensor:
    """Mixes linked pixels.

    Args:
        image: [B, C, H, W].
        links: From `silhouette_links`.

    Returns:
        [B, C, H, W]; differentiable to `image` and to the weights.
    """
    channels, n_pixels = image.shape[1], image.shape[2] * image.shape[3]
    shift = (links.target // n_pixels) * ((channels - 1) * n_pixels)
    steps = [shift + channel * n_pixels for channel in range(channels)]
    target = torch.cat([links.target + step for step in steps])
    source = torch.cat([links.source + step for step in steps])
    flat: Tensor = _Blend.apply(image.reshape(-1), links.weight.repeat(channels), target, source)  # pyright: ignore
    return flat.reshape(image.shape)


def antialias(image: Tensor, depth: Tensor, verts_px_z: Tensor, triangles: Tensor) -> Tensor:
    """Blends pixels along silhouettes, so that outlines are smooth and have a gradient.

    Args:
        image: [*B, C, H, W] rendered at pixel centres (colour, mask or any other channels).
        depth: [*B, 1, H, W] z of the visible surface, 0 where there is none.
        verts_px_z: [*B, V, 3] as given to `rasterize`.
        triangles: [T, 3] int64; pass the same tensor object every time, its edges are remembered.

    Returns:
        [*B, C, H, W]; differentiable to `image` and to x and y of `verts_px_z`.

    Raises:
        ShapeError: Shapes do not fit together.
    """
    if depth.shape[-2:] != image.shape[-2:] or depth.shape[-3] != 1 or verts_px_z.shape[-1] != 3:
        raise ShapeError(
            "expected image [*B, C, H, W], depth [*B, 1, H, W] and verts [*B, V, 3], "
            f"got {tuple(image.shape)}, {tuple(depth.shape)} and {tuple(verts_px_z.shape)}"
        )
    x, y, z = verts_px_z.reshape(-1, *verts_px_z.shape[-2:]).unbind(-1)
    w = torch.where(z > 0, 1 / z, 0.0).detach()
    flat_depth = depth.detach().reshape(-1, *depth.shape[-2:])
    nearness = torch.where(flat_depth > 0, 1 / flat_depth, 0.0)
    links = silhouette_links((x.contiguous(), y.contiguous(), w), nearness, triangles)
    return blend(image.reshape(-1, *image.shape[-3:]), links).reshape(image.shape)
