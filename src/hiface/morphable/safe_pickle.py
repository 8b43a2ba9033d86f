# SPDX-License-Identifier: Apache-2.0
"""Reads arrays, matrices and dictionaries from pickled model files without running anything of theirs.

A pickle is a small program: it names functions and calls them. Here every name that a file may use stands for
a piece of this module, never for the thing of that name: numpy's and torch's rebuilding functions become
functions that check the sizes and copy bytes, the classes of scipy and chumpy become inert holders of their
state. Any other name is refused before anything of the file is executed. Neither scipy nor chumpy is needed.
"""

from __future__ import annotations

import io
import math
import pickle
import pickletools
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from hiface.errors import ModelFormatError
from hiface.morphable.stand_ins import (
    CHUMPY_CLASSES,
    SPARSE_FORMATS,
    ArrayStandIn,
    ChumpyStandIn,
    DtypeStandIn,
    Inert,
    SparseStandIn,
    StandIn,
    resolve,
)

_REFUSED_OPCODES = {
    "PERSID": "an outside reference",
    "BINPERSID": "an outside reference",
    "EXT1": "a registered extension",
    "EXT2": "a registered extension",
    "EXT4": "a registered extension",
    "NEXT_BUFFER": "an outside buffer",
    "READONLY_BUFFER": "an outside buffer",
}
_FAILURES = (
    pickle.UnpicklingError,
    ArithmeticError,
    AssertionError,
    AttributeError,
    EOFError,
    ImportError,
    LookupError,
    MemoryError,
    RuntimeError,
    struct.error,
    TypeError,
    ValueError,
)


class _Function:
    """A function that a file may call; it cannot be changed by the file's BUILD opcode."""

    __slots__ = ("_function",)

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function

    def __call__(self, *args: Any) -> Any:
        return self._function(*args)

    def __setstate__(self, state: Any) -> None:
        raise ModelFormatError("the file tries to change a function; it is not a face model")


def _reconstruct_array(subtype: Any, shape: Any, code: Any) -> ArrayStandIn:
    return ArrayStandIn()


def _array_from_buffer(buffer: Any, dtype: Any, shape: Any, order: Any) -> ArrayStandIn:
    array = ArrayStandIn()
    array.__setstate__((1, shape, dtype, order == "F", bytes(buffer)))
    return array


def _scalar(dtype: Any, raw: Any) -> ArrayStandIn:
    array = ArrayStandIn()
    array.__setstate__((1, (), dtype, False, raw))
    return array


def _encode(text: Any, encoding: Any = "latin1") -> bytes:
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
        raise ModelFormatError("the file encodes text in an unexpected way; it is damaged")
    return text.encode("latin1")


def _reconstruct_object(cls: Any, base: Any, state: Any) -> StandIn:
    if not (isinstance(cls, type) and issubclass(cls, StandIn)) or state is not None:
        raise ModelFormatError("the file rebuilds an object of an unexpected kind; it is not a face model")
    return cls()


def _storage_from_bytes(raw: Any) -> np.ndarray:
    """[N] values of a torch storage saved inside a pickle, by torch's own restricted reader."""
    import torch

    if not isinstance(raw, bytes):
        raise ModelFormatError("a torch storage of the file is not bytes; the file is damaged")
    storage = torch.load(io.BytesIO(raw), map_location="cpu", weights_only=True)
    return torch.tensor([], dtype=storage.dtype).set_(storage).numpy()


def _tensor(storage: Any, offset: Any, size: Any, stride: Any, *rest: Any) -> np.ndarray:
    """An array from a torch storage; the strides may not reach past its end."""
    if not isinstance(storage, np.ndarray) or storage.ndim != 1 or len(size) != len(stride):
        raise ModelFormatError("a torch tensor of the file is damaged")
    numbers = (int(offset), *map(int, size), *map(int, stride))
    last = numbers[0] + sum((int(n) - 1) * int(s) for n, s in zip(size, stride, strict=True))
    if min(numbers) < 0 or math.prod(map(int, size)) > len(storage) or last >= max(len(storage), 1):
        raise ModelFormatError("a torch tensor of the file reaches past its storage; the file is damaged")
    steps = tuple(int(s) * storage.itemsize for s in stride)
    return np.lib.stride_tricks.as_strided(storage[numbers[0] :], tuple(map(int, size)), steps).copy()


