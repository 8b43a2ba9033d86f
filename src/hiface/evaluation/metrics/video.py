# SPDX-License-Identifier: Apache-2.0
"""How well faces are followed through a video: who is who, coefficients, blinks, points, pose, jitter."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hiface.evaluation.landmarks import landmark_groups, match_boxes, nme51
from hiface.evaluation.metrics.blinks import blink_scores
from hiface.evaluation.synthetic_videos import VideoTruth
from hiface.evaluation.track_files import MISSING, OK, Track, arkit_names
from hiface.networks.boxes import iou_matrix
from hiface.synthetic.videos import ABSENT, PARTLY, PRESENT

GROUPS = {
    "lids": ("eyeBlink", "eyeSquint", "eyeWide"),
    "gaze": ("eyeLook",),
    "brows": ("brow",),
    "jaw": ("jaw",),
    "mouth": ("mouth",),
    "cheeks, nose": ("cheek", "nose"),
    "tongue": ("tongue",),
}
HEIGHT_PX = 512.0  # jitter is given for pictures of this height
_LEAST_IOU, _TOUCHES = 0.3, 0.1
_ACTIVE_STD, _LEAST_FRAMES = 0.05, 10


def group_columns(group: str) -> list[int]:
    """Places of a group's channels among the 52."""
    return [i for i, name in enumerate(arkit_names()) if name.startswith(GROUPS[group])]


def boxes_of(points_px: Tensor, box: Tensor | None = None) -> Tensor:
    """Boxes [*B, 4] around points [*B, L, 2]; `box` [*B, 4] where points are not known, else NaN."""
    around = torch.cat([points_px.amin(dim=-2), points_px.amax(dim=-2)], dim=-1)
    return around if box is None else torch.where(around.isfinite(), around, box)


def match_people(truth_boxes: Tensor, presence: Tensor, boxes: Tensor, answered: Tensor) -> Tensor:
    """Which person of a track is which true one, frame by frame, by overlap.

    Args:
        truth_boxes: [P, n, 4] pixels.
        presence: [P, n]; absent people are matched to nothing.
        boxes: [E, n, 4] of the track, NaN where not known.
        answered: [E, n] bool.

    Returns:
        [P, n] int64 place in the track, -1 for none.
    """
    out = torch.full(presence.shape, -1, dtype=torch.int64)
    usable = answered & boxes.isfinite().all(dim=-1)
    for i in range(presence.shape[1]):
        there, given = (x[:, i].nonzero().reshape(-1) for x in (presence != ABSENT, usable))
        found = match_boxes(boxes[given, i].numpy(), truth_boxes[there, i].numpy(), _LEAST_IOU)
        for person, place in zip(there.tolist(), found.tolist(), strict=True):
            out[person, i] = given[place] if place >= 0 else -1
    return out


def count_false(match: Tensor, truth_boxes: Tensor, presence: Tensor, boxes: Tensor, is_ok: Tensor) -> int:
    """Answers "ok" that belong to nobody; near people who are partly there they do not count.

    Args:
        match: [P, n] from `match_people`.
        truth_boxes: [P, n, 4].
        presence: [P, n].
        boxes: [E, n, 4].
        is_ok: [E, n] bool.

    Returns:
        Their number.
    """
    false = 0
    for i in range(match.shape[1]):
        partly = truth_boxes[presence[:, i] == PARTLY, i]
        for place in is_ok[:, i].nonzero().reshape(-1).tolist():
            if (match[:, i] == place).any():
                continue
            near = iou_matrix(boxes[place, i][None].numpy(), partly.numpy())
            false += not bool((near > _TOUCHES).any())
    return false


def identity_changes(match: Tensor) -> tuple[int, int]:
    """How often people are taken for others.

    Args:
        match: [P, n] place in the track, -1 for none.

    Returns:
        Switches: how often a true person is given another id than the last time; mixes: how often an id goes
        on to another true person.
    """
    switches = mixes = 0
    last_id, last_person = {}, {}
    for i in range(match.shape[1]):
        for person, place in enumerate(match[:, i].tolist()):
            if place >= 0:
                switches += last_id.get(person, place) != place
                mixes += last_person.get(place, person) != person
                last_id[person], last_person[place] = place, person
    return switches, mixes


