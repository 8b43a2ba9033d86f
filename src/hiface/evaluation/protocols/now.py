# SPDX-License-Identifier: Apache-2.0
"""NoW on the user's own copy of its data.

    DATA/imagepathsvalidation.txt                    lines <...>/<subject>/<challenge>/<image>.jpg
    DATA/scans/<subject>/*.obj                       millimetres
    DATA/scans_lmks_onlypp/<subject>/*.pp            seven picked points
    DATA/[final_release_version/]iphone_pictures/<subject>/<challenge>/<image>.jpg

Predictions are what the published evaluation reads: <subject>/<challenge>/<image>.obj of the neutral face
and .npy with seven landmarks.
"""

from __future__ import annotations

import io
import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hiface.atomic import atomic_write_bytes, atomic_write_text
from hiface.errors import EvaluationDataError, MeshFileError, TopologyError
from hiface.evaluation.method import Prediction
from hiface.evaluation.metrics.now import N_LANDMARKS, NowPrediction, Scan, now_distances
from hiface.evaluation.protocols.base import Item, PlainState, file_called, the_face
from hiface.geometry.mesh_files import MESH_SUFFIXES, obj_text, read_mesh

CHALLENGES = ("multiview_neutral", "multiview_expressions", "multiview_occlusions", "selfie")
UNIT_MM = {"m": 1000.0, "cm": 10.0, "mm": 1.0}
KEYPOINT_SET = "now7"
LANDMARK_SUFFIXES = (".npy", ".txt")
_LISTS = {"val": "imagepathsvalidation.txt", "test": "imagepathstest.txt"}
_SCANS, _LANDMARKS = "scans", "scans_lmks_onlypp"
_PICTURES = ("", "iphone_pictures", "final_release_version/iphone_pictures")
_BINS_MM = np.linspace(0.0, 7.0, 701)


