# SPDX-License-Identifier: Apache-2.0
"""Differentiable rendering: rasterize, interpolate, texture, shade, antialias; `render` does all of it."""

from hiface.render.antialias import antialias
from hiface.render.pipeline import RenderOutput, render
from hiface.render.rasterize import rasterize
from hiface.render.shade import ambient_light, sh_basis, shade
from hiface.render.texture import sample_texture

__all__ = [
    "RenderOutput",
    "ambient_light",
    "antialias",
    "rasterize",
    "render",
    "sample_texture",
    "sh_basis",
    "shade",
]
