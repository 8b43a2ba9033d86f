# SPDX-License-Identifier: Apache-2.0
"""Reads panoramas of surroundings: .hdr and .exr with their full range, ordinary pictures too."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from hiface.colour import srgb_to_linear
from hiface.data.images import IMAGE_SUFFIXES, MAX_PIXELS, read_photo
from hiface.errors import ImageError, ImageTooLargeError, MissingExtraError, UnreadableImageError

HDR_SUFFIXES = (".hdr", ".exr")
_LARGEST_PX = 2048
_ASPECT = (1.9, 2.1)  # width over height of an equirectangular picture


def read_panorama(path: str | Path) -> Tensor:
    """Reads an equirectangular picture of everything around a place, such as those of Poly Haven.

    Args:
        path: A Radiance (.hdr) or OpenEXR (.exr) file, or an ordinary picture, taken for sRGB.

    Returns:
        [3, H, W] linear radiance, 0 or more, made smaller to 2,048 px or less; the scale is the file's.

    Raises:
        UnreadableImageError: Missing or damaged.
        ImageTooLargeError: More than 120 megapixels.
        ImageError: Not twice as wide as high, or dark everywhere.
        MissingExtraError: .hdr and .exr need the package OpenImageIO.
    """
    path = Path(path)
    if not path.is_file():
        raise UnreadableImageError(f"{path} does not exist; check the path")
    if path.suffix.lower() in HDR_SUFFIXES:
        pixels = torch.from_numpy(_read_hdr(path))
    else:
        pixels = torch.from_numpy(read_photo(path).image_srgb)
    height, width = pixels.shape[:2]
    if not _ASPECT[0] <= width / height <= _ASPECT[1]:
        raise ImageError(
            f"{path.name} is {width} x {height}; a panorama is equirectangular, twice as wide as high"
        )
    step = -(-width // _LARGEST_PX)
    rows = [_averaged(pixels[row : row + step], step) for row in range(0, height - step + 1, step)]
    linear = torch.cat(rows, dim=1)
    if float(linear.max()) <= 0.0:
        raise ImageError(f"{path.name} holds no light; choose another panorama")
    return linear


def _averaged(pixels: Tensor, step: int) -> Tensor:
    """[step, W, 3] pixels, uint8 sRGB or linear, as one row of averages, [3, 1, W / step] linear."""
    linear = srgb_to_linear(pixels.float() / 255.0) if pixels.dtype == torch.uint8 else pixels
    most = linear[linear.isfinite()].max() if bool(linear.isfinite().any()) else linear.new_zeros(())
    linear = torch.nan_to_num(linear, nan=0.0, posinf=float(most), neginf=0.0).clamp_min(0.0)
    return F.avg_pool2d(linear.permute(2, 0, 1)[None], step)[0]


def _read_hdr(path: Path) -> np.ndarray:
    """[H, W, 3] float32 linear pixels."""
    try:
        import OpenImageIO as oiio
    except ImportError as error:
        raise MissingExtraError(
            f"{path.suffix} files need OpenImageIO; type: pip install 'hiface[hdr]' (or use one of "
            f"{', '.join(IMAGE_SUFFIXES)})"
        ) from error
    source = oiio.ImageInput.open(str(path))
    if source is None:
        raise UnreadableImageError(f"{path} cannot be read as a panorama: {oiio.geterror()}")
    try:
        spec = source.spec()
        if spec.width * spec.height > MAX_PIXELS:
            raise ImageTooLargeError(f"{path.name} is too large; make it {_LARGEST_PX} pixels wide")
        pixels = source.read_image(0, 0, 0, spec.nchannels, "float")
        problem = source.geterror()
    finally:
        source.close()
    if pixels is None or problem:
        raise UnreadableImageError(f"{path} cannot be read as a panorama: {problem}")
    pixels = np.asarray(pixels, dtype=np.float32).reshape(spec.height, spec.width, spec.nchannels)
    return pixels[..., :3] if spec.nchannels >= 3 else np.repeat(pixels[..., :1], 3, axis=2)
