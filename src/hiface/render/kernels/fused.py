# SPDX-License-Identifier: Apache-2.0
"""Compiled forward and backward passes for float32 fragments on the CPU.

Each does what a few lines of plain torch do (`interpolate_plain`, `shade_rows_plain`, `to_images_plain`),
several times faster, once differentiable. Fragments of image i are the columns starts[i] .. starts[i + 1] of
[C, P] rows.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from hiface.render.kernels.library import for_image_chunks, loaded_library, packaged_library


def is_available(*tensors: Tensor) -> bool:
    """Whether the compiled passes can take these tensors: all float32 on the CPU, library built."""
    fits = all(tensor.dtype == torch.float32 and tensor.device.type == "cpu" for tensor in tensors)
    return fits and packaged_library() is not None


def _starts(counts: Sequence[int]) -> list[int]:
    return [0, *accumulate(counts)]


def _for_each_image(starts: Sequence[int], work: Callable[[int, int, int], None]) -> None:
    """Calls `work(image, start, stop)` for every image, in threads."""

    def chunk(first: int, stop: int) -> None:
        for image in range(first, stop):
            work(image, starts[image], starts[image + 1])

    for_image_chunks(len(starts) - 1, chunk)


def list_fragments(triangle_id: Tensor) -> tuple[Tensor, tuple[int, ...]]:
    """Covered pixels of a batch.

    Args:
        triangle_id: [B, H, W] int32, CPU, contiguous.

    Returns:
        [P] int64 ascending indices into the flattened ids, and the number of them in each image.
    """
    n_images, n_pixels = triangle_id.shape[0], triangle_id.shape[1] * triangle_id.shape[2]
    counts = torch.empty(n_images, dtype=torch.int64)
    loaded_library().hiface_count_fragments(triangle_id.data_ptr(), n_images, n_pixels, counts.data_ptr())
    per_image = tuple(counts.tolist())
    pixels = torch.empty(sum(per_image), dtype=torch.int64)
    loaded_library().hiface_list_fragments(triangle_id.data_ptr(), n_images * n_pixels, pixels.data_ptr())
    return pixels, per_image


class SurfaceInputs(ctypes.Structure):
    """Mirror of `Inputs` in surface.c."""

    _fields_ = [
        *[
            (name, ctypes.c_void_p)
            for name in ("verts", "attributes", "corners", "triangles", "ids", "pixels")
        ],
        *[(name, ctypes.c_int64) for name in ("n_fragments", "n_verts", "n_triangles")],
        *[(name, ctypes.c_int64) for name in ("n_pixels", "width")],
        *[(name, ctypes.c_int64) for name in ("n_attributes", "n_corner")],
    ]


def _surface_inputs(tensors: Sequence[Tensor]) -> SurfaceInputs:
    verts, attributes, corners, triangles, ids, pixels = tensors
    return SurfaceInputs(
        *[tensor.data_ptr() for tensor in tensors],
        *[pixels.shape[0], verts.shape[1], triangles.shape[0], ids.shape[1] * ids.shape[2], ids.shape[2]],
        *[attributes.shape[2], corners.shape[2]],
    )


class Interpolate(torch.autograd.Function):
    """apply(counts, verts_px_z, attributes, corners, triangles, ids, pixels) -> [1 + C + D, P].

    Shapes: [B, V, 3] and [B, V, C] float32, [T, 3, D] float32 (constant), [T, 3] int64, [B, H, W] int32, [P]
    int64.
    """

    @staticmethod
    def forward(ctx: Any, counts: tuple[int, ...], *tensors: Tensor) -> Tensor:
        """Depth, vertex attributes and corner attributes at the fragments."""
        tensors = tuple(tensor.contiguous() for tensor in tensors)
        inputs, starts = _surface_inputs(tensors), _starts(counts)
        out = tensors[0].new_empty((1 + inputs.n_attributes + inputs.n_corner, inputs.n_fragments))
        forward, pointers = loaded_library().hiface_surface_forward, (ctypes.byref(inputs), out.data_ptr())
        _for_each_image(starts, lambda *image_range: forward(pointers[0], *image_range, pointers[1]))
        ctx.save_for_backward(*tensors)
        ctx.starts = starts
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: Any) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Gradients of the vertices and of their attributes."""
        tensors, grad = ctx.saved_tensors, grad_outputs[0].contiguous()
        inputs = _surface_inputs(tensors)
        grad_verts, grad_attributes = torch.zeros_like(tensors[0]), torch.zeros_like(tensors[1])
        pointers = (grad.data_ptr(), grad_verts.data_ptr(), grad_attributes.data_ptr())
        backward = loaded_library().hiface_surface_backward
        _for_each_image(
            ctx.starts, lambda *image_range: backward(ctypes.byref(inputs), *image_range, *pointers)
        )
        return None, grad_verts, grad_attributes, None, None, None, None


