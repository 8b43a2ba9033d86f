# SPDX-License-Identifier: Apache-2.0
"""Shape, expression and pose from the 68 landmarks alone, with this library's own fit."""

from __future__ import annotations

from hiface.data import Photo
from hiface.evaluation.method import Prediction
from hiface.fitting.fit import fit_face
from hiface.methods.detected import DetectedFaceMethod
from hiface.methods.shared import (
    model_prediction,
    sparse_observation,
)
from hiface.morphable import MorphableModel
from hiface.networks.detect import Detection


class LandmarkFitMethod(DetectedFaceMethod):
    """The landmark stages of `hiface.fitting.fit_face`, without picture.

    The input is what the field's landmark fits see: the 68 points (and the detector's standard deviations of
    them). The detector's dense points, irises and head rotation are left out.

    Args:
        face_model: "open" or the path of another project's model.
    """

    name = "landmarks"
    description = "shape, expression and pose fitted to the 68 landmarks alone"

    def _fitted(self, model: MorphableModel, detection: Detection, photo: Photo) -> Prediction:
        params = fit_face(model, sparse_observation(detection, photo)).params
        return model_prediction(model, params, detection.box)
