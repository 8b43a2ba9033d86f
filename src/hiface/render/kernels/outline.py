# SPDX-License-Identifier: Apache-2.0
"""Compiled search for the visible cuts of silhouette edges, for float32 on the CPU."""

from __future__ import annotations

import ctypes

import torch
from torch import Tensor

from hiface.render.kernels.library import packaged_library

_FLOATS = ("x", "y", "w", "nearness")
_TABLES = ("triangles", "edge_vertices", "edge_sides")
_BUFFERS = ("facing", "slot", "links", "places", "flags", "outward")
_SIZES = ("n_images", "n_verts", "n_triangles", "n_edges", "height", "width", "capacity")


class OutlineInputs(ctypes.Structure):
    """Mirror of `Inputs` in outline.c."""

    _fields_ = [
        *[(name, ctypes.c_void_p) for name in (*_FLOATS, *_TABLES, *_BUFFERS)],
        *[(name, ctypes.c_int64) for name in _SIZES],
        ("gap", ctypes.c_float),
    ]


def find_cuts(
    rows: tuple[Tensor, Tensor, Tensor], nearness: Tensor, tables: tuple[Tensor, Tensor, Tensor], gap: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Visible cuts, the outermost one of each pair of neighbouring pixels.

    Args:
        rows: x px, y px and 1/z of the vertices, each [B, V] float32.
        nearness: [B, H, W] float32 1/z of the visible surface, 0 where there is none.
        tables: Triangles [T, 3], edge vertices [2, E] and edge sides [2, E], int64.
        gap: How many times nearer than the pixel behind it an outline must be, slightly above 1.

    Returns:
        [4, M] int64 start and end vertex in the flattened [B, V], pixel before and after in the flattened [B,
        H, W]; [2, M] float32 coordinates of the line and of the centre before; [2, M] bool whether the line
        is a row, and whether the nearer pixel comes before the cut.
    """
    library = packaged_library()
    assert library is not None
    kept = [tensor.detach().contiguous() for tensor in (*rows, nearness, *tables)]
    n_images, height, width = nearness.shape
    capacity = 8 * (height + width) * n_images
    while True:
        facing = torch.empty(len(tables[0]) + 1, dtype=torch.int8)
        slot = torch.full((2 * height * width,), -1, dtype=torch.int32)
        links = torch.empty(4, capacity, dtype=torch.int64)
        places = torch.empty(2, capacity)
        flags = torch.empty(2, capacity, dtype=torch.bool)
        buffers = (facing, slot, links, places, flags, torch.empty(capacity))
        sizes = (n_images, rows[0].shape[1], len(tables[0]), tables[1].shape[1], height, width, capacity)
        inputs = OutlineInputs(*[tensor.data_ptr() for tensor in (*kept, *buffers)], *sizes, gap)
        count = library.hiface_find_cuts(ctypes.byref(inputs))
        if count >= 0:
            return links[:, :count], places[:, :count], flags[:, :count]
        capacity *= 4
