# SPDX-License-Identifier: Apache-2.0
"""The kinds of videos that tracking is measured on, drawn by number."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from hiface.morphable import MorphableModel
from hiface.synthetic.backgrounds import plan_background
from hiface.synthetic.camera_effects import Lens, apply_effects
from hiface.synthetic.cameras import head_rotation
from hiface.synthetic.effects import ALL_EFFECTS, wall
from hiface.synthetic.expressions import Gaze
from hiface.synthetic.lights import Surroundings
from hiface.synthetic.performances import Acting, blinking, keeping_still, talking, turning, walking
from hiface.synthetic.posing import rest_of
from hiface.synthetic.shots import Act, Shot, draw_shot, make_picture, pose_person, sitter_of
from hiface.synthetic.videos import Performer, Recording, Video, lid_gaps_m
from hiface.types import Camera

VIDEO_FRAMES = {"talk": 120, "blink": 128, "turn": 112, "still": 64, "leave": 120, "cross": 96, "cut": 96}
VIDEO_KINDS = tuple(VIDEO_FRAMES)
PEOPLE_PER_VIDEO = 2
_EFFECTS = ALL_EFFECTS - {"occluders"}
_DRAFT_PX = 64
_NOISE_LEVELS = (1.5, 8.0)  # mean difference of two frames of grey, of 255
_FACE_M = 0.145  # about the longer side of the box around 68 points


@dataclass(frozen=True)
class VideoStyle:
    """How videos are made.

    Attributes:
        height_px: Of the picture.
        wide: Pictures of 16:9; "cross" is always wide, the others are square otherwise.
        frames: Number of frames, or None for that of the kind.
        uneven: Times between frames vary.
        effects: Parts of the generator that are on.
    """

    height_px: int = 512
    wide: bool = False
    frames: int | None = None
    uneven: bool = False
    effects: frozenset[str] = _EFFECTS


@dataclass(frozen=True)
class _Set:
    """A camera in a room: picture's size, focal length, light, lens, background, source of randomness."""

    width: int
    height: int
    focal_px: float
    lights: Surroundings
    lens: Lens
    background: Tensor
    seed: int

    @property
    def K(self) -> Tensor:
        """[3, 3], the principal point in the middle."""
        f, cx, cy = self.focal_px, self.width / 2, self.height / 2
        return torch.tensor([[f, 0.0, cx], [0.0, f, cy], [0.0, 0.0, 1.0]])

    def recording(self, *cast: Performer) -> Recording:
        """What is filmed here."""
        return Recording(self.background, cast, self.lens, self.seed)


