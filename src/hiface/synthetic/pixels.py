# SPDX-License-Identifier: Apache-2.0
"""Label maps as the whole numbers that files hold, tone curves, and pictures as PNG files.

Compiled passes do it; the functions called `..._plain` do the same without them.
"""

from __future__ import annotations

import io
import math
import struct
import zlib
from functools import cache

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from hiface.colour import linear_to_srgb, to_uint8
from hiface.render.kernels import pixels as kernels
from hiface.render.kernels.library import has_library

_PNG_LEVEL = 1  # higher levels take two to three times as long for a tenth less
_PNG_PLAIN, _PNG_UP = 0, 2  # filters of the rows: none, difference to the row above


def _levels(linear: Tensor) -> Tensor:
    return to_uint8(linear_to_srgb(linear))


def srgb_pixels_plain(linear: np.ndarray) -> np.ndarray:
    """`srgb_pixels` in plain torch."""
    return _levels(torch.from_numpy(linear)).permute(1, 2, 0).contiguous().numpy()


@cache
def _srgb_steps() -> tuple[np.ndarray, np.ndarray]:
    """Where each level of sRGB begins, found by halving, and the level at the beginning of each bin."""
    level = torch.arange(1, 256, dtype=torch.int32)
    low, high = torch.zeros_like(level), torch.full_like(level, int(np.float32(1).view(np.int32)))
    while bool((high - low > 1).any()):  # of bit patterns, which are ordered like what they mean
        middle = (low + high) // 2
        reached = _levels(middle.view(torch.float32)) >= level
        low, high = torch.where(reached, low, middle), torch.where(reached, middle, high)
    steps = np.append(high.view(torch.float32).numpy(), np.float32(np.inf))
    bins = np.arange(kernels.SRGB_BINS, dtype=np.float32) / np.float32(kernels.SRGB_BINS) + np.float32(1)
    octaves = np.float32(2.0) ** -np.arange(kernels.SRGB_OCTAVES, 0, -1, dtype=np.float32)
    starts = (octaves[:, None] * bins).reshape(-1)
    return steps, np.searchsorted(steps[:255], starts, side="right").astype(np.uint8)


def srgb_pixels(linear: np.ndarray) -> np.ndarray:
    """Linear colour [3, H, W] float32 as sRGB levels [H, W, 3] uint8; values outside 0..1 are clamped."""
    return kernels.srgb_pixels(linear, *_srgb_steps()) if has_library() else srgb_pixels_plain(linear)


def normal_pixels_plain(normals: np.ndarray) -> np.ndarray:
    """`normal_pixels` in plain numpy."""
    there = np.abs(normals).sum(axis=0, keepdims=True) > 0
    values = np.where(there, normals * 127.5 + 128.0, 0).clip(0, 255).astype(np.uint8)
    return np.ascontiguousarray(values.transpose(1, 2, 0))


def normal_pixels(normals: np.ndarray) -> np.ndarray:
    """Unit normals [3, H, W] float32 as [H, W, 3] uint8: (n + 1) / 2 of 255, and 0 for nothing."""
    return kernels.normal_pixels(normals) if has_library() else normal_pixels_plain(normals)


def step_pixels_plain(lengths: np.ndarray, step: float, zero: float = 0.0) -> np.ndarray:
    """`step_pixels` in plain numpy."""
    return (lengths / np.float32(step) + np.float32(zero + 0.5)).clip(0, 65535).astype(np.uint16)


def step_pixels(lengths: np.ndarray, step: float, zero: float = 0.0) -> np.ndarray:
    """Lengths in whole steps, rounded.

    Args:
        lengths: Float32, any shape.
        step: Length of a step, in the same unit.
        zero: What 0 becomes.

    Returns:
        Uint16 of the same shape, cut at the ends.
    """
    if has_library():
        return kernels.step_pixels(lengths, step, zero + 0.5)
    return step_pixels_plain(lengths, step, zero)


def look_up_plain(table: Tensor, picture_linear: Tensor, scale: float, brightest: float) -> Tensor:
    """`look_up` in plain torch."""
    index = picture_linear.clamp(0, brightest).sqrt_().mul_(scale).add_(0.5).to(torch.int32)
    return table.index_select(0, index.reshape(-1)).reshape(picture_linear.shape)


def look_up(table: Tensor, picture_linear: Tensor, brightest: float = 1.0) -> Tensor:
    """Values of a table [N] over the square root of 0..brightest, for float32 of any shape."""
    scale = (len(table) - 1) / math.sqrt(brightest)
    chosen = kernels.look_up if has_library() else look_up_plain
    return chosen(table, picture_linear, scale, brightest)


def _png_data(pixels: np.ndarray, up: bool) -> bytes:
    """Filtered and compressed rows, what the IDAT chunk holds."""
    rows = np.ascontiguousarray(pixels, dtype=pixels.dtype.newbyteorder(">")).view(np.uint8)
    rows = rows.reshape(len(pixels), -1)
    out = np.empty((len(rows), rows.shape[1] + 1), dtype=np.uint8)
    out[:, 0] = _PNG_UP if up else _PNG_PLAIN
    out[:, 1:] = rows
    if up:
        out[1:, 1:] -= rows[:-1]
    packer = zlib.compressobj(_PNG_LEVEL, zlib.DEFLATED, zlib.MAX_WBITS, zlib.DEF_MEM_LEVEL, zlib.Z_RLE)
    return packer.compress(out.data) + packer.flush()


def _png_chunk(kind: bytes, content: bytes) -> tuple[bytes, ...]:
    checksum = zlib.crc32(content, zlib.crc32(kind))
    return struct.pack(">I", len(content)), kind, content, struct.pack(">I", checksum)


def png_bytes(pixels: np.ndarray) -> bytes:
    """[S, S], [S, S, 3] uint8 or [S, S] uint16 as PNG; the same pixels give the same bytes.

    One filter for all rows, and runs instead of a search for repetitions: half the time of choosing a filter
    for each row, and smaller for what is drawn here.
    """
    up = not (pixels.ndim == 2 and pixels.dtype == np.uint8)
    packed = _png_data(pixels, up)
    kind = (8 * pixels.itemsize, 2 if pixels.ndim == 3 else 0)
    header = struct.pack(">IIBBBBB", pixels.shape[1], pixels.shape[0], *kind, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", packed), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(part for chunk in chunks for part in _png_chunk(*chunk))


def png_pixels(content: bytes) -> np.ndarray:
    """The inverse of `png_bytes`."""
    with Image.open(io.BytesIO(content)) as image:
        values = np.asarray(image)
    return values.astype(np.uint16) if values.dtype.kind == "i" else values
