# SPDX-License-Identifier: Apache-2.0
"""Shape, expression and pose from the 68 landmarks alone, with this library's own fit."""

from __future__ import annotations

from hiface.data import Photo
from hiface.evaluation.method import Prediction
from hiface.fitting.fit import fit_face
from hiface.methods.shared import (
    all_that_can_be_fitted,
    model_prediction,
    most_certain_first,
    sparse_observation,
)
from hiface.morphable import MorphableModel, load_model
from hiface.networks.detect import Detection, FaceDetector
from hiface.transfer.complete import complete_model


class LandmarkFitMethod:
    """The landmark stages of `hiface.fitting.fit_face`, without picture.

    The input is what the field's landmark fits see: the 68 points (and the detector's standard deviations of
    them). The detector's dense points, irises and head rotation are left out.

    Args:
        face_model: "open" or the path of another project's model.
    """

    name = "landmarks"
    licence = "Apache-2.0; face model from CC0 data"
    description = "shape, expression and pose fitted to the 68 landmarks alone"

    def __init__(self, face_model: str = "open") -> None:
        self._face_model = face_model
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

        def fitted(detection: Detection) -> Prediction:
            params = fit_face(model, sparse_observation(detection, photo)).params
            return model_prediction(model, params, detection.box)

        return all_that_can_be_fitted(fitted, most_certain_first(detector, photo))
