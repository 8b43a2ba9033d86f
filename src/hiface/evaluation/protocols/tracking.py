# SPDX-License-Identifier: Apache-2.0
"""Faces through the frames of clips: landmarks, jitter, lost frames, and how steady the shape is.

    DATA/<clip>/<frame>.png      frames in the order of their names
    DATA/<clip>/<frame>.pts      68 points of the one face that is followed; frames without are unknown

Jitter is the mean length of the second difference, from frame to frame, of the error of the inner 51 points:
what trembles although the face does not; nothing is bridged over frames that are lost or unknown. The shape's
spread is the standard deviation over the frames of a clip of the resting face's 68 points, after one rigid
alignment to their mean.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hiface.data.images import IMAGE_SUFFIXES
from hiface.errors import EvaluationDataError, TopologyError
from hiface.evaluation.landmarks import eye_distance, landmark_groups
from hiface.evaluation.method import Prediction
from hiface.evaluation.prediction_files import read_prediction, write_prediction
from hiface.evaluation.protocols.base import Item, PlainState, overlap, picture_beside, the_face
from hiface.evaluation.protocols.landmarks import read_pts
from hiface.geometry.procrustes import procrustes

LEAST_IOU = 0.3
_LEAST_SHARE = 0.12  # of the box's longer side: the eye distance of a head in profile


@dataclass(frozen=True)
class TrackingBenchmark(PlainState):
    """Clips with landmarks.

    Attributes:
        data: A folder of folders of frames.
    """

    data: Path
    name: str = "tracking"
    version: int = 1

    def items(self) -> list[Item]:
        """All frames with points, clip after clip."""
        return [
            Item(name, frame.picture, None if frame.points is None else _box(frame.points), frame.problem)
            for name, frame in self._frames.items()
        ]

    @cached_property
    def _frames(self) -> dict[str, _Frame]:
        found = {}
        for path in sorted(self.data.glob("*/*.pts")):
            picture = picture_beside(path)
            if picture is not None:
                found[f"{path.parent.name}/{path.stem}"] = _frame(picture, path)
        if not found:
            raise EvaluationDataError(f"{self.data} holds no <clip>/<frame>.png with .pts files beside them")
        return found

    @cached_property
    def _clips(self) -> dict[str, list[str]]:
        """Clip to its frames in order, with those that have a picture or points alone."""
        suffixes = (*IMAGE_SUFFIXES, ".pts")
        clips: dict[str, list[str]] = {}
        for clip in dict.fromkeys(name.split("/")[0] for name in self._frames):
            files = (path for path in (self.data / clip).iterdir() if path.suffix.lower() in suffixes)
            clips[clip] = [f"{clip}/{stem}" for stem in sorted({path.stem for path in files})]
        return clips

    def save(self, found: list[Prediction], item: Item, folder: Path) -> None:
        """Writes the face that is followed; none where all finds lie elsewhere."""
        face = the_face([f for f in found if overlap(f.box, item.box) > LEAST_IOU], item.box)
        if face.landmarks68_px is None:
            raise TopologyError("tracking needs a method that gives 68 landmarks")
        write_prediction(folder / f"{item.name}.safetensors", face)

    def saved(self, item: Item, folder: Path) -> list[Path]:
        """The saved prediction."""
        path = folder / f"{item.name}.safetensors"
        return [path] if path.is_file() else []

    def truth(self, item: Item) -> list[Path | str]:
        """The file of points."""
        return [self._frames[item.name].file]

    def score(self, item: Item, folder: Path) -> dict[str, Any]:
        """Offsets of the inner points over the eye distance, and the resting face in millimetres."""
        face, _ = read_prediction(folder / f"{item.name}.safetensors")
        if face.landmarks68_px is None:
            raise TopologyError(f"the prediction of {item.name} has no 68 landmarks")
        item.check()
        truth = self._frames[item.name].points
        assert truth is not None
        size = torch.maximum(eye_distance(truth), _LEAST_SHARE * (truth.amax(0) - truth.amin(0)).max())
        inner = slice(len(landmark_groups()["jaw"]), None)
        off = ((face.landmarks68_px.double() - truth) / size)[inner]
        scores: dict[str, Any] = {"offsets": (off * 1e5).round().div(1e5).tolist()}
        rest = face.keypoint_places("ibug68", neutral=True)
        if rest is not None and face.metric:
            scores["rest_mm"] = (rest.double() * 1e6).round().div(1e3).tolist()
        return scores

    def summarise(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        """Means over clips, each frame of a clip counting alike."""
        by_name = {row["name"]: row["scores"] for row in rows}
        known = {name for name, frame in self._frames.items() if frame.points is not None}
        tables = {
            clip: clip_scores([by_name.get(name) if name in known else UNKNOWN for name in names])
            for clip, names in self._clips.items()
        }
        summary: dict[str, Any] = {"clips": tables}
        for key in ("nme51_percent", "jitter_percent", "lost_percent", "shape_spread_mm"):
            found = [table[key] for table in tables.values()]
            values = [value for value in found if value is not None]
            summary[key] = float(np.mean(values)) if values else None
        summary["unknown"] = sum(len(names) for names in self._clips.values()) - len(known)
        return summary

    def table(self, summary: dict[str, Any]) -> list[list[str]]:
        """A row for the mean and for each clip."""
        keys = ("nme51_percent", "jitter_percent", "lost_percent", "shape_spread_mm")
        head = ["clip", "inner 51, %", "jitter, %", "lost frames, %", "spread of the shape, mm"]
        named = [("mean", summary), *summary["clips"].items()]
        rows = [[name, *("" if t[k] is None else f"{t[k]:.2f}" for k in keys)] for name, t in named]
        if summary["unknown"]:
            rows.append(["frames without points", *[""] * (len(keys) - 1), str(summary["unknown"])])
        return [head, *rows]


UNKNOWN: dict[str, Any] = {}
"""In the place of a frame's scores: nobody knows where the face is, so that it is neither found nor lost."""