@dataclass(frozen=True)
class NowBenchmark(PlainState):
    """NoW.

    Attributes:
        data: Its folder.
        unit: Unit of predictions for the metrical variant ("m", "cm" or "mm"); None for the other one.
        image_set: "val" or "test".
    """

    data: Path
    unit: str | None = None
    image_set: str = "val"
    version: int = 1

    @property
    def name(self) -> str:
        """Name of the variant."""
        return "now" if self.unit is None else "now-metrical"

    def items(self) -> list[Item]:
        """Pictures of the list, in its order."""
        listed = self.data / _LISTS[self.image_set]
        truth = (self.data / _SCANS, self.data / _LANDMARKS) if self.image_set == "val" else ()
        missing = [p.name for p in (listed, *truth) if not p.exists()]
        if missing:
            raise EvaluationDataError(
                f"{self.data} is not NoW's data: there is no {' and no '.join(missing)}; "
                "get it at now.is.tue.mpg.de"
            )
        lines = [line.strip() for line in listed.read_text(encoding="utf-8").splitlines() if line.strip()]
        short = [line for line in lines if len(line.split("/")) < 3]
        if short or not lines:
            raise EvaluationDataError(f"{listed} must have lines subject/challenge/image; found {short[:1]}")
        return [self._item(line) for line in dict.fromkeys(lines)]

    def _item(self, line: str) -> Item:
        subject, challenge, image = line.split("/")[-3:]
        name = f"{subject}/{challenge}/{Path(image).stem}"
        places = [self.data / prefix / subject / challenge / image for prefix in _PICTURES]
        return Item(name, next((place for place in places if place.is_file()), None))

    def save(self, found: list[Prediction], item: Item, folder: Path) -> None:
        """Writes the neutral mesh and its seven landmarks."""
        prediction = the_face(found)
        mesh, marks = prediction.mesh(neutral=True), prediction.keypoint_places(KEYPOINT_SET, neutral=True)
        if mesh is None:
            name = Path(item.name).name
            raise TopologyError(
                "NoW needs the face at rest and this method gives none; a folder of meshes needs "
                f"{name}.neutral.obj beside {name}.obj"
            )
        if marks is None:
            raise TopologyError(
                f"NoW needs seven points on the mesh ({KEYPOINT_SET}) and this method gives none; a folder "
                f"of meshes needs {Path(item.name).name}.npy or .txt beside the mesh"
            )
        if self.unit is not None and not prediction.metric:
            raise TopologyError("the metrical variant needs a method that knows sizes; leave --metrical out")
        path = folder / f"{item.name}.obj"
        atomic_write_text(path, obj_text(mesh.vertices, mesh.triangles))
        atomic_write_bytes(path.with_suffix(".npy"), _npy(marks))

    def saved(self, item: Item, folder: Path) -> list[Path]:
        """Mesh and landmarks."""
        mesh = file_called(folder / item.name, MESH_SUFFIXES)
        marks = file_called(folder / item.name, LANDMARK_SUFFIXES)
        return [] if mesh is None or marks is None else [mesh, marks]

    def truth(self, item: Item) -> list[Path | str]:
        """Scan and picked points."""
        meshes, picked = self._scan_files(item.name.split("/")[0])
        return [*meshes[:1], *picked[:1]]

    def score(self, item: Item, folder: Path) -> dict[str, Any]:
        """Count, mean, median and histogram of a picture's distances, millimetres."""
        mesh, marks = self.saved(item, folder)
        unit_mm = None if self.unit is None else UNIT_MM[self.unit]
        prediction = NowPrediction(read_mesh(mesh), read_landmarks(marks))
        distances = now_distances(prediction, self.scan(item.name.split("/")[0]), unit_mm).numpy()
        inside, _ = np.histogram(distances, _BINS_MM)
        return {
            "vertices": len(distances),
            "mean": float(distances.mean()),
            "median": float(np.median(distances)),
            "sum_of_squares": float((distances**2).sum()),
            "histogram": inside.tolist(),
        }

    def scan(self, subject: str) -> Scan:
        """Ground truth of a subject; raises EvaluationDataError or MeshFileError where it is not whole."""
        meshes, picked = self._scan_files(subject)
        if not meshes or not picked:
            raise EvaluationDataError(
                f"subject {subject} has {len(meshes)} .obj in {_SCANS} and {len(picked)} .pp in {_LANDMARKS}"
            )
        return Scan(read_mesh(meshes[0]), read_picked_points(picked[0]))

    def _scan_files(self, subject: str) -> tuple[list[Path], list[Path]]:
        """Scans and files of picked points of a subject, in order."""
        meshes = sorted((self.data / _SCANS / subject).glob("*.[oO][bB][jJ]"))
        return meshes, sorted((self.data / _LANDMARKS / subject).glob("*.[pP][pP]"))

    def summarise(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        """Median, mean and standard deviation over all vertices of all pictures, in all and by challenge."""
        groups = {"all": rows} | {
            c: [row for row in rows if row["name"].split("/")[1] == c] for c in CHALLENGES
        }
        return {name: _pooled([row["scores"] for row in group]) for name, group in groups.items() if group}

    def table(self, summary: dict[str, Any]) -> list[list[str]]:
        """A row for all and for each challenge."""
        head = ["mm", "median", "mean", "std", "pictures"]
        rows = []
        for name, v in summary.items():
            median = f"> {_BINS_MM[-1]:.0f}" if v["median"] is None else f"{v['median']:.3f}"
            rows.append([name, median, f"{v['mean']:.3f}", f"{v['std']:.3f}", str(v["pictures"])])
        return [head, *rows]


def _pooled(scores: list[dict[str, Any]]) -> dict[str, Any]:
    """Statistics of all distances together.

    The median is read off histograms with steps of 0.01 mm, with a straight line inside a step, and kept
    between the smallest and the largest exact median of the pictures, where that of all of them must be.
    """
    count = sum(s["vertices"] for s in scores)
    mean = sum(s["mean"] * s["vertices"] for s in scores) / count
    square = sum(s["sum_of_squares"] for s in scores) / count
    below = np.cumsum(np.sum([s["histogram"] for s in scores], axis=0)) / count
    reached = int(np.searchsorted(below, 0.5))
    if reached >= len(below):
        median = None
    else:
        before = below[reached - 1] if reached else 0.0
        share = (0.5 - before) / max(below[reached] - before, 1e-12)
        median = float(_BINS_MM[reached] + share * (_BINS_MM[1] - _BINS_MM[0]))
        exact = [s["median"] for s in scores]
        median = min(max(median, min(exact)), max(exact))
    std = float(np.sqrt(max(square - mean * mean, 0.0)))
    curve = [round(float(value), 5) for value in below[9::10]]
    return {
        "median": median,
        "mean": float(mean),
        "std": std,
        "pictures": len(scores),
        "below_tenths_of_mm": curve,
    }


def read_landmarks(path: Path) -> Tensor:
    """Seven points of a prediction, [7, 3] float64, from .npy or from .txt with a point in each line."""
    try:
        values = np.load(path, allow_pickle=False) if path.suffix.lower() == ".npy" else np.loadtxt(path)
    except (OSError, ValueError, EOFError) as error:
        raise MeshFileError(f"{path} cannot be read as landmarks ({error})") from error
    if values.shape != (N_LANDMARKS, 3) or not np.isfinite(values).all():
        raise MeshFileError(f"{path} must have {N_LANDMARKS} finite points, it has the shape {values.shape}")
    return torch.from_numpy(np.asarray(values, dtype=np.float64))


def read_picked_points(path: Path) -> Tensor:
    """The seven points of a MeshLab .pp file, [7, 3] float64, in the file's order."""
    try:
        points = ElementTree.fromstring(path.read_text(encoding="utf-8")).findall("point")
        places = [[float(point.attrib[axis]) for axis in "xyz"] for point in points]
    except (OSError, ElementTree.ParseError, KeyError, ValueError) as error:
        raise MeshFileError(f"{path} is not a file of picked points ({error})") from error
    if len(places) != N_LANDMARKS:
        raise MeshFileError(f"{path} has {len(places)} picked points; expected {N_LANDMARKS}")
    return torch.tensor(places, dtype=torch.float64)


def _npy(values: Tensor) -> bytes:
    file = io.BytesIO()
    np.save(file, values.double().numpy())
    return file.getvalue()
