# SPDX-License-Identifier: Apache-2.0
"""Reads arrays, matrices and dictionaries from pickled model files without running anything of theirs.

A pickle is a small program: it names functions and calls them. Here every name that a file may use stands for
a piece of this module, never for the thing of that name: numpy's and torch's rebuilding functions become
functions that check the sizes and copy bytes, the classes of scipy and chumpy become inert holders of their
state. Any other name is refused before anything of the file is executed. Neither scipy nor chumpy is needed.
What the content may unfold to is limited, and so is what may be hashed.
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
from hiface.morphable.file_values import LARGEST_BYTES, Budget, Unreadable, plain_key
from hiface.morphable.stand_ins import (
    SPARSE_FORMATS,
    ArrayStandIn,
    ChumpyStandIn,
    DtypeStandIn,
    Inert,
    Resolver,
    SparseStandIn,
    StandIn,
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


# What torch writes before a storage inside a pickle: a number, as a pickle of its own.
_TORCH_MAGIC = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
_ITEM_BYTES = 8


class _Function:
    """A function that a file may call; it cannot be changed by the file's BUILD opcode.

    What it may copy is paid for, since a file can call it any number of times with the same long argument.
    """

    __slots__ = ("_budget", "_function")

    def __init__(self, function: Callable[..., Any], budget: Budget) -> None:
        self._function = function
        self._budget = budget

    def __call__(self, *args: Any) -> Any:
        for arg in args:
            if isinstance(arg, str | bytes | bytearray | list | tuple | dict | frozenset):
                self._budget.take(len(arg) * (1 if isinstance(arg, bytes | bytearray) else _ITEM_BYTES))
        return self._function(*args)

    def __setstate__(self, state: Any) -> None:
        raise ModelFormatError("the file tries to change a function; it is not a face model")


def _reconstruct_array(subtype: Any, shape: Any, code: Any) -> ArrayStandIn:
    return ArrayStandIn()


def _array_from_buffer(buffer: Any, dtype: Any, shape: Any, order: Any) -> ArrayStandIn:
    if not isinstance(buffer, bytes | bytearray):
        raise ModelFormatError("the bytes of an array of the file are no bytes; the file is damaged")
    array = ArrayStandIn()
    array.__setstate__((1, shape, dtype, order == "F", buffer))
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

    if not isinstance(raw, bytes) or not raw.startswith(_TORCH_MAGIC):
        raise ModelFormatError("a torch storage of the file is not one; the file is damaged")
    storage = torch.load(io.BytesIO(raw), map_location="cpu", weights_only=True)
    values = torch.tensor([], dtype=storage.dtype).set_(storage).numpy()
    values.flags.writeable = False
    return values


def _tensor(storage: Any, offset: Any, size: Any, stride: Any, *rest: Any) -> np.ndarray:
    """A view of a torch storage, not to be written to; the strides may not reach past its end."""
    if not isinstance(storage, np.ndarray) or storage.ndim != 1 or len(size) != len(stride):
        raise ModelFormatError("a torch tensor of the file is damaged")
    numbers = (int(offset), *map(int, size), *map(int, stride))
    last = numbers[0] + sum((int(n) - 1) * int(s) for n, s in zip(size, stride, strict=True))
    if min(numbers) < 0 or math.prod(map(int, size)) > len(storage) or last >= max(len(storage), 1):
        raise ModelFormatError("a torch tensor of the file reaches past its storage; the file is damaged")
    steps = tuple(int(s) * storage.itemsize for s in stride)
    sizes = tuple(map(int, size))
    return np.lib.stride_tricks.as_strided(storage[numbers[0] :], sizes, steps, writeable=False)


def _set(items: Any = ()) -> frozenset[Any]:
    return frozenset([plain_key(item) for item in items])


def _ordered(items: Any = ()) -> dict[Any, Any]:
    pairs = items.items() if isinstance(items, dict) else items
    return {plain_key(key): value for key, value in pairs}


def _no_bytes() -> bytes:
    return b""


_FUNCTIONS: dict[tuple[str, str], Any] = {
    ("numpy", "dtype"): DtypeStandIn.make,
    ("numpy", "ndarray"): Inert,
    ("numpy.matrixlib.defmatrix", "matrix"): Inert,
    ("_codecs", "encode"): _encode,
    ("copy_reg", "_reconstructor"): _reconstruct_object,
    ("copyreg", "_reconstructor"): _reconstruct_object,
    ("__builtin__", "object"): Inert,
    ("builtins", "object"): Inert,
    ("__builtin__", "set"): _set,
    ("builtins", "set"): _set,
    ("__builtin__", "bytes"): _no_bytes,
    ("builtins", "bytes"): _no_bytes,
    ("collections", "OrderedDict"): _ordered,
    ("torch._utils", "_rebuild_tensor_v2"): _tensor,
    ("torch.storage", "_load_from_bytes"): _storage_from_bytes,
}
for _core in ("numpy.core", "numpy._core"):
    _FUNCTIONS[f"{_core}.multiarray", "_reconstruct"] = _reconstruct_array
    _FUNCTIONS[f"{_core}.multiarray", "scalar"] = _scalar
    _FUNCTIONS[f"{_core}.numeric", "_frombuffer"] = _array_from_buffer


def _find(module: str, name: str, budget: Budget) -> Any:
    """What a name of the file stands for.

    Raises:
        ModelFormatError: The name is not on the list.
    """
    if (module, name) in _FUNCTIONS:
        found = _FUNCTIONS[module, name]
        return found if found is Inert else _Function(found, budget)
    if module.split(".")[0] == "chumpy" and name.isidentifier():
        return ChumpyStandIn.of(f"{module}.{name}")
    if module.startswith("scipy.sparse.") and name in SPARSE_FORMATS:
        return SparseStandIn.of(name)
    raise ModelFormatError(
        f"the file asks for {module}.{name}, which no face model needs, so nothing of it was run; "
        "get the file again from the model's own page"
    )


class _Unpickler(pickle.Unpickler):
    def __init__(self, raw: bytes, budget: Budget) -> None:
        super().__init__(io.BytesIO(raw), encoding="latin1")
        self._budget = budget

    def find_class(self, module_name: str, global_name: str, /) -> Any:
        return _find(module_name, global_name, self._budget)

    def persistent_load(self, pid: Any) -> Any:
        raise ModelFormatError("the file refers to data outside itself; it is not a face model")


def loads(raw: bytes, name: str = "the file", largest_bytes: int = LARGEST_BYTES) -> Any:
    """Reads one pickled object.

    Args:
        raw: The bytes; what follows the object is ignored.
        name: What messages call the file.
        largest_bytes: What the content may unfold to.

    Returns:
        Numbers, text, None, lists, tuples, dictionaries (ordered ones too), frozensets (of sets), numpy
        arrays (of arrays, torch tensors and chumpy objects) and `SparseMatrix`; `Unreadable` within them for
        chumpy objects that would have to be worked out.

    Raises:
        ModelFormatError: The file is cut short or damaged, asks for anything beyond these, or unfolds to more
            than a face model has.
    """
    _check_opcodes(raw, name)
    budget = Budget(largest_bytes)
    try:
        found = Resolver(budget).resolve(_Unpickler(raw, budget).load())
        if isinstance(found, Unreadable):
            raise found.error()
        return found
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
    stack = _Stack()
    nothing = Budget(0)
    try:
        for opcode, argument, _ in pickletools.genops(raw):
            steps += 1
            if opcode.name in _REFUSED_OPCODES:
                raise ModelFormatError(f"the file uses {_REFUSED_OPCODES[opcode.name]}; refused")
            if opcode.name in ("GLOBAL", "INST"):
                module, _, found = str(argument).partition(" ")
                _find(module, found, nothing)
            if opcode.name in ("PUT", "BINPUT", "LONG_BINPUT") and not 0 <= int(argument or 0) <= steps:
                raise ModelFormatError("the file keeps an object at an impossible place; refused")
            stack.step(opcode, argument)
    except ModelFormatError as error:
        raise ModelFormatError(f"{name}: {error}") from error
    except _FAILURES as error:
        raise ModelFormatError(
            f"{name}: expected a whole pickled model, found {len(raw):,} bytes that end too early or are no "
            f"pickle ({_reason(error)}); download the file again"
        ) from error


class _Stack:
    """Follows which objects on the pickle's stack are tuples, and refuses those that would be hashed.

    The hash of a tuple asks all that is in it: a deep one takes the whole C stack, one whose parts are shared
    takes exponential time. Both happen while a file is read, where nothing else could stop them.
    """

    def __init__(self) -> None:
        self._tuples: list[bool] = []
        self._marks: list[int] = []
        self._memo: dict[int, bool] = {}

    def step(self, opcode: pickletools.OpcodeInfo, argument: Any) -> None:
        """Does what one opcode does.

        Raises:
            ModelFormatError: It puts a tuple into a dictionary as a key or into a set.
            IndexError, KeyError: It needs an object that is not there.
        """
        name, stack = opcode.name, self._tuples
        if name == "MARK":
            self._marks.append(len(stack))
        elif name in ("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"):
            self._memo[len(self._memo) if name == "MEMOIZE" else int(argument)] = stack[-1]
        elif name in ("GET", "BINGET", "LONG_BINGET"):
            stack.append(self._memo[int(argument)])
        elif name == "DUP":
            stack.append(stack[-1])
        elif name == "POP" and self._marks and self._marks[-1] == len(stack):
            self._marks.pop()
        elif name == "BUILD":
            stack.pop()
        else:
            below, above = self._taken(opcode)
            hashed = {"SETITEM": below[1:2], "SETITEMS": above[::2], "DICT": above[::2]}
            if any(hashed.get(name, above if name in ("ADDITEMS", "FROZENSET") else ())):
                raise ModelFormatError("a dictionary or set of the file has a tuple as a key; refused")
            made = opcode.stack_after
            stack += [item is pickletools.pytuple for item in made]

    def _taken(self, opcode: pickletools.OpcodeInfo) -> tuple[list[bool], list[bool]]:
        """What an opcode takes from the stack, below and above its mark."""
        needs, above = opcode.stack_before, []
        if pickletools.markobject in needs:
            start = self._marks.pop()
            above = self._tuples[start:]
            del self._tuples[start:]
            needs = needs[: needs.index(pickletools.markobject)]
        start = len(self._tuples) - len(needs)
        if start < 0:
            raise IndexError("an object is missing on the stack")
        below = self._tuples[start:]
        del self._tuples[start:]
        return below, above


def _reason(error: BaseException) -> str:
    return f"{type(error).__name__}: {str(error)[:120]}"
