"""A picture of a person who does not exist, rendered by the project, for tests of the whole path."""

from __future__ import annotations

from functools import cache

import numpy as np
import torch

import hiface
from hiface.synthetic.studio import render_person
from hiface.types import Camera, FaceParams


def truth(yaw_rad: float = 0.2, size: int = 512, seed: int = 3, **weights: float) -> FaceParams:
    """Coefficients of a synthetic person who looks at the camera from 0.8 m."""
    import roma

    model = hiface.load_model("open")
    gen = torch.Generator().manual_seed(seed)
    flip = torch.diag(torch.tensor([1.0, -1.0, -1.0]))
    R = flip @ roma.rotvec_to_rotmat(torch.tensor([0.05, yaw_rad, 0.0]))
    camera = Camera.from_pose(R, torch.tensor([0.0, 0.02, 0.8]), 1.6 * size, size, size)
    light = torch.zeros(9, 3)
    light[0], light[2], light[3], light[1] = 2.4, -0.5, 0.3, -0.35
    return FaceParams(
        identity=0.8 * torch.randn(model.data.n_identity, generator=gen),
        expression=model.expression_vector(weights),
        pose=torch.zeros(5, 3),
        albedo=0.3 * torch.randn(len(model.data.albedo_names), generator=gen),
        light=light,
        camera=camera,
    )


@cache
def portrait(size: int = 512, seed: int = 3, yaw_rad: float = 0.2) -> np.ndarray:
    """[size, size, 3] uint8 sRGB."""
    model = hiface.load_model("open")
    background = torch.full((3, size, size), 0.2)
    picture = render_person(model, truth(yaw_rad, size, seed), size, background=background)
    return picture.permute(1, 2, 0).contiguous().numpy()
