# SPDX-License-Identifier: Apache-2.0
"""Which triangle each pixel sees (discrete), and where on that triangle (differentiable)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from hiface.errors import ShapeError
from hiface.render.kernels.dispatch import rasterize_op
from hiface.render.kernels.fused import list_fragments
from hiface.render.kernels.library import has_library


def rasterize(verts_px_z: Tensor, triangles: Tensor, height: int, width: int) -> Tensor:
    """Nearest triangle of every pixel.

    Not differentiable; the place on the triangle is (`barycentrics`), and so are silhouettes (`antialias`).
    Coordinates are rounded to float32 and to 1/256 px, so a float64 mesh gives the ids of its float32 copy.

    Args:
        verts_px_z: [*B, V, 3]: x and y in pixels (the centre of the top-left pixel is (0.5, 0.5)) and z, the
            depth in front of the camera in metres. 1/z must be affine on the screen, as it is for
            perspective; for an orthographic view pass 1 / (far - depth). Triangles with a corner that is not
            finite, further than 2^22 px away or nearer than 1 mm are not drawn. Both sides of a triangle are
            drawn.
        triangles: [T, 3] int64.
        height: Image height in pixels.
        width: Image width in pixels.

    Returns:
        [*B, height, width] int32 triangle ids, -1 where there is none. Among triangles at exactly the same
        depth the lowest id wins. CPU, CUDA and reference kernels give identical ids.

    Raises:
        ShapeError: A shape is wrong or the size is not positive.
    """
    if verts_px_z.dim() < 2 or verts_px_z.shape[-1] != 3:
        raise ShapeError(f"verts_px_z must be [*B, V, 3], got {tuple(verts_px_z.shape)}")
    if triangles.dim() != 2 or triangles.shape[1] != 3:
        raise ShapeError(f"triangles must be [T, 3], got {tuple(triangles.shape)}")
    if height < 1 or width < 1:
        raise ShapeError(f"the image must have at least one pixel, got height {height} and width {width}")
    batch = verts_px_z.shape[:-2]
    verts = verts_px_z.detach().reshape(-1, *verts_px_z.shape[-2:]).to(torch.float32)
    ids = rasterize_op(verts, triangles.to(torch.int64), height, width)
    return ids.reshape(*batch, height, width)


@dataclass(frozen=True)
class Fragments:
    """The pixels of a batch that see a triangle, one column each (P of them, image after image).

    On a GPU every pixel is a fragment (so that nothing waits for a count); empty ones see triangle 0 and are
    masked when they are written back.

    Attributes:
        triangle_id: [B, H, W] int32, from `rasterize`.
        pixel: [P] int64 ascending indices into the flattened [B, H, W].
        counts: Number of fragments of each image; sums to P.
        covered: [P] bool, or None if all fragments are covered.
    """

    triangle_id: Tensor
    pixel: Tensor
    counts: tuple[int, ...]
    covered: Tensor | None

    @cached_property
    def image(self) -> Tensor:
        """[P] int64 index of each fragment's image."""
        counts = torch.tensor(self.counts, device=self.pixel.device)
        return torch.repeat_interleave(
            torch.arange(len(self.counts), device=self.pixel.device), counts, output_size=self.pixel.shape[0]
        )

    @cached_property
    def triangle(self) -> Tensor:
        """[P] int64 triangle id, never negative."""
        return self.triangle_id.reshape(-1).index_select(0, self.pixel).clamp_min(0).to(torch.int64)

    def centres_px(self, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """X and y of the pixel centres, each [P]."""
        height, width = self.triangle_id.shape[1:]
        column = torch.arange(width, device=self.pixel.device, dtype=dtype) + 0.5
        row = torch.arange(height, device=self.pixel.device, dtype=dtype) + 0.5
        in_image = self.pixel - self.image * (height * width)
        x_px = column.repeat(height).index_select(0, in_image)
        return x_px, row.repeat_interleave(width).index_select(0, in_image)


def fragments(triangle_id: Tensor) -> Fragments:
    """Lists the pixels to shade.

    Args:
        triangle_id: [B, H, W] int32 from `rasterize`, one batch dimension.

    Returns:
        Fragments on the device of `triangle_id`.
    """
    n_images, height, width = triangle_id.shape
    if triangle_id.device.type != "cpu":
        flat = triangle_id.reshape(-1)
        pixel = torch.arange(flat.shape[0], device=flat.device)
        return Fragments(triangle_id, pixel, (height * width,) * n_images, flat >= 0)
    if has_library():
        pixel, counts = list_fragments(triangle_id.contiguous())
        return Fragments(triangle_id, pixel, counts, None)
    mask = triangle_id.reshape(n_images, -1) >= 0
    counts = tuple(mask.sum(dim=1).tolist())
    return Fragments(triangle_id, mask.reshape(-1).nonzero().reshape(-1), counts, None)


def corner_indices(triangles: Tensor, frags: Fragments, n_verts: int) -> tuple[Tensor, Tensor, Tensor]:
    """Vertices of each fragment's triangle: three [P] int64 indices into the flattened [B, V]."""
    offset = frags.image * n_verts
    a, b, c = triangles.t().contiguous().unbind(0)
    corners = [k.index_select(0, frags.triangle).add_(offset) for k in (a, b, c)]
    return corners[0], corners[1], corners[2]


class _Gather(torch.autograd.Function):
    """`row[index]`, going back with scatter_add: on a CPU faster than the index_add torch would use."""

    @staticmethod
    def forward(ctx: Any, row: Tensor, index: Tensor) -> Tensor:
        ctx.save_for_backward(index)
        ctx.n_rows = row.shape[0]
        return row.index_select(0, index)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Any) -> Any:
        (index,) = ctx.saved_tensors
        return grad_outputs[0].new_zeros(ctx.n_rows).scatter_add(0, index, grad_outputs[0]), None


