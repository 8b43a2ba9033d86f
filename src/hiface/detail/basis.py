# SPDX-License-Identifier: Apache-2.0
"""Linear bases of displacement maps: static, compressed and stretched detail from a few coefficients each.

    D_sta = mean_sta + code_sta B_sta,   D_com = mean_com + code_com B_com,   D_str alike

(HiFace, section on SD-DeTail). Rows of a basis are scaled so that the codes of people have standard deviation
1; they are kept for the texels of the face only, one byte a number.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from hiface.assets.loader import asset_path, read_safetensors
from hiface.errors import AssetError, OutputError, ShapeError

STATES = ("static", "compressed", "stretched")
FORMAT_VERSION = "1"


@dataclass(frozen=True)
class StateBasis:
    """Mean and basis of one state over P texels.

    Attributes:
        mean: [P] metres.
        rows: [n, P] metres per standard deviation, most important first.
        weight: [P] how much each texel counted when the basis was made, 0..1.
    """

    mean: Tensor
    rows: Tensor
    weight: Tensor

    @property
    def count(self) -> int:
        """Number of coefficients."""
        return len(self.rows)

    @cached_property
    def variances(self) -> Tensor:
        """[n] weighted sum of squares of each row over the texels, m^2: what a coefficient is worth."""
        return ((self.rows * self.weight) ** 2).sum(dim=1)

    @cached_property
    def _projector(self) -> Tensor:
        return self.rows * (self.weight**2) / self.variances[:, None]

    def decode(self, codes: Tensor) -> Tensor:
        """Displacement [*B, P] in metres of codes [*B, k], k <= n; further coefficients are 0.

        Raises:
            ShapeError: There are more than n codes.
        """
        k = codes.shape[-1]
        if k > self.count:
            raise ShapeError(f"the detail basis has {self.count} coefficients, got {k}")
        return self.mean + codes @ self.rows[:k]

    def encode(self, values: Tensor) -> Tensor:
        """Codes [*B, n] of displacements [*B, P] in metres: the weighted least-squares fit."""
        return (values - self.mean) @ self._projector.T

    def first(self, count: int) -> StateBasis:
        """The same basis with its first coefficients only."""
        return StateBasis(self.mean, self.rows[:count], self.weight)

    def to(self, *args: Any) -> StateBasis:
        """Copy on another device or in another dtype."""
        return StateBasis(self.mean.to(*args), self.rows.to(*args), self.weight.to(*args))


@dataclass(frozen=True)
class DetailBasis:
    """The three bases of a face model's texture space.

    Attributes:
        model: Name of the face model whose texture space this is.
        size: Side S of the maps, texels.
        texels: [P] int64 texels of the face in the map, row by row; elsewhere the maps are 0.
        static: Detail at rest.
        compressed: What compression adds.
        stretched: What stretching adds.
        notes: Where the basis comes from, in words and numbers.
    """

    model: str
    size: int
    texels: Tensor
    static: StateBasis
    compressed: StateBasis
    stretched: StateBasis
    notes: Mapping[str, str]

    @property
    def counts(self) -> tuple[int, int, int]:
        """Numbers of static, compressed and stretched coefficients."""
        return self.static.count, self.compressed.count, self.stretched.count

    def first(self, static: int, compressed: int, stretched: int) -> DetailBasis:
        """The same bases with their first coefficients only."""
        return replace(
            self,
            static=self.static.first(static),
            compressed=self.compressed.first(compressed),
            stretched=self.stretched.first(stretched),
        )

    def to(self, *args: Any) -> DetailBasis:
        """Copy on another device or in another dtype."""
        texels = self.texels.to(*(a for a in args if not isinstance(a, torch.dtype)))
        parts = {state: getattr(self, state).to(*args) for state in STATES}
        return replace(self, texels=texels, **parts)

    def scatter(self, values: Tensor) -> Tensor:
        """Maps [*B, 1, S, S] of values [*B, P] at the face's texels, 0 elsewhere. Differentiable."""
        flat = values.new_zeros(*values.shape[:-1], self.size * self.size)
        return flat.index_copy(-1, self.texels, values).unflatten(-1, (1, self.size, self.size))

    @cached_property
    def support(self) -> Tensor:
        """[1, S, S] 1 at the face's texels, 0 elsewhere."""
        return self.scatter(torch.ones_like(self.static.mean))

    def gather(self, maps: Tensor) -> Tensor:
        """Values [*B, P] at the face's texels of maps [*B, 1, S, S] or [*B, S, S] without channel.

        Raises:
            ShapeError: The maps have another size.
        """
        if maps.shape[-2:] != (self.size, self.size):
            raise ShapeError(f"the detail basis is for {self.size} x {self.size}, got {tuple(maps.shape)}")
        if maps.dim() > 2 and maps.shape[-3] == 1:
            maps = maps.squeeze(-3)
        return maps.flatten(-2).index_select(-1, self.texels)


