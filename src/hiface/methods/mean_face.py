# SPDX-License-Identifier: Apache-2.0
"""The mean face of the model for everybody: what a method has to beat before it says anything of a person."""

from __future__ import annotations

import torch

from hiface.data import Photo
from hiface.evaluation.method import Prediction
from hiface.fitting.config import FitConfig
from hiface.fitting.fit import POSE_PARTS, start_fit
from hiface.fitting.parameters import to_face_params
from hiface.methods.detected import DetectedFaceMethod
from hiface.methods.shared import (
    model_prediction,
    sparse_observation,
)
from hiface.morphable import MorphableModel
from hiface.networks.detect import Detection


class MeanFaceMethod(DetectedFaceMethod):
    """The model's mean shape without expression, posed to the detected 68 points.

    Args:
        face_model: "open" or the path of another project's model.
    """

    name = "mean"
    description = "the model's mean shape, posed to the detected landmarks"

    def _fitted(self, model: MorphableModel, detection: Detection, photo: Photo) -> Prediction:
        config = FitConfig()
        observation = sparse_observation(detection, photo)
        observation.check_finite()
        with torch.no_grad():
            fit = start_fit(model, observation, config, None)
            fit.run("pose", [fit.landmark_energy()], POSE_PARTS[:3], config.iterations_pose)
            params = to_face_params(fit.x, fit.layout, fit.frame, model.data)
        return model_prediction(model, params, detection.box)
