# SPDX-License-Identifier: Apache-2.0
"""Frames as the bytes of an .mp4 file (H.264 by PyAV), with true times."""

from __future__ import annotations

import io
import math
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np

from hiface.errors import OptionError
from hiface.optional import needed

_TICKS_PER_S = 90_000
_TONE_HZ, _TONE_LEVEL, _AUDIO_PER_S, _AUDIO_BLOCK = 220.0, 0.01, 48_000, 1024
_BT709 = 1  # matrix, primaries and transfer of high-definition video


@dataclass(frozen=True)
class Encoding:
    """How a video is stored.

    Attributes:
        fps: Nominal rate.
        crf: Quality of H.264, 0 (lossless) to 51; 18 looks perfect, 30 is what chats send.
        has_tone: A quiet tone as second track.
        rotation_deg: 0 or 90: how far players have to turn the stored frames clockwise.
    """

    fps: float
    crf: int = 23
    has_tone: bool = False
    rotation_deg: int = 0


def encode_video(frames: Iterable[np.ndarray], times_s: np.ndarray, encoding: Encoding) -> bytes:
    """Encodes a video; the same frames give the same pictures with the same version of PyAV.

    Args:
        frames: [H, W, 3] uint8 sRGB, upright, even sides, all of one size.
        times_s: [n] time of each frame, seconds from 0, growing.
        encoding: How.

    Returns:
        An .mp4 file.

    Raises:
        MissingExtraError: PyAV is missing.
        OptionError: There is no such rotation, or there are no frames.
    """
    if len(times_s) == 0:
        raise OptionError("a video has at least one frame")
    if encoding.rotation_deg not in (0, 90):
        raise OptionError(f"videos are turned by 0 or 90 degrees, not by {encoding.rotation_deg}")
    av, buffer = needed("av", "writing videos needs PyAV", "video"), io.BytesIO()
    with av.open(buffer, "w", format="mp4") as container:
        stream: Any = None
        tone: Any = None
        stored = np.zeros(0)
        for frame, time_s in zip(frames, times_s, strict=True):
            stored = np.ascontiguousarray(np.rot90(frame, encoding.rotation_deg // 90))
            if stream is None:
                stream = _video_stream(container, stored, encoding)
                tone = container.add_stream("aac", rate=_AUDIO_PER_S) if encoding.has_tone else None
            picture = av.VideoFrame.from_ndarray(stored, format="rgb24")
            picture = picture.reformat(format="yuv420p", dst_colorspace="itu709")
            picture.pts, picture.time_base = round(time_s * _TICKS_PER_S), Fraction(1, _TICKS_PER_S)
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))
        if tone is not None:
            for block in _tone(av, float(times_s[-1]) + 1 / encoding.fps):
                container.mux(tone.encode(block))
            container.mux(tone.encode(None))
    content = buffer.getvalue()
    return _turned(content, stored.shape[0]) if encoding.rotation_deg else content


def _video_stream(container: Any, stored: np.ndarray, encoding: Encoding) -> Any:
    options = {"crf": str(encoding.crf), "preset": "veryfast"}
    rate = Fraction(encoding.fps).limit_denominator(1001)
    stream = container.add_stream("h264", rate=rate, options=options)
    stream.height, stream.width, stream.pix_fmt = stored.shape[0], stored.shape[1], "yuv420p"
    context = stream.codec_context
    context.time_base, context.thread_count = Fraction(1, _TICKS_PER_S), 1
    context.colorspace = context.color_primaries = context.color_trc = _BT709
    return stream


def _turned(content: bytes, height_px: int) -> bytes:
    """The file with the mark that players turn its frames clockwise by 90 degrees.

    That is the matrix of the track's header box "tkhd" (ISO/IEC 14496-12, 8.3.2), which older versions of
    PyAV cannot write.
    """
    at = content.index(b"tkhd") - 4
    place = at + (60 if content[at + 8] == 1 else 48)
    one = 1 << 16
    matrix = struct.pack(">9i", 0, one, 0, -one, 0, 0, height_px * one, 0, 1 << 30)
    return content[:place] + matrix + content[place + len(matrix) :]


def _tone(av: Any, seconds: float) -> Iterator[Any]:
    for block in range(math.ceil(seconds * _AUDIO_PER_S / _AUDIO_BLOCK)):
        at = (block * _AUDIO_BLOCK + np.arange(_AUDIO_BLOCK)) / _AUDIO_PER_S
        wave = (_TONE_LEVEL * np.sin(2 * math.pi * _TONE_HZ * at)).astype(np.float32)
        frame = av.AudioFrame.from_ndarray(wave[None], format="fltp", layout="mono")
        frame.sample_rate, frame.pts = _AUDIO_PER_S, block * _AUDIO_BLOCK
        yield frame