def clip_scores(frames: list[dict[str, Any] | None]) -> dict[str, float | None]:
    """Scores of one clip.

    Args:
        frames: Scores of its frames in order, None where the face was lost, UNKNOWN where it has no points.

    Returns:
        nme51_percent, jitter_percent, lost_percent, shape_spread_mm; None where there is nothing to measure.
    """
    seen = [frame for frame in frames if frame]
    lost = sum(frame is None for frame in frames)
    offsets = [np.array(frame["offsets"]) if frame else None for frame in frames]
    trembles = [
        np.linalg.norm(a - 2 * b + c, axis=-1).mean()
        for a, b, c in zip(offsets, offsets[1:], offsets[2:], strict=False)
        if a is not None and b is not None and c is not None
    ]
    rest = [frame["rest_mm"] for frame in seen if "rest_mm" in frame]
    errors = [np.linalg.norm(frame["offsets"], axis=-1).mean() for frame in seen]
    return {
        "nme51_percent": 100 * float(np.mean(errors)) if errors else None,
        "jitter_percent": 100 * float(np.mean(trembles)) if trembles else None,
        "lost_percent": 100 * lost / (lost + len(seen)) if lost + len(seen) else None,
        "shape_spread_mm": _spread(torch.tensor(rest, dtype=torch.float64)) if len(rest) > 1 else None,
    }


def _spread(points: Tensor) -> float:
    """Standard deviation of [N, 68, 3] points after a rigid alignment to their mean."""
    mean = points.mean(0)
    aligned = procrustes(points, mean.expand_as(points)).apply(points)
    return float((aligned - aligned.mean(0)).square().sum(-1).mean().sqrt())


@dataclass(frozen=True)
class _Frame:
    """A frame with a file of points: its picture, that file, the points [68, 2], or why there are none."""

    picture: Path
    file: Path
    points: Tensor | None
    problem: str = ""


def _frame(picture: Path, path: Path) -> _Frame:
    try:
        return _Frame(picture, path, read_pts(path))
    except EvaluationDataError as error:
        return _Frame(picture, path, None, str(error))


def _box(points: Tensor) -> Tensor:
    return torch.cat([points.amin(dim=0), points.amax(dim=0)])
