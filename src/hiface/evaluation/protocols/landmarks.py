# SPDX-License-Identifier: Apache-2.0
"""Errors of 68 landmarks on photos with references.

    DATA/reference.json      [{"file", "faces": [{"box", "landmarks68", "reference_trusted"}],
                               "other_faces": [boxes]}]
    DATA/**/<image>.pts      or the layout of 300-W: a .pts file beside each picture, one face each

Predictions are <image>.json with all faces that were found. An error is the mean distance of the inner 51
points (and of all 68) over the distance of the reference's outer eye corners, as in the 300-W challenge.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hiface.atomic import atomic_write_text
from hiface.errors import EvaluationDataError, TopologyError
from hiface.evaluation.landmarks import eye_distance, match_boxes, nme, nme51
from hiface.evaluation.method import Prediction
from hiface.evaluation.protocols.base import Item, PlainState, picture_beside

FAILURE = 0.10
_PTS_TO_PX = -0.5  # .pts files count pixels from 1 and mean their centres; here centres are at 0.5


@dataclass(frozen=True)
class Reference:
    """A face with known landmarks.

    Attributes:
        box: [4] pixels.
        landmarks68_px: [68, 2].
    """

    box: Tensor
    landmarks68_px: Tensor


@dataclass(frozen=True)
class _Truth:
    """What is known of a picture.

    Attributes:
        image: The picture.
        file: Where it is known from.
        faces: Those that count.
        other: [N, 4] boxes where finds are neither right nor false; None: everywhere but at `faces`.
        problem: Why nothing is known.
    """

    image: Path
    file: Path
    faces: list[Reference]
    other: np.ndarray | None = None
    problem: str = ""


@dataclass(frozen=True)
class LandmarkBenchmark(PlainState):
    """Photos with landmarks.

    Attributes:
        data: Folder with reference.json or with .pts files.
    """

    data: Path
    name: str = "landmarks"
    version: int = 1

    def items(self) -> list[Item]:
        """All photos."""
        return [Item(name, known.image, problem=known.problem) for name, known in self._references.items()]

    @cached_property
    def _references(self) -> dict[str, _Truth]:
        listed = self.data / "reference.json"
        found = _of_json(listed) if listed.is_file() else _of_pts(self.data)
        if not found:
            raise EvaluationDataError(
                f"{self.data} has neither a reference.json nor pictures with .pts files beside them"
            )
        return found

    def save(self, found: list[Prediction], item: Item, folder: Path) -> None:
        """Writes boxes and points of all faces, none included."""
        if any(prediction.landmarks68_px is None for prediction in found):
            raise TopologyError("this method gives no 68 landmarks, so it cannot be compared by them")
        faces = [{"box": _rounded(p.box), "landmarks68": _rounded(p.landmarks68_px)} for p in found]
        atomic_write_text(folder / f"{item.name}.json", json.dumps({"faces": faces}) + "\n")

    def saved(self, item: Item, folder: Path) -> list[Path]:
        """The file of points."""
        path = folder / f"{item.name}.json"
        return [path] if path.is_file() else []

    def truth(self, item: Item) -> list[Path | str]:
        """The file of the reference."""
        return [self._references[item.name].file]

    def score(self, item: Item, folder: Path) -> dict[str, Any]:
        """Faces, finds, false finds and errors of the faces that were found."""
        try:
            content = json.loads((folder / f"{item.name}.json").read_text(encoding="utf-8"))
            boxes = np.array([face["box"] for face in content["faces"]], np.float64).reshape(-1, 4)
            points = torch.tensor([face["landmarks68"] for face in content["faces"]], dtype=torch.float64)
            points = points.reshape(-1, 68, 2)
        except (OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
            raise TopologyError(
                f"{item.name}.json must have faces with box and 68 points ({error})"
            ) from error
        trusted, other = self._references[item.name].faces, self._references[item.name].other
        true_boxes = np.array([reference.box.tolist() for reference in trusted], np.float64).reshape(-1, 4)
        pairs = match_boxes(boxes, true_boxes)
        spare = [i for i in range(len(boxes)) if i not in set(pairs.tolist())]
        false = (
            0 if other is None else len(spare) - len(set(match_boxes(boxes[spare], other).tolist()) - {-1})
        )
        errors51, errors68 = [], []
        for reference, i in zip(trusted, pairs.tolist(), strict=True):
            if i >= 0:
                truth = reference.landmarks68_px.double()
                errors51.append(float(nme51(points[i], truth)))
                errors68.append(float(nme(points[i], truth, eye_distance(truth))))
        return {
            "faces": len(trusted),
            "false": false,
            "nme51": errors51,
            "nme68": errors68,
        }

    def summarise(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        """Found faces, errors in per cent, and how many are beyond 10 % or not found."""
        scores = [row["scores"] for row in rows]
        faces = sum(len(known.faces) for known in self._references.values())
        false = sum(s["false"] for s in scores)
        summary: dict[str, Any] = {"faces": faces, "false": false}
        for key in ("nme51", "nme68"):
            errors = np.array([e for s in scores for e in s[key]])
            beyond = int((errors > FAILURE).sum()) + faces - len(errors)
            summary["found"] = len(errors)
            summary[key] = {
                "mean_percent": 100 * float(errors.mean()) if len(errors) else None,
                "median_percent": 100 * float(np.median(errors)) if len(errors) else None,
                "failures_percent": 100 * beyond / max(faces, 1),
            }
        return summary

    def table(self, summary: dict[str, Any]) -> list[list[str]]:
        """A row for 51 and for 68 points."""
        head = ["points", "mean %", "median %", f"above {100 * FAILURE:.0f} % or not found", "found", "false"]
        found = f"{summary.get('found', 0)} of {summary['faces']}"
        rows = []
        for key, label in (("nme51", "inner 51"), ("nme68", "all 68")):
            v = summary[key]
            numbers = ["" if v[k] is None else f"{v[k]:.2f}" for k in ("mean_percent", "median_percent")]
            rows.append([label, *numbers, f"{v['failures_percent']:.1f} %", found, str(summary["false"])])
        return [head, *rows]


def read_pts(path: Path) -> Tensor:
    """Points of a .pts file, [68, 2] in our pixels (the centre of the first pixel is 0.5).

    Raises:
        EvaluationDataError: The file does not hold 68 points.
    """
    try:
        text = path.read_text(encoding="utf-8")
        body, brace, _ = text.partition("{")[2].partition("}")
        points = np.array(body.split() if brace else [], dtype=np.float64).reshape(-1, 2)
    except (OSError, ValueError) as error:
        raise EvaluationDataError(f"{path} is not a .pts file ({error})") from error
    if not brace:
        raise EvaluationDataError(f"{path} has no points between braces; was it cut short? copy it again")
    if len(points) != 68 or not np.isfinite(points).all():
        raise EvaluationDataError(f"{path} has {len(points)} points; 68 in iBUG order are needed")
    return torch.from_numpy(points + _PTS_TO_PX)


_FORM = "each entry needs file and faces, each face box (4 numbers) and landmarks68 (68 pairs)"


def _of_json(path: Path) -> dict[str, _Truth]:
    try:
        listed = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise EvaluationDataError(f"{path} is not JSON ({error})") from error
    if not isinstance(listed, list):
        raise EvaluationDataError(f"{path} must hold a list of photos, it holds a {type(listed).__name__}")
    found: dict[str, _Truth] = {}
    for number, photo in enumerate(listed, 1):
        where = f"{path}, entry {number}"
        try:
            name = Path(photo["file"]).with_suffix("").as_posix()
            known = _entry(path, photo)
        except KeyError as error:
            raise EvaluationDataError(f"{where} has no {error.args[0]!r}; {_FORM}") from error
        except (ValueError, TypeError, AttributeError) as error:
            raise EvaluationDataError(f"{where} is of another form ({error}); {_FORM}") from error
        if name in found or Path(name).is_absolute() or ".." in Path(name).parts:
            raise EvaluationDataError(
                f"{where}: the file {photo['file']!r} is named twice or lies elsewhere; name each once, by "
                f"its path below {path.parent}"
            )
        found[name] = known
    return found


def _entry(path: Path, photo: dict[str, Any]) -> _Truth:
    """One photo of reference.json; raises KeyError, ValueError, TypeError or AttributeError."""
    trusted = [face for face in photo["faces"] if face.get("reference_trusted", True)]
    other = [face["box"] for face in photo["faces"] if not face.get("reference_trusted", True)]
    other += [face["box"] if isinstance(face, dict) else face for face in photo.get("other_faces", [])]
    boxes = np.asarray(other, np.float64).reshape(-1, 4)
    references = []
    for face in trusted:
        box, points = (np.asarray(face[key], np.float64) for key in ("box", "landmarks68"))
        if box.shape != (4,) or points.ndim != 2 or len(points) != 68 or points.shape[1] < 2:
            raise ValueError(f"box {box.shape}, landmarks68 {points.shape}")
        references.append(Reference(torch.from_numpy(box), torch.from_numpy(points[:, :2].copy())))
    return _Truth(path.parent / photo["file"], path, references, boxes)


def _of_pts(data: Path) -> dict[str, _Truth]:
    found = {}
    for path in sorted(data.rglob("*.pts")):
        picture = picture_beside(path)
        if picture is not None:
            found[path.relative_to(data).with_suffix("").as_posix()] = _pts_truth(picture, path)
    return found


def _pts_truth(picture: Path, path: Path) -> _Truth:
    try:
        points = read_pts(path)
    except EvaluationDataError as error:
        return _Truth(picture, path, [], problem=str(error))
    box = torch.cat([points.amin(dim=0), points.amax(dim=0)])
    return _Truth(picture, path, [Reference(box, points)])


def _rounded(values: Tensor | None) -> list:
    return [] if values is None else (values.double() * 1e3).round().div(1e3).tolist()
