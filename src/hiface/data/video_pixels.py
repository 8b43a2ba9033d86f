# SPDX-License-Identifier: Apache-2.0
"""Decoded frames of any pixel format as upright sRGB pictures.

Which matrix, range, transfer curve and primaries a frame has is said by its tags (ITU-T H.273). Untagged
frames are BT.709 from 1280 pixels of width or 577 of height on and BT.601 below, as players have it; motion
JPEG is BT.601. As everywhere in practice, the curves of BT.601, BT.709 and BT.2020 count as sRGB's. PQ and
HLG (HDR) are decoded to light (BT.2100), put on SDR's scale with their reference white of 203 cd/m2 as white
(BT.2408), their highlights rolled off; wide primaries are brought to sRGB's and clipped.
"""

from __future__ import annotations

from fractions import Fraction
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps

from hiface.colour import linear_to_srgb, srgb_to_linear, to_uint8
from hiface.data.images import MAX_PIXELS
from hiface.errors import VideoError
from hiface.optional import needed

_MATRIX_TO_SWS = {1: 1, 4: 4, 5: 5, 6: 5, 7: 7, 9: 9, 10: 9}  # H.273 matrix coefficients to swscale's numbers
_SWS_709, _SWS_601 = 1, 5
_LIMITED, _FULL = 1, 2
_PQ, _HLG = 16, 18
_BT2020, _DCI_P3, _DISPLAY_P3 = 9, 11, 12
_WHITE_NITS = 203.0
_PEAK_NITS = 1000.0
_KNEE = 0.7
_STEPS = 65536.0 / (10000.0 / _WHITE_NITS)  # of the table of bent light: PQ ends at 10,000 cd/m2
_TO_SRGB = {  # linear RGB of these primaries to linear sRGB's, both with white D65
    _BT2020: ((1.6605, -0.5876, -0.0728), (-0.1246, 1.1329, -0.0083), (-0.0182, -0.1006, 1.1187)),
    _DISPLAY_P3: ((1.2249, -0.2247, 0.0), (-0.0420, 1.0419, 0.0), (-0.0197, -0.0786, 1.0979)),
}


def refuse_huge(width: int, height: int, name: str) -> None:
    """Raises VideoError for frames with more pixels than hiface is willing to decode."""
    if width * height > MAX_PIXELS:
        raise VideoError(
            f"{name} has frames of {width} x {height} pixels, the limit is {MAX_PIXELS / 1e6:.0f} million; "
            "scale it down, 1080p is plenty"
        )


