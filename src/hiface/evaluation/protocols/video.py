# SPDX-License-Identifier: Apache-2.0
"""Faces through videos of people who do not exist: coefficients, blinks, jitter, who is who.

    DATA/<clip>.mp4, .safetensors, .json     written by `hiface.evaluation.synthetic_videos`
    PREDICTIONS/<clip>/track.json            `hiface.evaluation.track_files`

Predictions are those of any tracker, or of a method that sees each frame as a photo of its own.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hiface.atomic import atomic_write_text
from hiface.data import Photo
from hiface.data.video import open_video
from hiface.errors import FitError, TopologyError, VideoError
from hiface.evaluation.method import Method, Prediction
from hiface.evaluation.metrics.video import GROUPS, video_scores
from hiface.evaluation.protocols.base import Item, PlainState
from hiface.evaluation.runs import RunFolder
from hiface.evaluation.synthetic_videos import read_truth, video_names, video_path
from hiface.evaluation.track_files import OK, TRACK_FILE, Track, TrackedPerson, read_track, write_track

_ROWS = {  # word, factor, digits
    "blendshape_error": ("coefficients, %", 100, 2),
    "blendshape_error_offset_free": ("offset-free, %", 100, 2),
    "blendshape_error_of_rest": ("those of rest", 100, 2),
    "blendshape_correlation": ("correlation", 1, 2),
    "blinks": ("blinks of eyes", 1, 0),
    "blinks_missed_percent": ("missed, %", 1, 0),
    "blinks_false": ("false blinks", 1, 0),
    "blink_peak_frames": ("peak, frames", 1, 2),
    "blink_onset_frames": ("onset, frames", 1, 2),
    "blink_peak_ratio": ("height", 1, 2),
    "jitter_px": ("jitter, px", 1, 2),
    "spread_px": ("spread, px", 1, 2),
    "nme51_percent": ("inner 51, %", 1, 2),
    "pose_error_deg": ("pose, degrees", 1, 2),
    "lost_percent": ("lost, %", 1, 1),
    "false": ("false faces", 1, 0),
    "identity_changes": ("identity", 1, 0),
    "disordered": ("out of order", 1, 0),
}


@dataclass(frozen=True)
class VideoBenchmark(PlainState):
    """Videos with exact truth.

    Attributes:
        data: Their folder.
    """

    data: Path
    name: str = "video"
    version: int = 1

    def items(self) -> list[Item]:
        """All videos."""
        return [Item(name, None) for name in self._names]

    @cached_property
    def _names(self) -> list[str]:
        return video_names(self.data)

    def save(self, found: list[Prediction], item: Item, folder: Path) -> None:
        """Videos are no photos; see `predict_videos`."""
        raise TopologyError("videos are predicted frame by frame; use predict_videos")

    def saved(self, item: Item, folder: Path) -> list[Path]:
        """The track."""
        path = folder / item.name / TRACK_FILE
        return [path] if path.is_file() else []

    def truth(self, item: Item) -> list[Path | str]:
        """What is known of the video."""
        return [self.data / f"{item.name}.json", self.data / f"{item.name}.safetensors"]

    def score(self, item: Item, folder: Path) -> dict[str, Any]:
        """Scores of one video."""
        return video_scores(read_truth(self.data, item.name), read_track(folder / item.name / TRACK_FILE))

    def summarise(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        """All videos together, those of each kind, and each of them."""
        scores = {row["name"]: row["scores"] for row in rows}
        kinds: dict[str, list[dict[str, Any]]] = {}
        for one in scores.values():
            kinds.setdefault(one["kind"], []).append(one)
        return summarise_videos(list(scores.values())) | {
            "kinds": {kind: summarise_videos(some) for kind, some in kinds.items()},
            "videos": {name: summarise_videos([one]) for name, one in scores.items()},
        }

    def table(self, summary: dict[str, Any]) -> list[list[str]]:
        """A row for each figure, a column for all videos and for those of each kind."""
        parts = [summary, *summary["kinds"].values()]
        rows = [
            [word, *("" if part[key] is None else f"{factor * part[key]:.{digits}f}" for part in parts)]
            for key, (word, factor, digits) in _ROWS.items()
        ]
        return [["", "all", *summary["kinds"]], *rows]


def summarise_videos(scores: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Scores of several videos as one: each person of each video counts alike; blinks and frames are summed.

    Args:
        scores: From `video_scores`.

    Returns:
        Figures by name, None where there is nothing to measure. Jitter and spreads are those of the videos in
        which nothing moves, or of all where there is none such; "jitter_moving_px" that of the others.
    """
    people = [person for score in scores for person in score["people"]]
    still = [person for score in scores if score["kind"] == "still" for person in score["people"]]
    moving = [person for score in scores if score["kind"] != "still" for person in score["people"]]
    seen = [person for person in people if "blendshape_error" in person]
    eyes = [eye for person in people for eye in person["blinks"].values()]
    true = sum(eye["true"] for eye in eyes)
    peaks, onsets, ratios = (
        [x for eye in eyes for x in eye[key]] for key in ("peak_offsets", "onset_offsets", "ratios")
    )
    due = sum(score["frames"]["due"] for score in scores)
    channels = [v for person in seen for v in person["blendshape_correlation"].values()]
    groups = {g: _mean([person["blendshape_error"][g] for person in seen]) for g in GROUPS}
    return {
        "blendshape_error": _mean([person["blendshape_error"]["all"] for person in seen]),
        "blendshape_error_by_group": groups,
        "blendshape_error_offset_free": _mean([person["blendshape_error_offset_free"] for person in seen]),
        "blendshape_error_of_rest": _mean([person["blendshape_error_of_rest"] for person in seen]),
        "blendshape_correlation": _mean(channels),
        "blinks": true,
        "blinks_missed_percent": 100 * sum(eye["missed"] for eye in eyes) / true if true else None,
        "blinks_false": sum(eye["false"] for eye in eyes),
        "blink_peak_frames": _mean(np.abs(peaks)),
        "blink_peak_bias_frames": _mean(peaks),
        "blink_onset_frames": _mean(np.abs(onsets)),
        "blink_within_a_frame_percent": _mean([100.0 * (abs(x) <= 1.0) for x in peaks]),
        "blink_peak_ratio": _mean(ratios),
        "jitter_px": _mean_of(still or people, "jitter_px"),
        "jitter_moving_px": _mean_of(moving, "jitter_px"),
        "spread_px": _mean_of(still, "spread_px"),
        "blendshape_spread": _mean_of(still, "blendshape_spread"),
        "rotation_step_deg": _mean_of(still, "rotation_step_deg"),
        "nme51_percent": _mean_of(seen, "nme51_percent"),
        "pose_error_deg": _mean_of(seen, "pose_error_deg"),
        "lost_percent": 100 * sum(score["frames"]["lost"] for score in scores) / due if due else None,
        "false": sum(score["frames"]["false"] for score in scores),
        "identity_changes": sum(sum(score["identity"].values()) for score in scores),
        "disordered": sum(score["frames"]["disordered"] for score in scores),
    }


