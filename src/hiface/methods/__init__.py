# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from hiface.methods.options import METHOD_NAMES, MethodOptions

if TYPE_CHECKING:
    from hiface.evaluation.method import Method, Prediction
    from hiface.methods.registry import make_method

__all__ = ["METHOD_NAMES", "Method", "MethodOptions", "Prediction", "make_method"]

_HOME = {
    "Method": "hiface.evaluation.method",
    "Prediction": "hiface.evaluation.method",
    "make_method": "hiface.methods.registry",
}


def __getattr__(name: str) -> object:
    """Imports what is heavy on first use, so that the command starts quickly."""
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module 'hiface.methods' has no attribute {name!r}")
