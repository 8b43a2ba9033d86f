# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import math

import pytest
import roma
import torch
from hypothesis import given
from hypothesis import strategies as st

from hiface.animation.gaze import (
    EYELOOK_NAMES,
    eyelook_angle,
    eyelook_to_gaze,
    gaze_to_eyelook,
    gaze_to_rotvec,
    pose_from_expression,
    rotvec_to_gaze,
)
from hiface.animation.orders import (
    ORDERS,
    arkit_name,
    expression_order,
    live_link_csv_header,
    live_link_rotation_channels,
    reorder,
)
from hiface.errors import ShapeError
from toy import toy_model

ANGLE = st.floats(-0.4, 0.4)


@given(ANGLE, ANGLE, ANGLE, ANGLE)
def test_gaze_survives_eyelook_and_rotvec(a: float, b: float, c: float, d: float) -> None:
    yaw, pitch = torch.tensor([a, b], dtype=torch.float64), torch.tensor([c, d], dtype=torch.float64)
    values = gaze_to_eyelook(yaw, pitch)
    assert ((values >= 0) & (values <= 1)).all()
    for got, expected in zip(eyelook_to_gaze(values), (yaw, pitch), strict=True):
        assert torch.allclose(got, expected, atol=1e-9)
    for got, expected in zip(rotvec_to_gaze(gaze_to_rotvec(yaw, pitch)), (yaw, pitch), strict=True):
        assert torch.allclose(got, expected, atol=1e-9)


def test_signs_of_every_eyelook_shape() -> None:
    """Out is away from the nose: to +X for the left eye, to -X for the right; +Z is straight ahead."""
    for name in EYELOOK_NAMES:
        yaw, pitch = eyelook_angle(name)
        rotvec = gaze_to_rotvec(torch.tensor(yaw), torch.tensor(pitch))
        ahead = roma.rotvec_to_rotmat(rotvec) @ torch.tensor([0.0, 0.0, 1.0])
        left = name.endswith("Left")
        if "Up" in name or "Down" in name:
            assert (ahead[1] > 0.3) == ("Up" in name) and abs(ahead[0]) < 1e-6
        else:
            assert (ahead[0] > 0.3) == (("Out" in name) == left) and abs(ahead[1]) < 1e-6


def test_eyelook_is_clamped_and_opposites_exclude_each_other() -> None:
    values = gaze_to_eyelook(torch.tensor([math.pi / 2, 0.1]), torch.tensor([-1.5, 0.0]))
    named = dict(zip(EYELOOK_NAMES, values.tolist(), strict=True))
    assert named["eyeLookOutLeft"] == 1 and named["eyeLookDownLeft"] == 1
    assert named["eyeLookInLeft"] == 0 and named["eyeLookUpLeft"] == 0
    assert 0 < named["eyeLookInRight"] < 1 and named["eyeLookOutRight"] == 0


def test_gaze_gradients_are_finite_straight_ahead() -> None:
    yaw = torch.zeros(3, requires_grad=True)
    gaze_to_rotvec(yaw, torch.zeros(3)).sum().backward()
    assert yaw.grad is not None and torch.allclose(yaw.grad, torch.ones(3))


def test_gaze_batches_and_wrong_shapes() -> None:
    assert gaze_to_eyelook(torch.zeros(4, 3, 2), torch.zeros(4, 3, 2)).shape == (4, 3, 8)
    with pytest.raises(ShapeError):
        gaze_to_eyelook(torch.zeros(3), torch.zeros(3))
    with pytest.raises(ShapeError):
        eyelook_to_gaze(torch.zeros(7))
    with pytest.raises(ShapeError, match="not an eyeLook"):
        eyelook_angle("jawOpen")


def test_known_positions_of_the_orders() -> None:
    ours, live, mediapipe, ict = (expression_order(name) for name in ORDERS)
    assert len(ours) == len(live) == len(mediapipe) == 52 and len(ict) == 55
    assert list(ours) == sorted(ours) and set(live) == set(ours)
    assert (live[0], live[17], live[50], live[51]) == (
        "eyeBlinkLeft",
        "jawOpen",
        "noseSneerRight",
        "tongueOut",
    )
    assert mediapipe[0] == "_neutral" and mediapipe[1] == "browDownLeft" and mediapipe[25] == "jawOpen"
    assert set(mediapipe) ^ set(ours) == {"_neutral", "tongueOut"}
    assert len(live_link_rotation_channels()) == 9
    # Epic's ARFaceBlendShape has the left one first, the app's tables have the right one first.
    assert live[15:17] == ("jawLeft", "jawRight") and live[21:23] == ("mouthLeft", "mouthRight")
    header = live_link_csv_header()
    assert header[17:19] == ("JawRight", "JawLeft") and header[23:25] == ("MouthRight", "MouthLeft")
    assert {name.lower() for name in header[2:54]} == {name.lower() for name in ours}


