# SPDX-License-Identifier: Apache-2.0
"""Small videos that tests make for themselves."""

from fractions import Fraction

import numpy as np
import pytest

from hiface.data.video import open_video
from hiface.export.video import VideoWriter

av = pytest.importorskip("av")

W, H = 64, 48
COLOURS = [(200, 150, 120), (30, 60, 90), (255, 255, 255), (0, 0, 0), (220, 40, 30), (40, 160, 60)]


def flat(colour, width=W, height=H):
    return np.broadcast_to(np.array(colour, np.uint8), (height, width, 3)).copy()


def noise(n, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (n, H, W, 3)).astype(np.uint8)


def write(path, pictures, times_s=None, **options):
    with VideoWriter(path, pictures[0].shape[1], pictures[0].shape[0], 25, **options) as writer:
        for i, picture in enumerate(pictures):
            writer.write(picture, None if times_s is None else times_s[i])
    return path


def raw_video(path, frames, codec="libx264", prepare=None, **options):
    """Encodes PyAV frames as they are, 25 a second, without any help of the writer under test."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25, options=options)
        stream.width, stream.height = frames[0].width, frames[0].height
        stream.pix_fmt = frames[0].format.name
        if prepare is not None:
            prepare(stream)
        for i, frame in enumerate(frames):
            frame.pts, frame.time_base = i, Fraction(1, 25)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def yuv(y, u, v, pixel_format="yuv420p"):
    """A flat frame with these stored values."""
    frame = av.VideoFrame(W, H, pixel_format)
    for plane, value in zip(frame.planes, (y, u, v), strict=True):
        kind = np.uint16 if "10" in pixel_format else np.uint8
        plane.update(np.full(plane.buffer_size // kind().itemsize, value, kind).tobytes())
    return frame


def tags(matrix, colour_range=1, primaries=1, curve=1):
    def prepare(stream):
        codec = stream.codec_context
        codec.colorspace, codec.color_range = matrix, colour_range
        codec.color_primaries, codec.color_trc = primaries, curve

    return prepare


def read(path):
    with open_video(path) as video:
        frames = list(video)
    return video, frames


def sound(path, codec, picture=True, rate=48000, first_frame=0, seconds=2.0):
    """A tone that is silent from 1.0 to 1.1 s, beside pictures of which the first comes at `first_frame`."""
    with av.open(str(path), "w") as container:
        if picture:
            video = container.add_stream("libx264", rate=25)
            video.width, video.height, video.pix_fmt = W, H, "yuv420p"
        audio = container.add_stream(codec, rate=rate)
        audio.layout = "mono"
        for i in range(round(seconds * 25) if picture else 0):
            frame = yuv(i % 200, 128, 128)
            frame.pts, frame.time_base = i + first_frame, Fraction(1, 25)
            container.mux(video.encode(frame))
        t = np.arange(round(rate * seconds)) / rate
        wave = np.where((t >= 1.0) & (t < 1.1), 0, 8000 * np.sin(2 * np.pi * 440 * t)).astype(np.int16)
        frame = av.AudioFrame.from_ndarray(wave[None], format="s16", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = rate, 0, Fraction(1, rate)
        for packet in [*audio.encode(frame), *audio.encode(None)]:
            container.mux(packet)
    return path