_FUNCTIONS: dict[tuple[str, str], Any] = {
    ("numpy", "dtype"): _Function(DtypeStandIn.make),
    ("numpy", "ndarray"): Inert,
    ("numpy.matrixlib.defmatrix", "matrix"): Inert,
    ("_codecs", "encode"): _Function(_encode),
    ("copy_reg", "_reconstructor"): _Function(_reconstruct_object),
    ("copyreg", "_reconstructor"): _Function(_reconstruct_object),
    ("__builtin__", "object"): Inert,
    ("builtins", "object"): Inert,
    ("__builtin__", "set"): _Function(lambda items=(): frozenset(items)),
    ("builtins", "set"): _Function(lambda items=(): frozenset(items)),
    ("__builtin__", "bytes"): _Function(lambda: b""),
    ("builtins", "bytes"): _Function(lambda: b""),
    ("collections", "OrderedDict"): _Function(lambda items=(): dict(items)),
    ("torch._utils", "_rebuild_tensor_v2"): _Function(_tensor),
    ("torch.storage", "_load_from_bytes"): _Function(_storage_from_bytes),
}
for _core in ("numpy.core", "numpy._core"):
    _FUNCTIONS[f"{_core}.multiarray", "_reconstruct"] = _Function(_reconstruct_array)
    _FUNCTIONS[f"{_core}.multiarray", "scalar"] = _Function(_scalar)
    _FUNCTIONS[f"{_core}.numeric", "_frombuffer"] = _Function(_array_from_buffer)


def _find(module: str, name: str) -> Any:
    """What a name of the file stands for.

    Raises:
        ModelFormatError: The name is not on the list.
    """
    if (module, name) in _FUNCTIONS:
        return _FUNCTIONS[module, name]
    if (module, name) in CHUMPY_CLASSES:
        return ChumpyStandIn.of(f"{module}.{name}")
    if module.startswith("scipy.sparse.") and name in SPARSE_FORMATS:
        return SparseStandIn.of(name)
    raise ModelFormatError(
        f"the file asks for {module}.{name}, which no face model needs, so nothing of it was run; "
        "get the file again from the model's own page"
    )


class _Unpickler(pickle.Unpickler):
    def find_class(self, module_name: str, global_name: str, /) -> Any:
        return _find(module_name, global_name)

    def persistent_load(self, pid: Any) -> Any:
        raise ModelFormatError("the file refers to data outside itself; it is not a face model")


def loads(raw: bytes, name: str = "the file") -> Any:
    """Reads one pickled object.

    Args:
        raw: The bytes; what follows the object is ignored.
        name: What messages call the file.

    Returns:
        Numbers, text, None, lists, tuples, dictionaries (ordered ones too), frozensets (of sets), numpy
        arrays (of arrays, torch tensors and chumpy objects) and `SparseMatrix`.

    Raises:
        ModelFormatError: The file is cut short or damaged, or asks for anything beyond these.
    """
    _check_opcodes(raw, name)
    try:
        return resolve(_Unpickler(io.BytesIO(raw), encoding="latin1").load())
    except ModelFormatError as error:
        raise ModelFormatError(f"{name}: {error}") from error
    except _FAILURES as error:
        raise ModelFormatError(
            f"{name}: expected pickled arrays, found {_reason(error)}; the file is damaged or no face model"
        ) from error


def load(path: Path) -> Any:
    """Reads a pickled file; see `loads`.

    Raises:
        ModelFormatError: As for `loads`, or the file cannot be opened.
    """
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise ModelFormatError(f"{path} cannot be read ({error.strerror}); check its name") from error
    return loads(raw, path.name)


def _check_opcodes(raw: bytes, name: str) -> None:
    """Looks through the whole pickle first: it must end, stay within itself and name no outside thing."""
    steps = 0
    try:
        for opcode, argument, _ in pickletools.genops(raw):
            steps += 1
            if opcode.name in _REFUSED_OPCODES:
                raise ModelFormatError(f"{name}: the file uses {_REFUSED_OPCODES[opcode.name]}; refused")
            if opcode.name in ("GLOBAL", "INST"):
                _find(*str(argument).split(" ", 1))
            if opcode.name in ("PUT", "BINPUT", "LONG_BINPUT") and not 0 <= int(argument or 0) <= steps:
                raise ModelFormatError(f"{name}: the file keeps an object at an impossible place; refused")
    except ModelFormatError as error:
        raise ModelFormatError(f"{name}: {str(error).removeprefix(f'{name}: ')}") from error
    except _FAILURES as error:
        raise ModelFormatError(
            f"{name}: expected a whole pickled model, found {len(raw):,} bytes that end too early or are no "
            f"pickle ({_reason(error)}); download the file again"
        ) from error


def _reason(error: BaseException) -> str:
    return f"{type(error).__name__}: {str(error)[:120]}"
