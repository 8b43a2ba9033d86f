# SPDX-License-Identifier: Apache-2.0
"""Where cameras stand and how heads sit on shoulders."""

from __future__ import annotations

import numpy as np
import pytest
import roma
import torch

from hiface.synthetic.cameras import sample_view


@pytest.fixture(scope="module")
def views():
    rng = np.random.default_rng(0)
    return [sample_view(rng) for _ in range(3000)]


def _degrees(R: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Yaw to the own left, pitch up and roll, of rotations [N, 3, 3] to the camera."""
    front = R[..., 2]
    yaw = torch.atan2(front[:, 0], -front[:, 2])
    pitch = torch.asin((-front[:, 1]).clamp(-1, 1))
    return torch.rad2deg(yaw), torch.rad2deg(pitch), torch.rad2deg(torch.atan2(R[:, 0, 1], -R[:, 1, 1]))


def test_heads_turn_to_profile_and_beyond(views):
    R = torch.stack([v.R_cam_head for v in views])
    upright = [i for i, v in enumerate(views) if abs(_degrees(v.R_cam_head[None])[2]) < 15]
    yaw, pitch, _ = _degrees(R[upright])
    # A nodding head's yaw is read from its front, which mixes with pitch and roll a little.
    assert 0.09 < (yaw.abs() > 60).float().mean() < 0.16
    assert 0.008 < (yaw.abs() > 90).float().mean() < 0.035
    assert (yaw.abs() < 50).float().mean() > 0.75
    assert pitch.abs().max() < 60 and pitch.max() > 40 and pitch.min() < -40
    assert (pitch.abs() < 20).float().mean() > 0.85
    assert abs(float((yaw > 0).float().mean()) - 0.5) < 0.04


def test_bodies_turn_less_than_heads(views):
    """Shoulders lie between the head and the camera's upright: half of a tilt, most of a turn."""
    R = torch.stack([v.R_cam_head for v in views])
    bend = torch.from_numpy(np.stack([v.neck_bend for v in views]))
    neck, head = (roma.rotvec_to_rotmat(bend[:, i]) for i in (0, 1))
    body = roma.rotvec_to_rotmat(torch.from_numpy(np.stack([v.body_turn for v in views])))
    R_body = R @ (neck @ head).transpose(1, 2) @ body
    yaw, pitch, roll = _degrees(R)
    body_yaw, body_pitch, body_roll = _degrees(R_body)
    for own, of_body, share in ((yaw, body_yaw, 0.9), (pitch, body_pitch, 0.9), (roll, body_roll, 0.9)):
        calm = (yaw.abs() < 60) & (own.abs() > 12)
        slope = float((own[calm] * of_body[calm]).sum() / (own[calm] ** 2).sum())
        assert 0.2 < slope < share
    turned = torch.rad2deg(roma.rotmat_geodesic_distance(R, R_body))
    assert turned.max() < 80 and turned.median() > 8
    bent = bend.abs().amax(dim=(1, 2)) > 0
    assert 0.4 < bent.float().mean() < 0.5
    assert bend.abs().max() <= 0.3


def test_same_seed_same_view():
    one, two = (sample_view(np.random.default_rng(4)) for _ in range(2))
    assert torch.equal(one.R_cam_head, two.R_cam_head) and (one.body_turn == two.body_turn).all()
