# SPDX-License-Identifier: Apache-2.0
"""Values of files that are not trusted: what they may take up, and when they are plain arrays."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from hiface.errors import ModelFormatError

_LARGEST_DENSE = 2**27
LARGEST_BYTES = 2**30


class Budget:
    """Bytes that the content of one file may still take up: a small file can unfold to a huge one."""

    def __init__(self, limit: int) -> None:
        self.limit = self.left = limit

    def take(self, count: int) -> None:
        """Takes some of them, before they are allocated.

        Raises:
            ModelFormatError: So many are not left.
        """
        self.left -= count
        if self.left < 0:
            raise ModelFormatError(
                f"its content unfolds to more than {self.limit:,} bytes; it is not a face model"
            )


@dataclass(frozen=True)
class SparseMatrix:
    """A sparse matrix as its entries.

    Attributes:
        rows: [N] row of each entry.
        columns: [N] column of each entry.
        data: [N] values; entries at the same place add up.
        shape: Rows and columns.
    """

    rows: np.ndarray
    columns: np.ndarray
    data: np.ndarray
    shape: tuple[int, int]

    def to_dense(self) -> np.ndarray:
        """The matrix as a float64 array [rows, columns].

        Raises:
            ModelFormatError: It would be larger than a face model's can be.
        """
        if math.prod(self.shape) > _LARGEST_DENSE:
            raise ModelFormatError(f"a matrix of {self.shape} is too large for a face model")
        dense = np.zeros(self.shape)
        np.add.at(dense, (self.rows, self.columns), self.data)
        return dense


class Unreadable:
    """A value whose class hiface does not know, for example a sum; it is an error only if it is needed.

    Attributes:
        kind: The class in the file, such as "chumpy.ch_ops.add".
    """

    __slots__ = ("kind",)

    def __init__(self, kind: str) -> None:
        self.kind = kind

    def error(self) -> ModelFormatError:
        """What to raise where it is needed."""
        return ModelFormatError(
            f"the values are a {self.kind}, which hiface does not work out; save them as plain arrays"
        )


def as_array(value: Any) -> np.ndarray:
    """An array of what a file holds: an array, a number, a text or a flat list of them.

    Lists within lists are refused: one that holds another twice, and so on, unfolds without end.

    Raises:
        ModelFormatError: It is something else.
    """
    if isinstance(value, Unreadable):
        raise value.error()
    if isinstance(value, SparseMatrix):
        return value.to_dense()
    plain = isinstance(value, np.ndarray | np.generic | int | float | str | bytes)
    if not plain and isinstance(value, list | tuple):
        plain = all(isinstance(item, np.generic | int | float | str | bytes) for item in value)
    if not plain:
        raise ModelFormatError(f"expected an array, found {type(value).__name__}; the file is damaged")
    return np.asarray(value)


def plain_key(key: Any) -> Any:
    """The key of a dictionary or member of a set itself: text or a number.

    Hashing a tuple of tuples that share parts takes exponential time, of deep ones the whole stack.

    Raises:
        ModelFormatError: It is anything else.
    """
    if key is not None and not isinstance(key, str | bytes | int | float):
        raise ModelFormatError(f"a dictionary of the file has a {type(key).__name__} as a key; it is damaged")
    return key
