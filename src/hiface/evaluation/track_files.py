# SPDX-License-Identifier: Apache-2.0
"""Answers of a face tracker as files: `track.json`, one for each video, read with every check.

    {"version": 1, "fps", "width", "height", "n_frames", "times_s": [n], "names": [52 of ARKit],
     "K": [3][3] pixels or null,
     "people": [{"id": 1, "frames": {"index": [k], "status": [k of "ok", "missing", "interpolated"],
       "blendshapes": [k][52], "rotation": [k][3][3], "translation": [k][3],
       "landmarks68_px": [k][68][2], "box": [k][4]}}]}

Rotation and translation (metres) bring head axes into those of an OpenCV camera. Where the status is
"missing", the numbers are null; landmarks and boxes may be null anywhere.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hiface.assets import load_json_asset
from hiface.atomic import atomic_write_text
from hiface.errors import EvaluationDataError

TRACK_VERSION = 1
TRACK_FILE = "track.json"
STATUSES = ("missing", "ok", "interpolated")
MISSING, OK, INTERPOLATED = range(3)
_SHAPES = {
    "blendshapes": (52,),
    "rotation": (3, 3),
    "translation": (3,),
    "landmarks68_px": (68, 2),
    "box": (4,),
}
_NEEDED = ("blendshapes", "rotation", "translation")
_ROTATION_TOLERANCE = 1e-2


@dataclass(frozen=True)
class TrackedPerson:
    """One person through all n frames of a video; NaN where nothing is known.

    Attributes:
        id: Number of the person in the track.
        status: [n] uint8, place in `STATUSES`.
        blendshapes: [n, 52] in the order of `arkit_names`.
        rotation: [n, 3, 3] R_cam_head.
        translation: [n, 3] metres.
        landmarks68_px: [n, 68, 2].
        box: [n, 4] x0, y0, x1, y1 pixels.
    """

    id: int
    status: Tensor
    blendshapes: Tensor
    rotation: Tensor
    translation: Tensor
    landmarks68_px: Tensor
    box: Tensor


@dataclass(frozen=True)
class Track:
    """All people of a video.

    Attributes:
        fps: Rate.
        width: Of the upright picture, pixels.
        height: Of the upright picture, pixels.
        times_s: [n] time of each frame.
        people: Who was followed.
        K: [3, 3] intrinsics of all frames, pixels; None where they are not known.
        disordered: Frames that are missing from a person's list, there twice, or out of order; 0 in a track
            that keeps its format.
    """

    fps: float
    width: int
    height: int
    times_s: Tensor
    people: tuple[TrackedPerson, ...]
    K: Tensor | None = None
    disordered: int = 0


def arkit_names() -> list[str]:
    """The 52 names in our order."""
    return list(load_json_asset("expressions/arkit52.json")["names"])


def read_track(path: Path) -> Track:
    """Reads a track.

    Args:
        path: A `track.json`.

    Returns:
        Track with coefficients in the order of `arkit_names`.

    Raises:
        EvaluationDataError: The file is missing or does not keep the format; the message says where.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise EvaluationDataError(f"{path} is no track that can be read ({error}); track it again") from error
    try:
        return _track(content)
    except (KeyError, TypeError, ValueError, OverflowError, RuntimeError) as error:
        reason = f"{error} is missing" if isinstance(error, KeyError) else str(error)
        raise EvaluationDataError(
            f"{path} does not keep the format of version {TRACK_VERSION}: {reason}; track it again"
        ) from error


def _track(content: dict[str, Any]) -> Track:
    _check(isinstance(content, dict), "an object is expected")
    _check(content["version"] == TRACK_VERSION, f"version is {content['version']}")
    frames, times = int(content["n_frames"]), torch.tensor(content["times_s"], dtype=torch.float64)
    _check(times.shape == (frames,), f"times_s has {tuple(times.shape)} entries for {frames} frames")
    _check(bool(times.isfinite().all()), "times_s has numbers that are not finite")
    names = content["names"]
    _check(sorted(names) == sorted(arkit_names()), "names are not the 52 of ARKit")
    order = [names.index(name) for name in arkit_names()]
    found = [_person(person, frames, order) for person in content["people"]]
    people = tuple(person for person, _ in found)
    _check(len({person.id for person in people}) == len(people), "two people have one id")
    width, height, fps = int(content["width"]), int(content["height"]), float(content["fps"])
    _check(min(width, height) > 0 and 0.0 < fps < float("inf"), "width, height or fps is not over 0")
    K = None if content.get("K") is None else torch.tensor(content["K"], dtype=torch.float64)
    _check(K is None or (K.shape == (3, 3) and bool(K.isfinite().all())), "K is no matrix [3][3]")
    return Track(fps, width, height, times, people, K, sum(faults for _, faults in found))