def _mean(values: Any) -> float | None:
    return float(np.mean(values)) if len(values) else None


def _mean_of(people: list[dict[str, Any]], key: str) -> float | None:
    return _mean([person[key] for person in people if person.get(key) is not None])


def predict_videos(
    benchmark: VideoBenchmark, method: Method, folder: RunFolder, advance: Callable[[str], None]
) -> None:
    """Runs a method on every frame of the videos that have no track yet, as if frames were photos.

    Nobody is followed: the surest face of each frame is person 1, the next one person 2.

    Args:
        benchmark: Videos.
        method: What to run; loaded when the first video needs it.
        folder: Where tracks go.
        advance: Called with the name of a video when it is done.

    Raises:
        HifaceError: The method cannot be loaded or gives no coefficients, or the folder cannot be written. A
            video that cannot be read becomes a note.
    """
    loaded = False
    for item in benchmark.items():
        if not benchmark.saved(item, folder.predictions):
            if not loaded:
                method.load()
                folder.claim()
                loaded = True
            started = time.perf_counter()
            note: dict[str, Any] = {"name": item.name, "method": method.name, "status": "ok"}
            try:
                track = track_frames(video_path(benchmark.data, item.name), method)
                write_track(folder.predictions / item.name / TRACK_FILE, track)
                note["seconds"] = round(time.perf_counter() - started, 3)
            except VideoError as error:
                note.update(status=error.status, reason=str(error))
            atomic_write_text(folder.note(item), json.dumps(note, indent=1) + "\n")
        advance(item.name)


def track_frames(path: Path, method: Method) -> Track:
    """What a method says of every frame of a video.

    Args:
        path: The video.
        method: A method that gives coefficients and the head's pose.

    Returns:
        Track without any memory from frame to frame.

    Raises:
        TopologyError: The method gives no coefficients.
        VideoError: The video cannot be read.
    """
    times, found = [], []
    with open_video(path) as source:
        for frame in source:
            times.append(frame.time_s)
            try:
                found.append(method.reconstruct(Photo(frame.image_srgb)))
            except FitError:
                found.append([])
        about = source.info
    count = max((len(faces) for faces in found), default=0)
    people = tuple(_person(rank, found, method.name) for rank in range(count))
    return Track(about.fps, about.width, about.height, torch.tensor(times, dtype=torch.float64), people)


def _person(rank: int, found: list[list[Prediction]], method_name: str) -> TrackedPerson:
    n = len(found)
    status = torch.zeros(n, dtype=torch.uint8)
    blendshapes, rotation, translation, points, box = (
        torch.full((n, *shape), torch.nan) for shape in ((52,), (3, 3), (3,), (68, 2), (4,))
    )
    for i, faces in enumerate(found):
        if rank >= len(faces):
            continue
        face = faces[rank]
        status[i] = OK
        T = _needed(face.T_cam_head, method_name)
        blendshapes[i], rotation[i], translation[i] = (
            _needed(face.blendshapes, method_name),
            T[:3, :3],
            T[:3, 3],
        )
        box[i] = face.box
        if face.landmarks68_px is not None:
            points[i] = face.landmarks68_px
    return TrackedPerson(rank + 1, status, blendshapes, rotation, translation, points, box)


def _needed(value: Tensor | None, method_name: str) -> Tensor:
    if value is None:
        raise TopologyError(f"{method_name} gives no ARKit weights or no pose; use hiface or hiface-fit")
    return value
