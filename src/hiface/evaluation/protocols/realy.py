# SPDX-License-Identifier: Apache-2.0
"""REALY on the user's own copy of its data.

    DATA/REALY_HIFI3D_keypoints/<subject>.obj        85 vertices
    DATA/REALY_scan_region/<subject>/{nose,mouth,forehead,cheek}.obj
    DATA/metrical_scale.txt                          line n: one number, millimetres in a unit of scan n
    IMAGES/<subject>.jpg or <subject>_<view>.jpg

Predictions are what the published evaluation reads: <image>.obj for each picture, all with the vertices of
`template.obj`, and `template.txt` with its 85 keypoints, a row [triangle, w0, w1] each.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hiface.atomic import atomic_write_text
from hiface.data.images import IMAGE_SUFFIXES
from hiface.errors import EvaluationDataError, MeshFileError, TopologyError
from hiface.evaluation.method import Prediction
from hiface.evaluation.metrics.realy import (
    ESTIMATORS,
    LEFT_OUT,
    N_KEYPOINTS,
    REGIONS,
    PredictedMesh,
    Subject,
    realy_errors,
)
from hiface.evaluation.protocols.base import Item, PlainState, file_called, the_face
from hiface.geometry.mesh_files import PlainMesh, obj_text, read_mesh, read_points
from hiface.types import LandmarkSet

KEYPOINT_SET = "realy85"
_KEYPOINTS, _SCANS, _SCALE = "REALY_HIFI3D_keypoints", "REALY_scan_region", "metrical_scale.txt"
_TEMPLATE = "template"
_STRANGE_SHARE = 0.01  # of triangles, that a program may have split otherwise


@dataclass(frozen=True)
class RealyBenchmark(PlainState):
    """REALY.

    Attributes:
        data: Folder with keypoints and regions of scans.
        images: Folder of pictures, or None to score predictions that are there already.
        template: Template of predictions made elsewhere, with a .txt of the same name beside it; for those
            of this program it is written by itself.
        mask: File with a 0 or 1 for each vertex of the template: where the prediction is measured.
    """

    data: Path
    images: Path | None = None
    template: Path | None = None
    mask: Path | None = None
    predicted: Path | None = None
    name: str = "realy"
    version: int = 2

    def items(self) -> list[Item]:
        """Pictures, or predictions where there is no folder of pictures, by subject and view.

        Raises:
            EvaluationDataError: Data or pictures are laid out otherwise.
            MeshFileError: The template or the mask cannot be read.
        """
        _check_layout(self.data)
        self._check_files()
        folder, suffixes = (
            (self.images, IMAGE_SUFFIXES) if self.images is not None else (self.predicted, (".obj",))
        )
        if self.images is not None and not self.images.is_dir():
            raise EvaluationDataError(f"there is no folder {self.images}; --images is where the pictures lie")
        if folder is None or not folder.is_dir():
            raise EvaluationDataError(
                "REALY needs pictures or meshes; name a folder of pictures by --images, or of meshes by "
                "--predictions"
            )
        files = [p for p in folder.iterdir() if p.suffix.lower() in suffixes and _number(p) is not None]
        if not files:
            raise EvaluationDataError(
                f"{folder} holds no file called after a subject, such as 1.jpg or 12_3.jpg"
            )
        if len({path.stem for path in files}) < len(files):
            raise EvaluationDataError(
                f"{folder} has files that differ in their suffix only; keep one of each"
            )
        if self.images is None and self._template_file(folder) is None:
            raise EvaluationDataError(
                f"{folder} has no {_TEMPLATE}.obj with {_TEMPLATE}.txt; name one by --template"
            )
        files.sort(key=lambda path: (int(path.stem.split("_")[0]), path.stem))
        return [Item(path.stem, path if self.images is not None else None) for path in files]

    def _check_files(self) -> None:
        """Reads once, before anything is predicted, what each score would fail on."""
        _ = self._scales
        found = self._template_file(self.predicted) if self.predicted is not None else self.template
        if self.template is not None and found is None:
            raise MeshFileError(
                f"{self.template} with 85 keypoints in {self.template.with_suffix('.txt').name} beside it "
                "does not exist; check --template"
            )
        template = None if found is None else _template_of(found)[0]
        mask = self._mask
        if mask is not None and template is not None:
            self._check_mask(mask, len(template.vertices))

    def save(self, found: list[Prediction], item: Item, folder: Path) -> None:
        """Writes <image>.obj, and the template with its keypoints before the first."""
        prediction = the_face(found)
        mesh, points = prediction.mesh(), prediction.keypoints.get(KEYPOINT_SET)
        if mesh is None or points is None:
            raise TopologyError(
                f"REALY needs a mesh with the keypoints {KEYPOINT_SET!r}; this method has none"
            )
        if not (folder / f"{_TEMPLATE}.txt").is_file():
            atomic_write_text(folder / f"{_TEMPLATE}.obj", obj_text(mesh.vertices, mesh.triangles))
            atomic_write_text(folder / f"{_TEMPLATE}.txt", keypoint_text(points))
        atomic_write_text(folder / f"{item.name}.obj", obj_text(mesh.vertices, mesh.triangles))

    def saved(self, item: Item, folder: Path) -> list[Path]:
        """The mesh and its template."""
        template, mesh = self._template_file(folder), file_called(folder / item.name, (".obj",))
        return [] if template is None or mesh is None else [mesh, template, template.with_suffix(".txt")]

    def _template_file(self, folder: Path) -> Path | None:
        template = self.template or file_called(folder / _TEMPLATE, (".obj",))
        whole = template is not None and template.is_file() and template.with_suffix(".txt").is_file()
        return template if whole else None

    def truth(self, item: Item) -> list[Path | str]:
        """Keypoints, regions and the line of the scale; the mask."""
        name = item.name.split("_")[0]
        regions = [self.data / _SCANS / name / f"{region}.obj" for region in REGIONS]
        scales = self._scales
        scale = str(scales[int(name) - 1]) if 1 <= int(name) <= len(scales) else "no scale"
        mask = [] if self.mask is None else [self.mask]
        return [self.data / _KEYPOINTS / f"{name}.obj", *regions, scale, *mask]

    def score(self, item: Item, folder: Path) -> dict[str, Any]:
        """Region to estimator to millimetres."""
        path, template_path, _ = self.saved(item, folder)
        template, points = _template_of(template_path)
        mesh = read_mesh(path)
        check_topology(mesh, template, f"{item.name}.obj")
        places = points.positions(mesh.vertices, template.triangles)
        predicted = PredictedMesh(mesh.vertices, mesh.triangles, places, self._measured(mesh))
        return realy_errors(predicted, self.subject(item.name.split("_")[0]))

    def _measured(self, mesh: PlainMesh) -> Tensor | None:
        mask = self._mask
        if mask is None:
            return None
        self._check_mask(mask, len(mesh.vertices))
        return torch.from_numpy(mask == 1)[mesh.triangles].all(dim=1)

    def _check_mask(self, values: np.ndarray, n_vertices: int) -> None:
        if len(values) != n_vertices:
            raise TopologyError(f"{self.mask} has {len(values)} values; the mesh has {n_vertices} vertices")

    @property
    def _mask(self) -> np.ndarray | None:
        """[V] 0 or 1."""
        if self.mask is None:
            return None
        try:
            words = self.mask.read_text(encoding="utf-8").replace(",", " ").split()
            values = np.array(words, dtype=np.float64)
        except (OSError, ValueError) as error:
            raise MeshFileError(f"{self.mask} is not a list of 0 and 1 ({error})") from error
        if not np.isin(values, (0, 1)).all():
            raise MeshFileError(f"{self.mask} has other numbers than 0 and 1")
        return values

    def subject(self, name: str) -> Subject:
        """Ground truth of a subject; raises EvaluationDataError or MeshFileError where it is not whole."""
        scales = self._scales
        if not 1 <= int(name) <= len(scales):
            raise EvaluationDataError(f"there is no subject {name}; {_SCALE} has {len(scales)} numbers")
        keypoints = read_points(self.data / _KEYPOINTS / f"{name}.obj")
        regions = {region: read_mesh(self.data / _SCANS / name / f"{region}.obj") for region in REGIONS}
        return Subject(name, keypoints, regions, float(scales[int(name) - 1]))

    @property
    def _scales(self) -> np.ndarray:
        path = self.data / _SCALE
        try:
            lines = path.read_text(encoding="utf-8").rstrip().splitlines()
        except (OSError, ValueError) as error:
            raise EvaluationDataError(f"{path} cannot be read ({error})") from error
        for number, line in enumerate(lines, 1):
            if not _is_scale(line):
                raise EvaluationDataError(
                    f"{path} must have one number above 0 in each line, line n for subject n; line {number} "
                    f"is {line.strip()!r}"
                )
        return np.array(lines, dtype=np.float64)

    def summarise(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        """Mean, median and sample standard deviation of each region; "all" is the mean of the four means."""
        summary: dict[str, Any] = {"count": len(rows)}
        views = sorted({view_of(row["name"]) for row in rows})
        if len(views) > 1:
            parts = {view: [row for row in rows if view_of(row["name"]) == view] for view in views}
            summary["views"] = {view: self.summarise(part) for view, part in parts.items()}
        for estimator in ESTIMATORS if rows else ():
            table = {}
            for region in REGIONS:
                values = np.array([row["scores"][region][estimator] for row in rows])
                table[region] = {
                    "mean": float(values.mean()),
                    "median": float(np.median(values)),
                    "std": float(values.std(ddof=1)) if len(values) > 1 else 0.0,
                }
            table["all"] = {"mean": float(np.mean([table[region]["mean"] for region in REGIONS]))}
            summary[estimator] = table
        left_out = {r: int(sum(row["scores"][r].get(LEFT_OUT, 0) for row in rows)) for r in REGIONS}
        if any(left_out.values()):
            summary[LEFT_OUT] = left_out
        return summary

    def table(self, summary: dict[str, Any]) -> list[list[str]]:
        """Rows of estimators, columns of regions, millimetres."""
        head = ["mm", "all", *REGIONS]
        names = {
            "bent": "REALY (non-rigid)",
            "rigid": "closest point, region aligned",
            "global": "closest point, 7 points",
        }
        rows = [
            [names[e], *(f"{summary[e][column]['mean']:.3f}" for column in ("all", *REGIONS))]
            for e in ESTIMATORS
            if e in summary
        ]
        if "bent" in summary:
            for key in ("median", "std"):
                rows.append([f"REALY, {key}", "", *(f"{summary['bent'][r][key]:.3f}" for r in REGIONS)])
        for view, part in summary.get("views", {}).items():
            values = [f"{part['bent'][column]['mean']:.3f}" for column in ("all", *REGIONS)]
            rows.append([f"REALY, view {view or 'without a number'}", *values])
        if LEFT_OUT in summary:
            values = [str(summary[LEFT_OUT][region]) for region in REGIONS]
            rows.append(["keypoints left out, in all", "", *values])
        return [head, *rows]


def view_of(name: str) -> str:
    """What follows the subject's number in a picture's name: "3" of "12_3", "" of "12"."""
    return name.partition("_")[2]


def _is_scale(text: str) -> bool:
    try:
        return 0 < float(text) < float("inf")
    except ValueError:
        return False


def check_topology(mesh: PlainMesh, template: PlainMesh, name: str) -> None:
    """Raises TopologyError if a mesh has not the template's vertices in the template's order."""
    if mesh.vertices.shape != template.vertices.shape:
        raise TopologyError(
            f"{name} has {len(mesh.vertices)} vertices, its template {len(template.vertices)}; "
            "write meshes without merging or splitting vertices"
        )
    known = {tuple(sorted(row)) for row in template.triangles.tolist()}
    strange = sum(tuple(sorted(row)) not in known for row in mesh.triangles.tolist())
    if strange > _STRANGE_SHARE * len(mesh.triangles):
        raise TopologyError(
            f"{strange} of the {len(mesh.triangles)} triangles of {name} are not its template's; "
            "write meshes without reordering vertices"
        )


def keypoint_text(points: LandmarkSet) -> str:
    """Keypoints as REALY's template files have them: rows [triangle, w0, w1] in JSON."""
    weights = points.barycentric.double()
    rows = [
        [int(triangle), float(w[0]), float(w[1])]
        for triangle, w in zip(points.triangle_ids, weights, strict=True)
    ]
    return json.dumps(rows) + "\n"