def test_reorder_goes_there_and_back() -> None:
    weights = torch.rand(2, 3, 52)
    live = reorder(weights, "arkit52", "live_link")
    assert torch.equal(live[..., 0], weights[..., expression_order("arkit52").index("eyeBlinkLeft")])
    assert torch.equal(reorder(live, "live_link", "arkit52"), weights)
    back = reorder(reorder(weights, "arkit52", "mediapipe"), "mediapipe", "arkit52")
    assert torch.equal(back[..., :-1], weights[..., :-1]) and not back[..., -1].any()
    assert reorder(torch.tensor([0.5]), ["jawOpen"], "arkit52").count_nonzero() == 1
    assert reorder(torch.zeros(3, 0), [], "arkit52").shape == (3, 52)
    assert reorder(torch.zeros(3, 52), "arkit52", []).shape == (3, 0)
    broken = torch.zeros(52)
    broken[5] = float("nan")  # stays in its own channel
    assert reorder(broken, "arkit52", "ict").isnan().sum() == 2
    free = torch.zeros(52, requires_grad=True)
    reorder(free, "arkit52", "mediapipe").sum().backward()
    assert free.grad is not None and free.grad.tolist() == [1.0] * 51 + [0.0]
    with pytest.raises(ShapeError):
        reorder(torch.zeros(51), "arkit52", "live_link")
    with pytest.raises(ShapeError, match="unknown expression order"):
        expression_order("flame")


def test_halves_of_ict_faces_are_wholes_of_arkit() -> None:
    weights = torch.rand(4, 52)
    ours, ict = expression_order("arkit52"), expression_order("ict")
    there = reorder(weights, "arkit52", "ict")
    for name in ("browInnerUp", "cheekPuff"):
        for side in ("_L", "_R"):
            assert torch.equal(there[:, ict.index(name + side)], weights[:, ours.index(name)])
    assert torch.equal(there[:, ict.index("eyeBlink_L")], weights[:, ours.index("eyeBlinkLeft")])
    assert torch.equal(there[:, ict.index("mouthLeft")], weights[:, ours.index("mouthLeft")])
    assert not there[:, [ict.index("cheekRaiser_L"), ict.index("cheekRaiser_R")]].any()
    back = reorder(there, "ict", "arkit52")
    assert torch.equal(back[:, :-1], weights[:, :-1]) and not back[:, -1].any()  # it has no tongueOut
    there[:, ict.index("cheekPuff_L")], there[:, ict.index("cheekPuff_R")] = 0.2, 0.6
    assert torch.allclose(reorder(there, "ict", "arkit52")[:, ours.index("cheekPuff")], torch.full((4,), 0.4))
    assert torch.equal(reorder(there, "ict", "ict"), there)
    assert not reorder(weights, "arkit52", "mediapipe")[:, 0].any()  # _neutral


@pytest.mark.parametrize(
    ("name", "meaning"),
    [
        ("EyeBlinkLeft", "eyeBlinkLeft"),
        ("eyeblink_l", "eyeBlinkLeft"),
        ("Face.M_F_Head:eyeBlink_Right", "eyeBlinkRight"),
        ("browInnerUp_R", "browInnerUp"),
        ("jawLeft", "jawLeft"),
        ("jaw_L", None),
        ("cheekRaiser_L", None),
        ("_neutral", None),
        ("mouthOpen", None),
        ("", None),
    ],
)
def test_names_of_other_programs(name: str, meaning: str | None) -> None:
    assert arkit_name(name) == meaning


def test_pose_from_expression_turns_the_eyes_only() -> None:
    model = toy_model()
    pose = torch.rand(2, 5, 3)
    expression = torch.stack([model.expression_vector({"eyeLookOutLeft": 1.0}), torch.zeros(52)])
    turned = pose_from_expression(model, expression, pose)
    assert torch.equal(turned[:, :3], pose[:, :3])
    assert torch.allclose(turned[0, 3], torch.tensor([0.0, eyelook_angle("eyeLookOutLeft")[0], 0.0]))
    assert turned[0, 4].abs().max() < 1e-6 and turned[1, 3:].abs().max() < 1e-6
