# SPDX-License-Identifier: Apache-2.0
"""hiface: a photo in, a detailed and animatable 3D face out."""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

from hiface import errors

if TYPE_CHECKING:
    from hiface.export.relight import read_light
    from hiface.morphable import load_model
    from hiface.reconstructor import Reconstructor
    from hiface.result import FaceResult
    from hiface.types import Camera, FaceMesh, FaceParams

try:
    __version__ = version("hiface")
except PackageNotFoundError:
    __version__ = "0.0.0+source"

__all__ = [
    "Camera",
    "FaceMesh",
    "FaceParams",
    "FaceResult",
    "Reconstructor",
    "__version__",
    "errors",
    "load_model",
    "read_light",
]

_HOME = {
    "Camera": "hiface.types",
    "FaceMesh": "hiface.types",
    "FaceParams": "hiface.types",
    "FaceResult": "hiface.result",
    "Reconstructor": "hiface.reconstructor",
    "load_model": "hiface.morphable",
    "read_light": "hiface.export.relight",
}


def __getattr__(name: str) -> object:
    """Imports the public names on first use, so that `import hiface` stays quick."""
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module 'hiface' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