def blendshape_errors(found: Tensor, truth: Tensor) -> dict[str, float]:
    """Mean absolute error of coefficients [N, 52] (0..1): all, and of each group."""
    off = (found - truth).abs()
    return {"all": float(off.mean())} | {g: float(off[:, group_columns(g)].mean()) for g in GROUPS}


def blendshape_correlation(found: Tensor, truth: Tensor) -> dict[str, float]:
    """Pearson correlation over time of the channels that move, by channel.

    Args:
        found: [n, 52].
        truth: [n, 52].

    Returns:
        Correlation by name for channels whose true standard deviation is 0.05 or more; 0 where the estimate
        does not move.
    """
    out = {}
    if len(truth) < _LEAST_FRAMES:
        return out
    a, b = (x.double() - x.double().mean(dim=0) for x in (found, truth))
    spread = b.square().mean(dim=0).sqrt()
    product = (a * b).mean(dim=0) / (a.square().mean(dim=0).sqrt() * spread).clamp_min(1e-9)
    for i, name in enumerate(arkit_names()):
        if float(spread[i]) >= _ACTIVE_STD:
            out[name] = float(product[i])
    return out


def rotation_degrees(a: Tensor, b: Tensor) -> Tensor:
    """Angle between rotations [*B, 3, 3], degrees [*B]; exact for small ones too."""
    turn = a.double() @ b.double().mT
    sine = (turn - turn.mT).square().sum(dim=(-2, -1)).sqrt() / (2 * math.sqrt(2))
    cosine = (turn.diagonal(dim1=-2, dim2=-1).sum(-1) - 1) / 2
    return torch.rad2deg(torch.atan2(sine, cosine))


def second_differences(offsets: Tensor, known: Tensor) -> Tensor:
    """How much points tremble.

    Args:
        offsets: [n, L, 2] estimated minus true points, pixels.
        known: [n] bool.

    Returns:
        [m] mean length of the second difference, for each frame with both neighbours known.
    """
    whole = known[:-2] & known[1:-1] & known[2:]
    trembles = offsets[:-2] - 2 * offsets[1:-1] + offsets[2:]
    return trembles.norm(dim=-1).mean(dim=-1)[whole]


def spread_over_time(points: Tensor) -> float:
    """Standard deviation over time of points [n, L, 2]: root mean square distance to their means."""
    return float((points - points.mean(dim=0)).square().sum(dim=-1).mean().sqrt())


def video_scores(truth: VideoTruth, track: Track) -> dict[str, Any]:
    """All scores of one video, ready for JSON.

    Args:
        truth: What is known.
        track: What a tracker says, of the same number of frames or another.

    Returns:
        "frames": counts (`due`: people times frames in which they are there; `lost`, `false`, `disordered`:
        not there, there twice, out of order, or at another time by over half a frame),
        "identity": switches and mixes, "people": a list of scores per true person (`person_scores`).
    """
    frames = truth.presence.shape[1]
    est = _stacked(track, frames)
    presence, answered, is_ok = truth.presence, est["status"] != MISSING, est["status"] == OK
    truth_boxes = boxes_of(truth.landmarks68_px.double())
    boxes = boxes_of(est["landmarks68_px"], est["box"])
    match = match_people(truth_boxes, presence, boxes, answered)
    due = presence == PRESENT
    switches, mixes = identity_changes(match)
    people = [_person_scores(truth, p, est, match[p]) for p in range(len(presence))]
    return {
        "kind": truth.kind,
        "frames": {
            "due": int(due.sum()),
            "lost": int((due & (match < 0)).sum()),
            "false": count_false(match, truth_boxes, presence, boxes, is_ok),
            "disordered": track.disordered + abs(len(track.times_s) - frames) + _at_other_times(truth, track),
        },
        "identity": {"switches": switches, "mixes": mixes},
        "people": people,
    }


