# SPDX-License-Identifier: Apache-2.0
"""Posing one known person gives what the model gives."""

from __future__ import annotations

import numpy as np
import pytest
import roma
import torch

import hiface
from hiface.morphable.skinning import joint_transforms
from hiface.synthetic.posing import joint_matrices, pose_shape, rest_of, rotation


@pytest.fixture(scope="module")
def model():
    return hiface.load_model("open")


@pytest.mark.parametrize("vector", [[0.0, 0.0, 0.0], [1e-9, 0.0, 0.0], [0.3, -0.2, 0.1], [0.0, 3.1, 0.0]])
def test_rotation(vector):
    expected = roma.rotvec_to_rotmat(torch.tensor(vector, dtype=torch.float64)).float()
    assert torch.allclose(rotation(np.array(vector)), expected, atol=1e-6)
    assert torch.allclose(rotation(torch.tensor(vector)), expected, atol=1e-6)


def test_joints_and_vertices(model):
    gen = torch.Generator().manual_seed(1)
    identity = torch.randn(model.data.n_identity, generator=gen)
    expression = torch.rand(52, generator=gen) * (torch.rand(52, generator=gen) < 0.2)
    pose = 0.2 * torch.randn(model.data.n_joints, 3, generator=gen)
    rest = rest_of(model, identity)
    assert rest_of(model, identity) is rest and rest_of(model, identity.clone()) is not rest
    R, t = joint_transforms(model.joints(identity), pose, model.data.joint_parents)
    T = joint_matrices(rest.joints, pose, model.data.joint_parents)
    assert torch.allclose(T[:, :3, :3], R, atol=1e-6) and torch.allclose(T[:, :3, 3], t, atol=1e-6)
    for values in (expression, torch.zeros(52)):
        verts, T_joints = pose_shape(model, rest, values, pose)
        assert torch.allclose(verts, model.vertices(identity, values, pose), atol=2e-6)
        assert torch.equal(T_joints, T)
