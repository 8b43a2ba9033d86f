# SPDX-License-Identifier: Apache-2.0
"""Albedo of files as linear maps: colours of vertices painted onto the UV layout, pictures made smaller."""

from __future__ import annotations

import numpy as np
import torch

from hiface.colour import srgb_to_linear
from hiface.errors import ModelFormatError

MAP_SIZE = 256
SKIN_LINEAR = (0.40, 0.24, 0.17)  # medium skin, for models without albedo
_SMALL_AREA = 1e-12


def decode_srgb(values: np.ndarray) -> np.ndarray:
    """Linear values in 0..1 of sRGB values in 0..1, any shape; what is outside is clamped."""
    return srgb_to_linear(torch.as_tensor(np.clip(values, 0.0, 1.0))).numpy()


def linear_albedo(mean: np.ndarray, basis: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A linear model in sRGB as a linear model in linear colour.

    The mean is exact; an axis is half the difference between its colours at plus and minus one sigma, so that
    ordinary people come out right and only the far tails differ from the file's own (gamma-encoded) sum.

    Args:
        mean: [N, 3] sRGB in 0..1.
        basis: [A, N, 3] sRGB per sigma.

    Returns:
        Mean [N, 3] and basis [A, N, 3], linear, float32.
    """
    out = np.empty(basis.shape, dtype=np.float32)
    for i, axis in enumerate(basis):
        out[i] = 0.5 * (decode_srgb(mean + axis) - decode_srgb(mean - axis))
    return decode_srgb(mean).astype(np.float32), out


class Baker:
    """Paints values of vertices onto maps by the UV layout.

    Texels outside every triangle take the colour of the nearest one inside, so that no seam shows.
    """

    def __init__(
        self, triangles: np.ndarray, uv: np.ndarray, uv_triangles: np.ndarray, size: int = MAP_SIZE
    ) -> None:
        """Finds the triangle and the barycentric coordinates of every texel.

        Args:
            triangles: [T, 3].
            uv: [U, 2] origin top-left.
            uv_triangles: [T, 3].
            size: Side of the maps.

        Raises:
            ModelFormatError: No triangle covers any texel.
        """
        self.size = size
        corners = uv[uv_triangles] * size
        triangle, weights, texel = _covered(corners, size)
        if not len(texel):
            raise ModelFormatError("the UV layout covers no texel; expected coordinates of 0..1")
        owner = np.full(size * size, -1)
        owner[texel] = np.arange(len(texel))
        owner = _spread(owner.reshape(size, size)).ravel()
        self._corners = triangles[triangle[owner]]
        self._weights = weights[owner].astype(np.float32)

    def paint(self, values: np.ndarray) -> np.ndarray:
        """Maps of values at vertices.

        Args:
            values: [V, C].

        Returns:
            [C, size, size] float32.
        """
        texels = (values[self._corners].astype(np.float32) * self._weights[..., None]).sum(axis=1)
        return np.ascontiguousarray(texels.T).reshape(-1, self.size, self.size)


def _covered(corners: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Triangle, barycentric coordinates and number of the texels whose centre lies in a triangle."""
    low = np.ceil(corners.min(axis=1) - 0.5).clip(0, size).astype(np.int64)
    high = (np.floor(corners.max(axis=1) - 0.5).clip(-1, size - 1) + 1).astype(np.int64)
    wide = np.maximum(high - low, 0)
    count = wide.prod(axis=1)
    triangle = np.repeat(np.arange(len(corners)), count)
    step = np.arange(len(triangle)) - np.repeat(np.cumsum(count) - count, count)
    column = low[triangle, 0] + step % np.maximum(wide[triangle, 0], 1)
    row = low[triangle, 1] + step // np.maximum(wide[triangle, 0], 1)
    a, b, c = (corners[triangle, i] for i in range(3))
    p = np.stack([column + 0.5, row + 0.5], axis=1)
    area = _cross(b - a, c - a)
    solid = np.abs(area) > _SMALL_AREA
    safe = np.where(solid, area, 1.0)
    weights = (
        np.stack([_cross(b - p, c - p), _cross(c - p, a - p), _cross(a - p, b - p)], axis=1) / safe[:, None]
    )
    inside = solid & (weights.min(axis=1) >= -1e-9)
    return triangle[inside], weights[inside], (row * size + column)[inside]


def _cross(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]


def _spread(owner: np.ndarray) -> np.ndarray:
    """Fills -1 from the four neighbours until none is left."""
    owner = owner.copy()
    while (owner < 0).any():
        for axis in (0, 1):
            for step in (1, -1):
                moved = np.roll(owner, step, axis=axis)
                edge = [slice(None), slice(None)]
                edge[axis] = slice(0, 1) if step > 0 else slice(-1, None)
                moved[tuple(edge)] = -1
                owner = np.where(owner < 0, moved, owner)
    return owner


def shrink(picture: np.ndarray, size: int = MAP_SIZE) -> np.ndarray:
    """Averages square pictures over blocks.

    Args:
        picture: [S, S, C] with S a multiple of `size`.
        size: New side.

    Returns:
        [size, size, C]; the picture itself where it has that side.

    Raises:
        ModelFormatError: The picture has another shape.
    """
    side = picture.shape[0]
    if picture.ndim != 3 or picture.shape[1] != side or side % size:
        raise ModelFormatError(
            f"expected a square texture of a multiple of {size} pixels, got {picture.shape}"
        )
    step = side // size
    return picture.reshape(size, step, size, step, -1).mean(axis=(1, 3))
