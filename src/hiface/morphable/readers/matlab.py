# SPDX-License-Identifier: Apache-2.0
"""Reads MATLAB files by scipy, an optional dependency."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from pathlib import Path
from typing import Any

from hiface.errors import ModelFormatError
from hiface.optional import needed

_LARGEST_BYTES = 2**31
_VALUE_BYTES = 8


def mat_names(path: Path) -> tuple[str, ...]:
    """Names of the variables of a .mat file of version 5 to 7.

    Raises:
        ModelFormatError: The file is missing or damaged, or of version 7.3.
        MissingExtraError: scipy is not installed.
    """
    return tuple(row[0] for row in _scipy(path, "whosmat", {}))


def read_mat(path: Path, names: Sequence[str] | None = None) -> dict[str, Any]:
    """Reads variables of a .mat file.

    Args:
        path: The file.
        names: Variables to read; all if None. Those that the file lacks are left out.

    Raises:
        ModelFormatError: As for `mat_names`, or a variable is larger than any of a face model.
        MissingExtraError: scipy is not installed.
    """
    for name, shape, _ in _scipy(path, "whosmat", {}):
        if (names is None or name in names) and prod(map(int, shape)) * _VALUE_BYTES > _LARGEST_BYTES:
            raise ModelFormatError(f"{path.name}: {name} of {shape} is larger than any part of a face model")
    return _scipy(path, "loadmat", {"variable_names": names})


def _scipy(path: Path, function: str, options: dict[str, Any]) -> Any:
    scipy_io = needed("scipy.io", ".mat files need scipy")
    try:
        return getattr(scipy_io, function)(path, appendmat=False, **options)
    except NotImplementedError as error:
        raise ModelFormatError(
            f"{path.name}: expected a MATLAB file of version 5 or 7, found version 7.3; "
            "save it in MATLAB with save(..., '-v7')"
        ) from error
    except Exception as error:  # scipy raises many kinds for a damaged file
        if isinstance(error, OSError) and error.strerror:
            raise ModelFormatError(f"{path} cannot be read ({error.strerror}); check its name") from error
        raise ModelFormatError(
            f"{path.name}: expected a whole MATLAB file, found a damaged one ({type(error).__name__}: "
            f"{str(error)[:100]}); download it again"
        ) from error
