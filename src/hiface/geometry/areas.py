# SPDX-License-Identifier: Apache-2.0
"""How much surface belongs to each vertex."""

from __future__ import annotations

import torch
from torch import Tensor


def vertex_areas(vertices: Tensor, triangles: Tensor) -> Tensor:
    """A third of the area of the triangles around each vertex.

    Args:
        vertices: [V, 3] metres.
        triangles: [T, 3] int64.

    Returns:
        [V] square metres.
    """
    a, b, c = vertices[triangles].unbind(1)
    area = torch.linalg.cross(b - a, c - a).norm(dim=-1) / 6
    total = vertices.new_zeros(vertices.shape[0])
    return total.index_add(0, triangles.flatten(), area.repeat_interleave(3))
