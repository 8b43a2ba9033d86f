# SPDX-License-Identifier: Apache-2.0
"""Packages of the extras, imported where they are used."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from hiface.errors import MissingExtraError


def needed(module: str, reason: str, extra: str = "eval") -> Any:
    """Imports a module of an optional package.

    Args:
        module: Its full name.
        reason: What needs which package, for example "bending meshes needs scipy".
        extra: Extra of hiface that the package belongs to.

    Returns:
        The module.

    Raises:
        MissingExtraError: It is not installed; the message has the line to type.
    """
    try:
        return import_module(module)
    except ImportError as error:
        raise MissingExtraError(f"{reason}; type: pip install 'hiface[{extra}]'") from error
