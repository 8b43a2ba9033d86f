# SPDX-License-Identifier: Apache-2.0
"""Predictions as files: one safetensors each, with all that benchmarks on synthetic people look at."""

from __future__ import annotations

from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from hiface.atomic import atomic_write_bytes
from hiface.errors import MeshFileError
from hiface.evaluation.method import Prediction
from hiface.types import LandmarkSet

_KIND = "hiface prediction 1"
_PLAIN = ("box", "landmarks68_px", "vertices", "neutral_vertices", "triangles", "displacement")
_OTHER = "other_displacement"


def write_prediction(path: Path, prediction: Prediction, other_displacement: Tensor | None = None) -> None:
    """Writes a prediction.

    Args:
        path: The .safetensors file.
        prediction: What a method said.
        other_displacement: [1, S, S] what it said of another expression.

    Raises:
        OutputError: The file cannot be written.
    """
    tensors = {name: getattr(prediction, name) for name in _PLAIN} | {_OTHER: other_displacement}
    for name, points in prediction.keypoints.items():
        tensors[f"keypoints.{name}.triangles"] = points.triangle_ids
        tensors[f"keypoints.{name}.weights"] = points.barycentric
    kept = {
        name: value.detach().cpu().clone().contiguous()
        for name, value in tensors.items()
        if value is not None
    }
    about = {"kind": _KIND, "topology": prediction.topology, "metric": str(prediction.metric)}
    atomic_write_bytes(path, save(kept, about))


def _is_whole(tensors: dict[str, Tensor]) -> bool:
    """Whether shapes and indices fit together."""
    shapes = {name: tuple(value.shape) for name, value in tensors.items()}
    if shapes.get("box") != (4,) or shapes.get("landmarks68_px", (68, 2)) != (68, 2):
        return False
    if not {"vertices", "neutral_vertices"} & set(shapes):
        return not any(name.startswith("keypoints.") for name in shapes)
    count = next(shapes[name][0] for name in ("vertices", "neutral_vertices") if name in shapes)
    same = all(shapes.get(name, (count, 3)) == (count, 3) for name in ("vertices", "neutral_vertices"))
    triangles = tensors.get("triangles")
    if not same or triangles is None or triangles.dim() != 2 or triangles.shape[1] != 3:
        return False
    fits = len(triangles) > 0 and 0 <= int(triangles.min()) and int(triangles.max()) < count
    for name in [name for name in shapes if name.startswith("keypoints.") and name.endswith(".triangles")]:
        ids = tensors[name]
        weights = shapes.get(name.removesuffix("triangles") + "weights")
        fits &= weights == (len(ids), 3) and (
            len(ids) == 0 or (0 <= int(ids.min()) and int(ids.max()) < len(triangles))
        )
    return fits


def read_prediction(path: Path) -> tuple[Prediction, Tensor | None]:
    """What `write_prediction` wrote: the prediction and its displacement under another expression.

    Raises:
        MeshFileError: The file is missing, damaged or of another kind.
    """
    try:
        with safe_open(path, "pt") as file:
            about = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}
    except (OSError, SafetensorError) as error:
        raise MeshFileError(f"{path} is not a saved prediction ({error})") from error
    if about.get("kind") != _KIND or not _is_whole(tensors):
        raise MeshFileError(f"{path} is not a saved prediction of this version, or not a whole one")
    names = sorted({name.split(".")[1] for name in tensors if name.startswith("keypoints.")})
    keypoints = {
        name: LandmarkSet(name, tensors[f"keypoints.{name}.triangles"], tensors[f"keypoints.{name}.weights"])
        for name in names
    }
    plain = {name: tensors.get(name) for name in _PLAIN if name != "box"}
    prediction = Prediction(
        tensors["box"],
        **plain,
        keypoints=keypoints,
        topology=about.get("topology", ""),
        metric=about.get("metric") == "True",
    )
    return prediction, tensors.get(_OTHER)
