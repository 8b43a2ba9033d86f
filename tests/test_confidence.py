# SPDX-License-Identifier: Apache-2.0
"""Visibility and confidence of vertices."""

from __future__ import annotations

from dataclasses import replace

import pytest
import roma
import torch

from hiface.detail.basis import load_detail_basis
from hiface.fitting.confidence import vertex_evidence
from hiface.morphable import load_model
from hiface.types import Camera
from test_detail_fit import FLIP, SIZE, face, photo


@pytest.fixture(scope="module")
def model():
    return load_model("open")


def picture(model, params):
    basis = load_detail_basis().first(2, 2, 2)
    return photo(model, basis, params, torch.zeros(2), torch.zeros(4))


def turned(params, yaw):
    R = FLIP @ roma.rotvec_to_rotmat(torch.tensor([0.0, yaw, 0.0]))
    camera = Camera.from_pose(R, torch.tensor([0.0, 0.0, 0.5]), 800.0, SIZE, SIZE)
    return params.replace(camera=camera)


def test_a_frontal_photo_shows_both_halves_and_a_profile_one(model):
    front, profile = turned(face(model), 0.0), turned(face(model), 1.3)
    both = vertex_evidence(model, front, picture(model, front))
    assert both.inferred_half is None and min(both.seen_left, both.seen_right) > 0.5
    one = vertex_evidence(model, profile, picture(model, profile))
    x = model.vertices_cam(profile)[:, 2]
    near_left = float(x[model.data.vertex_masks["left_eye_region"]].mean()) < float(
        x[model.data.vertex_masks["right_eye_region"]].mean()
    )
    assert one.inferred_half == ("right" if near_left else "left")
    back = model.data.template[:, 2] < -0.12
    assert float(both.visible[back].max()) == 0.0
    assert bool((both.confidence <= both.visible + 1e-6).all())


def test_what_covers_the_face_is_not_believed(model):
    params = turned(face(model), 0.0)
    image = picture(model, params)
    nose = model.data.vertex_masks["nose"]
    px = params.camera.cam_to_px(model.vertices_cam(params))[nose]
    low, high = px.amin(0).int(), px.amax(0).int()
    covered = image.clone()
    covered[:, low[1] : high[1], low[0] : high[0]] = torch.tensor([0.02, 0.03, 0.15])[:, None, None]
    clean, hidden = (vertex_evidence(model, params, i).confidence for i in (image, covered))
    seen = vertex_evidence(model, params, image).visible > 0.8
    assert float(clean[nose & seen].mean()) > 0.7
    assert float(hidden[nose & seen].mean()) < 0.2
    cheek = model.data.vertex_masks["cheek"] & seen
    assert float(hidden[cheek].mean()) > 0.7 * float(clean[cheek].mean())


def test_nothing_is_seen_beside_the_photo(model):
    params = turned(face(model), 0.0)
    K = params.camera.K.clone()
    K[0, 2] += 5000.0
    away = params.replace(camera=replace(params.camera, K=K))
    evidence = vertex_evidence(model, away, torch.full((3, SIZE, SIZE), 0.5))
    assert float(evidence.visible.sum()) == 0.0 and float(evidence.confidence.sum()) == 0.0
