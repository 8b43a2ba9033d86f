# SPDX-License-Identifier: Apache-2.0
"""Compiled passes that draw meshes one after the other onto a canvas, for float32 on the CPU, no gradients.

`hiface.synthetic.scene` holds the plain versions.
"""

from __future__ import annotations

import ctypes

import torch
from torch import Tensor

from hiface.render.kernels import cpu
from hiface.render.kernels.library import loaded_library
from hiface.render.kernels.reference import NEAR_M


class FrontInputs(ctypes.Structure):
    """Mirror of `FrontInputs` in canvas.c."""

    _fields_ = [
        *[
            (name, ctypes.c_void_p)
            for name in ("verts", "triangles", "ids", "depth", "pixel", "triangle", "place")
        ],
        *[(name, ctypes.c_int64) for name in ("width", "n_pixels", "capacity", "size", "origin")],
    ]


class RowInputs(ctypes.Structure):
    """Mirror of `RowInputs` in canvas.c."""

    _fields_ = [
        *[
            (name, ctypes.c_void_p)
            for name in ("attributes", "corners", "triangles", "triangle", "place", "out")
        ],
        *[(name, ctypes.c_int64) for name in ("n_fragments", "stride", "n_attributes", "n_corner")],
    ]


class PutInputs(ctypes.Structure):
    """Mirror of `PutInputs` in canvas.c."""

    _fields_ = [
        *[(name, ctypes.c_void_p) for name in ("pixel", "z", "colour", "labels", "keep")],
        *[(name, ctypes.c_void_p) for name in ("canvas_colour", "canvas_depth", "canvas_label")],
        *[(name, ctypes.c_int64) for name in ("n_fragments", "n_pixels", "label")],
    ]


def project(verts_cam: Tensor, K: Tensor, size: int) -> tuple[Tensor, tuple[int, int, int, int]]:
    """Projects vertices and finds the window that they lie in.

    Args:
        verts_cam: [V, 3] float32 camera space, metres.
        K: [3, 3] intrinsics without skew.
        size: Side of the canvas.

    Returns:
        [V, 3] x and y in pixels from the corner of the window, z; and the window: first column, first row,
        width, height, inside the canvas.
    """
    verts_cam, out = verts_cam.contiguous(), torch.empty(len(verts_cam), 3)
    (fx, _, cx), (_, fy, cy), _ = K.tolist()
    intrinsics, window = (ctypes.c_float * 4)(fx, fy, cx, cy), (ctypes.c_int64 * 4)()
    loaded_library().hiface_project(
        verts_cam.data_ptr(), len(verts_cam), intrinsics, size, NEAR_M, out.data_ptr(), window
    )
    return out, (window[0], window[1], window[2], window[3])


def front(
    verts_cam: Tensor, triangles: Tensor, K: Tensor, depth: Tensor, size: int
) -> tuple[Tensor, Tensor, Tensor] | None:
    """Fragments of a mesh that are nearer than a canvas.

    Args:
        verts_cam: [V, 3] float32 camera space, metres.
        triangles: [T, 3] int64.
        K: [3, 3] intrinsics without skew.
        depth: [size * size] float32.
        size: Side of the canvas.

    Returns:
        [P] int64 pixels, ascending; [P] int64 triangles; [4, P] barycentrics and z, with contiguous rows; or
        None.
    """
    library, triangles = loaded_library(), triangles.contiguous()
    verts, (left, top, width, height) = project(verts_cam, K, size)
    if width <= 0 or height <= 0:
        return None
    ids = cpu.run_library(library, verts[None], triangles, height, width)
    count = torch.empty(1, dtype=torch.int64)
    library.hiface_count_fragments(ids.data_ptr(), 1, width * height, count.data_ptr())
    capacity = int(count)
    if capacity == 0:
        return None
    pixel, triangle = torch.empty(2, capacity, dtype=torch.int64).unbind(0)
    place = torch.empty(4, capacity)
    pointers = [t.data_ptr() for t in (verts, triangles, ids, depth, pixel, triangle, place)]
    inputs = FrontInputs(*pointers, width, width * height, capacity, size, top * size + left)
    found = library.hiface_front(ctypes.byref(inputs))
    if found == 0:
        return None
    return pixel[:found], triangle[:found], place[:, :found]


