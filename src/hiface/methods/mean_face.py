# SPDX-License-Identifier: Apache-2.0
"""The mean face of the model for everybody: what a method has to beat before it says anything of a person."""

from __future__ import annotations

import torch

from hiface.data import Photo
from hiface.evaluation.method import Prediction
from hiface.fitting.config import FitConfig
from hiface.fitting.fit import POSE_PARTS, start_fit
from hiface.fitting.parameters import to_face_params
from hiface.methods.shared import (
    all_that_can_be_fitted,
    model_prediction,
    most_certain_first,
    sparse_observation,
)
from hiface.morphable import MorphableModel, load_model
from hiface.networks.detect import Detection, FaceDetector
from hiface.transfer.complete import complete_model


class MeanFaceMethod:
    """The model's mean shape without expression, posed to the detected 68 points.

    Args:
        face_model: "open" or the path of another project's model.
    """

    name = "mean"
    licence = "Apache-2.0; face model from CC0 data"
    description = "the model's mean shape, posed to the detected landmarks"

    def __init__(self, face_model: str = "open") -> None:
        self._face_model = face_model
        self._config = FitConfig()
        self._loaded: tuple[MorphableModel, FaceDetector] | None = None

    def load(self) -> None:
        """Reads the model and the detector's networks.

        Raises:
            AssetError: One of them is missing.
        """
        if self._loaded is None:
            self._loaded = complete_model(load_model(self._face_model)), FaceDetector()

    def reconstruct(self, photo: Photo) -> list[Prediction]:
        """Faces of one photo, the most certain first.

        Raises:
            FitError: No pose explains the landmarks of a face.
        """
        self.load()
        assert self._loaded is not None
        model, detector = self._loaded
        detections = most_certain_first(detector, photo)
        return all_that_can_be_fitted(lambda found: self._posed(model, found, photo), detections)

    def _posed(self, model: MorphableModel, detection: Detection, photo: Photo) -> Prediction:
        observation = sparse_observation(detection, photo)
        observation.check_finite()
        with torch.no_grad():
            fit = start_fit(model, observation, self._config, None)
            fit.run("pose", [fit.landmark_energy()], POSE_PARTS[:3], self._config.iterations_pose)
            params = to_face_params(fit.x, fit.layout, fit.frame, model.data)
        return model_prediction(model, params, detection.box)
