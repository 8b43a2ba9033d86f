# SPDX-License-Identifier: Apache-2.0
"""What the interactive viewer shows and how that changes; knows nothing of browsers."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hiface.animation.gaze import pose_from_expression
from hiface.animation.motion import Motion
from hiface.app.viewer_faces import ViewedFace
from hiface.app.viewer_picture import Look, draw_face, fitted_camera, photo_backdrop, plain_backdrop
from hiface.assets import load_json_asset
from hiface.colour import linear_to_srgb
from hiface.errors import OptionError
from hiface.export.morphs import morph_weights
from hiface.export.pictures import to_array
from hiface.result import FaceResult
from hiface.types import Camera

_ONE_SIDED = ("jawLeft", "jawRight", "mouthLeft", "mouthRight")
_UPRIGHT = torch.diag(torch.tensor([1.0, -1.0, -1.0, 1.0]))


def partner(name: str) -> str | None:
    """The shape that the other side makes: both eyes look the same way, all else is mirrored.

    Args:
        name: Of an ARKit shape.

    Returns:
        Its name, or None where there is none.
    """
    side = next((s for s in ("Left", "Right") if name.endswith(s)), None)
    if side is None or name in _ONE_SIDED:
        return None
    stem, other = name.removesuffix(side), "Right" if side == "Left" else "Left"
    for inward, outward in (("LookIn", "LookOut"), ("LookOut", "LookIn")):
        if stem.endswith(inward):
            return stem.removesuffix(inward) + outward + other
    return stem + other


def grouped(names: Sequence[str]) -> list[tuple[str, list[str]]]:
    """Names in the groups of expressions/presets.json; what belongs to none comes last, as "Other"."""
    left, out = list(names), []
    for group in load_json_asset("expressions/presets.json")["groups"]:
        own = [name for name in left if name.startswith(group["prefix"])]
        left = [name for name in left if name not in own]
        out.append((group["label"], own))
    return [(label, own) for label, own in [*out, ("Other", left)] if own]


@dataclass(frozen=True, eq=False)
class Snapshot:
    """What a state was at one moment; attributes as of `ViewerState`.

    Attributes:
        titles: Of the people.
        viewed: Who is shown.
        weights: Values of the sliders by name.
        can_be_over_photo: Whether there is a picture that the head can be drawn over.
    """

    titles: tuple[str, ...]
    index: int
    viewed: ViewedFace | None
    weights: dict[str, float]
    look: Look
    over_photo: bool
    can_be_over_photo: bool
    frame: int | None
    film_frame: np.ndarray | None

    @property
    def motion(self) -> Motion | None:
        """The motion of who is shown."""
        return None if self.viewed is None else self.viewed.motion

    @property
    def status(self) -> str:
        """What is known about the frame, "" where there is none."""
        if self.motion is None or self.frame is None:
            return ""
        return "ok" if self.motion.status is None else self.motion.status[self.frame]


class ViewerState:
    """People, the one that is shown, its expression, its place, and how it is drawn.

    Every change sets `changed`. Methods may be called from any thread.

    Attributes:
        people: Everybody that can be shown.
        index: Who is.
        look: How.
        linked: Whether `move` moves both sides.
        over_photo: Whether the head is drawn through the photo's camera over the photo, or the video's frame.
        head_moves: Whether a motion turns and moves the head, and not the face alone.
        frame: Of the motion, or None while sliders rule.
        film_frame: [h, w, 3] uint8, the picture that belongs to `frame`, or None.
        changed: Set at every change; who draws clears it.
    """

    def __init__(self, people: Iterable[ViewedFace] = ()) -> None:
        self.people = list(people)
        self.look, self.linked, self.over_photo, self.head_moves = Look(), True, False, True
        self.index, self.frame = 0, None
        self.film_frame: np.ndarray | None = None
        self.changed = threading.Event()
        self._lock = threading.RLock()
        self._expression = torch.zeros(0)
        self._face: FaceResult | None = None
        self._T_world_head = torch.eye(4)
        self._photos: dict[Any, Tensor] = {}
        if self.people:
            self.select(0)

    @property
    def viewed(self) -> ViewedFace | None:
        """Who is shown."""
        return self.people[self.index] if self.people else None

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the expressions."""
        return tuple(self.viewed.face.model.data.expression_names) if self.viewed else ()

    @property
    def weights(self) -> dict[str, float]:
        """Values of the sliders by name."""
        with self._lock:
            return dict(zip(self.names, self._expression.tolist(), strict=True))

    @property
    def motion(self) -> Motion | None:
        """The motion of who is shown."""
        return self.viewed.motion if self.viewed else None

    @property
    def status(self) -> str:
        """What is known about the frame, "" where there is none."""
        return self.snapshot().status

    def snapshot(self) -> Snapshot:
        """Everything that belongs together, while other threads go on."""
        with self._lock:
            return Snapshot(
                tuple(person.title for person in self.people),
                self.index,
                self.viewed,
                self.weights,
                self.look,
                self.over_photo,
                self.can_be_over_photo,
                self.frame,
                self.film_frame,
            )

    def add(self, people: Sequence[ViewedFace]) -> None:
        """Adds people and shows the first of them."""
        with self._lock:
            self.people += people
            if people:
                self.select(len(self.people) - len(people))

    def select(self, index: int) -> None:
        """Shows somebody else, with the expression of the photo or the first frame of the motion.

        Raises:
            OptionError: There is nobody of that number.
        """
        with self._lock:
            if not 0 <= index < len(self.people):
                raise OptionError(f"there are {len(self.people)} people, not number {index + 1}")
            self.index, self.frame, self.film_frame = index, None, None
            self._T_world_head = torch.eye(4)
            self._photos.clear()
            if self.motion is not None:
                self.show_frame(0)
            else:
                self.photo_expression()

    def _set(self, expression: Tensor) -> None:
        self._expression, self._face = expression.clamp(0.0, 1.0), None
        self.changed.set()

    def move(self, name: str, value: float) -> dict[str, float]:
        """Moves one slider, and its partner where sides are linked.

        Args:
            name: Of an expression.
            value: 0..1; what is beyond is clamped.

        Returns:
            What moved.

        Raises:
            OptionError: There is no such expression.
        """
        if name not in self.names:
            raise OptionError(f"there is no expression {name!r}; use one of {', '.join(self.names[:3])} ...")
        other = partner(name) if self.linked else None
        moved = {n: min(max(value, 0.0), 1.0) for n in (name, other) if n in self.names}
        with self._lock:
            self._set(self._with(self._expression, moved))
        return moved

    def preset(self, weights: Mapping[str, float]) -> None:
        """Sets the sliders to a named face; those that it does not name become 0."""
        with self._lock:
            self._set(self._with(torch.zeros_like(self._expression), weights))

    def photo_expression(self) -> None:
        """The expression that was reconstructed; the head stands still."""
        with self._lock:
            if self.viewed is None:
                return
            params = self.viewed.face.params
            self.frame, self.film_frame, self._T_world_head = None, None, torch.eye(4)
            self._set(morph_weights(self.viewed.face.model, params.expression, params.pose))

    def drive(self, expression: Tensor, R_cam_head: Tensor | None = None) -> None:
        """Shows what a live source says; [E] 0..1 in the model's order, [3, 3] object to camera."""
        with self._lock:
            if len(expression) != len(self.names):
                return
            self.frame, self.film_frame = None, None
            self._T_world_head = torch.eye(4)
            if R_cam_head is not None and self.head_moves:
                self._T_world_head[:3, :3] = _UPRIGHT[:3, :3] @ R_cam_head.float()
            self._set(expression.float())

    def show_frame(self, frame: int, film_frame: np.ndarray | None = None) -> None:
        """Shows a frame of the motion, and the frame of the video behind it where it is given."""
        with self._lock:
            motion = self.motion
            if motion is None:
                return
            self.frame, self.film_frame = min(max(frame, 0), len(motion) - 1), film_frame
            self._T_world_head = self._head_at(motion, self.frame)
            self._set(motion.expression[self.frame])

    def put_film_frame(self, film_frame: np.ndarray) -> None:
        """Puts a picture [h, w, 3] uint8 behind the present frame, whose expression stays as it is."""
        with self._lock:
            if self.frame is not None:
                self.film_frame = film_frame
                self.changed.set()

    def show(self, **changes: Any) -> None:
        """Changes `look`; names are those of `Look`."""
        with self._lock:
            self.look = replace(self.look, **changes)
            self.changed.set()

    def put(self, **changes: bool) -> None:
        """Changes `linked`, `over_photo` or `head_moves`."""
        with self._lock:
            for name, value in changes.items():
                setattr(self, name, value)
            if self.motion is not None and self.frame is not None:
                self._T_world_head = self._head_at(self.motion, self.frame)
            self.changed.set()

    @property
    def can_be_over_photo(self) -> bool:
        """Whether there is a picture that the head can be drawn over."""
        return self.film_frame is not None or (self.viewed is not None and self.viewed.has_photo)

    def face(self) -> FaceResult | None:
        """Who is shown with the present expression."""
        with self._lock:
            if self.viewed is None:
                return None
            if self._face is None:
                p = self.viewed.face.params
                pose = pose_from_expression(self.viewed.face.model, self._expression, p.pose)
                params = p.replace(expression=self._expression.clone(), pose=pose)
                self._face = self.viewed.face.with_params(params)
            return self._face

    def picture(self, view: Camera, smooth_px: int = 1) -> np.ndarray:
        """What is seen.

        Args:
            view: Of the free view: world to camera (the world is the head's space where it rests), and the
                size. Over a photo only its size counts.
            smooth_px: As for `draw_face`.

        Returns:
            [H, W, 3] uint8 sRGB.
        """
        with self._lock:
            viewed, face, look, T_world_head = self.viewed, self.face(), self.look, self._T_world_head
            over = self.over_photo and self.can_be_over_photo
            behind = self._behind(view.height, view.width) if over else None
            T_cam_head = self._T_cam_head() if over else view.T_cam_object @ T_world_head
        if viewed is None or face is None:
            return _empty(view)
        if behind is None:
            camera = Camera(view.K, T_cam_head, view.width, view.height)
            behind = plain_backdrop(view.height, view.width)
            look = replace(look, opacity=1.0)
        else:
            camera = fitted_camera(replace(face.camera, T_cam_object=T_cam_head), view.height, view.width)
        T_cam_world = T_cam_head @ torch.linalg.inv(T_world_head)
        return draw_face(viewed, face, camera, T_cam_world, look, behind, smooth_px)

    def _behind(self, height: int, width: int) -> Tensor:
        if self.film_frame is not None:
            return photo_backdrop(self.film_frame, height, width)
        if (height, width) not in self._photos and self.viewed is not None:
            self._photos = dict(list(self._photos.items())[-3:])
            self._photos[height, width] = photo_backdrop(self.viewed.face.photo.image_srgb, height, width)
        return self._photos[height, width]

    def _T_cam_head(self) -> Tensor:
        """Head to the camera of the photo or of the video's frame."""
        motion, viewed = self.motion, self.viewed
        if motion is not None and self.frame is not None and motion.R_cam_head is not None:
            T = torch.eye(4)
            T[:3, :3] = motion.R_cam_head[self.frame]
            if motion.t_cam_head is not None:
                T[:3, 3] = motion.t_cam_head[self.frame]
            return T
        return torch.eye(4) if viewed is None else viewed.face.camera.T_cam_object

    def _head_at(self, motion: Motion, frame: int) -> Tensor:
        """Head to world in a frame: where it is first it stands in the middle, turned as it is."""
        T = torch.eye(4)
        if self.head_moves and motion.R_cam_head is not None:
            T[:3, :3] = _UPRIGHT[:3, :3] @ motion.R_cam_head[frame]
            if motion.t_cam_head is not None:
                T[:3, 3] = _UPRIGHT[:3, :3] @ (motion.t_cam_head[frame] - motion.t_cam_head[0])
        return T

    def _with(self, expression: Tensor, values: Mapping[str, float]) -> Tensor:
        expression, names = expression.clone(), self.names
        for name, value in values.items():
            if name in names:
                expression[names.index(name)] = value
        return expression


def _empty(view: Camera) -> np.ndarray:
    """The backdrop alone, sRGB."""
    return to_array(linear_to_srgb(plain_backdrop(view.height, view.width)))
