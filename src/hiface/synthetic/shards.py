# SPDX-License-Identifier: Apache-2.0
"""Folders of fixed-size shards, written whole or not at all, so that an interrupted run can go on."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from hiface.errors import OutputError
from hiface.morphable import MorphableModel, load_model
from hiface.synthetic.generator import GENERATOR_VERSION, SEGMENTATION, SyntheticSample, generate_batch

SHARD_SIZE = 500
_SEED_STRIDE = 3_000_000_000
_CHUNK = 30


def shard_paths(out_dir: Path, index: int) -> dict[str, Path]:
    """Files of one shard: "images", "segmentation" and, written last, "labels"."""
    stem = out_dir / f"shard_{index:05d}"
    return {
        "images": stem.with_suffix(".images.npy"),
        "segmentation": stem.with_suffix(".segmentation.npy"),
        "labels": stem.with_suffix(".labels.npz"),
    }


def stack_samples(samples: Sequence[SyntheticSample]) -> dict[str, np.ndarray]:
    """Arrays of a shard.

    Args:
        samples: N samples of one size.

    Returns:
        "images" [N, 4, S, S], "segmentation" [N, S, S] and the label arrays by name.
    """

    def stack(name: str) -> np.ndarray:
        return torch.stack([getattr(s, name) for s in samples]).numpy()

    arrays = {
        "images": torch.stack([torch.cat([s.image_srgb, s.alpha[None]]) for s in samples]).numpy(),
        "segmentation": stack("segmentation"),
    }
    for name in (
        *(
            "landmarks68_px",
            "dense_px",
            "iris_px",
            "visible68",
            "visible_dense",
            "visible_iris",
            "depth68_cam",
        ),
        *("box", "T_cam_head"),
    ):
        arrays[name] = stack(name)
    for name in ("identity", "expression", "pose", "albedo", "light"):
        arrays[name] = torch.stack([getattr(s.params, name) for s in samples]).numpy()
    arrays["K"] = torch.stack([s.params.camera.K for s in samples]).numpy()
    arrays["T_cam_object"] = torch.stack([s.params.camera.T_cam_object for s in samples]).numpy()
    arrays["seed"] = np.array([s.seed for s in samples], dtype=np.int64)
    arrays["person"] = np.array([s.person for s in samples], dtype=np.int64)
    pictures = arrays["images"][:, :3].astype(np.int16)
    arrays["grey"] = (pictures.max(axis=1) - pictures.min(axis=1)).max(axis=(1, 2)) < 12
    return arrays


def _write_atomically(path: Path, write: str, arrays: dict[str, np.ndarray]) -> None:
    temporary = path.with_name(f".tmp-{os.getpid()}-{path.name}")
    try:
        with temporary.open("wb") as handle:
            if write == "npz":
                np.savez(handle, **arrays)  # pyright: ignore[reportArgumentType]
            else:
                np.save(handle, arrays[write])
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_shard(model: MorphableModel, out_dir: Path, index: int, seeds: Sequence[int], size: int) -> int:
    """Makes and writes one shard.

    Args:
        model: Face model.
        out_dir: Existing folder.
        index: Number of the shard.
        seeds: Seed of each picture.
        size: Side in pixels.

    Returns:
        Number of pictures written.
    """
    samples: list[SyntheticSample] = []
    for start in range(0, len(seeds), _CHUNK):
        samples += generate_batch(model, seeds[start : start + _CHUNK], size)
    arrays = stack_samples(samples)
    paths = shard_paths(out_dir, index)
    for name in ("images", "segmentation"):
        _write_atomically(paths[name], name, arrays)
    labels = {k: v for k, v in arrays.items() if k not in ("images", "segmentation")}
    _write_atomically(paths["labels"], "npz", labels)
    return len(samples)


def _worker(out_dir: str, index: int, seeds: list[int], size: int) -> int:
    torch.set_num_threads(1)
    return write_shard(load_model("open"), Path(out_dir), index, seeds, size)


def landmark_hash(model: MorphableModel) -> str:
    """Short hash of where the labelled points lie on the mean shape (to 0.1 mm), to tell sets apart."""
    digest = hashlib.sha256()
    for name in ("ibug68", "dense", "iris"):
        if name in model.data.landmark_sets:
            points = model.landmarks(name, model.data.template)
            digest.update((points * 1e4).round().to(torch.int32).numpy().tobytes())
    return digest.hexdigest()[:16]


def _manifest(model: MorphableModel, size: int, seed: int) -> dict:
    sets = model.data.landmark_sets
    return {
        "generator_version": GENERATOR_VERSION,
        "model": {"name": model.data.name, "version": model.data.version},
        "size": size,
        "seed": seed,
        "shard_size": SHARD_SIZE,
        "landmark_sets": {name: len(sets[name]) for name in ("ibug68", "dense", "iris") if name in sets},
        "landmark_hash": landmark_hash(model),
        "segmentation": list(SEGMENTATION),
    }


def _prepare(out_dir: Path, manifest: dict, count: int) -> None:
    """Makes the folder and its manifest; refuses a folder that holds other data."""
    path = out_dir / "manifest.json"
    try:
        out_dir.mkdir(parents=True, exist_ok=True)
        if path.is_file():
            found = json.loads(path.read_text(encoding="utf-8"))
            count = max(count, found.pop("count", 0))
            if found != manifest:
                raise OutputError(f"{out_dir} holds shards made with other settings; choose another folder")
        temporary = path.with_name(f".tmp-{os.getpid()}-manifest.json")
        temporary.write_text(json.dumps({**manifest, "count": count}, indent=1) + "\n", encoding="utf-8")
        temporary.replace(path)
    except (OSError, json.JSONDecodeError) as error:
        raise OutputError(f"cannot write shards to {out_dir} ({error}); choose another folder") from error


def _missing(out_dir: Path, count: int, seed: int) -> Iterator[tuple[int, list[int]]]:
    """Number and seeds of every shard that is not there yet."""
    for index, start in enumerate(range(0, count, SHARD_SIZE)):
        seeds = [seed * _SEED_STRIDE + i for i in range(start, min(start + SHARD_SIZE, count))]
        path = shard_paths(out_dir, index)["labels"]
        if path.is_file():
            with np.load(path) as labels:
                if len(labels["seed"]) == len(seeds):
                    continue
        yield index, seeds


def write_shards(out_dir: Path, n: int, size: int, workers: int, seed: int) -> None:
    """Writes shards of pictures; whole shards that are there are kept.

    Args:
        out_dir: Folder.
        n: Number of pictures.
        size: Side in pixels.
        workers: Processes; 1 works in this one.
        seed: Number of the data set.

    Raises:
        OutputError: The folder cannot be written or holds other data.
    """
    model = load_model("open")
    _prepare(out_dir, _manifest(model, size, seed), n)
    jobs = list(_missing(out_dir, n, seed))
    columns = (TextColumn("pictures"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns) as progress:
        task = progress.add_task("pictures", total=n, completed=n - sum(len(s) for _, s in jobs))
        if workers <= 1:
            for index, seeds in jobs:
                progress.advance(task, write_shard(model, out_dir, index, seeds, size))
            return
        pool = ProcessPoolExecutor(workers, mp_context=get_context("spawn"))
        try:
            pending: set[Future[int]] = {pool.submit(_worker, str(out_dir), i, s, size) for i, s in jobs}
            while pending:
                done, pending = wait(pending, return_when=FIRST_COMPLETED)
                for future in done:
                    progress.advance(task, future.result())
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
