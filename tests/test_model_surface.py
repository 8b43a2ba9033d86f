"""What readers work out from bare meshes and colours: layout, baked albedo, winding, mirror images."""

import numpy as np
import pytest

import model_files as make
from hiface.errors import ModelFormatError
from hiface.morphable.readers.bake import Baker, decode_srgb, linear_albedo, shrink
from hiface.morphable.readers.surface import (
    cylindrical_uv,
    mirror_vertices,
    points_at_vertices,
    winds_inwards,
)

RNG = np.random.default_rng(3)


def test_albedo_in_linear_colour_is_right_at_the_mean_and_near_it():
    mean, axis = RNG.uniform(0.3, 0.8, (50, 3)), RNG.uniform(-0.1, 0.1, (1, 50, 3))
    linear_mean, linear_basis = linear_albedo(mean, axis)
    np.testing.assert_allclose(linear_mean, decode_srgb(mean), atol=1e-6)
    for sigma in (-1.0, 1.0):
        want = decode_srgb(mean + sigma * axis[0])
        assert np.abs(linear_mean + sigma * linear_basis[0] - want).max() < 0.015
        assert np.abs(linear_mean - want).max() > 0.05


def test_layout_covers_the_head_without_wide_triangles():
    vertices, triangles, _, _ = make.head()
    uv, uv_triangles = cylindrical_uv(vertices, triangles)
    assert uv.min() >= 0 and uv.max() <= 1
    spans = np.ptp(uv[uv_triangles][..., 0], axis=1)
    assert np.quantile(spans, 0.8) < 0.2
    nose = vertices[:, 2].argmax()
    assert abs(uv[nose, 0] - 0.5) < 0.05
    assert uv[vertices[:, 0].argmax(), 0] > 0.6


def test_bake_is_barycentric_and_fills_the_rest():
    uv = np.array([[0.1, 0.1], [0.9, 0.1], [0.1, 0.9]])
    baker = Baker(np.array([[0, 1, 2]]), uv, np.array([[0, 1, 2]]), size=64)
    values = np.array([[0.0], [1.0], [0.0]])
    found = baker.paint(values)[0]
    centres = (np.arange(64) + 0.5) / 64
    inside = (centres[None] >= 0.1) & (centres[:, None] >= 0.1) & (centres[None] + centres[:, None] <= 1.0)
    want = np.broadcast_to((centres[None] - 0.1) / 0.8, (64, 64))
    np.testing.assert_allclose(found[inside], want[inside], atol=1e-5)
    assert np.isfinite(found).all() and found.max() <= 1 and found.min() >= -1e-6


def test_mirror_images_are_mutual():
    vertices = make.head()[0]
    mirror = mirror_vertices(vertices)
    assert (mirror[mirror] == np.arange(len(mirror))).all()
    np.testing.assert_allclose(vertices[mirror] * [-1, 1, 1], vertices, atol=1e-9)
    lopsided = vertices + np.array([0.02, 0, 0])
    assert (mirror_vertices(lopsided) == np.arange(len(vertices))).mean() > 0.9


def test_winding_of_closed_and_open_meshes():
    vertices, triangles, _, _ = make.head()
    front = triangles[(vertices[triangles][..., 2] > 0).all(axis=1)]
    for mesh in (triangles, front):
        assert not winds_inwards(vertices, mesh) and winds_inwards(vertices, mesh[:, ::-1])


def test_points_at_vertices():
    vertices, triangles, _, _ = make.head()
    ids = np.array([5, 0, 97])
    rows, weights = points_at_vertices(ids, triangles, "points")
    np.testing.assert_array_equal((vertices[triangles[rows]] * weights[..., None]).sum(axis=1), vertices[ids])
    with pytest.raises(ModelFormatError, match="no triangle has vertex 98"):
        points_at_vertices(np.array([98]), triangles, "points")


def test_smaller_pictures_are_averages():
    picture = RNG.random((8, 8, 2))
    np.testing.assert_allclose(shrink(picture, 4)[1, 2], picture[2:4, 4:6].mean(axis=(0, 1)))
    with pytest.raises(ModelFormatError, match="square texture"):
        shrink(picture[:7], 4)
