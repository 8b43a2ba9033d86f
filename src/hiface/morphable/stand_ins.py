# SPDX-License-Identifier: Apache-2.0
"""Inert holders for the objects inside pickled model files, and what they hold as plain arrays."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar

import numpy as np

from hiface.errors import ModelFormatError

SPARSE_FORMATS = ("csc_matrix", "csr_matrix", "coo_matrix", "csc_array", "csr_array", "coo_array")
_REORDERING = "chumpy.reordering"
CHUMPY_CLASSES = {("chumpy.ch", "Ch"), ("chumpy", "Ch")} | {
    (_REORDERING, name) for name in ("Select", "Reshape", "transpose", "Concatenate")
}
_LARGEST_DENSE = 2**27
_PLAIN_DTYPE = re.compile(r"[<>|=]?(?:[biuf][1248]|f16|[SU]\d{0,6}|O\d?|\?)")


class StandIn:
    """Holds the state of a pickled object and does nothing."""

    __slots__ = ("state",)
    kind: ClassVar[str] = "object"

    def __init__(self) -> None:
        self.state: Any = None

    def __setstate__(self, state: Any) -> None:
        self.state = state


class Inert(StandIn):
    """A class that is only named, as an argument."""

    __slots__ = ()

    def __setstate__(self, state: Any) -> None:
        raise ModelFormatError("the file gives a state to an object that has none; it is damaged")


class DtypeStandIn(StandIn):
    """A plain numpy type: numbers, text or objects, without fields."""

    __slots__ = ("code",)

    def __init__(self) -> None:
        super().__init__()
        self.code = ""

    @classmethod
    def make(cls, code: Any, align: Any = False, copy: Any = True) -> DtypeStandIn:
        """From the arguments of numpy.dtype.

        Raises:
            ModelFormatError: The type is not a plain one.
        """
        if not isinstance(code, str) or not _PLAIN_DTYPE.fullmatch(code):
            raise ModelFormatError(
                f"the file has an array of type {str(code)[:40]!r}; plain numbers expected"
            )
        made = cls()
        made.code = code
        return made

    def __setstate__(self, state: Any) -> None:
        if not isinstance(state, tuple) or len(state) < 5 or any(item is not None for item in state[2:5]):
            raise ModelFormatError("the file has an array with fields; plain numbers expected")
        order = state[1].decode("latin1") if isinstance(state[1], bytes) else state[1]
        if order not in ("<", ">", "|", "="):
            raise ModelFormatError("the byte order of an array is damaged")
        self.code = order + self.code.lstrip("<>|=")

    @property
    def dtype(self) -> np.dtype:
        """The numpy type."""
        code = self.code
        return np.dtype("O" if code.lstrip("<>|=").startswith("O") else code)


class ArrayStandIn(StandIn):
    """A numpy array in the making; becomes one when all its bytes are there."""

    __slots__ = ()

    def __setstate__(self, state: Any) -> None:
        if not isinstance(state, tuple) or len(state) not in (4, 5):
            raise ModelFormatError("an array of the file has no readable state; the file is damaged")
        shape, dtype, fortran, raw = state[-4:]
        sizes = (shape,) if isinstance(shape, int) else tuple(shape)
        if not all(isinstance(n, int) and n >= 0 for n in sizes) or not isinstance(dtype, DtypeStandIn):
            raise ModelFormatError(
                "an array of the file has an impossible shape or type; the file is damaged"
            )
        self.state = (sizes, dtype.dtype, bool(fortran), raw)

    def array(self) -> np.ndarray:
        """The array, a copy of the bytes; objects are still those of the file.

        Raises:
            ModelFormatError: There are fewer or more bytes than the shape needs.
        """
        if self.state is None:
            raise ModelFormatError("an array of the file is empty; the file is damaged")
        shape, dtype, fortran, raw = self.state
        count = math.prod(shape)
        if dtype.hasobject:
            items = raw if isinstance(raw, list) else [raw]
            if len(items) != count:
                raise ModelFormatError(
                    f"expected {count} objects in an array of shape {shape}, got {len(items)}"
                )
            found = np.empty(count, dtype=object)
            for i, item in enumerate(items):
                found[i] = item
        else:
            data = raw.encode("latin1") if isinstance(raw, str) else raw
            if not isinstance(data, bytes) or len(data) != count * dtype.itemsize:
                size = len(data) if isinstance(data, bytes) else "no"
                raise ModelFormatError(
                    f"expected {count * dtype.itemsize} bytes for an array of shape {shape}, found {size}"
                )
            found = np.frombuffer(data, dtype=dtype).copy()
        return found.reshape(shape, order="F" if fortran else "C")


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


class SparseStandIn(StandIn):
    """A scipy matrix by its state."""

    __slots__ = ()

    @staticmethod
    @cache
    def of(kind: str) -> type[SparseStandIn]:
        """The holder of one format, such as "csc_matrix"."""
        return type(f"_{kind}", (SparseStandIn,), {"kind": kind, "__slots__": ()})

    def matrix(self) -> SparseMatrix:
        """The entries, checked against the shape.

        Raises:
            ModelFormatError: The state is not that of such a matrix.
        """
        state = self.state
        if not isinstance(state, dict) or not ("_shape" in state or "shape" in state):
            raise ModelFormatError(f"a {self.kind} of the file has no shape; the file is damaged")
        shape = tuple(int(n) for n in resolve(state.get("_shape", state.get("shape"))))
        data = _vector(state, "data")
        if self.kind.startswith("coo"):
            coordinates = resolve(state["coords"]) if "coords" in state else (state["row"], state["col"])
            rows, columns = (np.asarray(resolve(c)).astype(np.int64) for c in coordinates)
        else:
            starts, inner = _vector(state, "indptr"), _vector(state, "indices").astype(np.int64)
            counts = np.diff(starts.astype(np.int64))
            if counts.min(initial=0) < 0 or counts.sum() != len(inner):
                raise ModelFormatError(f"a {self.kind} of the file has damaged row starts")
            outer = np.repeat(np.arange(len(counts)), counts)
            rows, columns = (inner, outer) if self.kind.startswith("csc") else (outer, inner)
        if len(shape) != 2 or min(shape) < 0 or not len(rows) == len(columns) == len(data):
            raise ModelFormatError(f"a {self.kind} of the file is damaged")
        inside = (rows >= 0) & (rows < shape[0]) & (columns >= 0) & (columns < shape[1])
        if not inside.all():
            raise ModelFormatError(f"a {self.kind} of the file has entries outside its shape {shape}")
        return SparseMatrix(rows, columns, data.astype(np.float64), (shape[0], shape[1]))


def _vector(state: dict, key: str) -> np.ndarray:
    if key not in state:
        raise ModelFormatError(f"a sparse matrix of the file has no {key}; the file is damaged")
    return np.asarray(resolve(state[key])).ravel()


class ChumpyStandIn(StandIn):
    """A chumpy object by its state: stored values, or stored values put in another order."""

    __slots__ = ()

    @staticmethod
    @cache
    def of(kind: str) -> type[ChumpyStandIn]:
        """The holder of one class, such as "chumpy.ch.Ch"."""
        return type("_Chumpy", (ChumpyStandIn,), {"kind": kind, "__slots__": ()})

    def array(self) -> np.ndarray:
        """The values.

        Raises:
            ModelFormatError: The state is not that of such an object.
        """
        state = self.state
        name = self.kind.rpartition(".")[2]
        try:
            if name == "Ch":
                return np.asarray(resolve(state["x"]))
            if name == "Concatenate":
                return np.concatenate([resolve(state[t]) for t in state["dterms"]], axis=int(state["axis"]))
            values = np.asarray(resolve(state["a"]))
            if name == "Select":
                chosen = values.ravel()[np.asarray(resolve(state["idxs"]))]
                shape = resolve(state.get("preferred_shape"))
                return chosen if shape is None else chosen.reshape(shape)
            if name == "Reshape":
                return values.reshape(resolve(state["newshape"]))
            return values.transpose(resolve(state.get("axes")))
        except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
            raise ModelFormatError(f"a {self.kind} of the file has no readable values ({error})") from error


def resolve(item: Any, memory: dict[int, tuple[Any, Any]] | None = None) -> Any:
    """Turns the holders inside a loaded object into arrays and matrices.

    Args:
        item: What the file's pickle gave.
        memory: Objects already turned, by identity, with the object so that it stays alive.

    Raises:
        ModelFormatError: A holder has no readable values, or an object contains itself.
    """
    memory = {} if memory is None else memory
    if id(item) in memory:
        done = memory[id(item)][1]
        if done is memory:
            raise ModelFormatError("an object of the file contains itself; it is not a face model")
        return done
    if not isinstance(item, StandIn | dict | list | tuple | np.ndarray):
        return item
    memory[id(item)] = (item, memory)
    result: Any
    if isinstance(item, dict):
        result = {resolve(k, memory): resolve(v, memory) for k, v in item.items()}
    elif isinstance(item, list | tuple):
        result = type(item)(resolve(i, memory) for i in item)
    elif isinstance(item, SparseStandIn):
        result = item.matrix()
    elif isinstance(item, ChumpyStandIn):
        result = item.array()
    elif isinstance(item, ArrayStandIn | np.ndarray):
        result = item.array() if isinstance(item, ArrayStandIn) else item
        if result.dtype.hasobject:
            filled = np.empty(result.shape, dtype=object)
            for index, value in np.ndenumerate(result):
                filled[index] = resolve(value, memory)
            result = filled[()] if filled.shape == () else filled
    else:
        raise ModelFormatError(f"the file holds a bare {item.kind}; expected arrays")
    memory[id(item)] = (item, result)
    return result
