# SPDX-License-Identifier: Apache-2.0
"""Procrustes alignment and region errors."""

from __future__ import annotations

from dataclasses import replace

import pytest
import roma
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hiface.errors import ModelFormatError, ShapeError
from hiface.evaluation.regions import ratio_to_mean, region_errors, vertex_areas
from hiface.geometry.procrustes import procrustes
from toy import toy_model


@pytest.fixture(scope="module")
def data():
    data = toy_model().data
    front = data.template[:, 2] > 0.03
    up, right = data.template[:, 1], data.template[:, 0].abs()
    masks = {
        "face": front,
        "nose": front & (right < 0.02) & (up.abs() < 0.03),
        "mouth": front & (right < 0.03) & (up < -0.03),
        "forehead": front & (up > 0.04),
        "cheek": front & (right > 0.03) & (up.abs() < 0.03),
    }
    return replace(data, vertex_masks=masks)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 1000), with_scale=st.booleans())
def test_procrustes_recovers_a_transform(seed: int, with_scale: bool):
    gen = torch.Generator().manual_seed(seed)
    source = torch.randn(2, 20, 3, generator=gen, dtype=torch.float64)
    R = roma.rotvec_to_rotmat(torch.randn(2, 3, generator=gen, dtype=torch.float64))
    t = torch.randn(2, 3, generator=gen, dtype=torch.float64)
    scale = torch.tensor([0.5, 2.0]).double() if with_scale else torch.ones(2).double()
    target = scale[:, None, None] * source @ R.transpose(-1, -2) + t[:, None]
    found = procrustes(source, target, with_scale=with_scale)
    assert torch.allclose(found.R, R, atol=1e-8)
    assert torch.allclose(found.t, t, atol=1e-8)
    assert torch.allclose(found.scale, scale)
    assert torch.allclose(found.apply(source), target, atol=1e-8)


def test_procrustes_never_mirrors():
    source = torch.randn(30, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = procrustes(source, source * torch.tensor([-1.0, 1.0, 1.0]).double())
    assert torch.allclose(torch.linalg.det(found.R), torch.ones(()).double())


def test_procrustes_ignores_points_of_no_weight():
    source = torch.randn(10, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    target = source + torch.tensor([1.0, 2.0, 3.0]).double()
    target[0] += 100
    weights = torch.ones(10).double()
    weights[0] = 0
    assert torch.allclose(procrustes(source, target, weights).apply(source)[1:], target[1:])


def test_procrustes_needs_corresponding_points():
    with pytest.raises(ShapeError):
        procrustes(torch.zeros(5, 3), torch.zeros(6, 3))


def test_rigid_motion_is_no_error(data):
    R = roma.rotvec_to_rotmat(torch.tensor([0.2, -0.3, 0.4]))
    moved = data.template @ R.T + torch.tensor([0.1, 0.2, 0.3])
    errors = region_errors(data, moved, data.template)
    for values in errors.millimetres.values():
        assert float(values.max()) < 1e-3


def test_size_counts_unless_scaled(data):
    errors = region_errors(data, 1.05 * data.template, data.template)
    assert float(errors.mean("global")) > 1.0
    assert float(errors.mean("scaled")) < 1e-2


def test_ratio_is_one_for_the_mean_and_half_for_half_way(data):
    gen = torch.Generator().manual_seed(0)
    offset = torch.einsum("nk,kvx->nvx", torch.randn(5, 8, generator=gen), data.identity_basis)
    true = data.template + offset
    mean = data.template.expand_as(true)
    assert all(abs(ratio - 1) < 1e-5 for ratio in ratio_to_mean(data, mean, true).values())
    half = ratio_to_mean(data, data.template + 0.5 * offset, true)
    assert all(abs(ratio - 0.5) < 0.05 for ratio in half.values())


def test_areas_sum_to_the_surface(data):
    a, b, c = data.template[data.triangles].unbind(1)
    surface = torch.linalg.cross(b - a, c - a).norm(dim=-1).sum() / 2
    assert torch.allclose(vertex_areas(data.template, data.triangles).sum(), surface)


def test_errors_name_what_is_missing(data):
    with pytest.raises(ShapeError, match="vertices"):
        region_errors(data, data.template[:5], data.template[:5])
    with pytest.raises(ModelFormatError, match="nose"):
        region_errors(replace(data, vertex_masks={}), data.template, data.template)
