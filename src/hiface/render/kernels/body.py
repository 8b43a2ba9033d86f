# SPDX-License-Identifier: Apache-2.0
"""Compiled shading of the fragments of a body, for float32 on the CPU without gradients.

`hiface.synthetic.body.shade_plain` is the plain version.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass

from torch import Tensor

from hiface.render.kernels.library import loaded_library

PATTERNS = ("plain", "stripes", "checks", "noise", "jacket")
_COLOURS = ("main", "second", "shirt", "tie", "skin")


class BodyInputs(ctypes.Structure):
    """Mirror of `BodyInputs` in body.c."""

    _fields_ = [
        *[(name, ctypes.c_void_p) for name in ("attributes", "triangles", "triangle", "pixel", "place")],
        *[(name, ctypes.c_void_p) for name in ("creases", "noise", "colour", "depth", "label")],
        *[(name, ctypes.c_int64) for name in ("n_fragments", "stride", "n_pixels", "pattern", "has_tie")],
        *[(name, ctypes.c_int64) for name in ("label_skin", "label_cloth")],
        *[(name, ctypes.c_float * 3) for name in _COLOURS],
        *[(name, ctypes.c_float) for name in ("scale", "side", "deep", "centre_z")],
    ]


@dataclass(frozen=True)
class BodyLook:
    """What a body is shaded with.

    Attributes:
        creases: [256, 256] factors on cloth.
        noise: [256, 256] noise of the pattern "noise".
        pattern: One of `PATTERNS`.
        has_tie: Whether a jacket shows a tie.
        colours: [5, 3] of cloth, pattern, shirt, tie and skin, linear.
        scale: Size of the pattern, metres.
        neckline: Height of the opening at the sides and its additional depth in front, metres.
        centre_z: Added to z before front and back are told apart, metres.
        labels: Numbers of skin and of cloth in the segmentation.
    """

    creases: Tensor
    noise: Tensor
    pattern: str
    has_tie: bool
    colours: Tensor
    scale: float
    neckline: tuple[float, float]
    centre_z: float
    labels: tuple[int, int]


def shade_body(
    target: tuple[Tensor, Tensor, Tensor],
    fragments: tuple[Tensor, Tensor, Tensor],
    attributes: Tensor,
    triangles: Tensor,
    look: BodyLook,
) -> None:
    """Shades the fragments of a body and writes them onto a canvas.

    Args:
        target: Colour [3, N], depth [N] and label [N] uint8 of the canvas, contiguous.
        fragments: Pixels [P], triangles [P] and barycentrics and z [4, P] from `canvas.front`.
        attributes: [V, 8] light, place on the body in metres, two unused; contiguous.
        triangles: [T, 3] int64, contiguous.
        look: Clothes.
    """
    assert attributes.shape[1] == 8 and attributes.is_contiguous()
    pixel, triangle, place = fragments
    tensors = (attributes, triangles, triangle, pixel, place, look.creases, look.noise, *target)
    sizes = (len(pixel), place.stride(0), target[1].numel(), PATTERNS.index(look.pattern), int(look.has_tie))
    inputs = BodyInputs(*[t.data_ptr() for t in tensors], *sizes, *look.labels)
    for name, colour in zip(_COLOURS, look.colours.tolist(), strict=True):
        setattr(inputs, name, tuple(colour))
    inputs.scale, (inputs.side, inputs.deep) = look.scale, look.neckline
    inputs.centre_z = look.centre_z
    loaded_library().hiface_shade_body(ctypes.byref(inputs))
