# SPDX-License-Identifier: Apache-2.0
"""Head rotations in crops: from network output, mirrored, and to and from the photo's camera."""

from __future__ import annotations

import torch
from torch import Tensor

from hiface.data.crops import CropFrame


def rotation_from_6d(rotation6d: Tensor) -> Tensor:
    """Gram-Schmidt on two columns (Zhou et al. 2019): [*B, 6] to rotation matrices [*B, 3, 3]."""
    a, b = rotation6d[..., :3], rotation6d[..., 3:]
    x = a / a.norm(dim=-1, keepdim=True).clamp_min(1e-8)
    y = b - (x * b).sum(dim=-1, keepdim=True) * x
    y = y / y.norm(dim=-1, keepdim=True).clamp_min(1e-8)
    return torch.stack([x, y, torch.linalg.cross(x, y)], dim=-1)


def mirror_rotation(R: Tensor) -> Tensor:
    """Rotation of the mirrored head in the mirrored picture: diag(-1,1,1) R diag(-1,1,1), [*B, 3, 3]."""
    sign = R.new_tensor([-1.0, 1.0, 1.0])
    return R * sign[:, None] * sign


def roll_rotation(roll: Tensor) -> Tensor:
    """Turn about the camera's z axis, clockwise on screen: [N] radians to [N, 3, 3]."""
    c, s, o = torch.cos(roll), torch.sin(roll), torch.zeros_like(roll)
    rows = [torch.stack([c, -s, o], -1), torch.stack([s, c, o], -1), torch.stack([o, o, o + 1], -1)]
    return torch.stack(rows, dim=-2)


def ray_rotation(offset: Tensor) -> Tensor:
    """Smallest rotation that turns the optical axis to a ray.

    Args:
        offset: [N, 2] ray x / z and y / z: pixel offset from the principal point over the focal length.

    Returns:
        [N, 3, 3]; R @ (0, 0, 1) points along (offset, 1). Rodrigues' formula.
    """
    ray = torch.cat([offset, torch.ones_like(offset[:, :1])], dim=1)
    ray = ray / ray.norm(dim=1, keepdim=True)
    x, y, z = ray.unbind(dim=1)
    k = 1.0 / (1.0 + z)
    rows = [
        torch.stack([1 - x * x * k, -x * y * k, x], -1),
        torch.stack([-x * y * k, 1 - y * y * k, y], -1),
        torch.stack([-x, -y, z], -1),
    ]
    return torch.stack(rows, dim=-2)


def crop_rotation(frame: CropFrame, K: Tensor) -> Tensor:
    """[B, 3, 3] from the axes of cameras that look at the crops' centres, turned with them, to the photo's.

    Args:
        frame: B crops.
        K: [B, 3, 3].
    """
    offset = (frame.centre_px - K[:, :2, 2]) / K[:, 0, 0, None]
    return ray_rotation(offset) @ roll_rotation(frame.roll)
