# SPDX-License-Identifier: Apache-2.0
"""A z-buffered canvas onto which meshes with cut-out strands are drawn one after the other."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from hiface.render.kernels import canvas as kernels
from hiface.render.kernels.library import has_library
from hiface.render.rasterize import barycentrics, corner_indices, fragments, rasterize
from hiface.synthetic.filters import box_mean

FAR_M = 1e3


@dataclass(frozen=True)
class Front:
    """Fragments of a mesh in front of everything drawn before.

    Attributes:
        pixel: [P] int64 sub-pixels, ascending.
        triangle: [P] int64.
        place: [4, P] barycentrics and camera z, metres.
    """

    pixel: Tensor
    triangle: Tensor
    place: Tensor

    def chosen(self, index: Tensor) -> Front:
        """The fragments of some numbers [Q] int64."""
        place = self.place.index_select(1, index)
        return Front(self.pixel.index_select(0, index), self.triangle.index_select(0, index), place)


def front_plain(verts_cam: Tensor, triangles: Tensor, K: Tensor, depth: Tensor, size: int) -> Front | None:
    """What `hiface.render.kernels.canvas.front` does, in plain torch."""
    x, y, z = verts_cam.unbind(1)
    safe = torch.where(z.abs() > 1e-4, z, 1e-4)
    verts_px_z = torch.stack([K[0, 0] * x / safe + K[0, 2], K[1, 1] * y / safe + K[1, 2], z], dim=1)
    frags = fragments(rasterize(verts_px_z, triangles, size, size)[None])
    if frags.pixel.numel() == 0:
        return None
    bary = barycentrics(verts_px_z[None], corner_indices(triangles, frags, len(verts_px_z)), frags)
    front = (bary.z < depth.index_select(0, frags.pixel)).nonzero().reshape(-1)
    place = torch.stack([bary.a, bary.b, bary.c, bary.z])
    whole = Front(frags.pixel, frags.triangle, place)
    return whole.chosen(front) if front.numel() else None


def rows_plain(attributes: Tensor, corners: Tensor | None, triangles: Tensor, front: Front) -> Tensor:
    """What `hiface.render.kernels.canvas.rows_at` does, in plain torch."""
    weights = front.place[:3].T[:, :, None]
    rows = (attributes[triangles[front.triangle]] * weights).sum(dim=1)
    if corners is not None:
        rows = torch.cat([rows, (corners[front.triangle] * weights).sum(dim=1)], dim=1)
    return rows.T.contiguous()


def rows_at(attributes: Tensor, corners: Tensor | None, triangles: Tensor, front: Front) -> Tensor:
    """Values of vertices and of triangle corners at fragments.

    Args:
        attributes: [V, C].
        corners: [T, 3, D] or None.
        triangles: [T, 3] int64.
        front: The fragments.

    Returns:
        [C + D, P].
    """
    if has_library():
        return kernels.rows_at(attributes, corners, triangles, front.triangle, front.place)
    return rows_plain(attributes, corners, triangles, front)


def seen_plain(ids: Tensor, triangles: Tensor, n_verts: int) -> Tensor:
    """`seen_vertices` in plain torch."""
    drawn = torch.zeros(len(triangles), dtype=torch.bool)
    drawn[ids[ids >= 0].long()] = True
    seen = torch.zeros(n_verts, dtype=torch.bool)
    seen[triangles[drawn].reshape(-1)] = True
    return seen


def seen_vertices(ids: Tensor, triangles: Tensor, n_verts: int) -> Tensor:
    """Corners of the triangles that pixels see.

    Args:
        ids: Triangles, int32 or int64, any shape; negative for none.
        triangles: [T, 3] int64.
        n_verts: Number of vertices V.

    Returns:
        [V] bool.
    """
    if has_library():
        return kernels.seen_vertices(ids, triangles, n_verts)
    return seen_plain(ids, triangles, n_verts)


def neighbours_plain(seen: Tensor, triangles: Tensor) -> Tensor:
    """`with_neighbours` in plain torch."""
    out = seen.clone()
    out[triangles[seen[triangles].any(dim=1)].reshape(-1)] = True
    return out


def with_neighbours(seen: Tensor, triangles: Tensor) -> Tensor:
    """Vertices [V] bool and all that share a triangle [T, 3] with one of them, [V] bool."""
    return kernels.with_neighbours(seen, triangles) if has_library() else neighbours_plain(seen, triangles)


@dataclass(frozen=True)
class Drawn:
    """What one mesh shows in front of everything drawn before.

    Attributes:
        pixel: [P] int64 sub-pixels.
        triangle: [P] int64.
        z: [P] camera z, metres.
        rows: [C, P] the attributes that were asked for.
        size: Side of the canvas.
    """

    pixel: Tensor
    triangle: Tensor
    z: Tensor
    rows: Tensor
    size: int

    def centres(self) -> tuple[Tensor, Tensor]:
        """X and y of the sub-pixel centres, each [P]."""
        row = self.pixel // self.size
        return (self.pixel - row * self.size).float() + 0.5, row.float() + 0.5


class Canvas:
    """Linear colour, depth and label of every sub-pixel of one picture.

    Attributes:
        size: Side of the canvas in sub-pixels.
        colour: [3, size * size] linear.
        depth: [size * size] camera z in metres, `FAR_M` where nothing was drawn.
        label: [size * size] uint8.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.colour = torch.zeros(3, size * size)
        self.depth = torch.full((size * size,), FAR_M)
        self.label = torch.zeros(size * size, dtype=torch.uint8)

    def front(self, verts_cam: Tensor, triangles: Tensor, K: Tensor) -> Front | None:
        """Finds the fragments of a mesh in front of what is drawn already.

        Args:
            verts_cam: [V, 3] metres, camera space.
            triangles: [T, 3] int64.
            K: [3, 3] intrinsics in sub-pixels.

        Returns:
            Fragments, or None if nothing is in the picture.
        """
        if not has_library():
            return front_plain(verts_cam, triangles, K, self.depth, self.size)
        found = kernels.front(verts_cam, triangles, K, self.depth, self.size)
        return None if found is None else Front(*found)

    def trace(
        self,
        verts_cam: Tensor,
        triangles: Tensor,
        K: Tensor,
        attributes: Tensor,
        corners: Tensor | None = None,
    ) -> Drawn | None:
        """Finds the fragments of a mesh in front of what is drawn already, and what its vertices say there.

        Args:
            verts_cam: [V, 3] metres, camera space.
            triangles: [T, 3] int64.
            K: [3, 3] intrinsics in sub-pixels.
            attributes: [V, C].
            corners: [T, 3, D] values of the triangle corners, or None.

        Returns:
            Fragments with C + D rows, or None if nothing is in the picture.
        """
        front = self.front(verts_cam, triangles, K)
        if front is None:
            return None
        rows = rows_at(attributes, corners, triangles, front)
        return Drawn(front.pixel, front.triangle, front.place[3], rows, self.size)

    def put(self, drawn: Drawn, colour: Tensor, label: int | Tensor, keep: Tensor | None = None) -> None:
        """Writes fragments.

        Args:
            drawn: From `trace`.
            colour: [3, P] linear.
            label: Number or [P] uint8.
            keep: [P] bool, False for cut-out fragments.
        """
        if has_library():
            target, place = (self.colour, self.depth, self.label), (drawn.pixel, drawn.z)
            kernels.put(target, place, colour, label, keep)
        else:
            self.put_plain(drawn, colour, label, keep)

    def put_plain(
        self, drawn: Drawn, colour: Tensor, label: int | Tensor, keep: Tensor | None = None
    ) -> None:
        """`put` in plain torch."""
        pixel, z = drawn.pixel, drawn.z
        if keep is not None:
            chosen = keep.nonzero().reshape(-1)
            pixel, z, colour = pixel[chosen], z[chosen], colour.index_select(1, chosen)
            if isinstance(label, Tensor):
                label = label[chosen]
        self.colour.index_copy_(1, pixel, colour)
        self.depth.index_copy_(0, pixel, z)
        if isinstance(label, Tensor):
            self.label.index_copy_(0, pixel, label)
        else:
            self.label.index_fill_(0, pixel, label)

    def blend(self, drawn: Drawn, colour: Tensor, opacity: Tensor, label: int | None = None) -> None:
        """Mixes translucent fragments over something drawn; depth stays.

        Args:
            drawn: From `trace`.
            colour: [3, P] linear.
            opacity: [P] 0..1.
            label: New label, or None to keep the old one.
        """
        chosen = (self.depth.index_select(0, drawn.pixel) < FAR_M).nonzero().reshape(-1)
        pixel = drawn.pixel.index_select(0, chosen)
        mixed = torch.lerp(
            self.colour.index_select(1, pixel),
            colour.index_select(1, chosen),
            opacity.index_select(0, chosen)[None],
        )
        self.colour.index_copy_(1, pixel, mixed)
        if label is not None:
            self.label.index_fill_(0, pixel, label)

    def contact_shadow(self, mask: Tensor, strength: float, radius: int) -> None:
        """Darkens what lies next to a mask, as light is kept away where two things touch.

        Args:
            mask: [size * size] bool, the things that throw the shadow.
            strength: 0..1.
            radius: Reach in sub-pixels.
        """
        if not bool(mask.any()):
            return
        side = self.size // 4
        if self.size % 4 == 0:
            small = mask.reshape(side, 4, side, 4)[:, 1::2, :, 1::2].float().mean(dim=(1, 3))[None]
        else:
            whole = mask.float().reshape(1, 1, self.size, self.size)
            small = F.interpolate(whole, size=(side, side), mode="area")[0]
        width = 2 * max(1, radius // 4) + 1
        for _ in range(2):
            small = box_mean(small, width)
        factor = (1.0 - strength * small)[None]
        factor = F.interpolate(factor, size=(self.size, self.size), mode="bilinear", align_corners=False)
        self.colour *= factor.reshape(-1).masked_fill_(mask, 1.0)

    def resolve(self, factor: int) -> tuple[Tensor, Tensor, Tensor]:
        """Averages sub-pixels.

        Args:
            factor: Sub-pixels per pixel along one side.

        Returns:
            Premultiplied linear colour [3, S, S], coverage [S, S] in 0..1 and label [S, S] uint8.
        """
        label = self.label.reshape(self.size, self.size)[factor // 2 :: factor, factor // 2 :: factor]
        if factor == 2 and has_library():
            mean = kernels.resolve(self.colour, self.depth, FAR_M, self.size // 2)
        else:
            mean = self.mean_plain(factor)
        return mean[:3], mean[3], label.contiguous()

    def mean_plain(self, factor: int) -> Tensor:
        """[4, S, S] premultiplied colour and coverage, averaged in plain torch."""
        covered = (self.depth < FAR_M).float()
        both = torch.cat([self.colour * covered, covered[None]]).reshape(1, 4, self.size, self.size)
        if factor == 2:
            rows = both[0, :, 0::2] + both[0, :, 1::2]
            return (rows[..., 0::2] + rows[..., 1::2]) * 0.25
        return F.avg_pool2d(both, factor)[0] if factor > 1 else both[0]