class Shade(torch.autograd.Function):
    """apply(raw [3, P], light [B, 9, 3], counts) -> [6, P]: unit normals and shading."""

    @staticmethod
    def forward(ctx: Any, raw: Tensor, light: Tensor, counts: tuple[int, ...]) -> Tensor:
        """Normalises the normals and evaluates the light."""
        raw, light = raw.contiguous(), light.contiguous()
        n = raw.shape[1]
        out = raw.new_empty((6, n))
        forward, step = loaded_library().hiface_shade_forward, 4 * 27

        def work(image: int, start: int, stop: int) -> None:
            forward(raw.data_ptr(), light.data_ptr() + step * image, n, start, stop, out.data_ptr())

        ctx.starts = _starts(counts)
        _for_each_image(ctx.starts, work)
        ctx.save_for_backward(raw, light)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: Any) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Gradients of the normals before normalisation and of the light."""
        raw, light = ctx.saved_tensors
        grad, n = grad_outputs[0].contiguous(), raw.shape[1]
        grad_raw, grad_light = torch.empty_like(raw), torch.empty_like(light)
        backward, step = loaded_library().hiface_shade_backward, 4 * 27

        def work(image: int, start: int, stop: int) -> None:
            backward(
                *[raw.data_ptr(), light.data_ptr() + step * image, n, start, stop],
                *[grad.data_ptr(), grad_raw.data_ptr(), grad_light.data_ptr() + step * image],
            )

        _for_each_image(ctx.starts, work)
        return grad_raw, grad_light, None


class ToImages(torch.autograd.Function):
    """apply(rows [C, P], canvas [B, C, H, W], pixels [P], counts) -> the canvas, with the rows in it."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, canvas: Tensor, pixels: Tensor, counts: tuple[int, ...]) -> Tensor:
        """Writes the fragments into the canvas, which is given up."""
        rows, out = rows.contiguous(), canvas
        ctx.mark_dirty(out)
        ctx.starts, ctx.shape = _starts(counts), rows.shape
        ctx.save_for_backward(pixels)
        _copy_rows(loaded_library().hiface_scatter_rows, rows, out, pixels, ctx.starts)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: Any) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Gradients of the rows, and of the canvas where no row covers it."""
        (pixels,) = ctx.saved_tensors
        grad = grad_outputs[0].contiguous()
        grad_rows = grad.new_empty(ctx.shape)
        _copy_rows(loaded_library().hiface_gather_rows, grad_rows, grad, pixels, ctx.starts)
        grad_canvas = None
        if ctx.needs_input_grad[1]:
            grad_canvas = grad.clone()
            _copy_rows(
                loaded_library().hiface_scatter_rows,
                torch.zeros_like(grad_rows),
                grad_canvas,
                pixels,
                ctx.starts,
            )
        return grad_rows, grad_canvas, None, None


def _copy_rows(
    kernel: Callable[..., None], rows: Tensor, images: Tensor, pixels: Tensor, starts: Sequence[int]
) -> None:
    """Runs hiface_scatter_rows or hiface_gather_rows."""
    channels, n = rows.shape
    n_pixels = images.shape[2] * images.shape[3]
    first, last = (rows, images) if kernel is loaded_library().hiface_scatter_rows else (images, rows)
    pointers = (first.data_ptr(), pixels.data_ptr(), last.data_ptr())

    def work(image: int, start: int, stop: int) -> None:
        kernel(pointers[0], pointers[1], n, channels, image, n_pixels, start, stop, pointers[2])

    _for_each_image(starts, work)
