# SPDX-License-Identifier: Apache-2.0
"""Finds and reads packaged files; a missing or damaged file is an error that names the fix."""

from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from hiface.errors import AssetError


def asset_path(name: str) -> Path:
    """Path of a packaged file.

    Args:
        name: Path below the asset folder with forward slashes, for example "open/model.safetensors".

    Returns:
        Path of an existing file.

    Raises:
        AssetError: The file is not there.
    """
    path = Path(str(files("hiface.assets").joinpath(*name.split("/"))))
    if not path.is_file():
        raise AssetError(
            f"packaged file {name!r} is missing; reinstall hiface (pip install --force-reinstall hiface)"
        )
    return path


def list_assets(folder: str, suffix: str) -> list[str]:
    """Names of the packaged files of one folder that end in `suffix`, sorted."""
    root = Path(str(files("hiface.assets").joinpath(*folder.split("/"))))
    return sorted(f"{folder}/{p.name}" for p in root.glob(f"*{suffix}"))


def load_json_asset(name: str) -> Any:
    """Reads a packaged JSON file.

    Raises:
        AssetError: The file is missing or is not JSON.
    """
    path = asset_path(name)
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise AssetError(f"packaged file {name!r} is damaged ({error}); reinstall hiface") from error


def load_tensors_asset(name: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Reads a packaged safetensors file.

    Returns:
        Tensors by name and the file's metadata.

    Raises:
        AssetError: The file is missing or damaged.
    """
    return read_safetensors(asset_path(name))


def read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Reads any safetensors file: tensors by name and its metadata.

    Raises:
        AssetError: The file is missing or damaged.
    """
    if not path.is_file():
        raise AssetError(f"there is no file {path}; check its name")
    try:
        with safe_open(str(path), framework="pt") as handle:
            return {key: handle.get_tensor(key) for key in handle.keys()}, dict(handle.metadata() or {})
    except (SafetensorError, OSError) as error:
        raise AssetError(
            f"{path.name} cannot be read as safetensors ({error}); the file is damaged"
        ) from error
