# SPDX-License-Identifier: Apache-2.0
"""A mesh with per-corner UV coordinates."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from hiface.errors import ShapeError


@dataclass(frozen=True)
class FaceMesh:
    """Triangle mesh; winding is counter-clockwise seen from outside in a right-handed space.

    Attributes:
        vertices: [*B, V, 3] metres; object space unless the producer says otherwise.
        triangles: [T, 3] int64 vertex indices.
        uv: [U, 2] texture coordinates, origin top-left (glTF), 0..1.
        uv_triangles: [T, 3] int64 indices into `uv`, one per triangle corner.
    """

    vertices: Tensor
    triangles: Tensor
    uv: Tensor
    uv_triangles: Tensor

    def __post_init__(self) -> None:
        if self.vertices.shape[-1] != 3 or self.vertices.dim() < 2:
            raise ShapeError(f"FaceMesh.vertices must be [*B, V, 3], got {tuple(self.vertices.shape)}")
        if self.triangles.shape != self.uv_triangles.shape:
            raise ShapeError("FaceMesh.triangles and .uv_triangles must have the same shape [T, 3]")

    def with_vertices(self, vertices: Tensor) -> FaceMesh:
        """Same topology, other vertices ([*B, V, 3])."""
        return FaceMesh(vertices, self.triangles, self.uv, self.uv_triangles)

    def to(self, device: torch.device | str) -> FaceMesh:
        """Returns a copy on another device."""
        moved = (t.to(device) for t in (self.vertices, self.triangles, self.uv, self.uv_triangles))
        return FaceMesh(*moved)

    def __getitem__(self, index: int | slice) -> FaceMesh:
        """Indexes the leading batch dimension."""
        return self.with_vertices(self.vertices[index])