def seen_vertices(ids: Tensor, triangles: Tensor, n_verts: int) -> Tensor:
    """`hiface.synthetic.scene.seen_vertices`; `triangles` contiguous."""
    assert ids.dtype in (torch.int32, torch.int64) and triangles.is_contiguous()
    ids, seen = ids.contiguous(), torch.zeros(n_verts, dtype=torch.bool)
    sizes = ids.numel(), ids.element_size()
    loaded_library().hiface_seen_vertices(ids.data_ptr(), *sizes, triangles.data_ptr(), seen.data_ptr())
    return seen


def with_neighbours(seen: Tensor, triangles: Tensor) -> Tensor:
    """`hiface.synthetic.scene.with_neighbours`; both contiguous."""
    assert seen.is_contiguous() and triangles.is_contiguous()
    out = seen.clone()
    tables = seen.data_ptr(), triangles.data_ptr(), len(triangles)
    loaded_library().hiface_with_neighbours(*tables, out.data_ptr())
    return out


def rows_at(
    attributes: Tensor, corners: Tensor | None, triangles: Tensor, triangle: Tensor, place: Tensor
) -> Tensor:
    """Values of vertices and of triangle corners at fragments.

    Args:
        attributes: [V, C] float32.
        corners: [T, 3, D] float32 or None.
        triangles: [T, 3] int64.
        triangle: [P] int64 from `front`.
        place: [4, P] from `front`.

    Returns:
        [C + D, P].
    """
    attributes, triangles = attributes.contiguous(), triangles.contiguous()
    n_corner = 0 if corners is None else corners.shape[2]
    table = attributes if corners is None else corners.contiguous()
    out = torch.empty(attributes.shape[1] + n_corner, len(triangle))
    pointers = [t.data_ptr() for t in (attributes, table, triangles, triangle, place, out)]
    inputs = RowInputs(*pointers, len(triangle), place.stride(0), attributes.shape[1], n_corner)
    loaded_library().hiface_front_rows(ctypes.byref(inputs))
    return out


def put(
    target: tuple[Tensor, Tensor, Tensor],
    place: tuple[Tensor, Tensor],
    colour: Tensor,
    label: int | Tensor,
    keep: Tensor | None,
) -> None:
    """Writes fragments onto a canvas.

    Args:
        target: Colour [3, N], depth [N] and label [N] uint8 of the canvas, contiguous.
        place: Pixels [P] int64 and z [P], contiguous.
        colour: [3, P].
        label: Number or [P] uint8.
        keep: [P] bool, False for fragments that are left out, or None.
    """
    pixel, z = place
    colour = colour.contiguous()
    labels = label.contiguous() if isinstance(label, Tensor) else None
    keep = None if keep is None else keep.contiguous()
    pointers = [None if t is None else t.data_ptr() for t in (pixel, z, colour, labels, keep, *target)]
    number = 0 if isinstance(label, Tensor) else label
    inputs = PutInputs(*pointers, len(pixel), target[1].numel(), number)
    loaded_library().hiface_put(ctypes.byref(inputs))


def resolve(colour: Tensor, depth: Tensor, far_m: float, side: int) -> Tensor:
    """Averages 2 x 2 sub-pixels.

    Args:
        colour: [3, (2 side)^2] contiguous.
        depth: [(2 side)^2] contiguous.
        far_m: Sub-pixels at least this far away are empty.
        side: Side of the picture.

    Returns:
        [4, side, side] premultiplied colour and coverage.
    """
    mean = torch.empty(4, side, side)
    loaded_library().hiface_resolve(colour.data_ptr(), depth.data_ptr(), far_m, side, mean.data_ptr())
    return mean
