# SPDX-License-Identifier: Apache-2.0
"""Animation clips: expression weights, joint rotations and head motion over time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from hiface.errors import ShapeError

_CLIP_FPS = 24
_CLIP_SECONDS = 4.0
_BLINK_SECONDS = 3.45
_BLINK_HALF_SECONDS = 0.16


@dataclass(frozen=True)
class Clip:
    """One named animation.

    Attributes:
        name: Name shown by viewers.
        times: [N] seconds, increasing, starting at 0 or later.
        weights: [N, E] expression values 0..1, in the model's order.
        rotations: Joint name to [N, 3] rotation vectors relative to the parent, radians.
        T_head: [N, 4, 4] rigid motion of the whole head in object space, metres; None: it stands still.
    """

    name: str
    times: np.ndarray
    weights: np.ndarray
    rotations: Mapping[str, np.ndarray] = field(default_factory=dict)
    T_head: np.ndarray | None = None

    def __post_init__(self) -> None:
        n = len(self.times)
        if n == 0 or self.times[0] < 0 or (np.diff(self.times) <= 0).any():
            raise ShapeError(f"clip {self.name!r}: times must increase and start at 0 or later")
        if self.weights.ndim != 2 or len(self.weights) != n:
            raise ShapeError(f"clip {self.name!r}: weights must be [{n}, E], got {self.weights.shape}")
        for joint, rotvec in self.rotations.items():
            if rotvec.shape != (n, 3):
                raise ShapeError(
                    f"clip {self.name!r}: rotations of {joint!r} must be [{n}, 3], got {rotvec.shape}"
                )
        if self.T_head is not None and self.T_head.shape != (n, 4, 4):
            raise ShapeError(f"clip {self.name!r}: T_head must be [{n}, 4, 4], got {self.T_head.shape}")


def expression_clip(weights: np.ndarray, names: Sequence[str], name: str = "expression") -> Clip:
    """Neutral, the given expression, neutral again, then a blink: four seconds that loop.

    Args:
        weights: [E] expression values 0..1.
        names: E expression names.
        name: Name of the clip.

    Returns:
        A clip at 24 keys per second that begins and ends neutral.
    """
    times = np.arange(round(_CLIP_FPS * _CLIP_SECONDS) + 1) / _CLIP_FPS
    amount = _smoothstep((times - 0.3) / 0.8) - _smoothstep((times - 2.1) / 0.8)
    blink = _smoothstep(1.0 - np.abs(times - _BLINK_SECONDS) / _BLINK_HALF_SECONDS)
    values = amount[:, None] * np.asarray(weights, dtype=np.float64)
    for i, expression in enumerate(names):
        if expression.startswith("eyeBlink"):
            values[:, i] = np.maximum(values[:, i], blink)
    return Clip(name, times, values)


def rotvec_to_quaternion(rotvec: np.ndarray) -> np.ndarray:
    """Rotation vectors [..., 3] to unit quaternions [..., 4] in the order x, y, z, w."""
    rotvec = np.asarray(rotvec, dtype=np.float64)
    angle = np.linalg.norm(rotvec, axis=-1, keepdims=True)
    scale = 0.5 * np.sinc(angle / (2.0 * np.pi))
    return np.concatenate([rotvec * scale, np.cos(0.5 * angle)], axis=-1)


def matrix_to_quaternion(R: np.ndarray) -> np.ndarray:
    """Rotation matrices [..., 3, 3] to unit quaternions [..., 4] in the order x, y, z, w.

    The eigenvector of the largest eigenvalue of the matrix of Bar-Itzhack (2000), which has no special cases.
    """
    R = np.asarray(R, dtype=np.float64)
    n = np.zeros((*R.shape[:-2], 4, 4))
    trace = np.trace(R, axis1=-2, axis2=-1)
    n[..., :3, :3] = R + np.swapaxes(R, -1, -2) - trace[..., None, None] * np.eye(3)
    odd = np.stack(
        [R[..., 2, 1] - R[..., 1, 2], R[..., 0, 2] - R[..., 2, 0], R[..., 1, 0] - R[..., 0, 1]], axis=-1
    )
    n[..., :3, 3] = n[..., 3, :3] = odd
    n[..., 3, 3] = trace
    quaternion = np.linalg.eigh(n)[1][..., -1]
    return np.where(quaternion[..., 3:] < 0, -quaternion, quaternion)


def continuous_quaternions(quaternions: np.ndarray) -> np.ndarray:
    """Quaternions [N, 4] with signs flipped so that neighbouring keys lie on the same half of the sphere."""
    step = np.sign((quaternions[1:] * quaternions[:-1]).sum(axis=1))
    sign = np.concatenate([[1.0], np.cumprod(np.where(step == 0, 1.0, step))])
    return quaternions * sign[:, None]


def _smoothstep(x: np.ndarray) -> np.ndarray:
    x = x.clip(0.0, 1.0)
    return x * x * (3.0 - 2.0 * x)
