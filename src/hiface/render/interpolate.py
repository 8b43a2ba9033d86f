# SPDX-License-Identifier: Apache-2.0
"""Vertex and corner attributes at the fragments, and fragments back into images."""

from __future__ import annotations

import torch
from torch import Tensor

from hiface.errors import ShapeError
from hiface.render.kernels import fused
from hiface.render.rasterize import Barycentrics, Fragments, barycentrics, corner_indices, gather_row


def interpolate(row: Tensor, corners: tuple[Tensor, Tensor, Tensor], bary: Barycentrics) -> Tensor:
    """One component of a vertex attribute at the fragments.

    Args:
        row: [B * V] values at the vertices; one contiguous row per component is several times faster than [V,
            C].
        corners: From `corner_indices`.
        bary: From `barycentrics`.

    Returns:
        [P]; differentiable to `row` and to the barycentrics.
    """
    at_a, at_b, at_c = (gather_row(row, k) for k in corners)
    return at_a * bary.a + at_b * bary.b + at_c * bary.c


def interpolate_plain(
    verts_px_z: Tensor, attributes: Tensor, corner_values: Tensor, triangles: Tensor, frags: Fragments
) -> Tensor:
    """`interpolate_surface` in plain torch: any device and dtype, differentiable any number of times."""
    corners = corner_indices(triangles, frags, verts_px_z.shape[1])
    bary = barycentrics(verts_px_z, corners, frags)
    vertex_rows = attributes.permute(2, 0, 1).flatten(1).unbind(0)
    rows = [bary.z, *(interpolate(row, corners, bary) for row in vertex_rows)]
    for table in corner_values.permute(2, 1, 0).contiguous().unbind(0):
        at_a, at_b, at_c = (row.index_select(0, frags.triangle) for row in table.unbind(0))
        rows.append(at_a * bary.a + at_b * bary.b + at_c * bary.c)
    return torch.stack(rows)


def interpolate_surface(
    verts_px_z: Tensor, attributes: Tensor, corner_values: Tensor, triangles: Tensor, frags: Fragments
) -> Tensor:
    """Depth and attributes at the fragments, perspective-correct.

    Runs as one compiled kernel for float32 on the CPU (differentiable once), in plain torch otherwise.

    Args:
        verts_px_z: [B, V, 3] as given to `rasterize`.
        attributes: [B, V, C] values at the vertices.
        corner_values: [T, 3, D] values that every triangle corner has for itself, such as UV; constant.
        triangles: [T, 3] int64.
        frags: From `fragments`.

    Returns:
        [1 + C + D, P]: depth in the unit of z, attributes, corner values. Differentiable to `verts_px_z` and
        `attributes`.

    Raises:
        ShapeError: Shapes do not fit together.
    """
    if attributes.shape[:2] != verts_px_z.shape[:2] or corner_values.shape[:2] != triangles.shape:
        raise ShapeError(
            "expected verts [B, V, 3], attributes [B, V, C], corner values [T, 3, D], triangles [T, 3]; got "
            f"{[tuple(t.shape) for t in (verts_px_z, attributes, corner_values, triangles)]}"
        )
    triangles = triangles.to(torch.int64)
    if frags.covered is None and fused.is_available(verts_px_z, attributes, corner_values):
        inputs = (verts_px_z, attributes, corner_values, triangles, frags.triangle_id, frags.pixel)
        return fused.Interpolate.apply(frags.counts, *inputs)  # pyright: ignore[reportReturnType]
    return interpolate_plain(verts_px_z, attributes, corner_values, triangles, frags)


def to_images_plain(rows: Tensor, frags: Fragments, canvas: Tensor) -> Tensor:
    """`to_images` in plain torch: any device and dtype, differentiable any number of times."""
    n_images, height, width = frags.triangle_id.shape
    channels, n_pixels = rows.shape[0], height * width
    if frags.covered is not None:
        stacked = rows.reshape(channels, n_images, height, width).transpose(0, 1)
        return torch.where(frags.covered.reshape(n_images, 1, height, width), stacked, canvas)
    first = frags.pixel + frags.image * ((channels - 1) * n_pixels)
    index = torch.cat([first + channel * n_pixels for channel in range(channels)])
    return canvas.reshape(-1).index_copy(0, index, rows.reshape(-1)).reshape(canvas.shape)


def to_images(rows: Tensor, frags: Fragments, background: Tensor | None = None) -> Tensor:
    """Writes fragments into images.

    Args:
        rows: [C, P] one row per channel.
        frags: From `fragments`.
        background: [B, C, H, W], shown where no triangle is; zero if None.

    Returns:
        [B, C, H, W]; differentiable to `rows` and `background`.
    """
    n_images, height, width = frags.triangle_id.shape
    shape = (n_images, rows.shape[0], height, width)
    if background is None:
        canvas = rows.new_zeros(shape)
    else:
        canvas = background.to(rows.dtype).expand(shape).clone(memory_format=torch.contiguous_format)
    if frags.covered is None and fused.is_available(rows):
        return fused.ToImages.apply(rows, canvas, frags.pixel, frags.counts)  # pyright: ignore[reportReturnType]
    return to_images_plain(rows, frags, canvas)
