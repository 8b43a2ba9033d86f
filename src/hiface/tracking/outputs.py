# SPDX-License-Identifier: Apache-2.0
"""Files of a tracked video: a folder per person, one table of all frames, one video to look at."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from hiface.animation.motion import held_frames
from hiface.animation.motion_files import write_live_link_csv
from hiface.animation.motion_json import write_motion_json
from hiface.errors import HifaceError, OptionError, OutputError, VideoError
from hiface.evaluation.track_files import STATUSES, TRACK_FILE, Track, TrackedPerson, write_track
from hiface.export.clips import Clip
from hiface.saving import SaveOptions, save_animation, save_person
from hiface.tracking.overlay import OVERLAY_FILE, write_overlay
from hiface.tracking.result import PersonTrack, VideoTrack
from hiface.types import Camera

_FILES = ("face.glb", "face.json", "overview.png", "blendshapes.csv", "blendshapes.json")
_UPRIGHT = torch.diag(torch.tensor([1.0, -1.0, -1.0, 1.0]))  # camera axes to those of object space, and back


def as_track(found: VideoTrack) -> Track:
    """What `track.json` holds of a tracked video."""
    people = tuple(
        TrackedPerson(
            person.number,
            torch.tensor([STATUSES.index(status) for status in person.status], dtype=torch.uint8),
            person.blendshapes,
            person.T_cam_object[:, :3, :3],
            person.T_cam_object[:, :3, 3],
            person.landmarks68_px,
            person.box,
        )
        for person in found.people
    )
    times = torch.tensor(found.times_s, dtype=torch.float64)
    K = found.people[0].camera.K if found.people else None
    return Track(found.fps, found.width, found.height, times, people, K)


def write_person_track(person: PersonTrack, track: VideoTrack, folder: Path, options: SaveOptions) -> None:
    """face.glb with the motion, face.json and overview.png of the best frame, blendshapes.csv and .json.

    Raises:
        OutputError: The folder cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    motion = person.motion(track.times_s)
    save_person(person.face, folder, ("json", "overview"), options)
    write_live_link_csv(folder / "blendshapes.csv", motion)
    write_motion_json(folder / "blendshapes.json", motion, person.face.model.data.expression_names)
    neutral = person.face.neutral()
    placed = neutral.with_params(neutral.params.replace(camera=clip_camera(person)))
    save_animation(placed, folder / "face.glb", motion_clip(person, track), options)


def motion_clip(person: PersonTrack, track: VideoTrack) -> Clip:
    """The motion as an animation; the head moves about the place where it is seen first.

    Object space is camera space turned upright: +Y up, +Z towards the camera.
    """
    last = held_frames(person.there)
    T = person.T_cam_object[last].double()
    T_head = _UPRIGHT.double() @ T
    T_head[:, :3, 3] -= T_head[0, :3, 3].clone()
    times = np.array(track.times_s, dtype=np.float64)
    return Clip("video", times, person.blendshapes[last].numpy(), T_head=T_head.numpy())


def clip_camera(person: PersonTrack) -> Camera:
    """The camera that sees the moving head of `motion_clip` in every frame where the video shows it."""
    T = _UPRIGHT.to(person.T_cam_object).clone()
    T[:3, 3] = person.T_cam_object[held_frames(person.there)[0], :3, 3]
    return replace(person.camera, T_cam_object=T)


def write_video_track(
    track: VideoTrack,
    source: str | Path,
    out: Path,
    options: SaveOptions,
    overlay: bool = True,
    advance: Callable[[str, int, int], None] = lambda stage, done, total: None,
) -> list[str]:
    """Writes everything; track.json comes after the people, so that they are whole where it is there.

    What an earlier run has written is deleted first. The overlay comes last: where it fails, the rest stays.

    Args:
        track: What was tracked.
        source: The video, which is decoded once more for the overlay.
        out: Folder.
        options: How faces are written.
        overlay: Whether overlay.mp4 is made.
        advance: Called with a stage, the steps done and their number.

    Returns:
        What went wrong with the overlay's sound, a line each.

    Raises:
        OptionError: The source is an overlay that would be overwritten.
        OutputError: The folder cannot be written.
        VideoError: The overlay cannot be made, such as of a video that cannot be read again; all other files
            are there.
    """
    refuse_own_overlay(source, out)
    remove_video_track(out)
    for done, person in enumerate(track.people):
        advance("writing faces", done, len(track.people))
        write_person_track(person, track, out / f"person{person.number}", options)
    write_track(out / TRACK_FILE, as_track(track))
    if not overlay:
        return []
    try:
        return write_overlay(track, source, out / OVERLAY_FILE, advance)
    except HifaceError as error:
        raise VideoError(f"{OVERLAY_FILE} could not be made ({error}); all else is in {out}") from error


def refuse_own_overlay(source: str | Path, out: Path) -> None:
    """Raises OptionError if a source is the overlay of a folder that is to be written anew."""
    path, overlay = Path(source), out / OVERLAY_FILE
    if path.exists() and overlay.exists() and path.samefile(overlay):
        raise OptionError(f"{overlay} would be overwritten; choose another folder with -o")


def remove_video_track(out: Path) -> None:
    """Deletes what `write_video_track` has written into a folder; other files stay.

    Raises:
        OutputError: A file cannot be deleted.
    """
    folders = [f for f in out.glob("person*") if f.name.removeprefix("person").isdecimal() and f.is_dir()]
    try:
        for path in (out / TRACK_FILE, out / OVERLAY_FILE, *(f / name for f in folders for name in _FILES)):
            path.unlink(missing_ok=True)
        for folder in folders:
            if not any(folder.iterdir()):
                folder.rmdir()
    except OSError as error:
        raise OutputError(
            f"{error.filename} cannot be replaced ({error.strerror}); choose another folder"
        ) from error
