# SPDX-License-Identifier: Apache-2.0
"""The overlay of a tracked video: original, fitted faces over it, and their relief."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import Tensor

from hiface.colour import linear_to_srgb, srgb_to_linear
from hiface.data.video import open_video
from hiface.data.video_source import FPS_RANGE
from hiface.export.hollows import hollow_shade
from hiface.export.light_gain import light_gain
from hiface.export.tracked_frame import ShownFace, frame_panels
from hiface.export.video import VideoWriter
from hiface.result import FaceResult
from hiface.tracking.result import PersonTrack, VideoTrack

OVERLAY_FILE = "overlay.mp4"
_PANEL_PX = 480
_TEXTURE_PX = 512
_DETAIL_EVERY_PX = 64  # faces smaller than this show no relief
_GAIN_FRAMES = 5  # the light is compared with the frame once in so many
_GAIN_SHARE = 0.25  # of what a comparison says that is followed, so that nothing flickers


@dataclass
class _Look:
    """How a person is shown.

    Attributes:
        texture_srgb: [3, S, S] 0..1.
        drawn_srgb: The same, where the mouth's inside is as dark as it looks.
        gain: [3] factors on the light, None before the person's first frame of a scene.
        frame: The last frame that showed the person.
    """

    texture_srgb: Tensor
    drawn_srgb: Tensor
    gain: Tensor | None = None
    frame: int = -1


def write_overlay(
    track: VideoTrack,
    source: str | Path,
    path: Path,
    advance: Callable[[str, int, int], None] = lambda stage, done, total: None,
) -> list[str]:
    """Original, fitted faces and relief side by side, with the video's own times and sound.

    Args:
        track: What was tracked.
        source: The video.
        path: File to write.
        advance: Called with "overlay", the frames done and their number.

    Returns:
        What went wrong with the sound, a line each.

    Raises:
        VideoError: The video cannot be read again.
        OutputError: The file cannot be written.
        MissingExtraError: PyAV is not installed.
    """
    total = len(track.times_s)
    height = min(_PANEL_PX, track.height) // 2 * 2
    looks = {person.number: _look(person.face) for person in track.people}
    rate = min(max(track.fps, FPS_RANGE[0]), FPS_RANGE[1])
    with open_video(source, rate if Path(source).is_dir() else None) as video:
        width = max(2, round(track.width * height / track.height))
        sound = Path(source) if video.info.has_audio else None
        with VideoWriter(path, 3 * width, height, rate, sound) as writer:
            for frame in video:
                if frame.index >= total:
                    break
                faces = _shown(track, frame.index, frame.image_srgb, looks)
                writer.write(frame_panels(frame.image_srgb, faces, height), frame.time_s)
                advance("overlay", frame.index + 1, total)
    return writer.warnings


def _look(face: FaceResult) -> _Look:
    texture = face.texture(_TEXTURE_PX)
    shade = hollow_shade(face.model, _TEXTURE_PX)
    return _Look(texture, linear_to_srgb(srgb_to_linear(texture) * shade))


def _shown(track: VideoTrack, index: int, image_srgb: np.ndarray, looks: dict[int, _Look]) -> list[ShownFace]:
    there = [person for person in track.people if person.status[index] != "missing"]
    there.sort(key=lambda person: -float(person.T_cam_object[index, 2, 3]))
    return [_face(person, index, image_srgb, looks[person.number]) for person in there]


def _face(person: PersonTrack, index: int, image_srgb: np.ndarray, look: _Look) -> ShownFace:
    model, params, box = person.face.model, person.params(index), person.box[index]
    if look.gain is None or index != look.frame + 1:
        look.gain = light_gain(model, params, image_srgb, look.texture_srgb)
    elif index % _GAIN_FRAMES == 0:
        new = light_gain(model, params, image_srgb, look.texture_srgb)
        look.gain = look.gain + _GAIN_SHARE * (new - look.gain)
    look.frame = index
    relief = None
    if float((box[2:] - box[:2]).max()) >= _DETAIL_EVERY_PX and person.face.has_detail:
        relief = person.face.with_params(params).displacement()
    return ShownFace(model, params.replace(light=params.light * look.gain), look.drawn_srgb, relief)
