# SPDX-License-Identifier: Apache-2.0
"""hiface's own files: safetensors with a kind and a version in the metadata; nothing in them can run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor

from hiface.assets.loader import read_safetensors
from hiface.atomic import atomic_write_bytes
from hiface.errors import AssetError, ModelFormatError


@dataclass(frozen=True)
class FileKind:
    """One kind of file.

    Attributes:
        format: Word in the metadata.
        version: Version that is written and read.
        title: What messages call it, such as "face model".
        made_by: Command that writes it.
        again: What to do with one that cannot be read.
    """

    format: str
    version: str
    title: str
    made_by: str
    again: str

    def write(self, path: str | Path, tensors: Mapping[str, Tensor], meta: Mapping[str, str]) -> Path:
        """Writes a file whole or not at all.

        Args:
            path: File to write or replace.
            tensors: Its tensors by name, on any device; they may share memory.
            meta: Its texts by name.

        Returns:
            The path.

        Raises:
            OutputError: The file cannot be written.
        """
        own = {
            key: value.detach().cpu().clone(memory_format=torch.contiguous_format)
            for key, value in tensors.items()
        }
        head = {"format": self.format, "format_version": self.version, **meta}
        return atomic_write_bytes(path, save(own, head))

    def read(self, path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
        """Reads a file: tensors by name and metadata.

        Raises:
            ModelFormatError: Damaged, of another kind or of an unknown version.
        """
        try:
            tensors, meta = read_safetensors(path)
        except AssetError as error:
            raise ModelFormatError(f"{path}: expected a whole {self.title} file: {error}") from error
        if meta.get("format") != self.format:
            raise ModelFormatError(
                f"{path.name}: expected a {self.title} written by '{self.made_by}', found a safetensors "
                "file of another kind"
            )
        if meta.get("format_version") != self.version:
            raise ModelFormatError(
                f"{path.name}: expected version {self.version} of the {self.title} file, found "
                f"{meta.get('format_version')}; {self.again} with this hiface"
            )
        return tensors, meta

    def damaged(self, path: Path, error: Exception) -> ModelFormatError:
        """What to raise where a part of a file cannot be used."""
        return ModelFormatError(
            f"{path.name}: a part of the {self.title} is missing or damaged ({type(error).__name__}: "
            f"{str(error)[:200]}); {self.again}"
        )
