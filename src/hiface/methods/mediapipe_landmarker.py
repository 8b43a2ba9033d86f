# SPDX-License-Identifier: Apache-2.0
"""MediaPipe's Face Landmarker: 468 points of a face as a mesh.

The model file (`face_landmarker.task`) is the user's to bring: MediaPipe's pages link to it. The reading of
results was tried with stand-ins of the classes of mediapipe 1.2 and with that package's own connections, not
with a model file.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hiface.assets import load_json_asset
from hiface.data import Photo
from hiface.errors import AssetError, FitError, MissingExtraError, ModelFormatError, OptionError
from hiface.evaluation.method import Prediction
from hiface.methods.shared import ibug68_keypoints

N_VERTICES = 468
"""Points of the mesh; the ten behind them are irises, which no triangle has."""
_MOST_FACES = 32
_FLIP = (1.0, -1.0, -1.0)


@dataclass(frozen=True)
class Landmarker:
    """What the method needs of the package.

    Attributes:
        task: Has `detect(picture)`, which gives `face_landmarks` and `facial_transformation_matrixes`.
        picture: Makes its picture of [H, W, 3] uint8.
        triangles: [T, 3] int64.
    """

    task: Any
    picture: Callable[[np.ndarray], Any]
    triangles: Tensor


class MediapipeMethod:
    """MediaPipe Face Landmarker.

    Its normalised coordinates become pixels with x right, y up and z towards the camera, under a weak
    perspective, and the head's rotation, which the task gives too, is taken out. It has no face at rest.

    Args:
        model_file: The file `face_landmarker.task`.
        landmarker: The package's parts where they are made already; read from `model_file` if None.
    """

    name = "mediapipe"
    licence = "Apache-2.0"
    description = "MediaPipe Face Landmarker, 468 points as a mesh"

    def __init__(self, model_file: Path | None = None, landmarker: Landmarker | None = None) -> None:
        self._model_file, self._landmarker = model_file, landmarker
        content = load_json_asset("landmarks/mediapipe_ibug68.json")
        self._ibug68 = torch.tensor(content["vertices"], dtype=torch.int64)

    def load(self) -> None:
        """Reads the task.

        Raises:
            OptionError: No model file was named.
            MissingExtraError: mediapipe is not installed.
            AssetError: The model file is missing or damaged.
        """
        if self._landmarker is None:
            self._landmarker = read_landmarker(self._model_file)

    def reconstruct(self, photo: Photo) -> list[Prediction]:
        """Faces of one photo, in the order of the task, which gives no scores.

        Raises:
            FitError: The task failed.
        """
        self.load()
        assert self._landmarker is not None
        try:
            found = self._landmarker.task.detect(self._landmarker.picture(photo.image_srgb))
        except (RuntimeError, ValueError) as error:
            raise FitError(f"MediaPipe's Face Landmarker failed ({error})") from error
        triangles = self._landmarker.triangles
        pairs = zip(found.face_landmarks, found.facial_transformation_matrixes, strict=True)
        return [self._prediction(face, pose, triangles, photo) for face, pose in pairs]

    def _prediction(
        self, face: Sequence[Any], pose: np.ndarray, triangles: Tensor, photo: Photo
    ) -> Prediction:
        if len(face) < N_VERTICES:
            raise FitError(f"MediaPipe gave {len(face)} points of a face; {N_VERTICES} or 478 were expected")
        normalised = torch.tensor([[p.x, p.y, p.z] for p in face[:N_VERTICES]], dtype=torch.float32)
        places = normalised * torch.tensor([photo.width, photo.height, photo.width], dtype=torch.float32)
        points = places[:, :2]
        ids = dict(enumerate(self._ibug68.tolist()))
        return Prediction(
            box=torch.cat([points.amin(0), points.amax(0)]),
            landmarks68_px=points[self._ibug68],
            vertices=without_rotation(places * torch.tensor(_FLIP), torch.as_tensor(np.asarray(pose))),
            triangles=triangles,
            keypoints=ibug68_keypoints(ids, triangles),
            topology=f"mediapipe{N_VERTICES}",
        )


def without_rotation(vertices: Tensor, pose: Tensor) -> Tensor:
    """Takes the rotation of a head's pose out of its vertices.

    Args:
        vertices: [V, 3], +Y up, +Z towards the camera.
        pose: [4, 4] or [3, 3], from the head at rest to the same axes; scale is left out.

    Returns:
        [V, 3] about their middle.
    """
    left, _, right = torch.linalg.svd(pose[:3, :3].to(vertices.dtype))
    R = left @ torch.diag(torch.tensor([1.0, 1.0, float(torch.det(left @ right))])) @ right
    return (vertices - vertices.mean(0)) @ R


def read_landmarker(model_file: Path | None) -> Landmarker:
    """The task of a model file.

    Raises:
        OptionError: No model file was named.
        MissingExtraError: mediapipe is not installed.
        AssetError: The model file is missing or damaged.
    """
    if model_file is None:
        raise OptionError(
            "the method mediapipe needs the file face_landmarker.task, to which the page of MediaPipe Face "
            "Landmarker links; name it with --mediapipe-model"
        )
    if not model_file.is_file():
        raise AssetError(f"there is no file {model_file}; name face_landmarker.task with --mediapipe-model")
    try:
        import mediapipe
        from mediapipe.tasks.python import vision
        from mediapipe.tasks.python.core.base_options import BaseOptions
    except ImportError as error:
        raise MissingExtraError(
            "the method mediapipe needs that package; type: pip install 'mediapipe>=1.2'"
        ) from error
    options = vision.FaceLandmarkerOptions(
        base_options=BaseOptions(model_asset_path=str(model_file)),
        num_faces=_MOST_FACES,
        output_facial_transformation_matrixes=True,
    )
    try:
        task = vision.FaceLandmarker.create_from_options(options)
    except (RuntimeError, ValueError, OSError) as error:
        raise AssetError(
            f"{model_file} cannot be read by MediaPipe ({error}); take face_landmarker.task as it is"
        ) from error

    def picture(image_srgb: np.ndarray) -> Any:
        data = np.ascontiguousarray(image_srgb)
        return mediapipe.Image(image_format=mediapipe.ImageFormat.SRGB, data=data)

    lines = vision.FaceLandmarksConnections.FACE_LANDMARKS_TESSELATION
    return Landmarker(task, picture, triangles_of_lines([(line.start, line.end) for line in lines]))


def triangles_of_lines(lines: Sequence[tuple[int, int]]) -> Tensor:
    """Triangles of a tesselation that is given as directed lines, three after one another around each.

    Args:
        lines: Start and end vertex of each line.

    Returns:
        [T, 3] int64 in the order given; counter-clockwise seen from outside, as MediaPipe's are.

    Raises:
        ModelFormatError: Three lines do not close.
    """
    corners = torch.tensor(lines, dtype=torch.int64)
    if len(corners) % 3 or len(corners) == 0:
        raise ModelFormatError(f"{len(corners)} lines do not make triangles; mediapipe 1.2 was expected")
    loops = corners.reshape(-1, 3, 2)
    if not bool((loops[:, :, 1] == loops[:, [1, 2, 0], 0]).all()):
        raise ModelFormatError("the tesselation is not a list of triangles; mediapipe 1.2 was expected")
    return loops[:, :, 0]
