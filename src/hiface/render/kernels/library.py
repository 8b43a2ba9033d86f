# SPDX-License-Identifier: Apache-2.0
"""The compiled CPU kernels: finding and loading the library, and sharing images out to threads."""

from __future__ import annotations

import ctypes
import functools
import logging
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path

import torch

logger = logging.getLogger(__name__)

_LIBRARY_NAMES = ("_kernels.so", "_kernels.dylib", "_kernels.dll")
_RETURN_SIZE = {
    *("hiface_zbuffer_scratch", "hiface_source_hash", "hiface_find_cuts"),
    *("hiface_front", "hiface_shade_skin"),
}
_pools: dict[int, ThreadPoolExecutor] = {}


def load_library(path: Path) -> ctypes.CDLL:
    """Loads a library made by `build_library` and declares its functions.

    Args:
        path: File to load.

    Returns:
        The library; its calls release the interpreter lock.

    Raises:
        OSError: The file is missing, made for another machine or from other sources.
        AttributeError: The file is an unrelated library.
    """
    # Imported here so that `python -m hiface.render.kernels.build` does not find itself imported already.
    from hiface.render.kernels.build import source_hash

    library = ctypes.CDLL(str(path))
    size, pointer, int32 = ctypes.c_int64, ctypes.c_void_p, ctypes.c_int32
    signatures = {
        "hiface_source_hash": [],
        "hiface_zbuffer_scratch": [size, size, size],
        "hiface_zbuffer": [
            pointer,
            size,
            size,
            pointer,
            size,
            int32,
            int32,
            ctypes.c_float,
            pointer,
            pointer,
        ],
        "hiface_find_cuts": [pointer],
        "hiface_count_fragments": [pointer, size, size, pointer],
        "hiface_list_fragments": [pointer, size, pointer],
        "hiface_scatter_rows": [pointer, pointer, *[size] * 6, pointer],
        "hiface_gather_rows": [pointer, pointer, *[size] * 6, pointer],
        "hiface_shade_forward": [pointer, pointer, size, size, size, pointer],
        "hiface_shade_backward": [pointer, pointer, size, size, size, pointer, pointer, pointer],
        "hiface_surface_forward": [pointer, size, size, size, pointer],
        "hiface_surface_backward": [pointer, size, size, size, pointer, pointer, pointer],
        "hiface_project": [pointer, size, pointer, size, ctypes.c_float, pointer, pointer],
        "hiface_front": [pointer],
        "hiface_front_rows": [pointer],
        "hiface_seen_vertices": [pointer, size, size, pointer, pointer],
        "hiface_with_neighbours": [pointer, pointer, size, pointer],
        "hiface_put": [pointer],
        "hiface_resolve": [pointer, pointer, ctypes.c_float, size, pointer],
        "hiface_received": [pointer],
        "hiface_shade_skin": [pointer],
        "hiface_vertex_normals": [pointer, size, pointer, size, size, pointer],
        "hiface_relief_texels": [pointer, size, pointer],
        "hiface_shade_body": [pointer],
        "hiface_label_maps": [pointer, pointer],
        "hiface_srgb_pixels": [pointer, size, pointer, pointer, pointer],
        "hiface_normal_pixels": [pointer, size, pointer],
        "hiface_step_pixels": [pointer, size, ctypes.c_float, ctypes.c_float, pointer],
        "hiface_look_up": [pointer, size, ctypes.c_float, ctypes.c_float, pointer, size, pointer],
    }
    for name, arguments in signatures.items():
        function = getattr(library, name)
        function.argtypes = arguments
        function.restype = size if name in _RETURN_SIZE else None
    if library.hiface_source_hash() != source_hash():
        raise OSError("it was made from other sources than these")
    return library


@functools.cache
def packaged_library() -> ctypes.CDLL | None:
    """The library next to the source, or None (with one warning) if it was not built or does not load."""
    folder = Path(__file__).parent
    for path in (folder / name for name in _LIBRARY_NAMES):
        if path.is_file():
            try:
                return load_library(path)
            except (OSError, AttributeError) as error:
                logger.warning("the compiled kernels in %s do not load: %s", path.name, error)
    logger.warning(
        "the compiled rendering kernels are missing and slower ones are used; build them with: "
        "pip install ziglang && python -m hiface.render.kernels.build"
    )
    return None


def loaded_library() -> ctypes.CDLL:
    """The library, for callers that know that it is there (`has_library`)."""
    library = packaged_library()
    assert library is not None
    return library


def has_library() -> bool:
    """Whether the compiled library is there and loads."""
    return packaged_library() is not None


def _thread_pool(workers: int) -> ThreadPoolExecutor:
    if workers not in _pools:
        _pools[workers] = ThreadPoolExecutor(workers, thread_name_prefix="hiface-kernels")
    return _pools[workers]


if hasattr(os, "register_at_fork"):
    # Threads do not survive a fork, so the child must not inherit pools that look alive.
    os.register_at_fork(after_in_child=_pools.clear)


def for_image_chunks(n_images: int, work: Callable[[int, int], None]) -> None:
    """Calls `work(first, stop)` on chunks that cover all images, over `torch.get_num_threads()` threads.

    Args:
        n_images: Number of images.
        work: Handles images first..stop - 1; exceptions reach the caller.
    """
    workers = min(torch.get_num_threads(), n_images)
    if workers <= 1:
        work(0, n_images)
        return
    bounds = [n_images * i // workers for i in range(workers + 1)]
    pool = _thread_pool(workers)
    for future in [pool.submit(work, first, stop) for first, stop in pairwise(bounds)]:
        future.result()
