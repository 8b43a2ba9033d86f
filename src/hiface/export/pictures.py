# SPDX-License-Identifier: Apache-2.0
"""Textures and pictures as file contents."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image
from torch import Tensor

from hiface.colour import to_uint8
from hiface.errors import ShapeError

JPEG_QUALITY = 93


def to_array(image_srgb: Tensor) -> np.ndarray:
    """A picture as an array.

    Args:
        image_srgb: [3, H, W] sRGB, 0..1.

    Returns:
        [H, W, 3] uint8.

    Raises:
        ShapeError: Not a tensor of that shape.
    """
    if image_srgb.dim() != 3 or image_srgb.shape[0] != 3 or not image_srgb.is_floating_point():
        raise ShapeError(
            f"a picture must be [3, H, W] floating sRGB, got {tuple(image_srgb.shape)} {image_srgb.dtype}"
        )
    return to_uint8(image_srgb.detach()).permute(1, 2, 0).contiguous().cpu().numpy()


def png_bytes(image_srgb: Tensor) -> bytes:
    """[3, H, W] sRGB in 0..1 as the content of a PNG file; raises ShapeError like `to_array`."""
    return pil_png(Image.fromarray(to_array(image_srgb)))


def pil_png(picture: Image.Image) -> bytes:
    """A picture as the content of a PNG file."""
    stream = io.BytesIO()
    picture.save(stream, "PNG")
    return stream.getvalue()


def jpeg_bytes(image_srgb: Tensor) -> bytes:
    """[3, H, W] sRGB in 0..1 as the content of a JPEG file; raises ShapeError like `to_array`."""
    return pil_jpeg(Image.fromarray(to_array(image_srgb)))


def pil_jpeg(picture: Image.Image) -> bytes:
    """A picture as the content of a JPEG file, colours at full resolution."""
    stream = io.BytesIO()
    picture.save(stream, "JPEG", quality=JPEG_QUALITY, subsampling=0)
    return stream.getvalue()
