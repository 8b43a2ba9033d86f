# SPDX-License-Identifier: Apache-2.0
"""Frames of a video file, a folder of pictures, a camera or a network stream."""

from __future__ import annotations

from pathlib import Path

from hiface.data.cameras import is_live, open_live
from hiface.data.frame_folders import FrameFolder
from hiface.data.video_files import VideoFile
from hiface.data.video_source import FPS_RANGE, VideoFrame, VideoInfo, VideoSource
from hiface.errors import OptionError, VideoError

__all__ = ["VideoFrame", "VideoInfo", "VideoSource", "open_video"]


def open_video(source: str | Path, fps: float | None = None) -> VideoSource:
    """Opens anything that has frames.

    Video files give their true presentation times, rotation and colours as sRGB; see `video_files`. Folders
    give their pictures in natural order (`frame2` before `frame10`). "camera:0" or "camera:/dev/video0" is a
    camera; addresses that begin with rtsp://, rtmp://, http://, https://, srt://, udp:// or tcp:// are live
    streams. Live sources give the newest frame when one is asked for, so a video file on a web server is
    better downloaded first.

    Args:
        source: Path of a file or folder, a camera or an address.
        fps: Frames a second, 0.001 to 1000: of a folder 25 when left out; of a camera what it is asked for.
            Files and streams have times of their own.

    Returns:
        The source; a context manager.

    Raises:
        VideoError: Missing, not a video, damaged, without a frame, too large, a busy camera, or an `fps`
            where there are times.
        OptionError: An `fps` that cannot be.
        MissingExtraError: PyAV is not installed; folders do without.
    """
    low, high = FPS_RANGE
    if fps is not None and not low <= fps <= high:
        raise OptionError(f"fps must be {low:g} to {high:g} frames a second, got {fps:g}; use 25")
    if is_live(source):
        return open_live(str(source), fps)
    path = Path(source)
    if path.is_dir():
        return FrameFolder(path, fps)
    if fps is not None and path.is_file():
        raise VideoError(f"{path.name} has times of its own; leave fps out")
    return VideoFile(path)
