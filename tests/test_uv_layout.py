# SPDX-License-Identifier: Apache-2.0
"""The texture layout of the shipped model: one-to-one, mirror-symmetric, margins kept, fine on the face."""

from __future__ import annotations

import json

import numpy as np
import pytest
from scipy.ndimage import distance_transform_edt
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from hiface.assets import load_tensors_asset

SIZE = 512


@pytest.fixture(scope="module")
def model():
    tensors, meta = load_tensors_asset("open/model.safetensors")
    arrays = {name: value.numpy() for name, value in tensors.items() if value.ndim <= 2}
    return arrays | {"part_names": meta["part_names"]}


@pytest.fixture(scope="module")
def corners(model):
    return model["uv"].astype(np.float64)[model["uv_triangles"]]


@pytest.fixture(scope="module")
def charts(model):
    """Chart number of each triangle: triangles that share corners of the layout."""
    t = model["uv_triangles"]
    n = len(model["uv"])
    rows, cols = np.r_[t[:, 0], t[:, 1]], np.r_[t[:, 1], t[:, 2]]
    _, label = connected_components(
        coo_matrix((np.ones(len(rows)), (rows, cols)), shape=(n, n)), directed=False
    )
    return label[t[:, 0]]


@pytest.fixture(scope="module")
def drawn(corners, charts):
    """How many triangles lie over each texel centre, and whose chart it is."""
    count = np.zeros((SIZE, SIZE), dtype=int)
    chart = np.full((SIZE, SIZE), -1)
    points = corners * SIZE - 0.5
    low, high = np.ceil(points.min(1)).astype(int), np.floor(points.max(1)).astype(int)
    for t in np.flatnonzero((low <= high).all(1)):
        a, b, c = points[t]
        x, y = np.meshgrid(np.arange(low[t, 0], high[t, 0] + 1), np.arange(low[t, 1], high[t, 1] + 1))
        area = (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0])
        v = ((x - a[0]) * (c[1] - a[1]) - (y - a[1]) * (c[0] - a[0])) / area
        w = ((b[0] - a[0]) * (y - a[1]) - (b[1] - a[1]) * (x - a[0])) / area
        inside = (v > 1e-6) & (w > 1e-6) & (v + w < 1 - 1e-6)
        count[y[inside], x[inside]] += 1
        chart[y[inside], x[inside]] = charts[t]
    return count, chart


def signed_areas(corners):
    a, b = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    return 0.5 * (a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0])


def solid_areas(model):
    p = model["template"].astype(np.float64)[model["triangles"]]
    return 0.5 * np.linalg.norm(np.cross(p[:, 1] - p[:, 0], p[:, 2] - p[:, 0]), axis=1)


def part(model, name):
    return model["triangle_parts"] == json.loads(model["part_names"]).index(name)


def test_inside_the_square(model):
    assert model["uv"].min() >= 0 and model["uv"].max() <= 1


def test_no_triangle_is_flipped(corners):
    assert (signed_areas(corners) < 0).all()  # v points down


def test_no_two_triangles_overlap(drawn):
    count, _ = drawn
    assert count.max() == 1


def test_corners_belong_to_one_vertex(model):
    owner = np.full(len(model["uv"]), -1)
    owner[model["uv_triangles"].ravel()] = model["triangles"].ravel()
    assert (owner[model["uv_triangles"]] == model["triangles"]).all()
    assert (owner >= 0).all()


def test_left_and_right_are_exact_mirror_images(model):
    triangles, mirror, uv = model["triangles"], model["mirror_vertices"], model["uv"]
    twin_of = {tuple(sorted(row)): t for t, row in enumerate(triangles.tolist())}
    for t, row in enumerate(triangles):
        twin = twin_of[tuple(sorted(mirror[row].tolist()))]
        there = {v: tuple(uv[k]) for v, k in zip(triangles[twin], model["uv_triangles"][twin], strict=True)}
        for v, k in zip(row, model["uv_triangles"][t], strict=True):
            assert there[mirror[v]] == (np.float32(1) - uv[k, 0], uv[k, 1])


def test_charts_keep_two_texels_apart_at_256(drawn):
    _, chart = drawn
    for c in range(chart.max() + 1):
        others = (chart >= 0) & (chart != c)
        distance = distance_transform_edt(~others)
        assert distance[chart == c].min() >= 2 * SIZE / 256


def test_skin_fills_most_of_the_square(model, corners):
    area = np.abs(signed_areas(corners))
    assert area[part(model, "skin")].sum() > 0.8
    assert area.sum() < 1


def test_face_has_fine_texels(model, corners):
    centre = model["template"][model["triangles"]].mean(axis=1)
    on_face = part(model, "skin") & (np.abs(centre[:, 0]) < 0.055) & (centre[:, 2] > 0.0)
    on_face &= (centre[:, 1] > -0.105) & (centre[:, 1] < 0.05)
    flat, solid = np.abs(signed_areas(corners)), solid_areas(model)
    texel = np.sqrt(solid[on_face].sum() / flat[on_face].sum()) / 256
    assert texel < 1.3e-3
    assert flat[on_face].sum() > 0.25


@pytest.mark.parametrize("side", ["left", "right"])
def test_pupil_is_in_the_middle_of_its_chart(model, side):
    rows = part(model, f"eye_{side}")
    vertices, uv = model["template"][model["triangles"][rows]], model["uv"][model["uv_triangles"][rows]]
    front = vertices[..., 2] > np.quantile(vertices[..., 2], 0.5)
    chart = uv[front]
    near = uv[vertices[..., 2] > vertices[..., 2].max() - 0.0006]
    eye_chart = uv.reshape(-1, 2)
    eye_chart = eye_chart[np.abs(eye_chart - np.median(chart, axis=0)).max(axis=1) < 24 / 256]
    middle = 0.5 * (eye_chart.min(axis=0) + eye_chart.max(axis=0))
    assert np.abs(near.mean(axis=0) - middle).max() < 3 / 256


def test_forehead_is_up_and_own_left_is_right(model):
    triangles, uv_triangles = (
        model["triangles"][part(model, "skin")],
        model["uv_triangles"][part(model, "skin")],
    )
    point, uv = model["template"][triangles].mean(1), model["uv"][uv_triangles].mean(1)
    face = (point[:, 2] > 0.0) & (np.abs(point[:, 0]) < 0.05)
    assert np.corrcoef(point[face, 1], uv[face, 1])[0, 1] < -0.95
    assert np.corrcoef(point[face, 0], uv[face, 0])[0, 1] > 0.95
