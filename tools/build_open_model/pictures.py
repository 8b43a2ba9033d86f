# SPDX-License-Identifier: Apache-2.0
"""Draws texture layout and mean colours: ``python -m tools.build_open_model.pictures --out docs/images``."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from PIL import Image

from hiface.assets import load_tensors_asset

from .raster import rasterize_uv

_SIZE = 1024
_PART_COLOURS = np.array(
    [
        [222, 184, 160],
        [200, 140, 150],
        [200, 140, 150],
        [170, 80, 80],
        [150, 190, 220],
        [150, 190, 220],
        [230, 225, 205],
        [210, 205, 185],
        [220, 120, 130],
    ],
    dtype=np.uint8,
)


def draw_layout(uv: np.ndarray, uv_triangles: np.ndarray, triangle_parts: np.ndarray) -> np.ndarray:
    """Charts coloured by part with the triangles' edges, [1024, 1024, 3] uint8."""
    drawn = rasterize_uv(uv, uv_triangles, _SIZE)
    covered = drawn.triangle_ids >= 0
    picture = np.full((_SIZE, _SIZE, 3), 40, dtype=np.uint8)
    picture[covered] = _PART_COLOURS[triangle_parts[drawn.triangle_ids[covered]] % len(_PART_COLOURS)]
    edge = covered & (drawn.barycentric.min(axis=-1) < 0.06)
    picture[edge] //= 2
    return picture


def draw_mean(mean_linear: np.ndarray) -> np.ndarray:
    """The mean albedo [3, H, W] as an sRGB picture [H, W, 3] uint8."""
    linear = np.clip(mean_linear.transpose(1, 2, 0), 0.0, 1.0)
    encoded = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1.0 / 2.4) - 0.055)
    return np.rint(encoded * 255.0).astype(np.uint8)


def main() -> None:
    """Writes uv_layout.png and albedo_mean.png."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder of the pictures")
    arguments = parser.parse_args()
    model, _ = load_tensors_asset("open/model.safetensors")
    albedo, _ = load_tensors_asset("open/albedo.safetensors")
    layout = draw_layout(*(model[name].numpy() for name in ("uv", "uv_triangles", "triangle_parts")))
    arguments.out.mkdir(parents=True, exist_ok=True)
    Image.fromarray(layout).quantize(16).save(arguments.out / "uv_layout.png", optimize=True)
    Image.fromarray(draw_mean(albedo["mean"].float().numpy())).save(
        arguments.out / "albedo_mean.png", optimize=True
    )


if __name__ == "__main__":
    main()
