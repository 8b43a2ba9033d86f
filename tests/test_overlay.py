# SPDX-License-Identifier: Apache-2.0
"""Faces over a video are as bright as the video, and do not flicker with it."""

import numpy as np
import pytest
import torch

from hiface.colour import linear_to_srgb, srgb_to_linear, to_uint8
from hiface.export.texture import model_texture
from hiface.fitting.initialise import mean_face
from hiface.morphable import load_model
from hiface.render import render
from hiface.render.shade import SH_C0
from hiface.tracking import overlay
from hiface.types import Camera

SIZE = 240


@pytest.fixture(scope="module")
def scene():
    model = load_model()
    light = torch.zeros(9, 3)
    light[0] = 0.6 / SH_C0
    upright = torch.diag(torch.tensor([1.0, -1.0, -1.0]))
    camera = Camera.from_pose(upright, torch.tensor([0.0, 0.0, 0.6]), 500.0, SIZE, SIZE)
    params = mean_face(model, SIZE, SIZE, 500.0).replace(light=light, camera=camera)
    return model, params, model_texture(model, params.albedo, size=256)


def picture(scene, factors):
    model, params, texture = scene
    mesh = model(params.identity, params.expression, params.pose)
    image = render(mesh, params.camera, srgb_to_linear(texture), params.light * torch.tensor(factors)).image
    return to_uint8(linear_to_srgb(image.clamp(0, 1))).movedim(0, -1).contiguous().numpy()


class Track:
    """One person who does not move."""

    def __init__(self, model, params, frames):
        self.face = self
        self.model, self.has_detail, self.status = model, False, ["ok"] * frames
        self.box, self._params = torch.zeros(frames, 4), params

    def params(self, index):
        return self._params


def test_light_follows_the_frames_slowly_and_at_once_after_a_gap(scene):
    model, params, texture = scene
    person, look = Track(model, params, 40), overlay._Look(texture, texture)
    bright, dim = picture(scene, (1.2, 1.0, 0.9)), picture(scene, (0.6, 0.5, 0.45))

    def gain(index: int, image: np.ndarray) -> torch.Tensor:
        shown = overlay._face(person, index, image, look)
        return (shown.params.light[0] / params.light[0]).float()

    first = gain(1, bright)
    assert torch.allclose(first, torch.tensor([1.2, 1.0, 0.9]), rtol=0.05)
    followed = [gain(index, dim) for index in range(2, 31)]
    steps = [float((b / a).min()) for a, b in zip([first, *followed], followed, strict=False)]
    assert min(steps) > 0.85  # nothing jumps
    assert torch.allclose(followed[-1], torch.tensor([0.6, 0.5, 0.45]), rtol=0.3)
    assert torch.allclose(gain(35, bright), first, rtol=0.02)  # frames were missing in between
