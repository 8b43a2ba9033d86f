# SPDX-License-Identifier: Apache-2.0
"""The compiled z-buffer, called through ctypes."""

from __future__ import annotations

import ctypes
import threading

import torch
from torch import Tensor

from hiface.render.kernels import reference
from hiface.render.kernels.library import for_image_chunks, packaged_library
from hiface.render.kernels.reference import NEAR_M

_memory = threading.local()


def _scratch(n_bytes: int) -> Tensor:
    """This thread's scratch memory, kept between calls: fresh pages would cost as much as the rasterizing."""
    kept: Tensor | None = getattr(_memory, "scratch", None)
    if kept is None or kept.numel() < n_bytes:
        kept = torch.empty(n_bytes, dtype=torch.uint8)
        _memory.scratch = kept
    return kept


def run_library(library: ctypes.CDLL, verts: Tensor, triangles: Tensor, height: int, width: int) -> Tensor:
    """Rasterizes with a loaded library.

    Args:
        library: From `load_library`.
        verts: [B, V, 3] float32 (x px, y px, z), contiguous, CPU.
        triangles: [T, 3] int64, contiguous, CPU.
        height: Image height in pixels.
        width: Image width in pixels.

    Returns:
        [B, height, width] int32 triangle ids, -1 where there is none.
    """
    n_images, n_verts = verts.shape[0], verts.shape[1]
    ids = torch.empty((n_images, height, width), dtype=torch.int32)
    scratch_bytes = library.hiface_zbuffer_scratch(n_verts, height, width)

    def rasterize_images(first: int, stop: int) -> None:
        scratch = _scratch(scratch_bytes)
        library.hiface_zbuffer(
            *[verts.data_ptr() + 12 * first * n_verts, stop - first, n_verts, triangles.data_ptr()],
            *[triangles.shape[0], height, width, NEAR_M],
            *[ids.data_ptr() + 4 * first * height * width, scratch.data_ptr()],
        )

    for_image_chunks(n_images, rasterize_images)
    return ids


def kernel_name() -> str:
    """What rasterizes on the CPU here, for humans: "compiled C" or "reference (slow)"."""
    return "compiled C" if packaged_library() is not None else "reference (slow)"


def rasterize(verts: Tensor, triangles: Tensor, height: int, width: int) -> Tensor:
    """CPU kernel of `hiface::rasterize`; the reference stands in where the library is missing."""
    library = packaged_library()
    if library is None:
        return reference.rasterize(verts, triangles, height, width)
    return run_library(library, verts.contiguous(), triangles.contiguous(), height, width)