def read_template(path: Path) -> tuple[PlainMesh, LandmarkSet]:
    """Template mesh and the 85 keypoints of the .txt beside it.

    Raises:
        MeshFileError: One of the files is missing or damaged.
        TopologyError: Keypoints are missing or lie on triangles that the template does not have.
    """
    mesh = read_mesh(path)
    listed = path.with_suffix(".txt")
    try:
        rows = _rows(listed.read_text(encoding="utf-8"))
    except (OSError, ValueError, TypeError) as error:
        raise MeshFileError(
            f"{listed} cannot be read as rows [triangle, w0, w1], in JSON or one in each line ({error})"
        ) from error
    if rows.shape != (N_KEYPOINTS, 3):
        raise TopologyError(
            f"{listed} must have {N_KEYPOINTS} rows of 3 numbers, it has the shape {rows.shape}"
        )
    ids = torch.from_numpy(rows[:, 0]).long()
    if int(ids.min()) < 0 or int(ids.max()) >= len(mesh.triangles):
        raise TopologyError(
            f"{listed} names triangles that {path.name} ({len(mesh.triangles)}) does not have"
        )
    weights = torch.from_numpy(np.column_stack([rows[:, 1:], 1.0 - rows[:, 1] - rows[:, 2]]))
    return mesh, LandmarkSet(KEYPOINT_SET, ids, weights)


