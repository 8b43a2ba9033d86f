# SPDX-License-Identifier: Apache-2.0
"""The linear albedo model of the open head: a mean map and one map per named trait.

Every trait of `painting.TRAITS` is a nonlinear change of a painted face. Its axis is the secant of that
change between minus and plus two sigma, so that ``mean + alpha @ basis`` meets the painting there. The amount
of melanin bends the colour most (blue fades before red), so its axis is a straight line fitted to five
paintings.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .painting import TRAITS, Painter
from .texels import build_texels

SIZE = 256
SUPERSAMPLING = 3
VERSION = "2"
_REACH = 2.0
_TONE_STEPS = (-2.0, -1.0, 0.0, 1.0, 2.0)
_DARK_WEIGHT = 1.3


def build_albedo(
    base: Mapping[str, Any],
    uv: np.ndarray,
    uv_triangles: np.ndarray,
    masks: Mapping[str, np.ndarray] | None = None,
    landmarks: Mapping[str, Any] | None = None,
) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Paints the mean and the axes.

    Args:
        base: reference [V, 3] metres, triangles, triangle_parts, part_names, quads, quad_parts.
        uv: [U, 2].
        uv_triangles: [T, 3].
        masks: Not needed; regions come from the mesh's own rims and rings.
        landmarks: Not needed.

    Returns:
        Names of the A axes, mean [3, H, W] and basis [A, 3, H, W] float32, linear RGB, per sigma.
    """
    del masks, landmarks
    texels = build_texels(base, uv, uv_triangles, SIZE * SUPERSAMPLING)
    painter = Painter(texels)
    names = [name for name, _ in TRAITS]
    tones = np.stack([texels.reduce(painter.paint({"melanin": at}), SUPERSAMPLING) for at in _TONE_STEPS])
    mean, tone_axis = _fit_line(np.array(_TONE_STEPS), tones)
    basis = [tone_axis]
    for name in names[1:]:
        change = painter.paint({name: _REACH}) - painter.paint({name: -_REACH})
        basis.append(texels.reduce(change, SUPERSAMPLING) / (2.0 * _REACH))
    return names, mean, np.stack(basis)


def _fit_line(at: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Straight line through colours along one trait, by weighted least squares per texel and channel.

    The weights are the normal density over the colour to the power `_DARK_WEIGHT`: between absolute errors
    (which would make dark skin orange) and relative ones.

    Args:
        at: [N] positions in sigma.
        values: [N, 3, H, W].

    Returns:
        Value at zero and slope per sigma, each [3, H, W].
    """
    x = at[:, None, None, None]
    weight = np.exp(-0.5 * x**2) / np.maximum(values, 1e-3) ** _DARK_WEIGHT
    weight /= weight.sum(axis=0)
    centre, middle = (weight * x).sum(axis=0), (weight * values).sum(axis=0)
    slope = (weight * (x - centre) * values).sum(axis=0) / (weight * (x - centre) ** 2).sum(axis=0)
    return (middle - slope * centre).astype(np.float32), slope.astype(np.float32)


def quantise(basis: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Eight bits per axis.

    Args:
        basis: [A, 3, H, W].

    Returns:
        [A, 3, H, W] int8 and [A] float32 with ``basis = q * scale``.
    """
    scale = np.abs(basis).reshape(len(basis), -1).max(axis=1) / 127.0
    scale = np.maximum(scale, 1e-8).astype(np.float32)
    return np.rint(basis / scale[:, None, None, None]).astype(np.int8), scale


def save_albedo(path: Path, names: Sequence[str], mean: np.ndarray, basis: np.ndarray) -> None:
    """Writes ``albedo.safetensors``: mean f16, basis_q i8, basis_scale f32 and the metadata.

    Args:
        path: File to write; written under a temporary name and renamed.
        names: A names.
        mean: [3, H, W] linear RGB.
        basis: [A, 3, H, W] per sigma.
    """
    from .assemble import write_safetensors

    basis_q, basis_scale = quantise(basis)
    tensors = {"mean": mean.astype(np.float16), "basis_q": basis_q, "basis_scale": basis_scale}
    meaning = dict(TRAITS)
    metadata = {
        "names": json.dumps(list(names)),
        "meaning": json.dumps({name: meaning.get(name, "") for name in names}),
        "colour_space": "linear sRGB primaries, D65",
        "units": "albedo = mean + sum_k alpha_k * basis_q_k * basis_scale_k, alpha in sigma",
        "version": VERSION,
        "licence": "Apache-2.0",
        "made_by": "painted by formulas (tools/build_open_model: painting.py, albedo.py); no picture used",
    }
    write_safetensors(path, tensors, metadata)
