# SPDX-License-Identifier: Apache-2.0
"""Reads .npy and .npz files, those with pickled objects through the allow-list reader."""

from __future__ import annotations

import io
import math
import zipfile
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy_format

from hiface.errors import ModelFormatError
from hiface.morphable.safe_pickle import loads

NPY_MAGIC = b"\x93NUMPY"
ZIP_MAGIC = b"PK\x03\x04"
_LARGEST_BYTES = 2**31
_MOST_AXES = 32
_MOST_TIMES = 100  # numbers of a model hardly compress
_SMALL_BYTES = 2**20


def read_npy(path: Path) -> Any:
    """Reads a .npy file.

    Args:
        path: The file.

    Returns:
        The array; for an array of objects what they are (see `safe_pickle.loads`), a single one by itself.

    Raises:
        ModelFormatError: It cannot be read, is cut short or damaged, or holds objects that no model needs.
    """
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise ModelFormatError(f"{path} cannot be read ({error.strerror}); check its name") from error
    return _array(raw, path.name)


def npz_names(path: Path) -> tuple[str, ...]:
    """Names of the arrays of a .npz file.

    Raises:
        ModelFormatError: It is not one.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            return tuple(name.removesuffix(".npy") for name in archive.namelist() if name.endswith(".npy"))
    except (zipfile.BadZipFile, OSError) as error:
        raise ModelFormatError(f"{path.name} is no whole .npz file ({error}); download it again") from error


def read_npz(path: Path, names: Iterable[str], largest_bytes: int = _LARGEST_BYTES) -> dict[str, Any]:
    """Reads some arrays of a .npz file.

    Args:
        path: The file.
        names: Arrays to read; those that the file lacks are left out.
        largest_bytes: What they may take up together when unpacked; a small file can unpack to a huge one.

    Returns:
        Arrays by name.

    Raises:
        ModelFormatError: As for `read_npy`, or the arrays are too large.
    """
    found = {}
    left = largest_bytes
    present = npz_names(path)
    try:
        with zipfile.ZipFile(path) as archive:
            for name in names:
                if name not in present:
                    continue
                entry = archive.getinfo(f"{name}.npy")
                size = entry.file_size
                left -= size
                if left < 0 or size > _SMALL_BYTES + _MOST_TIMES * entry.compress_size:
                    raise ModelFormatError(
                        f"{path.name}: {name} has {size:,} bytes, more than a face model has "
                        f"({largest_bytes:,} in all)"
                    )
                found[name] = _array(archive.read(f"{name}.npy"), f"{path.name}: {name}")
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, NotImplementedError, RuntimeError) as error:
        raise ModelFormatError(f"{path.name} is a damaged .npz file ({error}); download it again") from error
    return found


def _array(raw: bytes, name: str) -> Any:
    stream = io.BytesIO(raw)
    try:
        version = npy_format.read_magic(stream)
        readers = {(1, 0): npy_format.read_array_header_1_0, (2, 0): npy_format.read_array_header_2_0}
        shape, fortran, dtype = readers[version](stream)
    except (ValueError, KeyError, TypeError, EOFError, SyntaxError) as error:
        raise ModelFormatError(f"{name}: expected a .npy array ({error}); the file is damaged") from error
    if len(shape) > _MOST_AXES or any(type(n) is not int or n < 0 for n in shape):
        raise ModelFormatError(
            f"{name}: expected a .npy array, found an impossible shape; the file is damaged"
        )
    rest = memoryview(raw)[stream.tell() :]
    if dtype.hasobject:
        content = loads(bytes(rest), name)
        single = isinstance(content, np.ndarray) and content.dtype == object and content.shape == ()
        return content.item() if single else content
    if dtype.kind not in "biufcSU" or dtype.itemsize == 0:
        raise ModelFormatError(f"{name}: expected plain numbers, found {dtype}; the file is no face model")
    if len(rest) != math.prod(shape) * dtype.itemsize:
        raise ModelFormatError(
            f"{name}: expected {math.prod(shape) * dtype.itemsize:,} bytes for shape {shape}, found "
            f"{len(rest):,}; download the file again"
        )
    try:
        return np.frombuffer(rest, dtype=dtype).reshape(shape, order="F" if fortran else "C")
    except ValueError as error:  # no values, and sides whose product is too large
        raise ModelFormatError(f"{name}: an array of an impossible shape ({error}); it is damaged") from error
