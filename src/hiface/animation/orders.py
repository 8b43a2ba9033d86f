# SPDX-License-Identifier: Apache-2.0
"""Orders of expression channels in other programs, and maps between them and ours."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import torch
from torch import Tensor

from hiface.assets import load_json_asset
from hiface.errors import ShapeError

ORDERS = ("arkit52", "live_link", "mediapipe", "ict")
_SIDES = {"_l": "left", "_r": "right", "_left": "left", "_right": "right"}


@cache
def expression_order(name: str) -> tuple[str, ...]:
    """Channel names of a known order.

    Args:
        name: "arkit52" (ours, alphabetical), "live_link" (Live Link's packets, without the rotation
            channels), "mediapipe" (51 shapes after "_neutral") or "ict" (the 55 meshes of ICT-FaceKit).

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


@cache
def live_link_csv_header() -> tuple[str, ...]:
    """The 63 column names of a recording of the Live Link Face app, in its own order and letter case."""
    return tuple(load_json_asset("expressions/live_link.json")["csv_header"])


@cache
def arkit_name(name: str) -> str | None:
    """The ARKit shape that another program's channel stands for.

    Args:
        name: Name in any letter case, with the sides as Left and Right, _L and _R or _left and _right, and
            with what comes before the last "." or ":" passed over ("head.eyeBlink_L" is eyeBlinkLeft). Halves
            of shapes that ARKit has whole (browInnerUp_L, cheekPuff_R) stand for the whole.

    Returns:
        One of the 52 names, or None where ARKit has no such shape.
    """
    known = {arkit.lower(): arkit for arkit in expression_order("arkit52")}
    lower = name.replace(":", ".").rsplit(".", 1)[-1].strip().lower()
    if lower in known:
        return known[lower]
    for ending, side in _SIDES.items():
        if lower.endswith(ending):
            stem = lower.removesuffix(ending)
            # jawLeft and mouthLeft are directions, not sides: jaw_l is no shape of a left half.
            if stem + side in known and stem not in ("jaw", "mouth"):
                return known[stem + side]
            return known[stem] if stem in ("browinnerup", "cheekpuff") else None
    return None


def reorder(weights: Tensor, source: str | Sequence[str], target: str | Sequence[str]) -> Tensor:
    """Rearranges expression weights.

    Channels are matched by name, and by `arkit_name` where the other order does not have the very name: both
    halves get the value of the whole, and the whole gets the mean of its halves.

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
    if not source_names or not target_names:
        return weights.new_zeros(*weights.shape[:-1], len(target_names))
    index, valid = (
        torch.tensor(rows, device=weights.device) for rows in _sources(source_names, target_names)
    )
    found = torch.where(valid, weights[..., index], torch.zeros_like(weights[..., :1, None]))
    return found.sum(dim=-1) / valid.sum(dim=-1).clamp(min=1)


@cache
def _sources(source: tuple[str, ...], target: tuple[str, ...]) -> tuple[list[list[int]], list[list[bool]]]:
    """For every target the source columns it is the mean of, and which of them count; rows of one length."""
    position = {name: i for i, name in enumerate(source)}
    meaning: dict[str, list[int]] = {}
    for i, name in enumerate(source):
        if (shape := arkit_name(name)) is not None:
            meaning.setdefault(shape, []).append(i)
    of = [[position[n]] if n in position else meaning.get(arkit_name(n) or "", []) for n in target]
    widest = max(map(len, of), default=0) or 1
    index = [[*row, *[0] * (widest - len(row))] for row in of]
    return index, [[k < len(row) for k in range(widest)] for row in of]
