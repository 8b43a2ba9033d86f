# SPDX-License-Identifier: Apache-2.0
"""Named points on a mesh, stored as triangle and barycentric coordinates."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from hiface.errors import ShapeError


@dataclass(frozen=True)
class LandmarkSet:
    """Points fixed to a mesh surface.

    Attributes:
        name: Name of the set, for example "ibug68".
        triangle_ids: [L] int64 triangle of each point.
        barycentric: [L, 3] weights of the triangle's corners, summing to 1.
        mirror: [L] int64 index of the mirrored point, or None if the set is not symmetric.
    """

    name: str
    triangle_ids: Tensor
    barycentric: Tensor
    mirror: Tensor | None = None

    def __post_init__(self) -> None:
        if self.barycentric.shape != (*self.triangle_ids.shape, 3):
            raise ShapeError(
                f"landmark set {self.name!r}: barycentric must be {(*self.triangle_ids.shape, 3)}, "
                f"got {tuple(self.barycentric.shape)}"
            )

    def __len__(self) -> int:
        return self.triangle_ids.shape[0]

    def positions(self, vertices: Tensor, triangles: Tensor) -> Tensor:
        """Positions of the points on a mesh.

        Args:
            vertices: [*B, V, 3] in any space.
            triangles: [T, 3] int64.

        Returns:
            [*B, L, 3] in the space of `vertices`; differentiable to `vertices`.
        """
        corners = vertices[..., triangles[self.triangle_ids], :]
        return (corners * self.barycentric.to(vertices.dtype)[..., None]).sum(dim=-2)

    def to(self, device: str) -> LandmarkSet:
        """Returns a copy on another device; the same object if it is there already."""
        if str(self.triangle_ids.device) == device and str(self.barycentric.device) == device:
            return self
        mirror = None if self.mirror is None else self.mirror.to(device)
        return LandmarkSet(self.name, self.triangle_ids.to(device), self.barycentric.to(device), mirror)