def _person(content: dict[str, Any], frames: int, order: list[int]) -> tuple[TrackedPerson, int]:
    """A person, and the number of frames that are not where they belong."""
    who, lists = int(content["id"]), content["frames"]
    index = np.asarray(lists["index"], dtype=np.int64).reshape(-1)
    for name in ("status", *_SHAPES):
        _check(len(lists[name]) == len(index), f"{name} of person {who} has not an entry for each index")
    inside = (index >= 0) & (index < frames)
    _, first = np.unique(index[inside], return_index=True)
    rows = np.flatnonzero(inside)[first]
    backwards = int((np.diff(index) <= 0).sum())
    faults = (frames - len(rows)) + max(len(index) - len(rows), backwards)
    status = torch.zeros(frames, dtype=torch.uint8)
    words = [_word(lists["status"][row], who) for row in rows]
    status[index[rows]] = torch.tensor(words, dtype=torch.uint8)
    values = {name: _numbers(lists[name], name, rows, index, frames) for name in _SHAPES}
    there = status != MISSING
    for name in _NEEDED:
        known = values[name][there].isfinite().flatten(1).all()
        _check(bool(known), f"{name} of person {who} is not finite in a frame that is not missing")
    R = values["rotation"][there]
    off = (R @ R.mT - torch.eye(3, dtype=R.dtype)).abs().amax() if len(R) else torch.zeros(())
    turned = len(R) == 0 or bool((torch.linalg.det(R) > 0).all())
    _check(float(off) < _ROTATION_TOLERANCE and turned, f"a rotation of person {who} is none")
    values["blendshapes"] = values["blendshapes"][:, order]
    return TrackedPerson(who, status, **values), faults


def _word(word: str, who: int) -> int:
    _check(word in STATUSES, f"status {word!r} of person {who} is none of {', '.join(STATUSES)}")
    return STATUSES.index(word)


def _numbers(rows: list[Any], name: str, chosen: np.ndarray, index: np.ndarray, frames: int) -> Tensor:
    """[n, ...] numbers by frame, NaN for null."""
    shape = _SHAPES[name]
    out = torch.full((frames, *shape), torch.nan, dtype=torch.float64)
    for row in chosen:
        if rows[row] is not None:
            value = torch.tensor(rows[row], dtype=torch.float64)
            _check(value.shape == shape, f"{name} has shape {tuple(value.shape)}, not {shape}")
            out[int(index[row])] = value
    return out


def _check(holds: bool, reason: str) -> None:
    if not holds:
        raise ValueError(reason)


def write_track(path: Path, track: Track) -> None:
    """Writes a track in the format that `read_track` reads.

    Raises:
        OutputError: The file cannot be written.
    """
    frames = len(track.times_s)
    people = []
    for person in track.people:
        lists: dict[str, list[Any]] = {
            "index": list(range(frames)),
            "status": [STATUSES[s] for s in person.status.tolist()],
        }
        for name in _SHAPES:
            values = getattr(person, name)
            rounded = (values.double() * 1e6).round().div(1e6)
            known = (person.status != MISSING) & values.isfinite().flatten(1).all(dim=1)
            lists[name] = [
                row if there else None for row, there in zip(rounded.tolist(), known.tolist(), strict=True)
            ]
        people.append({"id": person.id, "frames": lists})
    content = {
        "version": TRACK_VERSION,
        "fps": track.fps,
        "width": track.width,
        "height": track.height,
        "n_frames": frames,
        "times_s": track.times_s.tolist(),
        "names": arkit_names(),
        "K": None if track.K is None else track.K.tolist(),
        "people": people,
    }
    atomic_write_text(path, json.dumps(content) + "\n")
