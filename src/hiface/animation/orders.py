# SPDX-License-Identifier: Apache-2.0
"""Orders of expression channels in other programs, and maps between them and ours."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

from torch import Tensor

from hiface.assets import load_json_asset
from hiface.errors import ShapeError

ORDERS = ("arkit52", "live_link", "mediapipe")


@cache
def expression_order(name: str) -> tuple[str, ...]:
    """Channel names of a known order.

    Args:
        name: "arkit52" (ours, alphabetical), "live_link" (Unreal Engine, without its rotation channels) or
            "mediapipe" (51 shapes after "_neutral").

    Returns:
        The names in that order.

    Raises:
        ShapeError: There is no such order.
    """
    if name not in ORDERS:
        raise ShapeError(f"unknown expression order {name!r}; choose one of {', '.join(ORDERS)}")
    return tuple(load_json_asset(f"expressions/{name}.json")["names"])


@cache
def live_link_rotation_channels() -> tuple[str, ...]:
    """Names of the nine rotation channels (head, left eye, right eye) after the 52 shapes of Live Link."""
    return tuple(load_json_asset("expressions/live_link.json")["rotation_channels"])


def reorder(weights: Tensor, source: str | Sequence[str], target: str | Sequence[str]) -> Tensor:
    """Rearranges expression weights.

    Args:
        weights: [*B, len(source)] values, 0..1.
        source: Order of `weights`: a name from `ORDERS` or a list of channel names.
        target: Wanted order, likewise.

    Returns:
        [*B, len(target)]; channels that the source does not have are 0. Differentiable.

    Raises:
        ShapeError: `weights` does not have one value per source channel.
    """
    source_names = expression_order(source) if isinstance(source, str) else tuple(source)
    target_names = expression_order(target) if isinstance(target, str) else tuple(target)
    if weights.shape[-1] != len(source_names):
        raise ShapeError(f"weights must be [*B, {len(source_names)}], got {tuple(weights.shape)}")
    position = {name: i for i, name in enumerate(source_names)}
    out = weights.new_zeros(*weights.shape[:-1], len(target_names))
    shared = [(j, position[name]) for j, name in enumerate(target_names) if name in position]
    if shared:
        to, of = (list(column) for column in zip(*shared, strict=True))
        out[..., to] = weights[..., of]
    return out
