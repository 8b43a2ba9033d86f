# SPDX-License-Identifier: Apache-2.0
"""Files of a tracked video: a folder per person, one table of all frames, one video to look at."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from hiface.animation.motion_files import write_live_link_csv
from hiface.animation.motion_json import write_motion_json
from hiface.data.video import open_video
from hiface.evaluation.track_files import STATUSES, TRACK_FILE, Track, TrackedPerson, write_track
from hiface.export.clips import Clip
from hiface.export.tracked_frame import ShownFace, frame_panels
from hiface.export.video import VideoWriter
from hiface.saving import SaveOptions, save_animation, save_person
from hiface.tracking.result import PersonTrack, VideoTrack, held_frames
from hiface.types import Camera

_PANEL_PX = 480
_DETAIL_EVERY_PX = 64  # faces smaller than this show no relief
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
) -> None:
    """Writes everything; track.json comes last, so that a folder that has it is whole.

    Args:
        track: What was tracked.
        source: The video, which is decoded once more for the overlay.
        out: Folder.
        options: How faces are written.
        overlay: Whether overlay.mp4 is made.
        advance: Called with a stage, the steps done and their number.

    Raises:
        OutputError: The folder cannot be written.
        VideoError: The video cannot be read again.
    """
    for done, person in enumerate(track.people):
        advance("writing faces", done, len(track.people))
        write_person_track(person, track, out / f"person{person.number}", options)
    if overlay:
        write_overlay(track, source, out / "overlay.mp4", advance)
    write_track(out / TRACK_FILE, as_track(track))


def write_overlay(
    track: VideoTrack,
    source: str | Path,
    path: Path,
    advance: Callable[[str, int, int], None] = lambda stage, done, total: None,
) -> None:
    """Original, fitted faces and relief side by side, with the video's own times and sound."""
    total = len(track.times_s)
    height = min(_PANEL_PX, track.height) // 2 * 2
    textures = {person.number: person.face.texture(512) for person in track.people}
    fps = track.fps if Path(source).is_dir() else None
    with open_video(source, fps) as video:
        width = max(2, round(track.width * height / track.height))
        sound = Path(source) if video.info.has_audio else None
        with VideoWriter(path, 3 * width, height, track.fps, sound) as writer:
            for frame in video:
                if frame.index >= total:
                    break
                faces = _shown(track, frame.index, textures)
                writer.write(frame_panels(frame.image_srgb, faces, height), frame.time_s)
                advance("overlay", frame.index + 1, total)


def _shown(track: VideoTrack, index: int, textures: dict[int, Tensor]) -> list[ShownFace]:
    there = [person for person in track.people if person.status[index] != "missing"]
    there.sort(key=lambda person: -float(person.T_cam_object[index, 2, 3]))
    shown = []
    for person in there:
        params, box = person.params(index), person.box[index]
        relief = None
        if float((box[2:] - box[:2]).max()) >= _DETAIL_EVERY_PX and person.face.has_detail:
            relief = person.face.with_params(params).displacement()
        shown.append(ShownFace(person.face.model, params, textures[person.number], relief))
    return shown
