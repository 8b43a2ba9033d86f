# SPDX-License-Identifier: Apache-2.0
"""Folders of tar shards with a manifest, written whole or not at all, so that an interrupted run can go on.

A shard counts as done when the manifest lists it, and it is listed after it has been renamed from its
temporary name; what the manifest lists but is cut, changed or missing is made again, with the same bytes.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path

import torch

from hiface.errors import OptionError, OutputError
from hiface.morphable import MorphableModel
from hiface.synthetic.datasets import DataSpec, make_samples, open_model
from hiface.synthetic.generator import GENERATOR_VERSION, SEGMENTATION
from hiface.synthetic.records import encode_arrays, sample_arrays
from hiface.synthetic.tars import file_sha256, replace_file, write_tar

LOGGER = logging.getLogger(__name__)
FORMAT = "hiface synthetic shards, 1"
MANIFEST = "manifest.json"
SHARD_PICTURES = 500


def shard_name(index: int) -> str:
    """File name of a shard."""
    return f"shard-{index:06d}.tar"


def sample_files(model: MorphableModel, spec: DataSpec, numbers: range) -> Iterator[tuple[str, bytes]]:
    """Names and contents of all files of a run of samples, in order."""
    for number, pictures in make_samples(model, spec, numbers):
        for i, picture in enumerate(pictures):
            for name, content in encode_arrays(sample_arrays(picture)).items():
                yield f"{number:09d}.{spec.prefix(i)}{name}", content


def write_shard(model: MorphableModel, out_dir: Path, index: int, numbers: range, spec: DataSpec) -> dict:
    """Makes and writes one shard.

    Args:
        model: Face model.
        out_dir: Existing folder.
        index: Number of the shard.
        numbers: Numbers of its samples.
        spec: What to make.

    Returns:
        The manifest's entry: name, first sample, numbers of samples and pictures, bytes and SHA-256.

    Raises:
        OutputError: The file cannot be written.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # the same sums in the same order, whatever the machine
    try:
        size, digest = write_tar(out_dir / shard_name(index), sample_files(model, spec, numbers))
    finally:
        torch.set_num_threads(threads)
    return {
        "name": shard_name(index),
        "first": numbers.start,
        "samples": len(numbers),
        "pictures": len(numbers) * spec.length,
        "bytes": size,
        "sha256": digest,
    }


def _worker(out_dir: str, index: int, numbers: range, spec: DataSpec) -> tuple[int, dict]:
    return index, write_shard(open_model(), Path(out_dir), index, numbers, spec)


def landmark_hash(model: MorphableModel) -> str:
    """Short hash of where the labelled points lie on the mean shape (to 0.1 mm), to tell sets apart."""
    digest = hashlib.sha256()
    for name in ("ibug68", "dense", "iris"):
        if name in model.data.landmark_sets:
            points = model.landmarks(name, model.data.template)
            digest.update((points * 1e4).round().to(torch.int32).numpy().tobytes())
    return digest.hexdigest()[:16]


