# SPDX-License-Identifier: Apache-2.0
"""Reads synthetic shards, decoded once and mapped into memory, and draws random samples from all of them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from hiface.assets import load_json_asset
from hiface.errors import AssetError
from hiface.synthetic.datasets import held_out
from hiface.training.shard_cache import decoded_shard

TURNED_FROM = np.radians(50.0)
VALIDATION_EVERY = 25  # of 25 persons one is kept for validation
_POINTS = ("landmarks68_px", "dense_px", "iris_px")
_VISIBLE = ("visible68", "visible_dense", "visible_iris")
LABELS = (*_POINTS, *_VISIBLE, "K", "T_cam_head", "person")


@dataclass(frozen=True)
class Samples:
    """Synthetic pictures with their labels.

    Attributes:
        images: [B, 4, S, S] uint8, sRGB over its background, and the person's alpha.
        segmentation: [B, S, S] uint8 region of each pixel; [B, 0, 0] where it was not asked for.
        points_px: [B, L, 2] 68, dense and iris points, pixels.
        visible: [B, L] bool.
        R_cam_head: [B, 3, 3] rotation of the head.
        K: [B, 3, 3].
        more: Further labels that were asked for, by name, [B, ...].
    """

    images: Tensor
    segmentation: Tensor
    points_px: Tensor
    visible: Tensor
    R_cam_head: Tensor
    K: Tensor
    more: dict[str, Tensor] = field(default_factory=dict)


def _turn(R_cam_head: np.ndarray, head_cam: np.ndarray) -> np.ndarray:
    """[N] radians between the way a head faces and the way to the camera."""
    towards = -(head_cam[:, None] @ R_cam_head)[:, 0]  # in head axes; the head faces +Z
    return np.arctan2(np.hypot(towards[:, 0], towards[:, 1]), towards[:, 2])


class _Shard:
    """One shard: pictures mapped, labels in memory."""

    def __init__(self, folder: Path, entry: dict, more: tuple[str, ...], optional: Mapping[str, int]) -> None:
        paths = decoded_shard(folder, entry)
        self.images = np.load(paths.images, mmap_mode="r")
        self.segmentation = np.load(paths.segmentation, mmap_mode="r")
        with np.load(paths.labels) as labels:
            missing = [key for key in (*LABELS, *more) if key not in labels]
            if missing:
                words = ", ".join(name.removeprefix("map.") for name in missing)
                with_codes = " and --labels codes" if "map.detail_codes" in missing else ""
                raise AssetError(
                    f"{entry['name']} has no {words}; make the data again with this version{with_codes}"
                )
            values = {key: labels[key] for key in LABELS}
            self.more = {key: labels[key] for key in more}
            for key, width in optional.items():
                lacking = np.full((len(values["person"]), width), np.nan, np.float32)
                self.more[key] = labels[key] if key in labels else lacking
        self.points = np.concatenate(
            [values["landmarks68_px"], values["dense_px"], values["iris_px"]], axis=1
        )
        self.visible = np.concatenate(
            [values["visible68"], values["visible_dense"], values["visible_iris"]], axis=1
        )
        self.R = values["T_cam_head"][:, :3, :3].astype(np.float32)
        self.K = values["K"].astype(np.float32)
        self.turn = _turn(self.R, values["T_cam_head"][:, :3, 3].astype(np.float32))
        held = (values["person"] % VALIDATION_EVERY == 0) | held_out(values["person"])
        finite = np.isfinite(self.points).all(axis=(1, 2))
        self.training = np.nonzero(~held & finite)[0]
        self.validation = np.nonzero(held & finite)[0]


class ShardSet:
    """All whole shards of one or more folders; `refresh` picks up new ones.

    Args:
        folders: Folders written by `hiface.synthetic`.
        validation: Draw from the persons kept for validation, and those of the data sets that are only
            measured on, instead of the others.
        more_turned: Heads at 90 degrees to the camera are drawn 1 + `more_turned` times as often as those
            that face it; half as much more at 110 degrees, and less down to 50.
        more: Names of further labels that samples shall carry.
        optional: Names and widths of labels that not all shards have; nan where they are missing.

    Raises:
        AssetError: There is no shard, or one does not have the expected content.
    """

    def __init__(
        self,
        folders: tuple[Path, ...],
        validation: bool = False,
        more_turned: float = 0.0,
        more: tuple[str, ...] = (),
        optional: Mapping[str, int] | None = None,
    ) -> None:
        self._folders, self._validation, self._more_turned = folders, validation, more_turned
        self._more, self._optional = more, optional or {}
        self._shards: dict[tuple[Path, str], _Shard] = {}
        self.refresh()
        if len(self) == 0:
            where = ", ".join(str(f) for f in folders)
            raise AssetError(f"no synthetic pictures in {where}; make some with: hiface synth -o DIR")

    def refresh(self) -> None:
        """Adds shards that were finished since the last call.

        Raises:
            AssetError: A shard is damaged.
        """
        for folder in self._folders:
            for entry in shard_entries(folder):
                key = (folder / entry["name"], entry["sha256"])
                if key not in self._shards:
                    self._shards[key] = _Shard(folder, entry, self._more, self._optional)
        table = [
            (i, j)
            for i, shard in enumerate(self._shards.values())
            for j in (shard.validation if self._validation else shard.training)
        ]
        self._table = np.asarray(table, dtype=np.int64).reshape(-1, 2)
        self._list = list(self._shards.values())
        turn = np.array([self._list[i].turn[j] for i, j in table])
        past = ((turn - TURNED_FROM) / (np.pi / 2 - TURNED_FROM)).clip(0, 1.5)
        side = np.array([shard.images.shape[-1] for shard in self._list], dtype=np.int64)[self._table[:, 0]]
        self._groups = [
            (np.flatnonzero(side == size), np.cumsum((1 + self._more_turned * past)[side == size]))
            for size in np.unique(side)
        ]

    def __len__(self) -> int:
        return len(self._table)

    @property
    def counts(self) -> tuple[int, int, int]:
        """Number of 68, dense and iris points."""
        manifest = manifest_of(self._folders[0])
        sets = manifest["landmark_sets"]
        return int(sets["ibug68"]), int(sets["dense"]), int(sets["iris"])

    def labels(self, name: str) -> np.ndarray:
        """[len(self), ...] a further label of all samples, in their order."""
        return np.stack([self._list[i].more[name][j] for i, j in self._table])

    def draw(self, rng: np.random.Generator, count: int, segmentation: bool = True) -> Samples:
        """Random samples, with replacement; all of one size, where the folders have pictures of several."""
        group = 0
        if len(self._groups) > 1:
            shares = np.cumsum([chances[-1] for _, chances in self._groups])
            group = int(np.searchsorted(shares, rng.random() * shares[-1], side="right"))
        members, chances = self._groups[min(group, len(self._groups) - 1)]
        ids = np.searchsorted(chances, rng.random(count) * chances[-1], side="right")
        return self.take(members[ids.clip(max=len(members) - 1)], segmentation)

    def take(self, ids: np.ndarray, segmentation: bool = True) -> Samples:
        """Samples by number, 0 .. len - 1; their pictures must have one size."""
        where = [(self._list[i], j) for i, j in self._table[ids]]
        regions = [s.segmentation[j] if segmentation else s.segmentation[j, :0, :0] for s, j in where]
        return Samples(
            images=torch.from_numpy(np.stack([s.images[j] for s, j in where])),
            segmentation=torch.from_numpy(np.stack(regions)),
            points_px=torch.from_numpy(np.stack([s.points[j] for s, j in where]).astype(np.float32)),
            visible=torch.from_numpy(np.stack([s.visible[j] for s, j in where])),
            R_cam_head=torch.from_numpy(np.stack([s.R[j] for s, j in where])),
            K=torch.from_numpy(np.stack([s.K[j] for s, j in where])),
            more={
                name: torch.from_numpy(np.stack([s.more[name][j] for s, j in where]))
                for name in (*self._more, *self._optional)
            },
        )


def manifest_of(folder: Path) -> dict:
    """The manifest of a folder of shards.

    Raises:
        AssetError: It is missing or damaged.
    """
    try:
        return json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError) as error:
        raise AssetError(
            f"{folder} has no usable manifest.json ({error}); it is not a folder of synthetic data"
        ) from error


def shard_entries(folder: Path) -> list[dict]:
    """What a folder's manifest says of each finished shard.

    Raises:
        AssetError: The manifest is missing, damaged or of an older format.
    """
    manifest = manifest_of(folder)
    entries = manifest.get("shards") if isinstance(manifest, dict) else None
    if not isinstance(entries, list):
        raise AssetError(f"{folder} has no list of shards; make the data again with: hiface synth -o DIR")
    keys = {"name", "bytes", "sha256"}
    for entry in entries:
        if not (isinstance(entry, dict) and keys <= set(entry)):
            raise AssetError(f"{folder} has a damaged manifest.json; run the same hiface synth command again")
    return entries


def mirror_of(names: tuple[str, ...] = ("ibug68", "dense", "iris")) -> Tensor:
    """Mirror indices of several landmark sets of the open model, laid one after another.

    Args:
        names: Names of the sets; each file must have its mirror.

    Returns:
        [L] int64.

    Raises:
        AssetError: A set is missing or has no mirror indices.
    """
    parts, start = [], 0
    for name in names:
        mirror = load_json_asset(f"open/landmarks/{name}.json").get("mirror")
        if mirror is None:
            raise AssetError(f"landmark set {name!r} has no mirror indices; rebuild the landmark sets")
        parts.append(torch.tensor(mirror) + start)
        start += len(mirror)
    return torch.cat(parts)
