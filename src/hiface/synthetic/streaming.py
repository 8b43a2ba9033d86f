# SPDX-License-Identifier: Apache-2.0
"""Samples rendered on the fly, without a disk in between."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from itertools import count
from multiprocessing import get_context

import numpy as np
import torch

from hiface.errors import HifaceError
from hiface.morphable import MorphableModel
from hiface.synthetic.datasets import DataSpec, make_samples, make_spec, open_model
from hiface.synthetic.generator import SyntheticSample
from hiface.synthetic.records import sample_arrays, sample_from_arrays

_CHUNK = 3  # pictures of one person
_AHEAD = 3  # chunks that each worker may be ahead


def _render(spec: DataSpec, start: int) -> list[dict[str, np.ndarray]]:
    """Samples of one chunk as arrays: they pass between processes without shared memory to run out of."""
    torch.set_num_threads(1)
    numbers = range(start, start + _CHUNK)
    return [sample_arrays(p) for _, group in make_samples(open_model(), spec, numbers) for p in group]


def _in_workers(spec: DataSpec, start: int, workers: int) -> Generator[SyntheticSample, None, None]:
    pool = ProcessPoolExecutor(workers, mp_context=get_context("spawn"))
    try:
        chunks = count(start, _CHUNK)
        pending: deque[Future[list[dict[str, np.ndarray]]]] = deque(
            pool.submit(_render, spec, next(chunks)) for _ in range(workers * _AHEAD)
        )
        while True:
            arrays = pending.popleft().result()
            pending.append(pool.submit(_render, spec, next(chunks)))
            yield from map(sample_from_arrays, arrays)
    except BrokenProcessPool as error:
        fix = "use fewer workers if memory ran out; in a script, call it below if __name__ == '__main__':"
        raise HifaceError(f"a worker process was killed or could not start; {fix}") from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def stream_spec(
    spec: DataSpec, start: int = 0, workers: int = 0, model: MorphableModel | None = None
) -> Generator[SyntheticSample, None, None]:
    """Endless samples of a `DataSpec`, in order.

    Args:
        spec: What to make.
        start: Number of the first sample.
        workers: Processes that render ahead; 0 renders in this one. The samples do not depend on it.
        model: Face model; the open model if None. Workers always use the open model.

    Yields:
        SyntheticSample; the views of a pair and the frames of a clip follow each other.

    Raises:
        HifaceError: A worker was killed.
    """
    if workers > 0:
        yield from _in_workers(spec, start, workers)
        return
    for _, group in make_samples(model or open_model(), spec, count(start)):
        yield from group


def stream(
    size: int = 192,
    seed: int = 0,
    kind: str = "images",
    effects: str = "all",
    labels: tuple[str, ...] = (),
    length: int | None = None,
    start: int = 0,
    workers: int = 0,
) -> Generator[SyntheticSample, None, None]:
    """Endless labelled pictures, rendered as they are asked for; the same as those of `hiface synth`.

    Args:
        size: Side of a picture in pixels.
        seed: Number of the data set; other numbers show other people.
        kind: "images", "pairs", "clips" or "rgbd".
        effects: "all", "plain" or names (`hiface.synthetic.effects`).
        labels: Groups of labels beside the basic ones: "maps", "vertices", "displacement",
            "codes".
        length: Views of a pair (2) or frames of a clip (16).
        start: Number of the first sample.
        workers: Processes that render ahead; 0 renders in this one. They import the script they are started
            from, so call this below `if __name__ == "__main__":` there.

    Returns:
        Generator of `SyntheticSample`; the views of a pair and the frames of a clip follow each other. Its
        `close()` ends the workers.

    Raises:
        OptionError: An option is unknown.
    """
    return stream_spec(make_spec(kind, size, seed, effects, labels, length), start, workers)
