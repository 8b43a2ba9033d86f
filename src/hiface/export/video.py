# SPDX-License-Identifier: Apache-2.0
"""Videos that play everywhere: H.264 with true times, BT.709 colours and another file's sound."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from hiface.atomic import part_of, put_in_place
from hiface.errors import OutputError, ShapeError, VideoError
from hiface.export.video_audio import SoundCopy
from hiface.optional import needed

CONTAINERS = {".mp4": "mp4", ".m4v": "mp4", ".mov": "mov", ".mkv": "matroska"}
_TIME_BASE = Fraction(1, 90000)
_MPEG4_TIME_BASE = Fraction(1, 60000)  # its clock has 16 bits
_BT709 = 1
_LIMITED, _FULL = 1, 2
_BITS_PER_PIXEL = 0.2
_ENCODERS: tuple[tuple[str, dict[str, str]], ...] = (
    ("libx264", {"crf": "18", "preset": "veryfast"}),
    ("libopenh264", {}),
    ("h264_videotoolbox", {}),
    ("h264_mf", {}),
    ("h264_nvenc", {}),
    ("mpeg4", {}),
)


class VideoWriter:
    """Writes pictures as a video; the file appears under its name when it is whole.

    ```python
    with VideoWriter("out.mp4", 640, 480, fps=30, audio_from="talk.mp4") as video:
        video.write(image_srgb)
    ```

    Frames keep their times (variable frame rate, to 1/90000 s, which is the least that they are apart in the
    file); the first one is at 0. Sides that are odd get one more pixel by repeating the edge, since H.264's
    colours are stored by blocks of two. Where an exception, Ctrl-C included, leaves the `with` block, nothing
    is left behind unless `keep_partial`.

    Attributes:
        path: File to write.
        keep_partial: Finish what was written so far as a whole file when an exception ends the block.
        warnings: What went wrong with the sound, a line each.
    """

    def __init__(
        self,
        path: str | Path,
        width: int,
        height: int,
        fps: float,
        audio_from: str | Path | None = None,
        keep_partial: bool = False,
    ) -> None:
        """Opens the file.

        Args:
            path: File to write: .mp4, .m4v, .mov or .mkv.
            width: Pixels of the pictures.
            height: Pixels of the pictures.
            fps: Frames a second, where `write` is not told times, and the duration of the last frame.
            audio_from: File whose sound is taken, from where its own picture starts plus the first frame's
                time, up to the video's end; copied where the container can hold it, else made AAC. Without
                sound in it there is none; damaged sound is a warning.
            keep_partial: See the class.

        Raises:
            VideoError: Another suffix, a size or rate that cannot be, or a missing `audio_from`.
            OutputError: The folder cannot be written.
            MissingExtraError: PyAV is not installed.
        """
        self._av = needed("av", "writing videos needs PyAV", "video")
        self.path = Path(path)
        self.keep_partial = keep_partial
        self.warnings: list[str] = []
        if self.path.suffix.lower() not in CONTAINERS:
            raise VideoError(f"{self.path.name}: use {', '.join(CONTAINERS)} as suffix of a video")
        if min(width, height) < 1 or not 0 < fps < 10000:
            raise VideoError(f"a video cannot have {width} x {height} pixels at {fps} frames a second")
        if audio_from is not None and not Path(audio_from).is_file():
            raise VideoError(f"{audio_from}, whose sound is asked for, does not exist; check the path")
        self._size = (height, width)
        self._fps = fps
        self._first_s = 0.0
        self._last_s: float | None = None
        self._last_pts = -1
        self._done = False
        self._sound: SoundCopy | None = None
        self._part = part_of(self.path)
        try:
            self._open(None if audio_from is None else Path(audio_from))
        except BaseException:
            self.discard()
            raise

    def write(self, image_srgb: np.ndarray, time_s: float | None = None) -> None:
        """Adds a frame.

        Args:
            image_srgb: [H, W, 3] uint8.
            time_s: When it is shown, in seconds, over the last frame's; None: one frame after the last.

        Raises:
            ShapeError: The picture has another size or type.
            VideoError: The time does not increase, or the writer is closed.
            OutputError: The file cannot be written.
        """
        if self._done:
            raise VideoError(f"{self.path.name} is closed; make another VideoWriter")
        if image_srgb.shape != (*self._size, 3) or image_srgb.dtype != np.uint8:
            raise ShapeError(
                f"a frame must be [{self._size[0]}, {self._size[1]}, 3] uint8, got "
                f"{list(image_srgb.shape)} {image_srgb.dtype}"
            )
        if time_s is None:
            time_s = 0.0 if self._last_s is None else self._last_s + 1.0 / self._fps
        if not np.isfinite(time_s) or (self._last_s is not None and time_s <= self._last_s):
            raise VideoError(f"frame times must increase: {time_s} s comes after {self._last_s} s")
        if self._last_s is None:
            self._first_s = time_s
            if self._sound is not None:
                self._sound.start_at(time_s)
        pts = max(round((time_s - self._first_s) / self._base), self._last_pts + 1)
        frame = self._frame(image_srgb)
        frame.pts, frame.time_base = pts, self._base
        self._last_s, self._last_pts = time_s, pts
        self._mux(self._stream.encode(frame))

    def close(self) -> None:
        """Finishes the file and gives it its name; does nothing the second time.

        Raises:
            VideoError: No frame was written.
            OutputError: The file cannot be written.
        """
        if self._done:
            return
        if self._last_s is None:
            self.discard()
            raise VideoError(f"{self.path.name} would have no frames; write one at least")
        try:
            self._mux(self._stream.encode(None))
            if self._sound is not None:
                self._sound.until(self._end_s(), self._end_s())
                self.warnings += self._sound.warnings
                self._sound.close()
            with self._refusals():
                self._container.close()
        except BaseException:
            self.discard()
            raise
        self._done = True
        put_in_place(self._part, self.path)

    def discard(self) -> None:
        """Throws away what was written."""
        if self._done:
            return
        self._done = True
        if self._sound is not None:
            self._sound.close()
        try:
            if hasattr(self, "_container"):
                self._container.close()
        except (self._av.FFmpegError, ValueError, OSError):
            return  # the file is deleted: its end need not be written
        finally:
            self._part.unlink(missing_ok=True)

    def __enter__(self) -> VideoWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None or (self.keep_partial and self._last_s is not None):
            self.close()
        else:
            self.discard()

    def _end_s(self) -> float:
        return float(self._last_pts * self._base) + 1.0 / self._fps

    def _open(self, audio_from: Path | None) -> None:
        kind = CONTAINERS[self.path.suffix.lower()]
        options = {} if kind == "matroska" else {"movflags": "+faststart", "video_track_timescale": "90000"}
        height, width = (side + side % 2 for side in self._size)
        name, codec_options = _encoder(self._av, width, height)
        self._base = _time_base(name)
        with self._refusals():
            self._container = self._av.open(str(self._part), "w", format=kind, container_options=options)
            rate = Fraction(self._fps).limit_denominator(1001)
            self._stream = self._container.add_stream(name, rate=rate, options=dict(codec_options))
        _set_up(self._stream.codec_context, width, height, self._fps)
        self._stream.time_base = self._base
        self._reformatter = needed("av.video.reformatter", "videos need PyAV", "video").VideoReformatter()
        if audio_from is not None:
            self._sound = SoundCopy(audio_from, self._container, kind)

    def _frame(self, image_srgb: np.ndarray) -> Any:
        """Picture to yuv420p, BT.709, limited range."""
        height, width = self._size
        if height % 2 or width % 2:
            image_srgb = np.pad(image_srgb, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
        rgb = self._av.VideoFrame.from_ndarray(np.ascontiguousarray(image_srgb), format="rgb24")
        frame = self._reformatter.reformat(
            rgb, format="yuv420p", dst_colorspace=_BT709, src_color_range=_FULL, dst_color_range=_LIMITED
        )
        frame.colorspace, frame.color_range = _BT709, _LIMITED
        return frame

    def _mux(self, packets: list[Any]) -> None:
        for packet in packets:
            packet.duration = round(1 / (self._fps * packet.time_base))
            if self._sound is not None and packet.pts is not None:
                self._sound.until(float(packet.pts * packet.time_base))
            with self._refusals():
                self._container.mux(packet)

    def _refusals(self) -> _Refusals:
        return _Refusals(self.path, (self._av.FFmpegError, OSError))


class _Refusals:
    """Turns PyAV's errors into OutputError."""

    def __init__(self, path: Path, errors: tuple[type[Exception], ...]) -> None:
        self._path, self._errors = path, errors

    def __enter__(self) -> None:
        return

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, self._errors):
            reason = getattr(error, "strerror", None) or error
            raise OutputError(f"{self._path} cannot be written ({reason}); choose another folder") from error