def _at_other_times(truth: VideoTruth, track: Track) -> int:
    """Frames whose time, from the first one's, is off by over half a frame."""
    n = min(len(truth.times_s), len(track.times_s))
    times, true = (x[:n].double() - x[:1].double() for x in (track.times_s, truth.times_s))
    return int(((times - true).abs() > 0.5 / truth.fps).sum())


def _stacked(track: Track, frames: int) -> dict[str, Tensor]:
    """Tensors [E, n, ...] of a track, cut or filled up with missing frames."""
    shapes = {"blendshapes": (52,), "rotation": (3, 3), "landmarks68_px": (68, 2), "box": (4,)}
    out = {
        name: torch.full((len(track.people), frames, *s), torch.nan).double() for name, s in shapes.items()
    }
    out["status"] = torch.full((len(track.people), frames), MISSING, dtype=torch.uint8)
    for row, person in enumerate(track.people):
        for name, values in out.items():
            given = getattr(person, name)[:frames]
            values[row, : len(given)] = given.to(values.dtype)
    return out


def _person_scores(truth: VideoTruth, person: int, est: dict[str, Tensor], match: Tensor) -> dict[str, Any]:
    """Scores of one true person; None where there is nothing to measure."""
    due = truth.presence[person] == PRESENT
    seen, frame = due & (match >= 0), torch.arange(len(match))
    mine = {name: values[match.clamp_min(0), frame] if len(values) else None for name, values in est.items()}
    blinks = {}
    for side in ("Left", "Right"):
        column = arkit_names().index(f"eyeBlink{side}")
        found = (
            np.zeros(len(match)) if mine["blendshapes"] is None else mine["blendshapes"][:, column].numpy()
        )
        true_curve = truth.expression[person, :, column].double().numpy()
        blinks[side] = blink_scores(true_curve, found, due.numpy(), seen.numpy())
    out: dict[str, Any] = {"frames": int(seen.sum()), "blinks": blinks}
    if not bool(seen.any()):
        return out
    given = {name: values[seen] for name, values in mine.items() if values is not None}
    true_shapes = truth.expression[person][seen].double()
    out["blendshape_error"] = blendshape_errors(given["blendshapes"], true_shapes)
    off = given["blendshapes"] - true_shapes
    out["blendshape_error_offset_free"] = float((off - off.median(dim=0).values).abs().mean())
    out["blendshape_error_of_rest"] = float(true_shapes.abs().mean())
    out["blendshape_correlation"] = blendshape_correlation(given["blendshapes"], true_shapes)
    out["pose_error_deg"] = float(
        rotation_degrees(given["rotation"], truth.T_cam_head[person][seen][:, :3, :3]).mean()
    )
    return out | _point_scores(truth, person, mine, seen)


def _point_scores(
    truth: VideoTruth, person: int, mine: dict[str, Tensor | None], seen: Tensor
) -> dict[str, Any]:
    """Errors and jitter of the inner 51 points, and what trembles on a video in which nothing moves."""
    points, true_points = mine["landmarks68_px"], truth.landmarks68_px[person].double()
    assert points is not None and mine["blendshapes"] is not None and mine["rotation"] is not None
    known = seen & points.isfinite().flatten(1).all(dim=1)
    out: dict[str, Any] = {}
    if bool(known.any()):
        inner, scale = slice(len(landmark_groups()["jaw"]), None), HEIGHT_PX / truth.height
        out["nme51_percent"] = 100 * float(nme51(points[known], true_points[known]).mean())
        trembles = second_differences((points - true_points)[:, inner] * scale, known)
        out["jitter_px"] = float(trembles.mean()) if len(trembles) else None
        if truth.kind == "still":
            out["spread_px"] = spread_over_time(points[known][:, inner] * scale)
    if truth.kind == "still":
        out["blendshape_spread"] = float(mine["blendshapes"][seen].std(dim=0, correction=0).mean())
        R = mine["rotation"][seen]
        out["rotation_step_deg"] = float(rotation_degrees(R[1:], R[:-1]).mean()) if len(R) > 1 else None
    return out
