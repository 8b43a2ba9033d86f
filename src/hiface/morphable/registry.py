# SPDX-License-Identifier: Apache-2.0
"""Face models by name."""

from __future__ import annotations

from functools import cache
from typing import Literal

from hiface.errors import ModelFormatError
from hiface.morphable.data import MorphableModelData
from hiface.morphable.model import MorphableModel
from hiface.morphable.open_model import read_open_model

MODELS = {"open": read_open_model}


@cache
def _data(name: str) -> MorphableModelData:
    return MODELS[name]()


def load_model(name: Literal["open"] | str = "open") -> MorphableModel:
    """Loads a face model.

    Args:
        name: "open", the model shipped with hiface.

    Returns:
        The model on the CPU in float32. Its tensors are shared between calls: do not change them in place.

    Raises:
        ModelFormatError: There is no model of that name.
        AssetError: The model's file is missing or damaged.
    """
    if name not in MODELS:
        raise ModelFormatError(f"unknown face model {name!r}; choose one of {', '.join(MODELS)}")
    return MorphableModel(_data(name))
