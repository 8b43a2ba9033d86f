# SPDX-License-Identifier: Apache-2.0
"""Video files: true times, rotation, colours; what is damaged is skipped and told."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from hiface.data.images import IMAGE_SUFFIXES
from hiface.data.video_pixels import FrameReader, refuse_huge
from hiface.data.video_source import Clock, VideoFrame, VideoInfo, VideoSource, plausible_fps
from hiface.errors import VideoError
from hiface.optional import needed

_NOT_A_VIDEO = ("tty", "image2")
_MANY_READ_ERRORS = 16
_FALLBACK_FPS = 25.0


class VideoFile(VideoSource):
    """A file that PyAV can read (mp4, mov, webm, mkv, avi, gif ...).

    Frames come with their presentation times, turned by the display matrix, with square pixels, as sRGB;
    interlaced ones as they are, alpha is dropped. Packets that cannot be decoded are skipped, as are broken
    frames before the first whole one. Frames that change their size are scaled to the first one's.
    """

    def __init__(self, path: Path) -> None:
        """Opens the file and decodes its first frame; raises what `open_video` raises."""
        self._path = path
        self._closed = False
        self._ready: _Pass | None = _Pass(path)
        self._running: set[_Pass] = {self._ready}
        super().__init__(self._ready.info)

    def __iter__(self) -> Iterator[VideoFrame]:
        if self._closed:
            raise VideoError(f"{self.info.name} is closed; open it again")
        current, self._ready = self._ready or _Pass(self._path), None
        self._running.add(current)
        try:
            for frame in current.frames():
                yield frame
                if self._closed:
                    raise VideoError(f"{self.info.name} was closed while it was read; open it again")
            for line in current.told():
                self.warn(line)
        finally:
            self._running.discard(current)
            current.close()

    def close(self) -> None:
        """Closes the file."""
        self._closed = True
        self._ready = None
        while self._running:
            self._running.pop().close()


class _Pass:
    """One way through a file, from its first frame on."""

    def __init__(self, path: Path) -> None:
        av = needed("av", "reading videos needs PyAV", "video")
        self._errors = (av.FFmpegError, ValueError, OSError)
        self._name = path.name
        self._broken = self._early = self._count = 0
        self._stopped = False
        self._end_s = 0.0
        self._container = _open(av, path)
        try:
            self._stream = _video_stream(self._container, path.name)
            self._stream.thread_type = "AUTO"
            self._reader = FrameReader(self._stream, path.name)
            self._decoded = self._decode()
            self._first = next(self._decoded, None)
            if self._first is None:
                raise VideoError(f"{path.name} has no frame that can be decoded; convert or copy it again")
            self._picture: np.ndarray | None = self._reader.image(self._first)
            self.info = self._about(self._picture)
            self._clock = Clock(self.info.fps)
        except BaseException:
            self._container.close()
            raise

    def frames(self) -> Iterator[VideoFrame]:
        """Every frame."""
        frame, picture = self._first, self._picture
        self._first = self._picture = None
        while frame is not None:
            time_s = self._clock.tick(_stamp_s(frame, self._stream))
            image = self._reader.image(frame) if picture is None else picture
            picture = None
            index, self._count = self._count, self._count + 1
            self._end_s = time_s + 1.0 / self.info.fps
            yield VideoFrame(index, time_s, image)
            frame = next(self._decoded, None)

    def told(self) -> list[str]:
        """What was wrong, for people."""
        lines = []
        if self._early:
            lines.append(f"{self._early} broken frames before the first whole one were skipped")
        if self._broken:
            lines.append(f"{self._broken} damaged packets were skipped")
        if self._clock.mended:
            lines.append(f"{self._clock.mended} frames had a time that did not increase, which was mended")
        if self._reader.resized:
            lines.append(
                f"{self._reader.resized} frames of another size or turn were scaled to the first one's"
            )
        expected, seconds = self.info.n_frames, self.info.duration_s
        short = seconds is not None and self._end_s < seconds - max(1.5 / self.info.fps, self._slack_s)
        if expected and self._count < expected - self._broken and (short or self._stopped):
            lines.append(f"the file ends early: {self._count} of {expected} frames")
        elif short or self._stopped:
            of = "" if seconds is None else f" of {seconds:.1f}"
            lines.append(f"the file ends early: {self._end_s:.1f}{of} s")
        return lines

    def close(self) -> None:
        """Frees file and decoder."""
        self._decoded.close()
        self._container.close()

    def _about(self, picture: np.ndarray) -> VideoInfo:
        stream, container = self._stream, self._container
        duration_s, self._slack_s = _length_s(container, stream)
        return VideoInfo(
            name=self._name,
            width=picture.shape[1],
            height=picture.shape[0],
            fps=plausible_fps(stream.average_rate, stream.guessed_rate, fallback=_FALLBACK_FPS),
            n_frames=stream.frames or None,
            duration_s=duration_s,
            has_audio=bool(container.streams.audio),
            live=False,
        )

    def _decode(self) -> Generator[Any, None, None]:
        """Decoded frames; counts what is broken."""
        whole = False
        for packet in self._packets():
            try:
                frames = self._stream.codec_context.decode(packet)  # None: what the decoder still holds
            except self._errors:
                self._broken += 1
                continue
            for frame in frames:
                whole = whole or frame.key_frame or not frame.is_corrupt
                if whole:
                    yield frame
                else:
                    self._early += 1

    def _packets(self) -> Iterator[Any]:
        """Packets of the stream and None; goes on after read errors as long as there is something to read."""
        failures = 0
        while failures < _MANY_READ_ERRORS:
            try:
                for packet in self._container.demux(self._stream):
                    if not packet.size:
                        continue
                    self._broken += failures
                    failures = 0
                    yield packet
                break
            except self._errors:
                failures += 1
        self._stopped = failures > 0
        yield None


def _open(av: Any, path: Path) -> Any:
    """The container; VideoError that names the fix."""
    if not path.exists():
        raise VideoError(f"{path} does not exist; check the path")
    if path.suffix.lower() in IMAGE_SUFFIXES and path.suffix.lower() != ".gif":
        raise VideoError(f"{path.name} is a picture; use: hiface reconstruct {path}")
    head = b""
    try:
        with path.open("rb") as file:
            head = file.read(12)
        if not head:
            raise VideoError(f"{path.name} is empty; copy or record it again")
        container = av.open(str(path.absolute()), metadata_errors="replace")
    except (av.FFmpegError, ValueError, OSError) as error:
        raise VideoError(_refusal(path, head, error)) from error
    if container.format.name in _NOT_A_VIDEO or container.format.name.endswith("_pipe"):
        kind = container.format.name
        container.close()
        if kind == "tty":
            raise VideoError(f"{path.name} is text and not a video; name an mp4, mov, mkv, webm, avi or gif")
        raise VideoError(f"{path.name} is a picture; use: hiface reconstruct {path}")
    return container


def _refusal(path: Path, head: bytes, error: Exception) -> str:
    if isinstance(error, PermissionError):
        return f"{path} may not be read; check its permissions"
    if head[4:8] in (b"ftyp", b"moov", b"mdat", b"wide", b"free"):
        return f"{path.name} has no usable index: its recording or copy was not finished; copy it again"
    return f"{path.name} is not a video that can be read; name an mp4, mov, mkv, webm, avi or gif"


def _video_stream(container: Any, name: str) -> Any:
    """The moving pictures of a container; cover pictures of music do not count."""
    videos = [s for s in container.streams.video if "attached_pic" not in str(s.disposition)]
    if not videos:
        what = "only sound" if container.streams.audio else "no moving pictures"
        raise VideoError(f"{name} has {what}; name a file with a video in it")
    best = container.streams.best("video")
    stream = best if best in videos else videos[0]
    if stream.codec_context is None:
        raise VideoError(f"{name} has a video that PyAV cannot decode; convert it to mp4 with H.264")
    refuse_huge(stream.codec_context.width, stream.codec_context.height, name)
    return stream


def _length_s(container: Any, stream: Any) -> tuple[float | None, float]:
    """Length that the container states, and by how much it may be wrong: another stream may be longer."""
    if stream.duration and stream.time_base:
        return float(stream.duration * stream.time_base), 0.0
    start_s = float((stream.start_time or 0) * (stream.time_base or 0))
    tag = stream.metadata.get("DURATION", "").split(":")  # Matroska's tag of a track: when it ends
    try:
        hours, minutes, seconds = (float(part) for part in tag)
        return 3600 * hours + 60 * minutes + seconds - start_s, 0.0
    except ValueError:
        slack_s = 0.5 if container.streams.audio else 0.0
        return (container.duration / 1e6 - start_s, slack_s) if container.duration else (None, 0.0)


def _stamp_s(frame: Any, stream: Any) -> float | None:
    stamp = frame.dts if frame.pts is None else frame.pts
    base = frame.time_base or stream.time_base
    return None if stamp is None or not base else float(stamp * base)
