# SPDX-License-Identifier: Apache-2.0
"""Decoded copies of tar shards beside them, to be mapped into memory; made at the first use.

A decoded shard is three files in `.cache`, named after the shard and the start of its hash, so that a shard
that changes is decoded again; the labels are written last, so that a copy counts only when it is whole.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np

from hiface.errors import AssetError, OutputError
from hiface.synthetic.records import LABELS_FILE, PICTURES, decode_arrays, map_file
from hiface.synthetic.tars import file_sha256, read_tar

CACHE_FOLDER = ".cache"
_HASH_LETTERS = 12
_SMALL_MAPS = ("detail_codes",)  # kept with the labels, as "map.NAME"
_AGAIN = "run the same hiface synth command again, it makes this shard anew"


@dataclass(frozen=True)
class DecodedShard:
    """Where a decoded shard lies.

    Attributes:
        images: uint8 [N, 4, S, S], sRGB and alpha.
        segmentation: uint8 [N, S, S].
        labels: Label arrays of N rows.
    """

    images: Path
    segmentation: Path
    labels: Path


def cache_paths(folder: Path, entry: dict) -> DecodedShard:
    """Files of a decoded shard.

    Args:
        folder: Folder of the shard.
        entry: The shard's entry in the manifest.
    """
    stem = f"{Path(entry['name']).stem}.{entry['sha256'][:_HASH_LETTERS]}"
    cache = folder / CACHE_FOLDER
    return DecodedShard(
        cache / f"{stem}.images.npy", cache / f"{stem}.segmentation.npy", cache / f"{stem}.labels.npz"
    )


def _pictures(path: Path) -> Iterator[dict[str, bytes]]:
    """The files of every picture of a shard; a pair or clip has several."""
    ending = f"{PICTURES[0]}"
    wanted = (*PICTURES, LABELS_FILE, *(map_file(name) for name in _SMALL_MAPS))
    for _, files in read_tar(path):
        for name in sorted(files):
            if name.endswith(ending):
                prefix = name.removesuffix(ending)
                yield {key: files[prefix + key] for key in wanted if prefix + key in files}


def _check(path: Path, entry: dict) -> None:
    """Refuses a shard that is not the one of the manifest."""
    try:
        size = path.stat().st_size
        if size != entry["bytes"]:
            raise AssetError(f"{path.name} has {size} bytes instead of {entry['bytes']}; {_AGAIN}")
        if file_sha256(path) != entry["sha256"]:
            raise AssetError(f"{path.name} has other content than when it was made; {_AGAIN}")
    except OSError as error:
        raise AssetError(f"cannot read {path.name} ({error}); {_AGAIN}") from error


def _decode(path: Path) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]:
    images, segmentation, labels = [], [], []
    for files in _pictures(path):
        arrays = decode_arrays(files, maps=_SMALL_MAPS)
        images.append(np.concatenate([arrays.pop("image").transpose(2, 0, 1), arrays.pop("alpha")[None]]))
        segmentation.append(arrays.pop("mask"))
        labels.append(arrays)
    if not images:
        raise AssetError(f"{path.name} is empty; {_AGAIN}")
    names = set(labels[0]).intersection(*labels)
    stacked = {name: np.stack([row[name] for row in labels]) for name in sorted(names)}
    return np.stack(images), np.stack(segmentation), stacked


def _write(path: Path, save: Callable[[IO[bytes]], None]) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with temporary.open("wb") as handle:
            save(handle)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def decoded_shard(folder: Path, entry: dict) -> DecodedShard:
    """A decoded shard, made now if it is not there yet.

    Args:
        folder: Folder of the shard.
        entry: The shard's entry in the manifest.

    Returns:
        Paths of whole files.

    Raises:
        AssetError: The shard is missing, cut or damaged.
        OutputError: The copy cannot be written.
    """
    path, out = folder / entry["name"], cache_paths(folder, entry)
    if all(p.is_file() for p in (out.images, out.segmentation, out.labels)):
        return out
    _check(path, entry)
    images, segmentation, labels = _decode(path)
    try:
        out.labels.parent.mkdir(exist_ok=True)
        for other in out.labels.parent.glob(f"{path.stem}.*"):
            if not other.name.startswith(out.labels.name.removesuffix("labels.npz")):
                other.unlink(missing_ok=True)  # of an older shard; who decodes this one now writes the same
        _write(out.images, lambda handle: np.save(handle, images))
        _write(out.segmentation, lambda handle: np.save(handle, segmentation))
        _write(out.labels, lambda handle: np.savez(handle, **labels))  # pyright: ignore[reportArgumentType]
    except OSError as error:
        fix = f"decoded pictures need {(images.nbytes + segmentation.nbytes) / 1e6:.0f} MB for each shard"
        raise OutputError(f"cannot write to {out.labels.parent} ({error}); {fix}") from error
    return out