def gather_row(row: Tensor, index: Tensor) -> Tensor:
    """`row[index]` for a 1-D row: [N] and [P] int64 to [P], differentiable to `row` any number of times."""
    return _Gather.apply(row, index)  # pyright: ignore[reportReturnType]


@dataclass(frozen=True)
class Barycentrics:
    """Perspective-correct place of each fragment on its triangle.

    Attributes:
        a: [P] weight of the first corner.
        b: [P] weight of the second corner.
        c: [P] weight of the third corner; the three sum to 1 and may be slightly negative at edges, because
            ids are decided on rounded coordinates. They are not clamped, which would stop gradients.
        z: [P] depth of the surface, in the unit of the vertices.
    """

    a: Tensor
    b: Tensor
    c: Tensor
    z: Tensor


def barycentrics(
    verts_px_z: Tensor, corners: tuple[Tensor, Tensor, Tensor], frags: Fragments
) -> Barycentrics:
    """Recomputes the barycentric coordinates of each fragment; differentiable to the vertices.

    With e_i the screen-space area opposite corner i and w_i = 1/z_i, the perspective-correct weights are
    e_i w_i / sum(e w), and the depth is sum(e) / sum(e w).

    Args:
        verts_px_z: [B, V, 3] as given to `rasterize`.
        corners: From `corner_indices`.
        frags: From `fragments`.

    Returns:
        Barycentrics of the P fragments.
    """
    x, y, z = verts_px_z.permute(2, 0, 1).reshape(3, -1).unbind(0)
    w = z.reciprocal()
    x_px, y_px = frags.centres_px(z.dtype)
    xa, xb, xc = (gather_row(x, k) - x_px for k in corners)
    ya, yb, yc = (gather_row(y, k) - y_px for k in corners)
    wa, wb, wc = (gather_row(w, k) for k in corners)
    ea, eb, ec = xb * yc - xc * yb, xc * ya - xa * yc, xa * yb - xb * ya
    ua, ub, uc = ea * wa, eb * wb, ec * wc
    total = ua + ub + uc
    if frags.covered is not None:
        total = torch.where(frags.covered, total, 1.0)
    scale = total.reciprocal()
    return Barycentrics(ua * scale, ub * scale, uc * scale, (ea + eb + ec) * scale)
