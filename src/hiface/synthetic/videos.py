# SPDX-License-Identifier: Apache-2.0
"""Videos of people who do not exist, with one camera, one light and one room for each recording.

A video is a row of recordings (one, unless it is cut); a recording has a room, a lens and its cast. Each
person is drawn in a window of the picture of their own, and those are laid over each other, far ones first.
What is known of each frame is exact.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from hiface.assets import load_json_asset
from hiface.morphable import MorphableModel
from hiface.synthetic.camera_effects import Lens, apply_effects
from hiface.synthetic.clips import Motion, frame_shot
from hiface.synthetic.compose import Composed, compose
from hiface.synthetic.points import points_of
from hiface.synthetic.shots import Shot
from hiface.types import Camera

PERSON_FIELDS = (
    "expression",
    "pose",
    "K",
    "T_cam_object",
    "T_cam_head",
    "landmarks68_px",
    "visible68",
    "eye_closure",
    "presence",
)
ABSENT, PRESENT, PARTLY = 0, 1, 2
_PRESENT_SHARE, _ABSENT_SHARE = 0.6, 0.1  # of the 68 points, inside the picture and behind nobody
_WINDOW_M, _ABOVE_M = 0.62, 0.32  # of the person around the middle of the face


@dataclass(frozen=True)
class Performer:
    """One person of a recording.

    Attributes:
        person: Number of the person in the video, 0 and up.
        first: How the person would be seen without moving; the camera is that of the whole picture.
        motion: Of all frames of the video.
        rest_gaps_m: [2] opening of the lids at rest, left and right, metres.
    """

    person: int
    first: Shot
    motion: Motion
    rest_gaps_m: Tensor


@dataclass(frozen=True)
class Recording:
    """What one camera saw without a cut.

    Attributes:
        background: [3, H, W] linear.
        cast: Who is there.
        lens: Optics.
        seed: Of the camera's noise, tone and white balance.
    """

    background: Tensor
    cast: tuple[Performer, ...]
    lens: Lens
    seed: int


@dataclass(frozen=True)
class Video:
    """A video before it is drawn.

    Attributes:
        kind: What happens.
        fps: Frames a second, the nominal ones where times vary.
        times_s: [n] time of each frame.
        width: Of the picture, pixels.
        height: Of the picture, pixels.
        recordings: What it is cut from.
        of_frame: Recording of each frame.
        people: Numbers of the persons.
    """

    kind: str
    fps: float
    times_s: np.ndarray
    width: int
    height: int
    recordings: tuple[Recording, ...]
    of_frame: tuple[int, ...]
    people: tuple[int, ...]

    @property
    def cuts(self) -> list[int]:
        """Frames that another camera begins with."""
        return [i for i in range(1, len(self.of_frame)) if self.of_frame[i] != self.of_frame[i - 1]]


@dataclass(frozen=True)
class FilmedFrame:
    """One frame.

    Attributes:
        image_srgb: [3, H, W] uint8.
        people: What is known of each person who is filmed, tensors by `PERSON_FIELDS`: expression [52], pose
            [J, 3], K [3, 3], T_cam_object and T_cam_head [4, 4], landmarks68_px [68, 2], visible68 [68]
            (inside the picture and behind nobody else), eye_closure [2] (left, right; 0 as open as at rest,
            1 shut), presence (`ABSENT`, `PRESENT`, or `PARTLY` where finding the face is neither due nor
            wrong).
    """

    image_srgb: Tensor
    people: dict[int, dict[str, Tensor]]


@dataclass(frozen=True)
class _Layer:
    """A person in their window of the picture, whose top left corner lies at x0, y0."""

    person: int
    x0: int
    y0: int
    composed: Composed | None
    depth_m: float
    known: dict[str, Tensor]

    def paste(self, picture: Tensor) -> None:
        """Lays the person over a picture [3, H, W]."""
        if self.composed is None:
            return
        rows, columns, own_rows, own_columns = self._shared(picture.shape[-1], picture.shape[-2])
        alpha = self.composed.alpha[own_rows, own_columns]
        picture[:, rows, columns] *= 1 - alpha
        picture[:, rows, columns] += self.composed.colour[:, own_rows, own_columns]

    def covers(self, px: Tensor) -> Tensor:
        """[N] bool: points [N, 2] of the picture that the person hides."""
        if self.composed is None:
            return torch.zeros(len(px), dtype=torch.bool)
        side = self.composed.alpha.shape[-1]
        x, y = px[:, 0].long() - self.x0, px[:, 1].long() - self.y0
        inside = (x >= 0) & (x < side) & (y >= 0) & (y < side)
        return inside & (self.composed.alpha[y.clamp(0, side - 1), x.clamp(0, side - 1)] > 0.5)

    def _shared(self, width: int, height: int) -> tuple[slice, slice, slice, slice]:
        assert self.composed is not None
        side = self.composed.alpha.shape[-1]
        left, right = max(0, self.x0), min(width, self.x0 + side)
        top, bottom = max(0, self.y0), min(height, self.y0 + side)
        own = slice(top - self.y0, bottom - self.y0), slice(left - self.x0, right - self.x0)
        return slice(top, bottom), slice(left, right), *own


def lid_gaps_m(model: MorphableModel, vertices: Tensor) -> Tensor:
    """[2] height of the lids' opening (left, right) of vertices [V, 3] in object space, metres.

    The mean of two pairs of points; negative where the upper lid passes the lower one.
    """
    height = model.landmarks("ibug68", vertices)[:, 1]
    right, left = torch.tensor(load_json_asset("landmarks/ibug68_groups.json")["lid_pairs_right_left"])
    return torch.stack([(height[pairs[:, 0]] - height[pairs[:, 1]]).mean() for pairs in (left, right)])


def _window(camera: Camera, face_px: Tensor, depth_m: float) -> tuple[int, int, int]:
    """Left and upper edge and side of the square that holds all that the picture may show of a person."""
    scale = float(camera.focal_px) / depth_m
    whole = 4 * math.ceil(max(camera.width, camera.height) / 4)
    side = max(_WINDOW_M * scale, camera.height - (float(face_px[1]) - _ABOVE_M * scale))
    if side >= whole:
        return 0, 0, whole
    side = 4 * math.ceil(side / 4)
    return round(float(face_px[0]) - side / 2), camera.height - side, side


def _layer(model: MorphableModel, performer: Performer, index: int) -> _Layer:
    shot = frame_shot(model, performer.first, performer.motion, index)
    picture, sitter = shot.picture, shot.sitter
    camera = picture.params.camera
    verts_cam = camera.to_cam(picture.vertices)
    px = camera.cam_to_px(points_of(model, verts_cam).outline68(model))
    depth = float(picture.T_cam_head[2, 3])
    x0, y0, side = _window(camera, px.mean(dim=0), depth)
    K = camera.K.clone()
    K[:2, 2] -= torch.tensor([float(x0), float(y0)])
    moved = replace(picture, params=picture.params.replace(camera=Camera(K, camera.T_cam_object, side, side)))
    composed = None
    if x0 < camera.width and x0 + side > 0:
        sharp = 1 if shot.lens.is_soft else 2
        composed = compose(model, sitter.person, sitter.texture, moved, shot.wardrobe, side, sharp)
    inside = (px >= 0).all(1) & (px[:, 0] < camera.width) & (px[:, 1] < camera.height)
    known = {
        "expression": picture.params.expression,
        "pose": picture.params.pose,
        "K": camera.K,
        "T_cam_object": camera.T_cam_object,
        "T_cam_head": picture.T_cam_head,
        "landmarks68_px": px,
        "visible68": inside,
        "eye_closure": (1 - lid_gaps_m(model, picture.vertices) / performer.rest_gaps_m).clamp(0, 1),
    }
    return _Layer(performer.person, x0, y0, composed, depth, known)


def _presence(visible68: Tensor) -> Tensor:
    share = float(visible68.float().mean())
    kind = PRESENT if share >= _PRESENT_SHARE else ABSENT if share < _ABSENT_SHARE else PARTLY
    return torch.tensor(kind, dtype=torch.uint8)


def _drawn(
    model: MorphableModel, recording: Recording, index: int
) -> tuple[Tensor, dict[int, dict[str, Tensor]]]:
    """Linear picture [3, H, W] of a frame and what is known of it."""
    layers = sorted((_layer(model, p, index) for p in recording.cast), key=lambda layer: -layer.depth_m)
    picture, people = recording.background.clone(), {}
    for i, layer in enumerate(layers):
        layer.paste(picture)
        visible = layer.known["visible68"].clone()
        for nearer in layers[i + 1 :]:
            visible &= ~nearer.covers(layer.known["landmarks68_px"])
        people[layer.person] = layer.known | {"visible68": visible, "presence": _presence(visible)}
    return picture, people


def _photographed(picture: Tensor, recording: Recording, index: int) -> Tensor:
    """[3, H, W] uint8; the camera's effects know square pictures."""
    height, width = picture.shape[-2:]
    side = max(height, width)
    left, top = (side - width) // 2, (side - height) // 2
    around = (left, side - width - left, top, side - height - top)
    square = picture if height == width else F.pad(picture[None], around, mode="replicate")[0]
    out = apply_effects(square, np.random.default_rng(recording.seed), recording.lens, index)
    return out[:, top : top + height, left : left + width]


def _key(recording: Recording, index: int) -> tuple:
    """Equal for frames of a recording in which nothing has moved."""
    moves = [performer.motion for performer in recording.cast]
    return tuple(
        (m.turn[index].tobytes(), m.shift_m[index].tobytes(), tuple(m.values[index].items()), m.gaze[index])
        for m in moves
    )


@torch.no_grad()
def video_frames(model: MorphableModel, video: Video) -> Iterator[FilmedFrame]:
    """Draws a video.

    Args:
        model: Face model.
        video: What to draw.

    Yields:
        Its frames in order; a frame in which nothing has moved is not drawn again, it has new noise only.
    """
    last: tuple = ()
    picture, people = torch.zeros(0), {}
    for index, number in enumerate(video.of_frame):
        recording = video.recordings[number]
        key = (number, *_key(recording, index))
        if key != last:
            picture, people = _drawn(model, recording, index)
        last = key
        yield FilmedFrame(_photographed(picture, recording, index), people)