@dataclass(frozen=True)
class _Maker:
    """What all kinds are made with."""

    model: MorphableModel
    number: int
    style: VideoStyle
    rng: np.random.Generator
    times_s: np.ndarray

    @property
    def seconds(self) -> float:
        """How long the video is."""
        return float(self.times_s[-1] - self.times_s[0])

    def draft(self, person: int) -> Shot:
        """Who it is, in what clothes and light."""
        number = self.number + person
        sitter = sitter_of(self.model, number, self.style.effects)
        return draw_shot(
            self.model, sitter, np.random.default_rng([number, 47]), _DRAFT_PX, self.style.effects
        )

    def set_for(self, draft: Shot, share: float, distance_m: float, wide: bool) -> _Set:
        """A camera in front of someone whose face is to fill a share of the picture's height."""
        rng, height = self.rng, self.style.height_px
        width = 2 * round(height * 8 / 9) if wide or self.style.wide else height
        lens = Lens("sharp" if rng.random() < 0.6 else "defocus", float(rng.uniform(0.5, 0.9)))
        side = max(width, height)
        background = wall(plan_background(rng, side), side, self.style.effects)
        top, left = (side - height) // 2, (side - width) // 2
        background = background[:, top : top + height, left : left + width].contiguous()
        focal = share * height * distance_m / _FACE_M
        return _Set(width, height, focal, draft.picture.lights, lens, background, int(rng.integers(2**31)))

    def performer(
        self, person: int, draft: Shot, stage: _Set, place: tuple[float, float, float], acting: Acting
    ) -> Performer:
        """Puts someone into a room; the place is in shares of width and height and metres from the camera."""
        model, sitter = self.model, draft.sitter
        act = Act({}, Gaze((0.0, 0.0), 0.0), np.zeros((2, 3), dtype=np.float32))
        posed = pose_person(model, sitter.person, act)
        x, y, distance = place
        K = stage.K
        centre = torch.tensor([x * stage.width, y * stage.height])
        at = torch.cat([(centre - K[:2, 2]) / stage.focal_px, torch.ones(1)]) * distance
        R = torch.from_numpy(head_rotation(0.0, 0.0, 0.0)).float()
        T_cam_head = torch.eye(4)
        T_cam_head[:3, :3] = R
        T_cam_head[:3, 3] = at - R @ model.landmarks("ibug68", posed.vertices).mean(dim=0)
        camera = Camera(K, T_cam_head @ torch.linalg.inv(posed.T_head), stage.width, stage.height)
        body_turn = np.array([0.0, self.rng.normal(0, 0.06), 0.0], dtype=np.float32)
        picture = make_picture(model, sitter, act, posed, camera, body_turn, stage.lights)
        first = replace(draft, act=act, picture=picture, lens=stage.lens)
        gaps = lid_gaps_m(model, rest_of(model, sitter.person.identity).shape)
        return Performer(person, first, acting.motion(R.double().numpy(), self.rng), gaps)

    def alone(self, acting: Acting, share: float | None = None) -> Recording:
        """One person before a camera."""
        draft = self.draft(0)
        stage = self.set_for(draft, share or float(self.rng.uniform(0.34, 0.5)), self._distance(), False)
        return stage.recording(self.performer(0, draft, stage, self._place(stage), acting))

    def _distance(self) -> float:
        return float(self.rng.uniform(0.45, 1.1))

    def _place(self, stage: _Set, distance_m: float | None = None) -> tuple[float, float, float]:
        distance = distance_m or stage.focal_px * _FACE_M / (0.42 * stage.height)
        return float(self.rng.uniform(0.46, 0.54)), float(self.rng.uniform(0.44, 0.52)), distance


def frame_times(rng: np.random.Generator, frames: int, fps: float, uneven: bool) -> np.ndarray:
    """[frames] seconds from 0, whole milliseconds where the rate varies: cameras drop frames in the dark."""
    if not uneven:
        return np.arange(frames) / fps
    gaps = rng.choice([1.0, 2.0, 3.0], frames - 1, p=[0.75, 0.2, 0.05]) * rng.uniform(0.85, 1.15, frames - 1)
    return np.round(np.concatenate([[0.0], np.cumsum(gaps / fps)]), 3)


def make_video(model: MorphableModel, kind: str, number: int, style: VideoStyle | None = None) -> Video:
    """Decides on a video.

    Args:
        model: Face model.
        kind: One of `VIDEO_KINDS`: "talk", "blink" (blinks, half blinks, winks), "turn" (to 45 degrees, up
            and down by 20), "still", "leave" (walks out and comes back; then an empty room or black), "cross"
            (two people swap places, or one passes before the other), "cut" (another person and back).
        number: Number of the first person, and the seed of everything else.
        style: Size, number of frames, rate.

    Returns:
        Video.
    """
    style = style or VideoStyle()
    if kind == "blink":
        style = replace(style, effects=style.effects - {"glasses"})
    rng = np.random.default_rng([number, 43])
    fps = float(rng.choice([25.0, 30.0]))
    times = frame_times(rng, style.frames or VIDEO_FRAMES[kind], fps, style.uneven)
    maker = _Maker(model, number, style, rng, times)
    recordings, of_frame = _KINDS[kind](maker)
    cast = sorted({p.person for recording in recordings for p in recording.cast})
    width, height = recordings[0].background.shape[2], recordings[0].background.shape[1]
    people = tuple(number + person for person in cast)
    return Video(kind, fps, times, width, height, recordings, of_frame, people)


_Made = tuple[tuple[Recording, ...], tuple[int, ...]]


def _plain(act: Callable[[np.random.Generator, np.ndarray], Acting]) -> Callable[[_Maker], _Made]:
    return lambda maker: ((maker.alone(act(maker.rng, maker.times_s)),), (0,) * len(maker.times_s))


