# SPDX-License-Identifier: Apache-2.0
"""The compiled pass that makes the label maps of a picture, for float32 on the CPU without gradients.

`hiface.synthetic.surface_maps.maps_plain` is the plain version.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass

import torch
from torch import Tensor

from hiface.render.kernels.library import loaded_library

CHANNELS = 11


class MapInputs(ctypes.Structure):
    """Mirror of `MapInputs` in maps.c."""

    _fields_ = [
        *[(name, ctypes.c_void_p) for name in ("verts", "rows", "corners", "triangles", "ids", "texture")],
        *[(name, ctypes.c_void_p) for name in ("depth", "head_depth", "label", "mask", "person", "maps")],
        *[(name, ctypes.c_int64) for name in ("size", "subpixels", "stride", "side")],
        *[(name, ctypes.c_int64) for name in ("first_label", "last_label", "accessory")],
        ("far_m", ctypes.c_float),
    ]


@dataclass(frozen=True)
class DrawnLayers:
    """What a picture shows of a person.

    Attributes:
        depth: [S n, S n] camera z of the sub-pixels, metres.
        head_depth: [S n, S n] of the head alone.
        label: [S, S] uint8 segmentation of the person.
        mask: [S, S] uint8 segmentation with what is in front.
        head_labels: First and last number that the face model has in it.
        accessory: Number of what is worn or held.
        far_m: Depth of nothing.
    """

    depth: Tensor
    head_depth: Tensor
    label: Tensor
    mask: Tensor
    head_labels: tuple[int, int]
    accessory: int
    far_m: float


def label_maps(
    mesh: tuple[Tensor, Tensor, Tensor], rows: Tensor, ids: Tensor, texture: Tensor, layers: DrawnLayers
) -> tuple[Tensor, Tensor]:
    """Depth of the person, and what pixel centres see of the face model.

    Args:
        mesh: Vertices [V, 3] (pixels and metres), triangles [T, 3] int64, texture coordinates [T, 3, 2] of
            the corners, -1..1; contiguous.
        rows: [V, C >= 6] light and normals; contiguous.
        ids: [S, S] int32 triangle that each pixel centre sees, -1 for none.
        texture: [s, s, 4] albedo; contiguous.
        layers: The drawn person; contiguous.

    Returns:
        [S, S] metres, 0 for nothing; and [11, S, S] normals, uv, albedo, light, 0 where the model is not
        seen.
    """
    size = len(ids)
    person, maps = torch.empty(size, size), torch.empty(CHANNELS, size, size)
    verts, triangles, corners = mesh
    drawn = (layers.depth, layers.head_depth, layers.label, layers.mask)
    tensors = (verts, rows, corners, triangles, ids, texture, *drawn, person, maps)
    assert all(t.is_contiguous() for t in tensors)
    sizes = (size, len(layers.depth) // size, rows.stride(0), len(texture))
    numbers = (*layers.head_labels, layers.accessory, layers.far_m)
    inputs = MapInputs(*[t.data_ptr() for t in tensors], *sizes, *numbers)
    seen = torch.empty(size, dtype=torch.int64)
    loaded_library().hiface_label_maps(ctypes.byref(inputs), seen.data_ptr())
    return person, maps
