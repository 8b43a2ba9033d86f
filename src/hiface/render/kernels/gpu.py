# SPDX-License-Identifier: Apache-2.0
"""The z-buffer on a CUDA device, compiled at first use by the NVRTC that torch carries."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hiface.render.kernels import cpu
from hiface.render.kernels.reference import NEAR_M

logger = logging.getLogger(__name__)

SOURCE = Path(__file__).with_name("zbuffer.cu")
_THREADS = 128
_MAX_IMAGES_PER_LAUNCH = 65535


@functools.cache
def _kernel(device_index: int) -> Callable[..., Any] | None:
    """Compiled kernel for one device; None, with one warning, where this torch cannot compile it."""
    compiler = getattr(torch.cuda, "_compile_kernel", None)
    if compiler is None:
        logger.warning(
            "this torch (%s) cannot compile the GPU rasterizer, the CPU one is used for CUDA tensors; "
            "upgrade with: pip install -U torch",
            torch.__version__,
        )
        return None
    with torch.cuda.device(device_index):
        return compiler(SOURCE.read_text(encoding="utf-8"), "hiface_zbuffer", nvcc_options=["--fmad=false"])


def rasterize(verts: Tensor, triangles: Tensor, height: int, width: int) -> Tensor:
    """CUDA kernel of `hiface::rasterize`: [B, V, 3] float32 and [T, 3] int64 to [B, height, width] int32."""
    kernel = _kernel(verts.device.index or 0)
    if kernel is None:
        return cpu.rasterize(verts.cpu(), triangles.cpu(), height, width).to(verts.device)
    verts, triangles = verts.contiguous(), triangles.contiguous()
    keys = torch.full(
        (verts.shape[0], height, width), torch.iinfo(torch.int64).max, dtype=torch.int64, device=verts.device
    )
    n_triangles = triangles.shape[0]
    if n_triangles == 0 or keys.numel() == 0:
        return keys.to(torch.int32)
    blocks = (n_triangles + _THREADS - 1) // _THREADS
    with torch.cuda.device(verts.device):
        for part, part_keys in zip(
            verts.split(_MAX_IMAGES_PER_LAUNCH), keys.split(_MAX_IMAGES_PER_LAUNCH), strict=True
        ):
            kernel(
                grid=(blocks, part.shape[0], 1),
                block=(_THREADS, 1, 1),
                args=[part, part.shape[1], triangles, n_triangles, height, width, NEAR_M, part_keys],
            )
    # The lower half of a key is the id; of an untouched key it is -1.
    return keys.to(torch.int32)