def describe(model: MorphableModel, spec: DataSpec) -> dict:
    """The part of a manifest that all shards of a folder share."""
    sets = model.data.landmark_sets
    return {
        "format": FORMAT,
        "generator_version": GENERATOR_VERSION,
        "model": {"name": model.data.name, "version": model.data.version},
        "kind": spec.kind,
        "seed": spec.seed,
        "size": spec.style.size,
        "length": spec.length,
        "effects": sorted(spec.style.effects),
        "labels": sorted(spec.style.labels),
        "shard_samples": max(1, SHARD_PICTURES // spec.length),
        "landmark_sets": {name: len(sets[name]) for name in ("ibug68", "dense", "iris") if name in sets},
        "landmark_hash": landmark_hash(model),
        "segmentation": list(SEGMENTATION),
    }


def _save_manifest(out_dir: Path, manifest: dict, count: int, entries: dict[int, dict]) -> None:
    content = {**manifest, "count": count, "shards": [entries[i] for i in sorted(entries)]}
    temporary = out_dir / f".{MANIFEST}.{os.getpid()}.part"
    try:
        with temporary.open("w", encoding="utf-8") as handle:
            handle.write(json.dumps(content, indent=1) + "\n")
            handle.flush()
            os.fsync(handle.fileno())
        replace_file(temporary, out_dir / MANIFEST)
    except OSError as error:
        fix = "make room or choose another folder and run the same command again"
        raise OutputError(f"cannot write {MANIFEST} in {out_dir} ({error}); {fix}") from error
    finally:
        temporary.unlink(missing_ok=True)


def _found(out_dir: Path, manifest: dict) -> tuple[int, list[dict]]:
    """Count and entries of a manifest that is there already; refuses a folder that holds other data."""
    path = out_dir / MANIFEST
    try:
        if not path.is_file():
            return 0, []
        found = json.loads(path.read_text(encoding="utf-8"))
        count = int(found.pop("count", 0))
        entries = [entry for entry in found.pop("shards", []) if isinstance(entry, dict)]
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise OutputError(f"cannot use {out_dir} for shards ({error}); choose another folder") from error
    if found != manifest:
        names = sorted(k for k in {*found, *manifest} if found.get(k) != manifest.get(k))
        differ = ", ".join(names)
        raise OutputError(f"{out_dir} holds data made with other settings ({differ}); choose another folder")
    return count, entries


@contextmanager
def _alone(out_dir: Path) -> Iterator[None]:
    """Refuses a folder that another run is writing to; the system lets go of it however a run ends.

    Does nothing on systems without such locks.
    """
    try:
        import fcntl
    except ImportError:
        yield
        return
    try:
        out_dir.mkdir(parents=True, exist_ok=True)
        handle = os.open(out_dir, os.O_RDONLY)
    except OSError as error:
        raise OutputError(f"cannot use {out_dir} for shards ({error}); choose another folder") from error
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            fix = "wait for it, or choose another folder and another seed"
            raise OutputError(f"another run is writing to {out_dir}; {fix}") from error
        except OSError as error:  # file systems without locks
            LOGGER.debug("no lock on %s: %s", out_dir, error)
        yield
    finally:
        os.close(handle)


def _is_whole(path: Path, entry: dict) -> bool:
    try:
        return path.stat().st_size == entry["bytes"] and file_sha256(path) == entry["sha256"]
    except (OSError, KeyError):
        return False


def _plan(
    out_dir: Path, manifest: dict, count: int, listed: list[dict]
) -> tuple[dict[int, range], dict[int, dict]]:
    """Samples of every shard that is to be made, and the entries of those that are kept."""
    step, known = manifest["shard_samples"], {entry.get("name"): entry for entry in listed}
    jobs, kept = {}, {}
    for index, start in enumerate(range(0, count, step)):
        numbers = range(start, min(start + step, count))
        entry = known.get(shard_name(index), {})
        whole = entry.get("samples") == len(numbers) and _is_whole(out_dir / shard_name(index), entry)
        if whole:
            kept[index] = entry
        else:
            jobs[index] = numbers
    return jobs, kept


def _make(out_dir: Path, jobs: dict[int, range], spec: DataSpec, workers: int) -> Iterator[tuple[int, dict]]:
    """Number and entry of each shard as it gets done."""
    if workers <= 1 or len(jobs) == 1:
        model = open_model()
        for index, numbers in jobs.items():
            yield index, write_shard(model, out_dir, index, numbers, spec)
        return
    pool = ProcessPoolExecutor(min(workers, max(1, len(jobs))), mp_context=get_context("spawn"))
    try:
        pending: set[Future[tuple[int, dict]]] = {
            pool.submit(_worker, str(out_dir), index, numbers, spec) for index, numbers in jobs.items()
        }
        while pending:
            done, pending = wait(pending, return_when=FIRST_COMPLETED)
            for future in done:
                yield future.result()
    except BrokenProcessPool as error:
        fix = "run the same command again, with fewer workers if memory ran out: finished shards are kept"
        raise OutputError(f"a worker process was killed; {fix}") from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def write_shards(
    out_dir: Path,
    count: int,
    spec: DataSpec,
    workers: int = 1,
    advance: Callable[[int, int], None] | None = None,
) -> None:
    """Writes shards of samples; whole shards that are there are kept.

    Args:
        out_dir: Folder, made if missing.
        count: Number of samples (pictures, pairs or clips). A folder with more keeps them.
        spec: What to make.
        workers: Processes; 1 works in this one. The bytes do not depend on it.
        advance: Called with the numbers of samples that are done and wanted, first with what is kept.

    Raises:
        OptionError: A number is out of range.
        OutputError: The folder cannot be written, holds other data or is in use, or a worker was killed.
    """
    if count < 1 or workers < 1:
        raise OptionError(f"count and workers must be 1 or more, got {count} and {workers}")
    with _alone(out_dir):
        _write_missing(out_dir, count, spec, workers, advance)


def _write_missing(
    out_dir: Path,
    count: int,
    spec: DataSpec,
    workers: int,
    advance: Callable[[int, int], None] | None,
) -> None:
    manifest = describe(open_model(), spec)
    before, listed = _found(out_dir, manifest)
    count = max(count, before)
    jobs, entries = _plan(out_dir, manifest, count, listed)
    _save_manifest(out_dir, manifest, count, entries)
    done = sum(entry["samples"] for entry in entries.values())
    if advance is not None:
        advance(done, count)
    for index, entry in _make(out_dir, jobs, spec, workers) if jobs else ():
        entries[index] = entry
        _save_manifest(out_dir, manifest, count, entries)
        done += entry["samples"]
        if advance is not None:
            advance(done, count)