def _encoder(av: Any, width: int, height: int) -> tuple[str, dict[str, str]]:
    """The first encoder that this PyAV has and that opens, with its options."""
    for name, options in _ENCODERS:
        if name not in av.codecs_available:
            continue
        try:
            codec = av.CodecContext.create(name, "w")
            codec.options = dict(options)
            _set_up(codec, width, height, 25.0)
            codec.open()
        except (av.FFmpegError, ValueError, OSError):
            continue
        return name, options
    raise VideoError(
        f"no encoder of this PyAV takes {width} x {height} pixels; choose a size of 16 to 4096 pixels a side"
    )


def _set_up(codec: Any, width: int, height: int, fps: float) -> None:
    """Size, format, colour tags, clock and, where there is no constant quality, a generous bit rate."""
    codec.width, codec.height, codec.pix_fmt = width, height, "yuv420p"
    codec.framerate = Fraction(fps).limit_denominator(1001)
    codec.colorspace = codec.color_primaries = codec.color_trc = _BT709
    codec.color_range = _LIMITED
    codec.time_base = _time_base(codec.name)
    if codec.name != "libx264":
        codec.bit_rate = round(_BITS_PER_PIXEL * width * height * fps) + 100_000


def _time_base(encoder: str) -> Fraction:
    return _MPEG4_TIME_BASE if encoder == "mpeg4" else _TIME_BASE
