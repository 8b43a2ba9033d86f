# SPDX-License-Identifier: Apache-2.0
"""One known person through all frames: fitted in each, filled in across short gaps, smoothed between cuts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from hiface.animation.blinks import shut_blinks
from hiface.errors import FitError
from hiface.export.morphs import morph_weights
from hiface.fitting.follow import PersonFollower
from hiface.fitting.observe import landmark_observation
from hiface.morphable import MorphableModel
from hiface.networks.motion_net import MotionNet
from hiface.result import FaceResult
from hiface.tracking.motions import moved_expressions
from hiface.tracking.paths import FacePaths, PathNoise, smooth_path
from hiface.tracking.result import PersonTrack, Status
from hiface.tracking.sightings import Sighting
from hiface.types import Camera, FaceParams

EXPRESSION_SIGMA = 0.05  # of expressions about those that the network reads, 0..1
_GAP_S = 0.4
_BLINKS = ("eyeBlinkLeft", "eyeBlinkRight")


@dataclass(frozen=True)
class Timeline:
    """Frames of a video.

    Attributes:
        times_s: [N].
        cuts: Frames that begin another scene.
        camera: Intrinsics of all frames, at no particular place.
    """

    times_s: Sequence[float]
    cuts: Sequence[int]
    camera: Camera


@dataclass(frozen=True)
class FollowOptions:
    """How a person's frames become a track.

    Attributes:
        gap_s: Longest gap that is filled in.
        noise: For the smoother; None leaves every frame as it was fitted, half shut blinks too.
    """

    gap_s: float = _GAP_S
    noise: PathNoise | None = field(default_factory=PathNoise)


def follow_person(
    number: int,
    face: FaceResult,
    sightings: Sequence[Sighting],
    timeline: Timeline,
    options: FollowOptions,
    motion: MotionNet | None = None,
    advance: Callable[[], None] = lambda: None,
) -> PersonTrack:
    """Fits a person in each frame where it was seen, and smooths.

    Args:
        number: Of the person.
        face: Who it is.
        sightings: In order, at most one in a frame.
        timeline: Of the video.
        options: How.
        motion: Reads changes of expression; as the network reads single frames if None.
        advance: Called after each sighting.

    Returns:
        A track with an answer for every frame.
    """
    follower = PersonFollower(face.model, face.params, EXPRESSION_SIGMA)
    expressions = moved_expressions(motion, sightings)
    fitted: list[FaceParams | None] = [None] * len(timeline.times_s)
    for sighting, expression in zip(sightings, expressions, strict=True):
        camera = timeline.camera
        observation = landmark_observation(
            sighting.detection, camera.width, camera.height, float(camera.focal_px)
        )
        try:
            read = sighting.read.replace(expression=expression)
            fitted[sighting.frame] = follower.follow(observation, read)
        except FitError:
            pass  # a frame like one without a face
        advance()
    scores = {s.frame: s.detection.score for s in sightings}
    return _track(number, face, fitted, scores, timeline, options)


def pieces(seen: np.ndarray, times_s: Sequence[float], cuts: Sequence[int], gap_s: float) -> list[range]:
    """Stretches of frames [first, last] that are one motion: gaps within are short and hold no cut.

    Args:
        seen: [N] bool.
        times_s: [N].
        cuts: Frames that begin another scene.
        gap_s: Longest gap.

    Returns:
        Ranges of frames, each beginning and ending with a frame that is seen.
    """
    found: list[range] = []
    border = set(cuts)
    last: int | None = None
    for frame in np.nonzero(seen)[0].tolist():
        within = last is not None and times_s[frame] - times_s[last] <= gap_s + 1e-9
        within = within or (last is not None and frame == last + 1)
        if last is not None and within and not border.intersection(range(last + 1, frame + 1)):
            found[-1] = range(found[-1].start, frame + 1)
        else:
            found.append(range(frame, frame + 1))
        last = frame
    return found


def _shut_blinks(model: MorphableModel, times_s: np.ndarray, expression: Tensor) -> None:
    """Stretches both eyes' blinks in place."""
    for name in _BLINKS:
        if name in model.data.expression_names:
            column = expression[:, model.expression_index(name)]
            column.copy_(torch.from_numpy(shut_blinks(times_s, column.double().numpy())))


def _track(
    number: int,
    face: FaceResult,
    fitted: list[FaceParams | None],
    scores: dict[int, float],
    timeline: Timeline,
    options: FollowOptions,
) -> PersonTrack:
    model, count = face.model, len(fitted)
    paths, noise = FacePaths(model), options.noise or PathNoise()
    expression = torch.full((count, len(model.data.expression_names)), torch.nan)
    pose = torch.full((count, model.data.n_joints, 3), torch.nan)
    T, light = torch.full((count, 4, 4), torch.nan), torch.full((count, 9, 3), torch.nan)
    status: list[Status] = ["missing"] * count
    seen = np.array([params is not None for params in fitted])
    times = np.array(timeline.times_s)
    for piece in pieces(seen, timeline.times_s, timeline.cuts, options.gap_s):
        frames = fitted[piece.start : piece.stop]
        raw = paths.path_of(frames)
        smooth = smooth_path(times[piece.start : piece.stop], raw, noise)
        if options.noise is None:
            kept = np.where(np.isfinite(raw.channels()), raw.channels(), smooth.channels())
            smooth = raw.with_channels(kept)
        rows = slice(piece.start, piece.stop)
        expression[rows] = smooth.expression.float()
        pose[rows], T[rows] = paths.pose_of(smooth, model.data.n_joints)
        light[rows] = torch.stack([f.light for f in frames if f is not None]).mean(0)
        for frame in piece:
            status[frame] = "ok" if seen[frame] else "interpolated"
    if options.noise is not None:
        _shut_blinks(model, times, expression)
    points = torch.full((count, 68, 2), torch.nan)
    blendshapes = torch.full_like(expression, torch.nan)
    score = torch.zeros(count)
    for frame in range(count):
        if status[frame] == "missing":
            continue
        camera = replace(timeline.camera, T_cam_object=T[frame])
        moved = {"expression": expression[frame], "pose": pose[frame], "camera": camera}
        points[frame] = face.with_params(face.params.replace(**moved)).landmarks()
        blendshapes[frame] = morph_weights(model, expression[frame], pose[frame])
        score[frame] = scores.get(frame, 0.0)
    box = torch.cat([points.amin(1), points.amax(1)], dim=1)
    return PersonTrack(
        number, face, timeline.camera, status, expression, pose, T, light, points, box, score, blendshapes
    )
