# SPDX-License-Identifier: Apache-2.0
"""Methods that fit a face model to detected landmarks."""

from __future__ import annotations

from abc import ABC, abstractmethod

from hiface.data import Photo
from hiface.evaluation.method import Prediction
from hiface.methods.shared import all_that_can_be_fitted, model_licence, most_certain_first
from hiface.morphable import MorphableModel, load_model
from hiface.networks.detect import Detection, FaceDetector
from hiface.transfer.complete import complete_model


class DetectedFaceMethod(ABC):
    """A face model and the detector; how one face is fitted is up to the method.

    Args:
        face_model: "open" or the path of another project's model.
    """

    def __init__(self, face_model: str = "open") -> None:
        self.licence = f"Apache-2.0; {model_licence(face_model)}"
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
            FitError: No face can be fitted.
        """
        self.load()
        assert self._loaded is not None
        model, detector = self._loaded
        detections = most_certain_first(detector, photo)
        return all_that_can_be_fitted(lambda found: self._fitted(model, found, photo), detections)

    @abstractmethod
    def _fitted(self, model: MorphableModel, detection: Detection, photo: Photo) -> Prediction:
        """One face of a photo."""