def save_basis(basis: DetailBasis, path: Path) -> None:
    """Writes a basis, one byte for each number of its rows; the file appears whole or not at all.

    Raises:
        OutputError: The file cannot be written.
    """
    tensors: dict[str, Tensor] = {"texels": basis.texels.to(torch.int32)}
    for state in STATES:
        part: StateBasis = getattr(basis, state)
        scale = part.rows.abs().amax(dim=1) / 127
        tensors[f"{state}.rows"] = (part.rows / scale[:, None]).round().to(torch.int8)
        tensors[f"{state}.scale"] = scale.float()
        tensors[f"{state}.mean"] = part.mean.float()
        tensors[f"{state}.weight"] = (255 * part.weight).round().to(torch.uint8)
    head = {"kind": "detail_basis", "format": FORMAT_VERSION, "model": basis.model, "size": str(basis.size)}
    partial = path.with_name(f".{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file(tensors, str(partial), metadata={**basis.notes, **head})
        partial.replace(path)
    except OSError as error:
        raise OutputError(f"{path} cannot be written ({error}); choose another file") from error
    finally:
        partial.unlink(missing_ok=True)


def read_basis(path: Path) -> DetailBasis:
    """Reads a file written by `save_basis`.

    Raises:
        AssetError: The file is missing, damaged or holds something else.
    """
    tensors, metadata = read_safetensors(path)
    if metadata.get("kind") != "detail_basis":
        found = metadata.get("kind", "something else")
        raise AssetError(f"{path.name} holds {found!r}, not a detail basis; make one with: hiface basis")
    try:
        parts: list[StateBasis] = []
        for state in STATES:
            rows = tensors[f"{state}.rows"].float() * tensors[f"{state}.scale"][:, None]
            parts.append(StateBasis(tensors[f"{state}.mean"], rows, tensors[f"{state}.weight"].float() / 255))
        size, texels = int(metadata["size"]), tensors["texels"].to(torch.int64)
        if any(part.mean.shape != texels.shape or part.rows.shape[1:] != texels.shape for part in parts):
            raise ValueError("its parts have different numbers of texels")
        if not 0 <= int(texels.min()) <= int(texels.max()) < size * size:
            raise ValueError("its texels lie outside its map")
        return DetailBasis(metadata["model"], size, texels, parts[0], parts[1], parts[2], metadata)
    except (KeyError, ValueError, RuntimeError) as error:
        raise AssetError(
            f"{path.name} is not a whole detail basis ({error}); make it again with: hiface basis"
        ) from error


@cache
def load_detail_basis(model: str = "open", path: Path | None = None) -> DetailBasis:
    """The packaged basis (256 x 256), or one from a file; remembered after the first call.

    Args:
        model: Name of the face model.
        path: A file made by `hiface basis`.

    Raises:
        AssetError: There is no basis for the model, or the file is damaged or belongs to another model.
    """
    basis = read_basis(path or asset_path("open/detail.safetensors"))
    if basis.model != model:
        raise AssetError(
            f"the detail basis {path or 'in the package'} is for the face model {basis.model!r}, not "
            f"{model!r}: their texture spaces differ; make one with: hiface basis"
        )
    return basis


def explained(basis: DetailBasis) -> dict[str, dict[str, float]]:
    """State to number of coefficients to share of the variance of people not used to make the basis."""
    return json.loads(basis.notes.get("explained", "{}"))
