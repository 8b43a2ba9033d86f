# SPDX-License-Identifier: Apache-2.0
"""`face.json`: the coefficients of one face by name, its camera, landmarks and where they came from."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hiface import __version__
from hiface.atomic import atomic_write_text
from hiface.errors import FaceFileError
from hiface.export.morphs import check_single
from hiface.morphable import MorphableModelData
from hiface.types import Camera, FaceParams

SCHEMA = "hiface.face/1"


@dataclass(frozen=True)
class FaceRecord:
    """Everything that `face.json` holds.

    Attributes:
        params: The coefficients and the camera, float32, no batch dimensions.
        model: Name and version of the face model.
        expression_names: Names of the expression coefficients, in order.
        joint_names: Names of the pose rows, in order.
        albedo_names: Names of the albedo coefficients, in order.
        landmarks_px: Set name to [L, 2] pixels of the upright photo.
        box_px: [4] left, top, right, bottom of the face in the photo, pixels, or None.
        score: Confidence of the finder, 0..1, or None.
        scale_source: What fixed the size of the head.
        software: Version of hiface that wrote the file.
        provenance: Further facts, as they were given.
    """

    params: FaceParams
    model: tuple[str, str]
    expression_names: tuple[str, ...]
    joint_names: tuple[str, ...]
    albedo_names: tuple[str, ...]
    landmarks_px: Mapping[str, Tensor] = field(default_factory=dict)
    box_px: tuple[float, float, float, float] | None = None
    score: float | None = None
    scale_source: str = "model_prior"
    software: str = ""
    provenance: Mapping[str, Any] = field(default_factory=dict)

    @staticmethod
    def of(params: FaceParams, data: MorphableModelData, **facts: Any) -> FaceRecord:
        """Record of a face of a model; `facts` are the remaining fields."""
        names = (data.expression_names, data.joint_names, data.albedo_names)
        return FaceRecord(params, (data.name, data.version), *names, software=__version__, **facts)


def write_face_json(path: str | Path, record: FaceRecord) -> Path:
    """Writes `face.json`.

    Args:
        path: File to write.
        record: The face.

    Returns:
        The path.

    Raises:
        ShapeError: The parameters are a batch.
        FaceFileError: A number is not finite, or names and numbers differ in count.
        OutputError: The file cannot be written.
    """
    content = face_to_dict(record)
    try:
        text = json.dumps(content, indent=1, allow_nan=False)
    except (ValueError, TypeError) as error:
        raise FaceFileError(f"this face cannot be written as JSON ({error}); fit it again") from error
    return atomic_write_text(path, text + "\n")


def face_to_dict(record: FaceRecord) -> dict[str, Any]:
    """The content of `face.json` as plain lists, numbers and texts; arguments as in `write_face_json`."""
    check_single(record.params)
    params, camera = record.params, record.params.camera
    return {
        "schema": SCHEMA,
        "software": {"name": "hiface", "version": record.software or __version__},
        "model": {"name": record.model[0], "version": record.model[1]},
        "units": {"length": "m", "angle": "rad", "image": "px"},
        "scale_source": record.scale_source,
        "expression": _named(record.expression_names, params.expression),
        "pose_rotvec": _named(record.joint_names, params.pose),
        "identity": params.identity.tolist(),
        "albedo": _named(record.albedo_names[: len(params.albedo)], params.albedo),
        "light_sh": params.light.tolist(),
        "static": None if params.static is None else params.static.tolist(),
        "camera": {
            "convention": "OpenCV: x right, y down, z forward; the top-left pixel's centre is (0.5, 0.5)",
            "K": camera.K.tolist(),
            "T_cam_object": camera.T_cam_object.tolist(),
            "width": camera.width,
            "height": camera.height,
        },
        "landmarks_px": {name: points.tolist() for name, points in record.landmarks_px.items()},
        "box_px": None if record.box_px is None else [float(v) for v in record.box_px],
        "score": record.score,
        "provenance": dict(record.provenance),
    }


def read_face_json(path: str | Path) -> FaceRecord:
    """Reads `face.json`.

    Args:
        path: File written by `write_face_json`.

    Returns:
        The face, float32 on the CPU.

    Raises:
        FaceFileError: The file is missing, damaged, of another kind or of an unknown version.
    """
    path = Path(path)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise FaceFileError(f"{path} cannot be read ({error.strerror}); check the path") from error
    except ValueError as error:
        raise FaceFileError(f"{path.name} is not JSON ({error}); write it again with hiface") from error
    _check_schema(content, path.name)
    try:
        return _from_dict(content)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise FaceFileError(
            f"{path.name} is incomplete or damaged ({reason}); write it again with hiface"
        ) from error


def _check_schema(content: Any, name: str) -> None:
    schema = content.get("schema") if isinstance(content, dict) else None
    if schema == SCHEMA:
        return
    if isinstance(schema, str) and schema.startswith("hiface.face/"):
        raise FaceFileError(f"{name} has schema {schema!r}, this hiface reads {SCHEMA!r}; update hiface")
    raise FaceFileError(
        f"{name} is not a face written by hiface (its schema is {schema!r}, expected {SCHEMA!r})"
    )


def _named(names: Sequence[str], values: Tensor) -> dict[str, Any]:
    if len(names) != len(values):
        raise FaceFileError(
            f"{len(names)} names but {len(values)} numbers; names and parameters must be of one model"
        )
    return dict(zip(names, values.tolist(), strict=True))


def _tensor(values: Any, *shape: int) -> Tensor:
    """Float32 tensor; -1 in `shape` takes any length."""
    tensor = torch.tensor(values, dtype=torch.float32)
    fits = tensor.dim() == len(shape) and all(n in (-1, s) for n, s in zip(shape, tensor.shape, strict=True))
    if not fits or not bool(tensor.isfinite().all()):
        raise ValueError(f"expected finite numbers of shape {list(shape)}, got {list(tensor.shape)}")
    return tensor


def _from_dict(content: dict[str, Any]) -> FaceRecord:
    cam = content["camera"]
    camera = Camera(
        _tensor(cam["K"], 3, 3), _tensor(cam["T_cam_object"], 4, 4), int(cam["width"]), int(cam["height"])
    )
    expression, pose, albedo = content["expression"], content["pose_rotvec"], content["albedo"]
    params = FaceParams(
        identity=_tensor(content["identity"], -1),
        expression=_tensor(list(expression.values()), -1),
        pose=_tensor(list(pose.values()), -1, 3),
        albedo=_tensor(list(albedo.values()), -1),
        light=_tensor(content["light_sh"], 9, 3),
        camera=camera,
        static=None if content["static"] is None else _tensor(content["static"], -1),
    )
    box = content["box_px"]
    return FaceRecord(
        params=params,
        model=(str(content["model"]["name"]), str(content["model"]["version"])),
        expression_names=tuple(expression),
        joint_names=tuple(pose),
        albedo_names=tuple(albedo),
        landmarks_px={name: _tensor(points, -1, 2) for name, points in content["landmarks_px"].items()},
        box_px=None if box is None else tuple(_tensor(box, 4).tolist()),  # pyright: ignore[reportArgumentType]
        score=None if content["score"] is None else float(content["score"]),
        scale_source=str(content["scale_source"]),
        software=str(content["software"]["version"]),
        provenance=dict(content["provenance"]),
    )
