# SPDX-License-Identifier: Apache-2.0
"""Things computed once per topology and kept as long as the tensor that describes it is alive."""

from __future__ import annotations

import functools
import warnings
import weakref
from collections.abc import Callable, Hashable
from typing import Any, Concatenate, ParamSpec, TypeVar

import torch
from torch import Tensor

_MAX_RESULTS_PER_TENSOR = 16

P = ParamSpec("P")
R = TypeVar("R")


def cached_per_tensor(build: Callable[Concatenate[Tensor, P], R]) -> Callable[Concatenate[Tensor, P], R]:
    """Remembers the result of a function of a constant tensor and of hashable arguments.

    The tensor is recognised by identity, so pass the same object again (a model's `triangles`, not a copy). A
    result is forgotten when the tensor is, or when the tensor was changed in place.

    Args:
        build: Function whose first argument is the tensor; it runs without gradients.

    Returns:
        The remembering function.
    """
    memory: dict[int, tuple[weakref.ref[Tensor], int, dict[Hashable, Any]]] = {}

    @functools.wraps(build)
    def cached(tensor: Tensor, /, *args: P.args, **kwargs: P.kwargs) -> R:
        key = id(tensor)
        version = 0 if tensor.is_inference() else tensor._version
        entry = memory.get(key)
        if entry is None or entry[0]() is not tensor or entry[1] != version:
            entry = (weakref.ref(tensor, lambda _: memory.pop(key, None)), version, {})
            memory[key] = entry
        results = entry[2]
        arguments = (args, tuple(sorted(kwargs.items())))
        if arguments not in results:
            if len(results) >= _MAX_RESULTS_PER_TENSOR:
                results.clear()
            with torch.inference_mode(False), torch.no_grad():
                results[arguments] = build(tensor, *args, **kwargs)
        return results[arguments]

    return cached


class ConstantMatrix:
    """A sparse matrix without gradient; products with it are differentiable any number of times.

    Attributes:
        shape: Rows and columns.
    """

    def __init__(self, rows: Tensor, columns: Tensor, values: Tensor, shape: tuple[int, int]) -> None:
        """Sums duplicate entries.

        Args:
            rows: [N] int64.
            columns: [N] int64.
            values: [N] floating; sets dtype and device.
            shape: Rows and columns.
        """
        self.shape = shape
        self._matrix = _to_csr(rows, columns, values, shape)
        self._transpose = _to_csr(columns, rows, values, (shape[1], shape[0]))

    @property
    def T(self) -> ConstantMatrix:
        """The transposed matrix, without copying."""
        result = object.__new__(ConstantMatrix)
        result.shape = (self.shape[1], self.shape[0])
        result._matrix, result._transpose = self._transpose, self._matrix
        return result

    def apply(self, dense: Tensor) -> Tensor:
        """Product with a dense matrix.

        Args:
            dense: [columns, N], same dtype and device as the values.

        Returns:
            [rows, N]; differentiable to `dense`.
        """
        return _Product.apply(dense, self)  # pyright: ignore[reportReturnType]

    def product_without_grad(self, dense: Tensor) -> Tensor:
        """Product with a dense matrix, outside autograd."""
        return self._matrix @ dense


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, dense: Tensor, matrix: ConstantMatrix) -> Tensor:
        ctx.matrix = matrix
        return matrix.product_without_grad(dense)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Any) -> Any:
        return ctx.matrix.T.apply(grad_outputs[0].contiguous()), None


def _to_csr(rows: Tensor, columns: Tensor, values: Tensor, shape: tuple[int, int]) -> Tensor:
    """Compressed rows with 32-bit indices, which the CPU library takes without converting each time."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        coo = torch.sparse_coo_tensor(torch.stack([rows, columns]), values, shape, check_invariants=False)
        csr = coo.coalesce().to_sparse_csr()
        return torch.sparse_csr_tensor(
            csr.crow_indices().to(torch.int32),
            csr.col_indices().to(torch.int32),
            csr.values(),
            shape,
            check_invariants=False,
        )
