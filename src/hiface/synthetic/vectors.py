# SPDX-License-Identifier: Apache-2.0
"""Unit vectors without the slow general norm."""

from __future__ import annotations

from torch import Tensor


def unit_columns(vectors: Tensor) -> Tensor:
    """[3, P] vectors as unit vectors."""
    x, y, z = vectors.unbind(0)
    return vectors * (x * x + y * y + z * z).clamp_min(1e-20).rsqrt()


def unit_rows(vectors: Tensor) -> Tensor:
    """[..., 3] vectors as unit vectors."""
    return vectors * (vectors * vectors).sum(dim=-1, keepdim=True).clamp_min(1e-20).rsqrt()
