# SPDX-License-Identifier: Apache-2.0
"""The landmark fit of the eos library, on this library's face model or on eos's own files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hiface.data import Photo
from hiface.errors import FitError
from hiface.evaluation.method import Prediction
from hiface.methods.eos_model import MM_PER_M, EosModel, convert_model, import_eos, read_share
from hiface.methods.shared import most_certain_first
from hiface.morphable import MorphableModel, load_model
from hiface.networks.detect import FaceDetector

_FAR_M = 100.0  # from where a perspective camera sees what a scaled orthographic one does
_ITERATIONS = 5  # eos's own default, as is the weight of the prior


class EosMethod:
    """`eos.fitting.fit_shape_and_pose` on the landmarks of this library's detector.

    Args:
        share: Folder of eos's own files (`eos_model.SHARE_FILES`); the open model if None. Metres follow from
            eos's millimetres, but nothing in its files says so: sizes count as metric on the open model only.
            The jaw points of eos's files have no vertices, so there are no 68 points of its model.
    """

    name = "eos"

    def __init__(self, share: Path | None = None) -> None:
        own = share is not None
        self.licence = "eos: Apache-2.0; " + (
            "Surrey Face Model: research only" if own else "face model from CC0 data"
        )
        self.description = f"the eos library's landmark fit on {'its own' if own else 'the open'} face model"
        self._share = share
        self._model: MorphableModel | None = None
        self._parts: EosModel | None = None
        self._detector: FaceDetector | None = None

    def load(self) -> None:
        """Reads or converts the model, and reads the detector's networks.

        Raises:
            MissingExtraError: eos is not installed.
            ModelFormatError: A file of `share` is missing or damaged.
        """
        if self._detector is not None:
            return
        if self._share is not None:
            self._parts = read_share(self._share)
        else:
            self._model = load_model("open")
            self._parts = convert_model(self._model)
        self._detector = FaceDetector()

    def reconstruct(self, photo: Photo) -> list[Prediction]:
        """Faces of one photo, the most certain first.

        Raises:
            FitError: eos found no shape for the landmarks of a face.
        """
        self.load()
        assert self._detector is not None
        size = photo.width, photo.height
        return [
            self.fit(found.landmarks68_px, found.box, size)
            for found in most_certain_first(self._detector, photo)
        ]

    def fit(self, landmarks68_px: Tensor, box: Tensor, size: tuple[int, int]) -> Prediction:
        """Fits one face to its landmarks.

        Args:
            landmarks68_px: [68, 2] pixels.
            box: [4] pixels.
            size: Width and height of the photo, pixels.

        Returns:
            The prediction.

        Raises:
            FitError: The landmarks are not finite, or eos found no shape for them.
        """
        if not bool(landmarks68_px.isfinite().all()):
            raise FitError("the landmarks have values that are not finite; eos cannot fit them")
        self.load()
        parts = self._parts
        assert parts is not None
        mesh, pose, identity = _fit_shape_and_pose(parts, landmarks68_px, size)
        vertices = torch.from_numpy(np.array(mesh.vertices, dtype=np.float32)[:, :3]) / MM_PER_M
        neutral = np.array(parts.model.get_shape_model().draw_sample(identity), dtype=np.float32)
        at_rest = torch.from_numpy(neutral).reshape(-1, 3) / MM_PER_M
        vertices, at_rest = vertices[: parts.n_vertices], at_rest[: parts.n_vertices]
        if not bool(vertices.isfinite().all()):
            raise FitError("eos left vertices that are not finite; check the landmarks")
        return Prediction(
            box=box,
            landmarks68_px=None if self._model is None else _landmarks_px(self._model, vertices, pose, size),
            vertices=vertices,
            neutral_vertices=at_rest,
            triangles=parts.triangles,
            keypoints=parts.keypoints,
            topology=parts.topology,
            metric=self._model is not None,
        )


def _fit_shape_and_pose(
    parts: EosModel, points_px: Tensor, size: tuple[int, int]
) -> tuple[Any, Any, list[float]]:
    """Mesh, pose and identity coefficients."""
    eos = import_eos()
    landmarks = [eos.core.Landmark(str(k + 1), point) for k, point in enumerate(points_px.tolist())]
    try:
        mesh, pose, identity, _ = eos.fitting.fit_shape_and_pose(
            parts.model,
            landmarks,
            parts.mapper,
            *size,
            parts.edges,
            parts.contour_landmarks,
            parts.model_contour,
            num_iterations=_ITERATIONS,
        )
    except (RuntimeError, ValueError) as error:
        raise FitError(f"eos found no shape for the landmarks ({error})") from error
    return mesh, pose, list(identity)


def _landmarks_px(model: MorphableModel, vertices: Tensor, pose: Any, size: tuple[int, int]) -> Tensor:
    """[68, 2] pixels of a fitted face, its jaw along the outline that eos's pose shows."""
    width, height = size
    modelview = torch.from_numpy(np.array(pose.get_modelview(), dtype=np.float32))
    scale = 0.5 * width * float(np.array(pose.get_projection())[0, 0])  # pixels per millimetre
    flip = torch.diag(torch.tensor([1.0, -1.0, -1.0]))
    far = torch.tensor([0.0, 0.0, _FAR_M])
    seen = vertices @ (flip @ modelview[:3, :3]).T + far
    places = model.landmarks_cam("ibug68", seen)[:, :2]
    shift = modelview[:2, 3] * scale
    return places * (scale * MM_PER_M) + torch.stack([shift[0], height - shift[1]])
