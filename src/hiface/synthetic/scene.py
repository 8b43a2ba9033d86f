# SPDX-License-Identifier: Apache-2.0
"""A z-buffered canvas onto which meshes with cut-out strands are drawn one after the other."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from hiface.render.interpolate import interpolate_surface
from hiface.render.rasterize import fragments, rasterize

FAR_M = 1e3


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
        x, y, z = verts_cam.unbind(1)
        safe = torch.where(z.abs() > 1e-4, z, torch.full_like(z, 1e-4))
        verts_px_z = torch.stack([K[0, 0] * x / safe + K[0, 2], K[1, 1] * y / safe + K[1, 2], z], dim=1)
        ids = rasterize(verts_px_z, triangles, self.size, self.size)
        frags = fragments(ids[None])
        if frags.pixel.numel() == 0:
            return None
        if corners is None:
            corners = attributes.new_zeros(len(triangles), 3, 0)
        out = interpolate_surface(verts_px_z[None], attributes[None], corners, triangles, frags)
        front = (out[0] < self.depth.index_select(0, frags.pixel)).nonzero().reshape(-1)
        if front.numel() == 0:
            return None
        triangle = ids.reshape(-1).index_select(0, frags.pixel).long()
        if front.numel() == frags.pixel.numel():
            return Drawn(frags.pixel, triangle, out[0], out[1:], self.size)
        pixel, triangle = frags.pixel.index_select(0, front), triangle.index_select(0, front)
        out = out.index_select(1, front)
        return Drawn(pixel, triangle, out[0], out[1:], self.size)

    def put(self, drawn: Drawn, colour: Tensor, label: int | Tensor, keep: Tensor | None = None) -> None:
        """Writes fragments.

        Args:
            drawn: From `trace`.
            colour: [3, P] linear.
            label: Number or [P] uint8.
            keep: [P] bool, False for cut-out fragments.
        """
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
        side = self.size // 4
        if self.size % 4 == 0:
            small = mask.reshape(side, 4, side, 4)[:, 1::2, :, 1::2].float().mean(dim=(1, 3))[None, None]
        else:
            whole = mask.float().reshape(1, 1, self.size, self.size)
            small = F.interpolate(whole, size=(side, side), mode="area")
        width = 2 * max(1, radius // 4) + 1
        for _ in range(2):
            small = F.avg_pool2d(small, width, stride=1, padding=width // 2, count_include_pad=False)
        shade = F.interpolate(small, size=(self.size, self.size), mode="bilinear", align_corners=False)
        self.colour *= torch.where(mask, 1.0, 1.0 - strength * shade.reshape(-1))

    def resolve(self, factor: int) -> tuple[Tensor, Tensor, Tensor]:
        """Averages sub-pixels.

        Args:
            factor: Sub-pixels per pixel along one side.

        Returns:
            Premultiplied linear colour [3, S, S], coverage [S, S] in 0..1 and label [S, S] uint8.
        """
        covered = (self.depth < FAR_M).float()
        both = torch.cat([self.colour * covered, covered[None]]).reshape(1, 4, self.size, self.size)
        if factor == 2:
            rows = both[0, :, 0::2] + both[0, :, 1::2]
            mean = (rows[..., 0::2] + rows[..., 1::2]) * 0.25
        else:
            mean = F.avg_pool2d(both, factor)[0] if factor > 1 else both[0]
        label = self.label.reshape(self.size, self.size)[factor // 2 :: factor, factor // 2 :: factor]
        return mean[:3], mean[3], label.contiguous()
