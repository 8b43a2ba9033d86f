# SPDX-License-Identifier: Apache-2.0
"""Cameras and network streams, with fakes and on this machine."""

import functools
import http.server
import threading
import time
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from hiface.data import cameras
from hiface.data.video import open_video
from hiface.errors import VideoError
from video_clips import H, W, av, flat, noise, write


class FakeCamera:
    """Stands in for a PyAV container: gives a grey frame every `pause_s`, with its number as grey."""

    def __init__(self, n, pause_s, end=None):
        stream = SimpleNamespace(
            codec_context=SimpleNamespace(
                name="rawvideo", sample_aspect_ratio=None, color_trc=2, color_primaries=2
            ),
            sample_aspect_ratio=None,
            average_rate=Fraction(30),
            guessed_rate=None,
            thread_type=None,
        )
        self.streams = SimpleNamespace(video=[stream], audio=[])
        self.n, self.pause_s, self.end, self.closed = n, pause_s, end, False
        self.read = 0

    def demux(self, stream):
        for i in range(self.n):
            time.sleep(self.pause_s)
            self.read = i + 1
            frame = av.VideoFrame.from_ndarray(flat((i, i, i)), format="rgb24")
            yield SimpleNamespace(decode=lambda frame=frame: [frame])
        if self.end is not None:
            raise self.end

    def close(self):
        self.closed = True


def test_a_slow_reader_gets_new_frames_and_old_ones_are_counted(monkeypatch):
    camera = FakeCamera(60, 0.01)
    asked = []
    monkeypatch.setattr(cameras, "open_container", lambda *a: asked.append(a) or camera)
    monkeypatch.setattr(cameras.sys, "platform", "linux")
    with open_video("camera:0", fps=30) as source:
        seen, behind = [], []
        for frame in source:
            seen.append(frame)
            behind.append(camera.read - 1 - int(frame.image_srgb[0, 0, 0]))
            time.sleep(0.05)
    assert asked == [("/dev/video0", "v4l2", {"framerate": "30"})]
    assert source.info.live and (source.info.width, source.info.height) == (W, H)
    assert len(seen) + source.dropped == 60
    assert source.dropped > 20
    assert max(behind) <= 5  # of 60: the delay does not grow
    assert [f.index for f in seen] == list(range(len(seen)))
    times = np.array([f.time_s for f in seen])
    assert times[0] == 0 and (np.diff(times) > 0).all()
    greys = np.array([int(f.image_srgb[0, 0, 0]) for f in seen])
    assert np.abs(times - (greys - greys[0]) * 0.01).max() < 0.5  # when they were taken, not when fetched
    assert camera.closed
    assert any("it ended" in line for line in source.warnings)


def test_an_unplugged_camera_ends_with_a_warning_and_close_stops_the_thread(monkeypatch):
    monkeypatch.setattr(
        cameras, "open_container", lambda *a: FakeCamera(3, 0.001, OSError(19, "No such device"))
    )
    with open_video("camera:1") as source:
        assert len(list(source)) >= 1
    assert any("no such device" in line for line in source.warnings)
    endless = FakeCamera(10**6, 0.001)
    monkeypatch.setattr(cameras, "open_container", lambda *a: endless)
    source = open_video("camera:1")
    next(iter(source))
    source.close()
    assert endless.closed and endless.read < 10**5
    with pytest.raises(VideoError, match="closed"):
        next(iter(source))


def test_a_camera_that_gives_nothing_is_an_error(monkeypatch):
    monkeypatch.setattr(cameras, "PATIENCE_S", 0.2)
    silent = FakeCamera(0, 0)
    monkeypatch.setattr(cameras, "open_container", lambda *a: silent)
    with pytest.raises(VideoError, match="no picture"):
        open_video("camera:0")
    slow = FakeCamera(1, 0.5)
    monkeypatch.setattr(cameras, "open_container", lambda *a: slow)
    with pytest.raises(VideoError, match="nothing came for"):
        open_video("camera:0")


def test_missing_cameras_and_streams_say_what_there_is(monkeypatch):
    with pytest.raises(VideoError, match="use camera:0"):
        open_video("camera:")
    monkeypatch.setattr(cameras.sys, "platform", "linux")
    monkeypatch.setattr(cameras.Path, "glob", lambda self, pattern: [Path("/dev/video3")])
    with pytest.raises(VideoError, match=r"camera:77 cannot be opened .*there are /dev/video3; close"):
        open_video("camera:77")
    with pytest.raises(VideoError, match="check the address"):
        open_video("http://127.0.0.1:9/nothing.mp4")
    with pytest.raises(VideoError, match="leave fps out"):
        open_video("rtsp://127.0.0.1:9/x", fps=3)


@pytest.mark.parametrize(
    ("platform", "expected"),
    [
        ("linux", ("/dev/video1", "v4l2")),
        ("darwin", ("1:none", "avfoundation")),
        ("win32", ("video=B", "dshow")),
    ],
)
def test_camera_addresses(monkeypatch, platform, expected):
    monkeypatch.setattr(cameras.sys, "platform", platform)
    monkeypatch.setattr(cameras, "_listed", lambda kind: ["A", "B"])
    assert cameras.camera_address("1", None)[:2] == expected
    if platform == "win32":
        with pytest.raises(VideoError, match="there are A, B"):
            cameras.camera_address("2", None)


def test_a_stream_over_http(tmp_path):
    write(tmp_path / "a.mp4", noise(30))

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, format, *args):
            return

    server = http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), functools.partial(Quiet, directory=str(tmp_path))
    )
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        with open_video(f"http://127.0.0.1:{server.server_port}/a.mp4") as source:
            frames = list(source)
        assert source.info.live
        assert len(frames) + source.dropped == 30
    finally:
        server.shutdown()
        server.server_close()
