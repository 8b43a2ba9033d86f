# SPDX-License-Identifier: Apache-2.0
"""The choice of contour points on a made-up head: a bent sheet, so that every answer is known."""

import math

import pytest
import roma
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hiface.errors import ShapeError
from hiface.morphable.contour import gather_contour, head_up_in_image, outward_angles, select_contour

N = 21


def cylinder_head():
    """Lines around an upright cylinder of radius 7 cm, candidates from 20 to 85 degrees off the front."""
    around = torch.deg2rad(torch.linspace(20.0, 85.0, N))
    height = torch.cat([torch.linspace(0.05, -0.07, 9), torch.linspace(-0.07, 0.05, 9)[1:]])
    side = torch.sign(torch.arange(17.0) - 8)
    x = side[:, None] * 0.07 * around.sin()
    z = (0.07 * around.cos()).expand(17, N)
    return torch.stack([x, height[:, None].expand(17, N), z], dim=-1), torch.ones(17, N, dtype=torch.bool)


def in_camera(points, yaw=0.0, roll=0.0, distance=2.0):
    turn = roma.rotvec_to_rotmat(torch.tensor([0.0, math.radians(yaw), 0.0]))
    tilt = roma.rotvec_to_rotmat(torch.tensor([0.0, 0.0, math.radians(roll)]))
    return points @ turn.T @ torch.diag(torch.tensor([1.0, -1.0, -1.0])) @ tilt.T + torch.tensor(
        [0.0, 0.0, distance]
    )


def test_angles_go_from_sideways_to_down():
    angle = outward_angles()
    assert angle[0] == 0 and angle[16] == 0 and angle[8] == pytest.approx(math.pi / 2)
    assert torch.equal(angle, angle.flip(0)) and (angle[:9].diff() > 0).all()


@pytest.mark.parametrize("roll", (0, 30, 90, 180, -120))
def test_up_axis_follows_roll(roll):
    points, valid = cylinder_head()
    up = head_up_in_image(in_camera(points, 15, roll), valid)
    expected = torch.tensor([math.sin(math.radians(roll)), -math.cos(math.radians(roll))])
    torch.testing.assert_close(up, expected, atol=0.02, rtol=0)


@pytest.mark.parametrize("yaw", (-40, -25, 0, 25, 40))
def test_far_side_takes_the_silhouette_and_near_side_the_end(yaw):
    points, valid = cylinder_head()
    chosen = select_contour(in_camera(points, yaw, distance=20.0), valid)
    around = torch.linspace(20.0, 85.0, N)
    near = slice(0, 3) if yaw >= 0 else slice(14, 17)
    far = slice(14, 17) if yaw >= 0 else slice(0, 3)
    assert (chosen[near] == N - 1).all()
    silhouette = min(90.0 - abs(yaw), 85.0)
    assert (around[chosen[far]] - silhouette).abs().max() < 4.0


@settings(max_examples=20, deadline=None)
@given(yaw=st.floats(-60, 60), roll=st.floats(-180, 180))
def test_choice_does_not_depend_on_roll_and_mirrors(yaw, roll):
    points, valid = cylinder_head()
    upright = select_contour(in_camera(points, yaw), valid)
    rolled = select_contour(in_camera(points, yaw, roll), valid)
    mirrored = select_contour(in_camera(points, -yaw), valid).flip(0)
    assert (upright - rolled).abs().max() <= 1
    assert (upright - mirrored)[[0, 1, 2, 14, 15, 16]].abs().max() <= 1


def test_padding_is_never_chosen_and_batches_agree():
    points, valid = cylinder_head()
    valid = valid.clone()
    valid[:, 12:] = False
    poses = torch.stack([in_camera(points, yaw) for yaw in (0, 40, -40)])
    chosen = select_contour(poses[:, None], valid)
    assert chosen.shape == (3, 1, 17) and chosen.max() < 12
    for one, pose in zip(chosen[:, 0], poses, strict=True):
        assert torch.equal(one, select_contour(pose, valid))


def test_given_up_axis_overrides_the_estimate():
    points, valid = cylinder_head()
    cam = in_camera(points, 20)
    up = torch.tensor([0.0, -3.0])
    assert torch.equal(select_contour(cam, valid, up), select_contour(cam, valid))
    assert not torch.equal(select_contour(cam, valid, -up), select_contour(cam, valid))


def test_gather_picks_the_chosen_candidates():
    points, valid = cylinder_head()
    index = select_contour(in_camera(points, 40), valid)
    picked = gather_contour(points.expand(2, 17, N, 3), index.expand(2, 17))
    assert picked.shape == (2, 17, 3)
    torch.testing.assert_close(picked[1, 15], points[15, index[15]])


def test_wrong_shapes_are_named():
    points, valid = cylinder_head()
    with pytest.raises(ShapeError, match="17"):
        select_contour(points[:16], valid[:16])
    with pytest.raises(ShapeError, match="points_cam"):
        select_contour(points[..., :2], valid)
