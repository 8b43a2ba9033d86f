# SPDX-License-Identifier: Apache-2.0
"""Shading by spherical harmonics: nine terms per colour, light far away, no shadows."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from hiface.errors import ShapeError
from hiface.render.kernels import fused
from hiface.render.rasterize import Fragments

# Real spherical harmonics without the Condon-Shortley phase, in the order
# 1, y, z, x, xy, yz, 3z^2 - 1, xz, x^2 - y^2 (Ramamoorthi and Hanrahan 2001, equation 3).
SH_C0 = 0.28209479177387814  # sqrt(1 / (4 pi))
SH_C1 = 0.4886025119029199  # sqrt(3 / (4 pi))
SH_C2 = 1.0925484305920792  # sqrt(15 / (4 pi))
SH_C3 = 0.31539156525252005  # sqrt(5 / (16 pi))
SH_C4 = 0.5462742152960396  # sqrt(15 / (16 pi))

COSINE_LOBE = torch.tensor([1.0] + [2.0 / 3.0] * 3 + [0.25] * 5)
"""[9] what a matte surface keeps of each harmonic of the radiance around it, over pi (Ramamoorthi and
Hanrahan 2001, section 2.3); light coefficients in hiface have it in them."""


def sh_basis_rows(x: Tensor, y: Tensor, z: Tensor) -> Tensor:
    """The nine basis functions with the components of the normal in separate tensors.

    Args:
        x: [*S] components of unit normals.
        y: [*S] likewise.
        z: [*S] likewise.

    Returns:
        [9, *S].
    """
    x1, y1 = SH_C2 * x, SH_C2 * y
    return torch.stack(
        [
            torch.full_like(x, SH_C0),
            SH_C1 * y,
            SH_C1 * z,
            SH_C1 * x,
            x1 * y,
            y1 * z,
            (3 * SH_C3) * z * z - SH_C3,
            x1 * z,
            SH_C4 * (x - y) * (x + y),
        ]
    )


def sh_basis(normals: Tensor) -> Tensor:
    """The nine real spherical-harmonic basis functions of bands 0 to 2.

    Args:
        normals: [*S, 3] unit vectors; hiface evaluates them in camera axes (x right, y down, z forward).

    Returns:
        [*S, 9] in the order 1, y, z, x, xy, yz, 3z^2 - 1, xz, x^2 - y^2. Differentiable.

    Raises:
        ShapeError: The last dimension is not 3.
    """
    if normals.shape[-1] != 3:
        raise ShapeError(f"normals must be [*S, 3], got {tuple(normals.shape)}")
    return sh_basis_rows(normals[..., 0], normals[..., 1], normals[..., 2]).movedim(0, -1)


def shade(albedo: Tensor, normals: Tensor, light: Tensor) -> Tensor:
    """Colour of a matte surface: image_linear = albedo * (SH(n) @ light).

    Args:
        albedo: [*B, N, 3] linear albedo, 0..1.
        normals: [*B, N, 3] unit normals in camera axes.
        light: [*B, 9, 3] linear light; the cosine lobe of a matte surface is part of it.

    Returns:
        [*B, N, 3] linear colour; not clamped, so strong light exceeds 1. Differentiable to all three.

    Raises:
        ShapeError: `light` is not [*B, 9, 3].
    """
    if light.shape[-2:] != (9, 3):
        raise ShapeError(f"light must be [*B, 9, 3], got {tuple(light.shape)}")
    return albedo * (sh_basis(normals) @ light)


def _spread(count: int = 64) -> tuple[Tensor, Tensor]:
    """[count, 3] unit vectors over the sphere (a spiral of equal areas), and the inverse of their basis."""
    k = torch.arange(count, dtype=torch.float64) + 0.5
    z, turn = 1 - 2 * k / count, k * (math.pi * (1 + 5**0.5))
    r = (1 - z * z).sqrt()
    directions = torch.stack([r * torch.cos(turn), r * torch.sin(turn), z], dim=1)
    return directions, torch.linalg.pinv(sh_basis(directions))


_DIRECTIONS, _SOLVE = _spread()


def rotate_light(light: Tensor, R: Tensor) -> Tensor:
    """The same light seen from turned axes: SH(R n) @ result = SH(n) @ light for all normals n.

    Args:
        light: [*B, 9, 3] or [*B, 9, C].
        R: [*B, 3, 3] rotation from the light's axes to the new ones.

    Returns:
        The shape of `light`. Differentiable.
    """
    before = sh_basis(_DIRECTIONS.to(light) @ R)  # R^T d for each d
    return _SOLVE.to(light) @ (before @ light)


def shade_rows_plain(raw: Tensor, light: Tensor, frags: Fragments) -> Tensor:
    """`shade_rows` in plain torch: any device and dtype, differentiable any number of times."""
    x, y, z = raw.unbind(0)
    scale = (x * x + y * y + z * z).clamp_min(1e-20).rsqrt()
    unit = torch.stack([x * scale, y * scale, z * scale])
    basis = sh_basis_rows(*unit.unbind(0))
    weights = light.transpose(1, 2)
    if frags.covered is not None:
        per_image = weights @ basis.reshape(9, light.shape[0], -1).transpose(0, 1)
        return torch.cat([unit, per_image.transpose(0, 1).reshape(3, -1)])
    parts = [a @ b for a, b in zip(weights.unbind(0), basis.split(frags.counts, dim=1), strict=True)]
    return torch.cat([unit, torch.cat(parts, dim=1)])


def shade_rows(raw: Tensor, light: Tensor, frags: Fragments) -> Tensor:
    """Normalises interpolated normals and evaluates the light on them.

    Args:
        raw: [3, P] interpolated normals in camera axes, any length.
        light: [B, 9, 3].
        frags: From `fragments`.

    Returns:
        [6, P]: unit normals, shading. Differentiable to `raw` and `light` (once, where the compiled kernel
        runs).
    """
    if frags.covered is None and fused.is_available(raw, light):
        return fused.Shade.apply(raw, light, frags.counts)  # pyright: ignore[reportReturnType]
    return shade_rows_plain(raw, light, frags)


def ambient_light(level: float, like: Tensor) -> Tensor:
    """[9, 3] white light that shades every normal with `level`; device and dtype of `like`."""
    light = like.new_zeros(9, 3)
    light[0] = level / SH_C0
    return light