def _rows(text: str) -> np.ndarray:
    """Numbers of a list of lists in JSON, or of lines with commas, blanks or brackets between them."""
    try:
        return np.array(json.loads(text), dtype=np.float64)
    except json.JSONDecodeError:
        plain = text.translate(str.maketrans("[],;", "    "))
        return np.array([line.split() for line in plain.splitlines() if line.strip()], dtype=np.float64)


def _template_of(path: Path) -> tuple[PlainMesh, LandmarkSet]:
    """`read_template`, which reads a template anew only when one of its files has changed."""
    stamps = [file.stat().st_mtime_ns for file in (path, path.with_suffix(".txt"))]
    return _template_as_of(path, *stamps)


@lru_cache(maxsize=2)
def _template_as_of(path: Path, mesh_ns: int, points_ns: int) -> tuple[PlainMesh, LandmarkSet]:
    return read_template(path)


def _number(path: Path) -> int | None:
    head = path.stem.split("_")[0]
    return int(head) if head.isdecimal() else None


def _check_layout(data: Path) -> None:
    missing = [name for name in (_KEYPOINTS, _SCANS, _SCALE) if not (data / name).exists()]
    if missing:
        raise EvaluationDataError(
            f"{data} is not REALY's data: there is no {' and no '.join(missing)}; request the benchmark at "
            "realy3dface.com and put metrical_scale.txt of its repository beside the folders"
        )
