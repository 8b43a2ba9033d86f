# SPDX-License-Identifier: Apache-2.0
"""Face models by name or by file."""

from __future__ import annotations

from functools import cache, lru_cache
from pathlib import Path
from typing import Literal

from hiface.errors import ModelFormatError
from hiface.morphable.data import MorphableModelData
from hiface.morphable.model import MorphableModel
from hiface.morphable.open_model import read_open_model
from hiface.morphable.readers.detect import read_model, stamp

MODELS = {"open": read_open_model}
_FILES_KEPT = 2  # models are large


@cache
def _data(name: str) -> MorphableModelData:
    return MODELS[name]()


@lru_cache(maxsize=_FILES_KEPT)
def _data_of_file(path: Path, files: tuple[tuple[str, int, int], ...]) -> MorphableModelData:
    return read_model(path)


def load_model(name: Literal["open"] | str | Path = "open") -> MorphableModel:
    """Loads a face model.

    Args:
        name: "open", the model shipped with hiface; or the path of a model of another project (FLAME, BFM,
            HIFI3D++, ICT-FaceKit, FaceScape, FaceWarehouse) or of one converted by `hiface models convert`.
            It is read again when it or a file beside it that belongs to it has changed.

    Returns:
        The model on the CPU in float32. Its tensors are shared between calls: do not change them in place.

    Raises:
        ModelFormatError: There is no model or file of that name, or the file is damaged or of another kind.
        MissingExtraError: The file's format needs an optional package.
        AssetError: The open model's file is missing or damaged.
    """
    if str(name) in MODELS:
        return MorphableModel(_data(str(name)))
    path = Path(name)
    if not path.exists():
        raise ModelFormatError(
            f"unknown face model {str(name)!r}; choose {', '.join(MODELS)} or the path of a model file "
            "(hiface models list)"
        )
    path = path.resolve()
    return MorphableModel(_data_of_file(path, stamp(path)))