def _still(maker: _Maker) -> _Made:
    """Nothing moves; the sensor's noise and what encoding makes of it are all that changes."""
    recording = maker.alone(keeping_still(maker.rng, maker.times_s))
    seed = _noisy_seed(recording.lens, maker.rng)
    return (replace(recording, seed=seed),), (0,) * len(maker.times_s)


def _noisy_seed(lens: Lens, rng: np.random.Generator) -> int:
    """Seed of a camera whose noise can be seen, as that of most cameras can."""
    grey, seed = torch.full((3, 32, 32), 0.15), 0
    for _ in range(100):
        seed = int(rng.integers(2**31))
        first, second = (apply_effects(grey, np.random.default_rng(seed), lens, i).float() for i in (0, 1))
        if _NOISE_LEVELS[0] < float((first - second).abs().mean()) < _NOISE_LEVELS[1]:
            break
    return seed


def _leave(maker: _Maker) -> _Made:
    """Out of the picture and back, later an empty room or black for some frames."""
    t, length = maker.times_s, maker.seconds
    draft = maker.draft(0)
    stage = maker.set_for(draft, 0.36, maker._distance(), False)
    place = maker._place(stage, stage.focal_px * _FACE_M / (0.36 * stage.height))
    way = (0.5 * stage.width / stage.focal_px * place[2] + 0.26) * (1.0 if maker.rng.random() < 0.5 else -1.0)
    out = t[0] + length * np.array([0.2, 0.33, 0.38, 0.51])
    acting = walking(
        talking(maker.rng, t), tuple(zip(out.tolist(), (0.0, way, way, 0.0), strict=True)), turn_deg=35.0
    )
    room = stage.recording(maker.performer(0, draft, stage, place, acting))
    empty = stage.recording()
    if maker.rng.random() < 0.5:
        empty = replace(empty, background=torch.zeros_like(stage.background))
    n = len(t)
    gone = range(round(0.74 * n), round(0.8 * n))
    return (room, empty), tuple(int(i in gone) for i in range(n))


def _cross(maker: _Maker) -> _Made:
    """Two people swap places, or one passes before the other, who stays."""
    t, length, rng = maker.times_s, maker.seconds, maker.rng
    drafts = [maker.draft(0), maker.draft(1)]
    near = float(rng.uniform(0.9, 1.3))
    stage = maker.set_for(drafts[0], 0.32, near, True)
    depths = (near, near * float(rng.uniform(1.3, 1.45)))
    places = (float(rng.uniform(0.24, 0.3)), float(rng.uniform(0.7, 0.76)))
    swap = rng.random() < 0.6
    begin, end = t[0] + 0.22 * length, t[0] + 0.78 * length
    cast = []
    for person, (draft, depth) in enumerate(zip(drafts, depths, strict=True)):
        start, goal = places if person == 0 else places[::-1]
        if person == 1 and not swap:
            start = goal = 0.52
        way = (goal - start) * stage.width / stage.focal_px * depth
        acting = walking(talking(rng, t), ((begin, 0.0), (end, way)))
        cast.append(maker.performer(person, draft, stage, (start, 0.42 + 0.03 * person, depth), acting))
    return (stage.recording(*cast),), (0,) * len(t)


def _cut(maker: _Maker) -> _Made:
    """From one person to another, in another room, and back."""
    t, rooms = maker.times_s, []
    for person in range(2):
        draft = maker.draft(person)
        stage = maker.set_for(draft, float(maker.rng.uniform(0.34, 0.5)), maker._distance(), False)
        place = maker._place(stage)
        rooms.append(stage.recording(maker.performer(person, draft, stage, place, talking(maker.rng, t))))
    first, second = (round(len(t) * share) for share in (0.36, 0.68))
    return tuple(rooms), tuple(int(first <= i < second) for i in range(len(t)))


_KINDS: dict[str, Callable[[_Maker], _Made]] = {
    "talk": _plain(talking),
    "blink": _plain(blinking),
    "turn": _plain(turning),
    "still": _still,
    "leave": _leave,
    "cross": _cross,
    "cut": _cut,
}
