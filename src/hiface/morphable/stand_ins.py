# SPDX-License-Identifier: Apache-2.0
"""Inert holders for the objects inside pickled model files, and what they hold as plain arrays."""

from __future__ import annotations

import math
import re
from functools import cache, lru_cache
from typing import Any, ClassVar

import numpy as np

from hiface.errors import ModelFormatError
from hiface.morphable.file_values import Budget, SparseMatrix, Unreadable, as_array, plain_key

SPARSE_FORMATS = ("csc_matrix", "csr_matrix", "coo_matrix", "csc_array", "csr_array", "coo_array")
_REORDERING = "chumpy.reordering"
_READABLE_CHUMPY = {"chumpy.ch.Ch", "chumpy.Ch"} | {
    f"{_REORDERING}.{name}" for name in ("Select", "Reshape", "transpose", "Concatenate")
}
_MOST_AXES = 32
_LARGEST_SIDE = 2**31
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
            told = code[:40] if isinstance(code, str) else type(code).__name__
            raise ModelFormatError(f"the file has an array of type {told!r}; plain numbers expected")
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
        fits = len(sizes) <= _MOST_AXES and all(isinstance(n, int) and n >= 0 for n in sizes)
        if not fits or not isinstance(dtype, DtypeStandIn):
            raise ModelFormatError(
                "an array of the file has an impossible shape or type; the file is damaged"
            )
        self.state = (sizes, dtype.dtype, bool(fortran), raw)

    def array(self, budget: Budget) -> np.ndarray:
        """The array, a copy of the bytes; objects are still those of the file.

        Args:
            budget: Pays for the copy.

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
            budget.take(8 * count)
            found = np.empty(count, dtype=object)
            for i, item in enumerate(items):
                found[i] = item
        else:
            data = raw.encode("latin1") if isinstance(raw, str) else raw
            if not isinstance(data, bytes | bytearray) or len(data) != count * dtype.itemsize:
                size = len(data) if isinstance(data, bytes | bytearray) else "no"
                raise ModelFormatError(
                    f"expected {count * dtype.itemsize} bytes for an array of shape {shape}, found {size}"
                )
            budget.take(len(data))
            found = np.frombuffer(data, dtype=dtype).copy()
        return found.reshape(shape, order="F" if fortran else "C")


class _UnreadableError(Exception):
    """Carries an `Unreadable` out of the object that is made of it."""


class SparseStandIn(StandIn):
    """A scipy matrix by its state."""

    __slots__ = ()

    @staticmethod
    @cache
    def of(kind: str) -> type[SparseStandIn]:
        """The holder of one format, such as "csc_matrix"."""
        return type(f"_{kind}", (SparseStandIn,), {"kind": kind, "__slots__": ()})

    def matrix(self, work: Resolver) -> SparseMatrix:
        """The entries, checked against the shape.

        Args:
            work: Turns the parts of the state.

        Raises:
            ModelFormatError: The state is not that of such a matrix.
        """
        state = self.state
        if not isinstance(state, dict) or not ("_shape" in state or "shape" in state):
            raise ModelFormatError(f"a {self.kind} of the file has no shape; the file is damaged")
        shape = as_array(work.resolve(state.get("_shape", state.get("shape"))))
        if (
            shape.shape != (2,)
            or shape.dtype.kind not in "iu"
            or shape.min() < 0
            or shape.max() >= _LARGEST_SIDE
        ):
            raise ModelFormatError(f"a {self.kind} of the file has an impossible shape; the file is damaged")
        height, width = (int(n) for n in shape)
        data = self._vector(work, state.get("data"), "biuf").astype(np.float64)
        if self.kind.startswith("coo"):
            coords = (
                work.resolve(state["coords"]) if "coords" in state else (state.get("row"), state.get("col"))
            )
            if not isinstance(coords, tuple) or len(coords) != 2:
                raise ModelFormatError(f"a {self.kind} of the file has no rows and columns; it is damaged")
            rows, columns = (self._vector(work, c, "iu").astype(np.int64) for c in coords)
        else:
            starts = self._vector(work, state.get("indptr"), "iu").astype(np.int64)
            inner = self._vector(work, state.get("indices"), "iu").astype(np.int64)
            outer = self._outer(starts, len(inner), width if self.kind.startswith("csc") else height)
            rows, columns = (inner, outer) if self.kind.startswith("csc") else (outer, inner)
        if not len(rows) == len(columns) == len(data):
            raise ModelFormatError(f"a {self.kind} of the file is damaged")
        inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
        if not inside.all():
            raise ModelFormatError(
                f"a {self.kind} of the file has entries outside its shape {(height, width)}"
            )
        return SparseMatrix(rows, columns, data, (height, width))

    def _outer(self, starts: np.ndarray, count: int, lines: int) -> np.ndarray:
        """[N] line of each entry; `starts` may not be added up before each is known to be in 0..N."""
        whole = len(starts) == lines + 1 and starts[0] == 0 and starts[-1] == count
        if not whole or (starts[1:] < starts[:-1]).any():
            raise ModelFormatError(f"a {self.kind} of the file has damaged line starts")
        return np.repeat(np.arange(lines), np.diff(starts))

    def _vector(self, work: Resolver, item: Any, kinds: str) -> np.ndarray:
        array = as_array(work.resolve(item)).ravel()
        if array.dtype.kind not in kinds:
            raise ModelFormatError(f"a {self.kind} of the file has entries of type {array.dtype}")
        work.budget.take(2 * 8 * array.size)
        return array


class ChumpyStandIn(StandIn):
    """A chumpy object by its state: stored values, or stored values put in another order."""

    __slots__ = ()

    @staticmethod
    @lru_cache(maxsize=32)
    def of(kind: str) -> type[ChumpyStandIn]:
        """The holder of one class, such as "chumpy.ch.Ch"."""
        return type("_Chumpy", (ChumpyStandIn,), {"kind": kind, "__slots__": ()})

    def array(self, work: Resolver) -> np.ndarray | Unreadable:
        """The values; `Unreadable` where they would have to be worked out.

        Args:
            work: Turns the parts of the state.

        Raises:
            ModelFormatError: The state is not that of such an object.
        """
        if self.kind not in _READABLE_CHUMPY:
            return Unreadable(self.kind)
        try:
            return self._values(work)
        except _UnreadableError as error:
            return error.args[0]
        except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
            raise ModelFormatError(f"a {self.kind} of the file has no readable values ({error})") from error

    def _values(self, work: Resolver) -> np.ndarray:
        state = self.state
        name = self.kind.rpartition(".")[2]

        def part(key: str) -> np.ndarray:
            found = work.resolve(state[key])
            if isinstance(found, Unreadable):
                raise _UnreadableError(found)
            array = as_array(found)
            work.budget.take(array.nbytes)
            return array

        if name == "Ch":
            return part("x")
        if name == "Concatenate":
            return np.concatenate([part(term) for term in state["dterms"]], axis=int(state["axis"]))
        values = part("a")
        if name == "Select":
            chosen = part("idxs")
            work.budget.take(chosen.size * values.itemsize)
            shape = state.get("preferred_shape")
            found = values.ravel()[chosen]
            return found if shape is None else found.reshape(as_array(work.resolve(shape)).tolist())
        if name == "Reshape":
            return values.reshape(as_array(work.resolve(state["newshape"])).tolist())
        axes = state.get("axes")
        return values.transpose(None if axes is None else as_array(work.resolve(axes)).tolist())


class Resolver:
    """Turns the holders inside one loaded object into arrays and matrices, each of them once."""

    def __init__(self, budget: Budget) -> None:
        """Starts with nothing turned.

        Args:
            budget: Pays for every array.
        """
        self.budget = budget
        self._done: dict[int, tuple[Any, Any]] = {}

    def resolve(self, item: Any) -> Any:
        """Turns one object and what is in it.

        Args:
            item: What the file's pickle gave.

        Raises:
            ModelFormatError: A holder has no readable values, an object contains itself, a dictionary has
                keys that are no text or number, or the content is too large.
        """
        if isinstance(item, type) or callable(item):
            raise ModelFormatError("the file holds a bare class or function; expected arrays")
        if not isinstance(item, StandIn | dict | list | tuple | np.ndarray):
            return item
        if id(item) in self._done:
            result = self._done[id(item)][1]
            if result is self:
                raise ModelFormatError("an object of the file contains itself; it is not a face model")
            return result
        self._done[id(item)] = (item, self)  # the item is kept, or another could get its identity
        result = self._turned(item)
        self._done[id(item)] = (item, result)
        return result

    def _turned(self, item: Any) -> Any:
        if isinstance(item, dict):
            return {plain_key(self.resolve(k)): self.resolve(v) for k, v in item.items()}
        if isinstance(item, list | tuple):
            return type(item)([self.resolve(i) for i in item])
        if isinstance(item, SparseStandIn):
            return item.matrix(self)
        if isinstance(item, ChumpyStandIn):
            return item.array(self)
        if not isinstance(item, ArrayStandIn | np.ndarray):
            raise ModelFormatError(f"the file holds a bare {item.kind}; expected arrays")
        array = item.array(self.budget) if isinstance(item, ArrayStandIn) else item
        if not array.dtype.hasobject:
            return array
        self.budget.take(8 * array.size)
        filled = np.empty(array.shape, dtype=object)
        for index, value in np.ndenumerate(array):
            filled[index] = self.resolve(value)
        return filled[()] if filled.shape == () else filled
