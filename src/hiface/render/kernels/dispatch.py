# SPDX-License-Identifier: Apache-2.0
"""The one operator `torch.ops.hiface.rasterize` with its CPU, CUDA and fake kernels."""

from __future__ import annotations

import torch
from torch import Tensor

_SCHEMA = "(Tensor verts, Tensor triangles, SymInt height, SymInt width) -> Tensor"


def _rasterize_any(verts: Tensor, triangles: Tensor, height: int, width: int) -> Tensor:
    from hiface.render.kernels import reference

    return reference.rasterize(verts, triangles, height, width)


rasterize_op = torch.library.custom_op("hiface::rasterize", _rasterize_any, mutates_args=(), schema=_SCHEMA)


@rasterize_op.register_kernel("cpu")
def _rasterize_cpu(verts: Tensor, triangles: Tensor, height: int, width: int) -> Tensor:
    from hiface.render.kernels import cpu

    return cpu.rasterize(verts, triangles, height, width)


@rasterize_op.register_kernel("cuda")
def _rasterize_cuda(verts: Tensor, triangles: Tensor, height: int, width: int) -> Tensor:
    from hiface.render.kernels import gpu

    return gpu.rasterize(verts, triangles, height, width)


@rasterize_op.register_fake
def _rasterize_fake(verts: Tensor, triangles: Tensor, height: int, width: int) -> Tensor:
    return verts.new_empty((verts.shape[0], height, width), dtype=torch.int32)
