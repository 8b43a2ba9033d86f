# SPDX-License-Identifier: Apache-2.0
"""A fine mesh with the relief in its vertices, on the same texture square."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from hiface.errors import OptionError, ShapeError
from hiface.geometry.normals import vertex_normals
from hiface.geometry.subdivide import subdivide
from hiface.morphable import MorphableModel
from hiface.render.texture import sample_texture
from hiface.types import FaceMesh

MAX_STEPS = 4
_ROUND = 0.75  # share of the way to the tangent planes


@dataclass(frozen=True)
class DenseMesh:
    """A refined head.

    Attributes:
        mesh: Vertices in metres, displaced; texture coordinates of the model's layout.
        triangle_parts: [T] int64 part of the face model that each triangle belongs to.
    """

    mesh: FaceMesh
    triangle_parts: Tensor


def dense_mesh(model: MorphableModel, vertices: Tensor, displacement: Tensor, steps: int = 2) -> DenseMesh:
    """Splits each triangle into four, `steps` times, and moves vertices by the relief along the normals.

    New vertices follow the curvature that the normals show (Phong tessellation, Boubekeur and Alexa 2008), so
    that the coarse triangles do not show as facets.

    Args:
        model: Face model.
        vertices: [V, 3] metres.
        displacement: [1, S, S] metres, positive outward.
        steps: 2 makes edges of 1.2 mm, like the texels of a map of 256; 0 to 4.

    Raises:
        OptionError: `steps` is out of range.
        ShapeError: `displacement` is not a map.
    """
    if not 0 <= steps <= MAX_STEPS:
        raise OptionError(f"a mesh can be refined 0 to {MAX_STEPS} times, not {steps}")
    if displacement.dim() != 3 or displacement.shape[0] != 1:
        raise ShapeError(f"displacement must be [1, S, S], got {tuple(displacement.shape)}")
    points, uv = vertices.detach().cpu().double().numpy(), model.uv.cpu().double().numpy()
    normals = vertex_normals(vertices, model.triangles).detach().cpu().double().numpy()
    triangles, uv_triangles = model.triangles.cpu().numpy(), model.uv_triangles.cpu().numpy()
    for _ in range(steps):
        finer, finer_uv = subdivide(triangles, len(points)), subdivide(uv_triangles, len(uv))
        middles = finer.middles(points)
        middles[len(points) :] -= _ROUND * _above_tangents(
            middles[len(points) :], points, normals, finer.parents
        )
        points, uv = middles, finer_uv.middles(uv)
        normals = finer.middles(normals)
        normals /= np.linalg.norm(normals, axis=1, keepdims=True).clip(1e-12)
        triangles, uv_triangles = finer.triangles, finer_uv.triangles
    depth = sample_texture(displacement.detach().cpu(), torch.from_numpy(uv).to(displacement))[:, 0].double()
    total, count = np.zeros(len(points)), np.zeros(len(points))
    np.add.at(total, triangles.ravel(), depth.numpy()[uv_triangles.ravel()])
    np.add.at(count, triangles.ravel(), 1.0)
    points = points + (total / count.clip(1.0))[:, None] * normals
    kind = vertices.dtype
    mesh = FaceMesh(
        torch.from_numpy(points).to(kind),
        torch.from_numpy(triangles),
        torch.from_numpy(uv).to(kind),
        torch.from_numpy(uv_triangles),
    )
    return DenseMesh(mesh, model.data.triangle_parts.cpu().repeat_interleave(4**steps))


def _above_tangents(
    middles: np.ndarray, points: np.ndarray, normals: np.ndarray, parents: np.ndarray
) -> np.ndarray:
    """[M, 3] mean offset of edge middles over the tangent planes of the ends."""
    offsets = []
    for end in parents.T:
        height = ((middles - points[end]) * normals[end]).sum(axis=1, keepdims=True)
        offsets.append(height * normals[end])
    return 0.5 * (offsets[0] + offsets[1])
