# SPDX-License-Identifier: Apache-2.0
"""Portraits of people who do not exist: shape, landmarks, and wrinkles of another expression.

The folder is what `hiface.evaluation.synthetic_set` writes. "true" compares vertex with vertex and is there
for methods with the open model's topology only; "bent", "rigid" and "global" are REALY's steps with the true
head, with its expression, in the place of the scan; "now" is NoW's distance of the true head at rest.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hiface.detail.basis import load_detail_basis
from hiface.errors import TopologyError
from hiface.evaluation.landmarks import landmark_groups
from hiface.evaluation.method import Prediction
from hiface.evaluation.metrics.now import NowPrediction, now_distances
from hiface.evaluation.metrics.open_scans import scan_of, subject_of
from hiface.evaluation.metrics.realy import ESTIMATORS, REGIONS, PredictedMesh, realy_errors
from hiface.evaluation.prediction_files import read_prediction, write_prediction
from hiface.evaluation.protocols.base import Item, PlainState, overlap, the_face
from hiface.evaluation.reexpression import wrinkled_texels
from hiface.evaluation.regions import region_errors
from hiface.evaluation.synthetic_set import About, Truth, picture_path, read_about, read_truth, truth_path
from hiface.morphable import MorphableModel, load_model

KINDS = ("true", *ESTIMATORS, "now")
_LEAST_IOU = 0.2
_DETAIL = ("seen", "other", "kept", "none")


@dataclass(frozen=True)
class SyntheticBenchmark(PlainState):
    """Synthetic portraits.

    Attributes:
        data: Folder of the set.
        detail_only: Leaves shape and landmarks out: the re-expression test alone.
    """

    data: Path
    detail_only: bool = False
    version: int = 1

    @property
    def name(self) -> str:
        """Name in results."""
        return "detail" if self.detail_only else "synthetic"

    def items(self) -> list[Item]:
        """All portraits."""
        return [
            Item(about.name, picture_path(self.data, about.name), torch.tensor(about.box))
            for about in self.about.values()
        ]

    @cached_property
    def about(self) -> dict[str, About]:
        """What is known of each portrait, by name."""
        return {about.name: about for about in read_about(self.data)}

    def save(self, found: list[Prediction], item: Item, folder: Path) -> None:
        """Writes the face that the portrait shows; none where all finds lie elsewhere."""
        face = the_face([f for f in found if overlap(f.box, item.box) > _LEAST_IOU], item.box)
        other = None
        if self.detail_only and (face.reexpress is None or face.displacement is None):
            raise TopologyError(
                "this method makes no wrinkles of other expressions, so it cannot be compared by them"
            )
        if face.reexpress is not None:
            other = face.reexpress(read_truth(self.data, item.name).other_expression)
        write_prediction(folder / f"{item.name}.safetensors", face, other)

    def saved(self, item: Item, folder: Path) -> list[Path]:
        """The saved prediction."""
        path = folder / f"{item.name}.safetensors"
        return [path] if path.is_file() else []

    def truth(self, item: Item) -> list[Path | str]:
        """What is known of the portrait."""
        return [truth_path(self.data, item.name)]

    def score(self, item: Item, folder: Path) -> dict[str, Any]:
        """Millimetres by estimator and region, landmark errors over the eye distance, wrinkles in um."""
        face, other = read_prediction(folder / f"{item.name}.safetensors")
        truth, model = read_truth(self.data, item.name), load_model()
        scores: dict[str, Any] = {"mm": {} if self.detail_only else _shape_errors(model, face, truth)}
        if face.landmarks68_px is not None and not self.detail_only:
            off = (face.landmarks68_px - truth.landmarks68_px).norm(dim=-1) / self.about[item.name].eyes_px
            inner = off[len(landmark_groups()["jaw"]) :]
            scores.update(nme51=float(inner.mean()), nme68=float(off.mean()))
        if face.displacement is not None and other is not None:
            scores["detail_um"] = _detail_errors(face.displacement, other, truth)
        return scores

    def summarise(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        """Means over portraits."""
        summary: dict[str, Any] = {"count": len(rows)}
        for key in ("nme51", "nme68"):
            values = [row["scores"][key] for row in rows if key in row["scores"]]
            if values:
                summary[f"{key}_percent"] = 100 * float(np.mean(values))
        for kind in (*KINDS, "mean_face"):
            tables = [row["scores"]["mm"][kind] for row in rows if kind in row["scores"]["mm"]]
            if tables:
                summary[kind] = {name: float(np.mean([t[name] for t in tables])) for name in tables[0]}
        if "true" in summary:
            summary["over_mean_face"] = summary["true"]["all"] / summary["mean_face"]["all"]
        detail = [row["scores"]["detail_um"] for row in rows if "detail_um" in row["scores"]]
        if detail:
            summary["detail_um"] = {name: float(np.mean([d[name] for d in detail])) for name in detail[0]}
        return summary

    def table(self, summary: dict[str, Any]) -> list[list[str]]:
        """A row for each kind of estimator."""
        names = {
            "true": "true correspondence, at rest",
            "bent": "REALY (non-rigid), with expression",
            "rigid": "closest point, region aligned",
            "global": "closest point, 7 points",
            "now": "NoW, at rest",
        }
        rows = [["detail", "all"] if self.detail_only else ["mm", "all", *REGIONS]]
        for kind, label in names.items():
            if kind in summary:
                row = [f"{summary[kind][r]:.3f}" if r in summary[kind] else "" for r in ("all", *REGIONS)]
                rows.append([label, *row])
        extra = []
        if "over_mean_face" in summary:
            extra.append(["true, over that of the mean face", f"{summary['over_mean_face']:.3f}"])
        if "nme51_percent" in summary:
            extra.append(["inner 51 landmarks, % of the eye distance", f"{summary['nme51_percent']:.2f}"])
        for key, label in zip(_DETAIL, _DETAIL_NAMES, strict=True):
            if key in summary.get("detail_um", {}):
                extra.append([label, f"{summary['detail_um'][key]:.1f}"])
        return rows + [[*row, *[""] * (len(rows[0]) - len(row))] for row in extra]


_DETAIL_NAMES = (
    "wrinkles of the portrait, um",
    "wrinkles of another expression, um",
    "those of the portrait kept, um",
    "no wrinkles under another expression, um",
)


def _shape_errors(model: MorphableModel, face: Prediction, truth: Truth) -> dict[str, dict[str, float]]:
    """Kind to region to millimetres; kinds that the prediction cannot be measured by are left out."""
    errors: dict[str, dict[str, float]] = {}
    if face.topology == "open" and face.neutral_vertices is not None:
        for kind, shape in (("true", face.neutral_vertices), ("mean_face", model.template)):
            found = region_errors(model.data, shape, truth.neutral_vertices)
            values = found.millimetres["regional"].tolist()
            errors[kind] = dict(zip(REGIONS, values, strict=False)) | {"all": float(found.mean("regional"))}
    mesh, places = face.mesh(), face.keypoint_places("realy85")
    if mesh is not None and places is not None:
        predicted = PredictedMesh(mesh.vertices, mesh.triangles, places)
        found = realy_errors(predicted, subject_of(model, truth.vertices))
        for kind in ESTIMATORS:
            row = {region: found[region][kind] for region in REGIONS}
            errors[kind] = row | {"all": float(np.mean(list(row.values())))}
    mesh, places = face.mesh(neutral=True), face.keypoint_places("now7", neutral=True)
    if mesh is not None and places is not None:
        distances = now_distances(NowPrediction(mesh, places), scan_of(model, truth.neutral_vertices))
        errors["now"] = {"all": float(distances.mean())}
    return errors


def _detail_errors(seen: Tensor, other: Tensor, truth: Truth) -> dict[str, float]:
    """Errors over wrinkled texels: of the portrait, and under another expression by three ways."""
    basis, texels = load_detail_basis(), _texels()
    pairs = {
        "seen": (seen, truth.displacement),
        "other": (other, truth.other_displacement),
        "kept": (seen, truth.other_displacement),
        "none": (torch.zeros_like(other), truth.other_displacement),
    }

    def rms(found: Tensor, true: Tensor) -> float:
        difference = basis.gather(found[0].float()) - basis.gather(true[0].float())
        return float(1e6 * difference[texels].square().mean().sqrt())

    return {name: rms(*pair) for name, pair in pairs.items()}


@lru_cache(maxsize=1)
def _texels() -> Tensor:
    return wrinkled_texels(load_detail_basis())
