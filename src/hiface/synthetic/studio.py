# SPDX-License-Identifier: Apache-2.0
"""Plain pictures for tests of fitting: the model, its albedo and spherical-harmonics shading, no more."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from hiface.morphable import MorphableModel
from hiface.render.pipeline import render
from hiface.synthetic.camera_effects import apply_effects, plain_srgb
from hiface.synthetic.cameras import head_rotation
from hiface.synthetic.lights import sample_surroundings
from hiface.types import Camera, FaceParams


@torch.no_grad()
def render_person(
    model: MorphableModel,
    params: FaceParams,
    size: int | tuple[int, int] | None = None,
    background: Tensor | None = None,
    effects: bool = False,
    seed: int = 0,
) -> Tensor:
    """Renders coefficients exactly as the model says: no hair, no shadows, no accessories.

    Args:
        model: Face model.
        params: Unbatched coefficients.
        size: Height and width in pixels (one number for a square); the camera's own if None.
        background: [3, H, W] linear colour, or anything that broadcasts to it; middle grey if None.
        effects: Whether to add what cameras do (noise, blur, compression).
        seed: Seed of the effects.

    Returns:
        [3, H, W] uint8 sRGB.
    """
    mesh = model(params.identity, params.expression, params.pose)
    texture = model.albedo_map(params.albedo)
    behind = torch.full((3, 1, 1), 0.2) if background is None else background
    out = render(mesh, params.camera, texture, params.light, size=size, background=behind)
    image = out.image.clamp_min(0)
    return apply_effects(image, np.random.default_rng(seed)) if effects else plain_srgb(image)


def studio_params(
    model: MorphableModel,
    seed: int,
    size: int = 256,
    yaw: float = 0.0,
    expression: Mapping[str, float] | None = None,
    identity_sigma: float = 1.0,
) -> FaceParams:
    """Draws the coefficients of a studio portrait.

    Args:
        model: Face model.
        seed: Seed.
        size: Side of the picture in pixels.
        yaw: Turn of the head to the own left, radians.
        expression: Values by name; neutral if None.
        identity_sigma: Standard deviation of the identity coefficients.

    Returns:
        Unbatched coefficients with a camera 1 m away that shows head and neck.
    """
    rng = np.random.default_rng([seed, 23])
    identity = (
        torch.from_numpy(rng.standard_normal(model.data.n_identity).astype(np.float32)) * identity_sigma
    )
    albedo = torch.from_numpy(
        np.clip(rng.normal(0, 0.7, len(model.data.albedo_names)), -1.5, 1.5).astype(np.float32)
    )
    light = sample_surroundings(rng).sh_light()
    light = light * (0.9 / float(light[0].mean() * 0.28209479 + 0.3 * (-light[2]).clamp_min(0).mean()))
    R = torch.from_numpy(
        head_rotation(yaw, rng.normal(0, math.radians(4)), rng.normal(0, math.radians(3)))
    ).float()
    t = torch.tensor([0.0, 0.0, 1.0]) - R @ torch.tensor([0.0, -0.03, 0.0])
    camera = Camera.from_pose(R, t, size / 0.36, size, size)
    return FaceParams(
        identity,
        model.expression_vector(expression or {}),
        torch.zeros(model.data.n_joints, 3),
        albedo,
        light,
        camera,
    )
