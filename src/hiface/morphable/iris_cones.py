# SPDX-License-Identifier: Apache-2.0
"""Where a face model's irises lie on its eyeballs."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from hiface.morphable.model import MorphableModel

_EYES = ("eye_left", "eye_right")
_USUAL_RAD = 0.385


@dataclass(frozen=True)
class IrisCones:
    """Cones from the eyes' centres through the edges of the irises, eyes at rest, left eye first.

    Attributes:
        centres: [2, 3] metres, object space, of the mean head.
        axes: [2, 3] unit vectors to the pupils.
        radius_rad: Angle from the pupil to the edge of the iris, radians.
    """

    centres: Tensor
    axes: Tensor
    radius_rad: float


def iris_cones(model: MorphableModel) -> IrisCones | None:
    """Irises as the model's "iris" points say; straight ahead without them. None without eye joints."""
    data = model.data
    if not set(_EYES) <= set(data.joint_names):
        return None
    centres = data.joints_template[[data.joint_names.index(name) for name in _EYES]]
    if "iris" not in data.landmark_sets:
        return IrisCones(centres, centres.new_tensor([[0.0, 0.0, 1.0]]).repeat(2, 1), _USUAL_RAD)
    points = data.landmark_sets["iris"].positions(data.template, data.triangles).reshape(2, -1, 3).flip(0)
    rim = F.normalize(points - centres[:, None], dim=-1)[:, 1:]
    axes = F.normalize(rim.mean(dim=1), dim=-1)
    radius = torch.acos((rim * axes[:, None]).sum(dim=-1).clamp(-1, 1)).mean()
    return IrisCones(centres, axes, float(radius))
