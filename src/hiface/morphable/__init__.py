# SPDX-License-Identifier: Apache-2.0
"""Linear face models: one class for all of them, one reader per file format."""

from hiface.morphable.data import ContourLines, MorphableModelData
from hiface.morphable.model import MorphableModel
from hiface.morphable.readers import read_model, write_model
from hiface.morphable.registry import load_model
from hiface.morphable.skinning import linear_blend_skinning

__all__ = [
    "ContourLines",
    "MorphableModel",
    "MorphableModelData",
    "linear_blend_skinning",
    "load_model",
    "read_model",
    "write_model",
]
