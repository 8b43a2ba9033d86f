# SPDX-License-Identifier: Apache-2.0
"""Coarse inverse rendering: the energies, the solver and the stages that explain one photo."""

from hiface.fitting.config import FitConfig
from hiface.fitting.fit import FitResult, fit_face
from hiface.fitting.observations import FaceObservation, ImageCrop

__all__ = ["FaceObservation", "FitConfig", "FitResult", "ImageCrop", "fit_face"]
