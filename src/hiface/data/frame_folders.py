# SPDX-License-Identifier: Apache-2.0
"""A folder of pictures as a video."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from hiface.data.images import IMAGE_SUFFIXES, Photo, read_photo
from hiface.data.video_source import VideoFrame, VideoInfo, VideoSource
from hiface.errors import ImageError, VideoError

DEFAULT_FPS = 25.0


class FrameFolder(VideoSource):
    """The pictures of a folder in natural order, `fps` of them a second."""

    def __init__(self, folder: Path, fps: float | None = None) -> None:
        """Lists the folder and reads its first picture; raises VideoError where `open_video` says so."""
        try:
            files = [f for f in folder.iterdir() if not f.name.startswith(".") and f.is_file()]
        except OSError as error:
            raise VideoError(
                f"{folder} cannot be listed ({error.strerror}); check its permissions"
            ) from error
        self._files = sorted((f for f in files if f.suffix.lower() in IMAGE_SUFFIXES), key=natural_order)
        if not self._files:
            hint = f"; it has {files[0].name}: name one file of it" if files else ""
            raise VideoError(
                f"{folder} has no pictures; name a video, or a folder of {', '.join(IMAGE_SUFFIXES)}{hint}"
            )
        first = _read(self._files[0])
        self._closed = False
        rate = fps or DEFAULT_FPS
        super().__init__(
            VideoInfo(
                name=folder.absolute().name,
                width=first.width,
                height=first.height,
                fps=rate,
                n_frames=len(self._files),
                duration_s=len(self._files) / rate,
                has_audio=False,
                live=False,
            )
        )

    def __iter__(self) -> Iterator[VideoFrame]:
        for index, path in enumerate(self._files):
            if self._closed:
                raise VideoError(f"{self.info.name} is closed; open it again")
            photo = _read(path)
            if (photo.width, photo.height) != (self.info.width, self.info.height):
                raise VideoError(
                    f"{path.name} has {photo.width} x {photo.height} pixels, {self._files[0].name} has "
                    f"{self.info.width} x {self.info.height}; frames of one size are needed"
                )
            yield VideoFrame(index, index / self.info.fps, photo.image_srgb)

    def close(self) -> None:
        """Ends it."""
        self._closed = True


def natural_order(path: Path) -> tuple[list[tuple[int, int, str]], str]:
    """Sort key of file names that puts `frame2` before `frame10`; whatever differs has different keys."""
    parts = re.split(r"([0-9]+)", path.stem.casefold())
    return [(0, int(p), "") if p.isascii() and p.isdecimal() else (1, 0, p) for p in parts if p], path.name


def _read(path: Path) -> Photo:
    try:
        return read_photo(path)
    except ImageError as error:
        message = str(error)
        raise VideoError(message if path.name in message else f"{path.name}: {message}") from error