class FrameReader:
    """Turns decoded frames of one stream into pictures, all of the first one's size.

    Attributes:
        resized: Number of frames that had another size, or were turned otherwise, and were scaled to the
            first one's size; those turned otherwise with bars beside them, so that faces keep their shape.
    """

    def __init__(self, stream: Any, name: str) -> None:
        """Takes a PyAV video stream and the name that messages use."""
        self.resized = 0
        self._name = name
        self._codec = stream.codec_context
        self._aspect = stream.sample_aspect_ratio or self._codec.sample_aspect_ratio
        self._reformatter = needed("av.video.reformatter", "videos need PyAV", "video").VideoReformatter()
        self._stored: tuple[int, int] | None = None
        self._size: tuple[int, int] | None = None
        self._upright: tuple[int, int] | None = None

    def image(self, frame: Any) -> np.ndarray:
        """Upright picture of a decoded frame.

        Args:
            frame: PyAV video frame.

        Returns:
            [H, W, 3] uint8 sRGB, contiguous, of its own memory.

        Raises:
            VideoError: It has too many pixels.
        """
        refuse_huge(frame.width, frame.height, self._name)
        if self._size is None:
            self._stored = (frame.width, frame.height)
            self._size = square_pixels(frame.width, frame.height, self._aspect)
            refuse_huge(*self._size, self._name)
        trc, primaries = _curve_and_primaries(self._codec)
        wide = trc in (_PQ, _HLG) or primaries in _TO_SRGB
        pixels = self._convert(frame, "rgb48le" if wide else "rgb24")
        image = _wide_to_srgb(pixels, trc, primaries) if wide else pixels
        matrix = frame.side_data.get("DISPLAYMATRIX")
        if matrix is not None:
            image = turn_upright(image, np.frombuffer(bytes(matrix), np.int32))
        size = image.shape[1], image.shape[0]
        self._upright = self._upright or size
        self.resized += (frame.width, frame.height) != self._stored or size != self._upright
        if size != self._upright:
            image = np.array(ImageOps.pad(Image.fromarray(image), self._upright, Image.Resampling.BICUBIC))
        return image

    def _convert(self, frame: Any, pixel_format: str) -> np.ndarray:
        """Scaled to the stream's size, [H, W, 3] uint8 or uint16 that nobody else writes to."""
        assert self._size is not None
        space, colour_range = _matrix_and_range(frame, self._codec.name)
        converted = self._reformatter.reformat(
            frame,
            *self._size,
            format=pixel_format,
            src_colorspace=space,
            # RGB has none, but PyAV to 16 skips all of this where both sides are the same
            dst_colorspace=_SWS_709 if space == _SWS_601 else _SWS_601,
            src_color_range=colour_range,
            dst_color_range=_FULL,
            interpolation=None if (frame.width, frame.height) == self._size else "BICUBIC",
        )
        plane = converted.planes[0]
        kind = np.dtype(np.uint8 if pixel_format == "rgb24" else "<u2")
        rows = np.frombuffer(plane, kind).reshape(-1, plane.line_size // kind.itemsize)
        width, height = self._size
        return rows[:height, : width * 3].reshape(height, width, 3).copy()


def square_pixels(width: int, height: int, aspect: Fraction | None) -> tuple[int, int]:
    """Size with square pixels; the side that is too short for it grows.

    Args:
        width: Stored pixels.
        height: Stored pixels.
        aspect: Width of a pixel over its height; None, and what cannot be true, counts as 1.

    Returns:
        Width and height in pixels.
    """
    if not aspect or not 0.1 <= aspect <= 10:
        return width, height
    return (round(width * aspect), height) if aspect >= 1 else (width, round(height / aspect))


def turn_upright(image: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Turns and mirrors a picture as its display matrix says, to the nearest quarter turn.

    Args:
        image: [H, W, 3] uint8, contiguous.
        matrix: [9] display matrix (ISO 14496-12, 8.3.2) in fixed point: x' = a x + c y, y' = b x + d y
            with a, b, c, d at 0, 1, 3, 4.

    Returns:
        The picture, contiguous.
    """
    if len(matrix) < 5:
        return image
    a, b, c, d = (int(matrix[i]) for i in (0, 1, 3, 4))
    pixels = image.view("V3")[..., 0]  # whole pixels move at twice the speed of single bytes
    swap = abs(a) + abs(d) < abs(b) + abs(c)
    if swap:
        pixels, a, d = pixels.T, c, b
    pixels = pixels[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1]
    return np.ascontiguousarray(pixels).view(np.uint8).reshape(*pixels.shape, 3)


def _matrix_and_range(frame: Any, codec: str) -> tuple[int | None, int]:
    """Colour matrix by swscale's numbers, None for RGB, and range of a frame."""
    if frame.format.is_rgb or frame.format.has_palette:
        return None, _FULL
    name = frame.format.name
    space = _MATRIX_TO_SWS.get(int(frame.colorspace))
    if codec == "mjpeg":
        space = _SWS_601
    elif space is None:
        space = _SWS_709 if frame.width >= 1280 or frame.height > 576 else _SWS_601
    untagged = _FULL if name.startswith(("yuvj", "gray", "mono", "ya")) or codec == "mjpeg" else _LIMITED
    tagged = int(frame.color_range)
    return space, _FULL if name.startswith("yuvj") else tagged if tagged in (_LIMITED, _FULL) else untagged


def _curve_and_primaries(codec: Any) -> tuple[int, int]:
    primaries = int(codec.color_primaries or 0)
    return int(codec.color_trc or 0), _DISPLAY_P3 if primaries == _DCI_P3 else primaries


def _wide_to_srgb(pixels: np.ndarray, trc: int, primaries: int) -> np.ndarray:
    """[H, W, 3] uint16 of an HDR curve or wide primaries to uint8 sRGB."""
    codes = np.ascontiguousarray(pixels.reshape(-1, 3).T)
    linear = np.take(_curve_table(trc), codes)  # [3, N]
    if trc == _HLG:  # the display's share of the curve: BT.2100, system gamma 1.2
        luminance = np.array((0.2627, 0.6780, 0.0593), np.float32) @ linear
        linear *= np.take(_system_gamma_table(), (luminance * 65535.0).astype(np.uint16))
    if primaries in _TO_SRGB:
        linear = np.array(_TO_SRGB[primaries], np.float32) @ linear
    if trc in (_PQ, _HLG):
        strongest = np.maximum(np.maximum(linear[0], linear[1]), linear[2])
        steps = np.clip(strongest * _STEPS, 0.0, 65535.0).astype(np.uint16)
        linear *= np.take(_roll_off_table(), steps)
    np.clip(linear, 0.0, 1.0, out=linear)
    srgb = np.take(_srgb_table(), (linear * 65535.0 + 0.5).astype(np.uint16))
    return np.ascontiguousarray(srgb.T).reshape(pixels.shape)


def _roll_off(linear: np.ndarray) -> np.ndarray:
    """Keeps what is under the knee and bends what is over it so that the peak becomes white.

    Extended Reinhard (2002) above the knee, where its slope is 1.
    """
    peak = (_PEAK_NITS / _WHITE_NITS - _KNEE) / (1.0 - _KNEE)
    over = np.maximum(linear - _KNEE, 0.0) / (1.0 - _KNEE)
    bent = _KNEE + (1.0 - _KNEE) * over * (1.0 + over / peak**2) / (1.0 + over)
    return np.where(linear > _KNEE, bent, linear)


@lru_cache(maxsize=4)
def _curve_table(trc: int) -> np.ndarray:
    """[65536] float32: code value to linear light; PQ: 1 is reference white; HLG: scene light 0..1."""
    code = np.arange(65536) / 65535.0
    if trc == _PQ:  # SMPTE ST 2084
        m1, m2, c1, c2, c3 = 0.1593017578125, 78.84375, 0.8359375, 18.8515625, 18.6875
        root = code ** (1.0 / m2)
        linear = (np.maximum(root - c1, 0.0) / (c2 - c3 * root)) ** (1.0 / m1) * (10000.0 / _WHITE_NITS)
    elif trc == _HLG:  # ARIB STD-B67
        a, b, c = 0.17883277, 0.28466892, 0.55991073
        linear = np.where(code <= 0.5, code**2 / 3.0, (np.exp((code - c) / a) + b) / 12.0)
    else:
        linear = srgb_to_linear(torch.from_numpy(code)).numpy()
    return linear.astype(np.float32)


@lru_cache(maxsize=1)
def _system_gamma_table() -> np.ndarray:
    """[65536] float32: scene luminance 0..1 of HLG to the factor to light of which reference white is 1."""
    luminance = np.arange(0.5, 65536.0) / 65536.0
    return (luminance**0.2 * (_PEAK_NITS / _WHITE_NITS)).astype(np.float32)


@lru_cache(maxsize=1)
def _roll_off_table() -> np.ndarray:
    """[65536] float32: the strongest channel, `_STEPS` to 1, to the factor that bends it."""
    strongest = np.arange(0.5, 65536.0) / _STEPS
    return (np.minimum(_roll_off(strongest), 1.0) / strongest).astype(np.float32)


@lru_cache(maxsize=1)
def _srgb_table() -> np.ndarray:
    """[65536] uint8: linear light 0..1 to sRGB."""
    return to_uint8(linear_to_srgb(torch.arange(65536) / 65535.0)).numpy()
