# SPDX-License-Identifier: Apache-2.0
"""Tracks a recorded video: all frames are looked at, then each person is solved over the whole clip."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hiface.data import Photo
from hiface.data.cameras import is_live
from hiface.data.video import VideoInfo, VideoSource, open_video
from hiface.errors import NoFaceError, OptionError, VideoError
from hiface.fitting.fit import default_focal_px
from hiface.fitting.initialise import mean_face
from hiface.methods.registry import networks_digest
from hiface.reconstructor import Reconstructor
from hiface.result import FaceResult
from hiface.tracking.follow import FollowOptions, Timeline, follow_person
from hiface.tracking.keyframes import choose_keyframes
from hiface.tracking.live import drawn_face
from hiface.tracking.people import Person, people_of
from hiface.tracking.result import PersonTrack, VideoTrack
from hiface.tracking.sightings import FaceWatcher, Sighting
from hiface.tracking.store import Seen, SightingStore, content_mark
from hiface.types import Camera

Progress = Callable[[str, int, int | None], None]
"""Called with a stage, the steps done and their number (None: not known)."""


@dataclass(frozen=True)
class TrackOptions:
    """How a video is tracked.

    Attributes:
        people: Most people that are tracked; those whose faces fill most of the pictures.
        keyframes: Frames that a person's shape, texture and detail are solved from.
        focal_px: Focal length, pixels; that of a normal lens if None.
        fps: Frames a second of a folder of pictures.
        follow: Gaps and smoothing.
    """

    people: int = 4
    keyframes: int = 6
    focal_px: float | None = None
    fps: float | None = None
    follow: FollowOptions = field(default_factory=FollowOptions)

    def __post_init__(self) -> None:
        if self.people < 1 or not 1 <= self.keyframes <= 32:
            raise OptionError(
                f"people must be 1 or more and keyframes 1 to 32, got {self.people}, {self.keyframes}"
            )
        if self.focal_px is not None and not 10.0 < self.focal_px < 1e6:
            raise OptionError(f"focal_px must be a length in pixels, got {self.focal_px:g}")


def track_video(
    source: str | Path,
    reconstructor: Reconstructor,
    options: TrackOptions | None = None,
    work: Path | None = None,
    progress: Progress = lambda stage, done, total: None,
) -> VideoTrack:
    """Tracks the faces of a video.

    Args:
        source: Video file or folder of pictures.
        reconstructor: Of the method "hiface".
        options: How.
        work: Folder that keeps what was seen, so that a run that was stopped goes on where it was, if the
            source, the focal length, the rate and the networks are the same; it may be deleted afterwards.
        progress: Called as the work goes on.

    Returns:
        An answer for every frame and person.

    Raises:
        VideoError: The video cannot be read, or is live (`LiveTracker` is for cameras).
        NoFaceError: No frame shows a face.
        OptionError: The reconstructor has no network.
        FitError: The fit of a person diverged.
    """
    options = options or TrackOptions()
    if reconstructor.network is None:
        raise OptionError("videos are tracked with the network; use the method hiface")
    if is_live(source):
        raise VideoError(f"{source} is live; record it first (hiface track does), or use LiveTracker")
    seconds: dict[str, float] = {}
    with open_video(source, options.fps) as video:
        info = video.info
        camera = _camera(info, options.focal_px)
        store = SightingStore(work, {} if work is None else _key(source, options, reconstructor))
        with _timed(seconds, "watch"):
            seen, cuts = watch(video, reconstructor, camera, store, progress)
        n_frames = len(seen.times_s)
        fps = (n_frames - 1) / seen.times_s[-1] if n_frames > 1 else info.fps
        everybody, brief = people_of(seen.sightings, reconstructor.network.identity_sigma, n_frames, fps)
        if not everybody:
            raise NoFaceError(f"no frame of {info.name} shows a face of 60 px or more")
        people = everybody[: options.people]
        with _timed(seconds, "solve"):
            faces = _faces(video, reconstructor, people, options, progress)
        warnings = [*video.warnings, *_left_out(len(everybody), len(people), brief)]
    timeline = Timeline(seen.times_s, cuts, camera)
    done, total = 0, sum(len(person.sightings) for person in people)

    def advance() -> None:
        nonlocal done
        done += 1
        progress("fit", done, total)

    tracks: list[PersonTrack] = []
    motion = reconstructor.network.motion
    with _timed(seconds, "fit"):
        for number, (person, face) in enumerate(zip(people, faces, strict=True), start=1):
            sightings = person.sightings
            tracks.append(follow_person(number, face, sightings, timeline, options.follow, motion, advance))
    return VideoTrack(info.name, info.width, info.height, fps, seen.times_s, tracks, seconds, warnings)


def watch(
    video: VideoSource, reconstructor: Reconstructor, camera: Camera, store: SightingStore, progress: Progress
) -> tuple[Seen, Sequence[int]]:
    """Looks at all frames; of those that an earlier run has seen, at the scene only.

    Returns:
        What was seen, and the frames that begin another scene.
    """
    network = reconstructor.network
    assert network is not None
    focal_px = float(camera.focal_px)

    def read(image: Any, detections: Any) -> Any:
        return network.read_traced(image, detections, focal_px)

    seen = store.load()
    watcher = FaceWatcher(reconstructor.detector, read, network.identity_sigma, state=seen.state)
    try:
        for frame in video:
            if frame.index < len(seen.times_s):
                watcher.skip(frame.image_srgb, frame.index)
            else:
                found = watcher.step(frame.image_srgb, frame.index, frame.time_s, focal_px)
                seen.add(frame.time_s, found, watcher.state)
                store.keep(seen)
            progress("watch", frame.index + 1, video.info.n_frames)
    finally:
        store.keep(seen, last=True)
    return seen, watcher.cuts


def _key(source: str | Path, options: TrackOptions, reconstructor: Reconstructor) -> dict[str, Any]:
    """What sightings depend on: the pictures, the camera, the packaged networks and any of one's own.

    Networks of one's own are told apart by what they read of one drawn face.
    """
    model, side = reconstructor.model, 256
    face = drawn_face(model, mean_face(model, side, side, float(side)))
    read = reconstructor.coefficients(np.full((side, side, 3), 128, np.uint8), [face], float(side))
    return {
        "content": content_mark(source),
        "focal_px": options.focal_px,
        "fps": options.fps,
        "networks": networks_digest(),
        "motion": reconstructor.network is not None and reconstructor.network.motion is not None,
        "reads": [round(value, 3) for value in read.identity[0].tolist()],
    }


def _left_out(everybody: int, tracked: int, brief: int) -> list[str]:
    """Warnings about people who are not tracked."""
    lines = []
    if everybody > tracked:
        lines.append(f"people who were seen but not tracked: {everybody - tracked}; use --people {everybody}")
    if brief:
        lines.append(f"people who were seen too briefly to be tracked: {brief}")
    return lines


def _faces(
    video: VideoSource,
    reconstructor: Reconstructor,
    people: Sequence[Person],
    options: TrackOptions,
    progress: Progress,
) -> list[FaceResult]:
    """Each person from keyframes together; the frames are decoded once more."""
    chosen = [choose_keyframes(person.sightings, options.keyframes) for person in people]
    wanted = {sighting.frame for keyframes in chosen for sighting in keyframes}
    photos = _photos(video, wanted, options.focal_px, progress)
    faces = []
    for i, keyframes in enumerate(chosen):
        progress("solve", i, len(chosen))
        views = [_view(reconstructor, photos[s.frame], s) for s in keyframes if s.frame in photos]
        faces.append(reconstructor.together(views)[0])
    progress("solve", len(chosen), len(chosen))
    return faces


def _photos(
    video: VideoSource, wanted: set[int], focal_px: float | None, progress: Progress
) -> Mapping[int, Photo]:
    photos: dict[int, Photo] = {}
    for frame in video:
        if frame.index in wanted:
            photos[frame.index] = Photo(frame.image_srgb, focal_px)
            progress("keyframes", len(photos), len(wanted))
        if len(photos) == len(wanted):
            break
    return photos


def _view(reconstructor: Reconstructor, photo: Photo, sighting: Sighting) -> FaceResult:
    return reconstructor.read(photo, [sighting.detection])[0]


def _camera(info: VideoInfo, focal_px: float | None) -> Camera:
    """Intrinsics of all frames."""
    focal = focal_px or default_focal_px(info.width, info.height)
    return Camera.from_pose(torch.eye(3), torch.tensor([0.0, 0.0, 1.0]), focal, info.width, info.height)


@contextmanager
def _timed(seconds: dict[str, float], stage: str) -> Iterator[None]:
    started = time.perf_counter()
    yield
    seconds[stage] = time.perf_counter() - started
