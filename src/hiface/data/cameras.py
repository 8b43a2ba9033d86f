# SPDX-License-Identifier: Apache-2.0
"""Cameras and network streams: the newest frame, with the time when it came.

Not tried on hardware: the tests drive the reader with fake devices and with a stream on the same machine.
Which options a camera of macOS (AVFoundation) or Windows (DirectShow) takes is from FFmpeg's documentation.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hiface.data.video_pixels import FrameReader
from hiface.data.video_source import VideoFrame, VideoInfo, VideoSource, plausible_fps
from hiface.errors import VideoError
from hiface.optional import needed

PATIENCE_S = 10.0
"""How long a source may give no frame before it counts as gone."""
_CAMERA = "camera:"
_KINDS = ("rtsp", "rtsps", "rtmp", "rtmps", "http", "https", "srt", "udp", "tcp")
_STREAMS = tuple(f"{kind}://" for kind in _KINDS)
_FALLBACK_FPS = 30.0
_WAIT_S = 0.1


class LiveVideo(VideoSource):
    """Frames of an open camera or stream, always the newest.

    `VideoFrame.time_s` is when the frame was read, by `time.monotonic`, since the first one handed out. A
    source that ends or stops for `PATIENCE_S` ends the iteration with a warning.
    """

    def __init__(self, container: Any, name: str, fps: float | None = None) -> None:
        """Takes a PyAV container, which it closes, and waits for the first frame.

        Raises:
            VideoError: There is no video in it, or no frame within `PATIENCE_S`.
        """
        stream = next(iter(container.streams.video), None)
        if stream is None:
            container.close()
            raise VideoError(f"{name} has no video; check the address")
        rate = plausible_fps(stream.average_rate, stream.guessed_rate, fps, fallback=_FALLBACK_FPS)
        has_audio = bool(container.streams.audio)
        self._converter = FrameReader(stream, name)
        self._thread = _NewestFrame(container, stream)
        self._index = 0
        self._start_s = self._last_s = 0.0
        try:
            self._first = self._thread.wait()
            if self._first is None:
                raise VideoError(
                    f"{name} gives no picture ({self._thread.reason}); check that it is on and free"
                )
            height, width = self._converter.image(self._first[0]).shape[:2]
        except BaseException:
            self._thread.stop()
            raise
        super().__init__(VideoInfo(name, width, height, rate, None, None, has_audio, live=True))

    @property
    def dropped(self) -> int:
        """Frames that were not fetched in time."""
        return self._thread.dropped

    def __iter__(self) -> Iterator[VideoFrame]:
        while True:
            if self._thread.stopping:
                raise VideoError(f"{self.info.name} is closed; open it again")
            first, self._first = self._first, None
            item = self._thread.wait(first)
            if item is None:
                if not self._thread.stopping:
                    self.warn(f"{self.info.name} stopped: {self._thread.reason}")
                return
            frame, stamp_s = item
            if self._index == 0:
                self._start_s = stamp_s
            else:
                stamp_s = max(stamp_s, self._last_s + 1e-6)
            self._last_s = stamp_s
            index, self._index = self._index, self._index + 1
            yield VideoFrame(index, stamp_s - self._start_s, self._converter.image(frame), stamp_s)

    def close(self) -> None:
        """Stops reading and frees the camera."""
        self._thread.stop()


class _NewestFrame:
    """A thread that reads all frames and keeps the newest with the time it came."""

    def __init__(self, container: Any, stream: Any) -> None:
        self.dropped = 0
        self.stopping = False
        self.reason = f"nothing came for {PATIENCE_S:g} s"
        self._ended = False
        self._newest: tuple[Any, float] | None = None
        self._changed = threading.Condition()
        stream.thread_type = "SLICE"  # threads by frame would hold frames back
        self._thread = threading.Thread(
            target=self._read, args=(container, stream), name="hiface camera", daemon=True
        )
        self._thread.start()

    def wait(self, older: tuple[Any, float] | None = None) -> tuple[Any, float] | None:
        """The newest frame as soon as there is one, or else `older`; None when none will come."""
        end_s = time.monotonic() + PATIENCE_S
        with self._changed:
            if older is not None:
                if self._newest is None:
                    return older
                self.dropped += 1
            while self._newest is None and not self._ended and not self.stopping:
                if time.monotonic() > end_s:
                    return None
                self._changed.wait(_WAIT_S)  # short, so that Ctrl-C gets through
            newest, self._newest = self._newest, None
            return None if self.stopping else newest

    def stop(self) -> None:
        """Ends the thread; a read that hangs is left to its own time limit."""
        with self._changed:
            self.stopping = True
            self._changed.notify_all()
        self._thread.join(timeout=PATIENCE_S)

    def _read(self, container: Any, stream: Any) -> None:
        """The thread. Only it touches the container, so that none is closed while it is read."""
        reason = "it ended"
        try:
            for packet in container.demux(stream):
                for frame in _decoded(packet):
                    with self._changed:
                        self.dropped += self._newest is not None
                        self._newest = (frame, time.monotonic())
                        self._changed.notify_all()
                if self.stopping:
                    break
        except Exception as error:  # whatever a driver raises ends the thread and is told
            reason = _reason(error)
        finally:
            container.close()
            with self._changed:
                self.reason, self._ended = reason, True
                self._changed.notify_all()


def is_live(source: str | Path) -> bool:
    """Whether a source is a camera or a network stream."""
    return isinstance(source, str) and source.lower().startswith((_CAMERA, *_STREAMS))


def open_live(source: str, fps: float | None = None) -> LiveVideo:
    """Opens a camera or a network stream.

    Args:
        source: "camera:<number or device>" or an address.
        fps: Frames a second that a camera is asked for.

    Returns:
        The source, which has given its first frame.

    Raises:
        VideoError: It is not there, busy, or gives no frame; the message lists the cameras that there are.
        MissingExtraError: PyAV is not installed.
    """
    if not source.lower().startswith(_CAMERA):
        if fps is not None:
            raise VideoError(f"{source} has times of its own; leave fps out")
        options = {"rtsp_transport": "tcp"} if source.lower().startswith("rtsp://") else {}
        try:
            return LiveVideo(open_container(source, None, options), source)
        except _errors() as error:
            raise VideoError(f"{source} cannot be opened ({_reason(error)}); check the address") from error
    device, kind, options = camera_address(source[len(_CAMERA) :], fps)
    try:
        return LiveVideo(open_container(device, kind, options), source, fps)
    except _errors() as error:
        raise VideoError(
            f"{source} cannot be opened ({_reason(error)}); {_cameras_there(kind)}; close other programs "
            "that use it, or name one that is there"
        ) from error


def camera_address(device: str, fps: float | None) -> tuple[str, str, dict[str, str]]:
    """What PyAV opens for a camera on this system.

    Args:
        device: Number, /dev/video..., or the camera's name on macOS and Windows.
        fps: Frames a second to ask for, or None.

    Returns:
        The name to open, the input format and its options.

    Raises:
        VideoError: The device is not named, or there is no such number on Windows.
    """
    if not device:
        raise VideoError("camera: needs a number or a device; use camera:0")
    options = {} if fps is None else {"framerate": f"{fps:g}"}
    is_number = device.isascii() and device.isdecimal()
    if sys.platform == "darwin":
        return f"{device}:none", "avfoundation", {"framerate": "30", "pixel_format": "uyvy422", **options}
    if sys.platform == "win32":
        names = _listed("dshow")
        if is_number and int(device) >= len(names):
            raise VideoError(f"there is no camera {device}; {_cameras_there('dshow')}; use camera:<its name>")
        return f"video={names[int(device)] if is_number else device}", "dshow", options
    return f"/dev/video{device}" if is_number else device, "v4l2", options


def open_container(address: str, kind: str | None, options: dict[str, str]) -> Any:
    """Opens what PyAV reads from; tests put fakes in its place."""
    av = needed("av", "cameras and streams need PyAV", "video")
    return av.open(
        address, format=kind, options=options, timeout=(PATIENCE_S, PATIENCE_S), metadata_errors="replace"
    )


def _errors() -> tuple[type[Exception], ...]:
    return (needed("av", "cameras and streams need PyAV", "video").FFmpegError, ValueError, OSError)


def _reason(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or error).lower()


def _decoded(packet: Any) -> list[Any]:
    """Frames of a packet; none of one that is broken, as happens when a stream begins in the middle."""
    try:
        return packet.decode()
    except _errors():
        return []


def _listed(kind: str) -> list[str]:
    """Names of the system's cameras where PyAV (17 on) can tell."""
    try:
        devices = needed("av.device", "listing cameras needs PyAV", "video").enumerate_input_devices(kind)
    except (*_errors(), ImportError):
        return []
    return [d.description or d.name for d in devices if "video" in d.media_types]


def _cameras_there(kind: str) -> str:
    there = [str(p) for p in sorted(Path("/dev").glob("video*"))] if kind == "v4l2" else _listed(kind)
    return f"there are {', '.join(there)}" if there else "no camera was found"
