# SPDX-License-Identifier: Apache-2.0
"""The builder's own arithmetic on small data; runs from the repository root, without the source package."""

from __future__ import annotations

import gzip

import numpy as np
import pytest
from safetensors.numpy import load_file

mesh = pytest.importorskip(
    "tools.build_open_model.mesh", reason="run as python -m pytest from the repository root"
)
assemble = pytest.importorskip("tools.build_open_model.assemble")
basis = pytest.importorskip("tools.build_open_model.basis")
expressions = pytest.importorskip("tools.build_open_model.expressions")
identity = pytest.importorskip("tools.build_open_model.identity")
mpfb2 = pytest.importorskip("tools.build_open_model.mpfb2")
prior = pytest.importorskip("tools.build_open_model.prior")


def grid(n):
    """Quads of an n x n sheet of vertices, counter-clockwise from +z, mirror-symmetric about x = 0."""
    ids = np.arange(n * n).reshape(n, n)
    quads = np.stack([ids[:-1, :-1], ids[:-1, 1:], ids[1:, 1:], ids[1:, :-1]], -1).reshape(-1, 4)
    y, x = np.meshgrid(np.linspace(-1, 1, n), np.linspace(-1, 1, n), indexing="ij")
    return np.column_stack([x.ravel(), y.ravel(), 0 * x.ravel()]), quads, ids[:, ::-1].ravel()


def test_boundary_of_a_sheet_is_one_loop():
    _, quads, _ = grid(5)
    assert [len(loop) for loop in mesh.boundary_loops(quads)] == [16]


def test_quads_are_split_alike_on_both_sides():
    vertices, quads, mirror = grid(7)
    wave = 0.1 * np.sin(3 * vertices[:, 1] + 2 * np.abs(vertices[:, 0]))
    triangles = mesh.split_quads(quads, vertices + np.column_stack([0 * wave, wave, wave]), mirror)
    mirrored = {tuple(sorted(t)) for t in mirror[triangles]}
    assert mirrored == {tuple(sorted(t)) for t in triangles}
    a, b, c = (vertices[triangles[:, i]] for i in range(3))
    assert (np.cross(b - a, c - a)[:, 2] > 0).all()


def test_read_target(tmp_path):
    path = tmp_path / "a.target.gz"
    path.write_bytes(gzip.compress(b"# note\n2 .5 0 -1\n0 0 .25 0\n"))
    np.testing.assert_array_equal(mpfb2.read_target(path, 4)[:, 1], [0.25, 0, 0, 0])
    np.testing.assert_array_equal(mpfb2.read_target(path, 4)[2], [0.5, 0, -1])


def test_missing_source_names_the_fix(tmp_path):
    with pytest.raises(FileNotFoundError, match="--data"):
        mpfb2.find_source(tmp_path)


def test_macro_weights_sum_to_one_per_group():
    weights = identity.macro_weights(0.8, 0.3, 0.7, 0.5, np.array([0.2, 0.5, 0.3]))
    universal = sum(w for name, w in weights.items() if "universal" in name)
    races = sum(w for name, w in weights.items() if any(f"/{r}-" in name for r in identity.RACES))
    assert universal == pytest.approx(1.0) and races == pytest.approx(1.0)
    assert not any("height" in name for name in weights)


def test_rigid_alignment_undoes_a_motion():
    rng = np.random.default_rng(0)
    reference = rng.standard_normal((30, 3))
    rotation = np.linalg.qr(rng.standard_normal((3, 3)))[0]
    rotation *= np.sign(np.linalg.det(rotation))
    moved = reference @ rotation.T + [0.3, -1.0, 2.0]
    weights = rng.uniform(0.1, 1.0, 30)
    np.testing.assert_allclose(basis.align_rigid(moved[None], reference, weights)[0], reference, atol=1e-10)


def test_components_reproduce_the_covariance_of_mirrored_samples():
    points, _, mirror = grid(4)
    rng = np.random.default_rng(1)
    samples = points + 0.1 * rng.standard_normal((200, len(points), 3))
    out = basis.principal_components(samples, np.ones(len(points)), mirror, 48)
    both = np.concatenate([samples, samples[:, mirror] * basis.FLIP]).reshape(400, -1)
    both = both - both.mean(axis=0)
    flat = out.basis.reshape(48, -1)
    np.testing.assert_allclose(flat.T @ flat, both.T @ both / 400, atol=1e-10)
    sign = np.where(out.symmetric, 1.0, -1.0)[:, None, None]
    np.testing.assert_allclose(out.basis[:, mirror] * basis.FLIP * sign, out.basis, atol=1e-10)
    assert out.explained[-1] == pytest.approx(1.0)


def test_calibration_meets_mean_and_spread():
    rng = np.random.default_rng(2)
    mean = rng.standard_normal((6, 3))
    rows = 0.1 * rng.standard_normal((40, 6, 3))
    before = [np.linalg.norm(mean[0] - mean[1]), np.linalg.norm(mean[2] - mean[3])]
    wanted = [
        prior.Measure("a", 0, 1, before[0] + 0.01, 0.11, 1e-6),
        prior.Measure("b", 2, 3, before[1], 0.13, 1e-6),
    ]
    moved, scaled = prior.calibrate(mean, rows, wanted)
    np.testing.assert_allclose(prior.measure(moved, wanted), [m.mean for m in wanted], atol=1e-3)
    ratio = prior._jacobian(mean, scaled, wanted)
    raw = prior._jacobian(mean, rows, wanted)
    goal = np.clip([0.11, 0.13] / np.linalg.norm(raw, axis=1), 0.6, 1.25)
    np.testing.assert_allclose(np.linalg.norm(ratio, axis=1) / np.linalg.norm(raw, axis=1), goal, rtol=1e-6)


def test_recompression_keeps_the_distribution():
    points, _, mirror = grid(3)
    rng = np.random.default_rng(3)
    rows = rng.standard_normal((12, 9, 3))
    rows = np.concatenate([rows, rows[:, mirror] * prior.FLIP]) / np.sqrt(2)
    out = prior.recompress(points, rows, np.ones(9), mirror, 24)
    flat, raw = out.basis.reshape(24, -1), rows.reshape(24, -1)
    np.testing.assert_allclose(flat.T @ flat, raw.T @ raw, atol=1e-9)


@pytest.mark.parametrize(
    ("name", "mirrored"), [("eyeBlinkLeft", "eyeBlinkRight"), ("jawRight", "jawLeft"), ("jawOpen", "jawOpen")]
)
def test_mirror_name(name, mirrored):
    assert expressions.mirror_name(name) == mirrored


def test_files_are_the_same_bytes_and_readable(tmp_path):
    tensors = {
        "b": np.arange(6, dtype=np.int32).reshape(2, 3),
        "a": np.ones(5, np.float16),
        "m": np.ones(3, np.uint8),
    }
    assemble.write_safetensors(tmp_path / "1", tensors, {"z": "1", "a": "2"})
    assemble.write_safetensors(tmp_path / "2", dict(reversed(tensors.items())), {"a": "2", "z": "1"})
    assert (tmp_path / "1").read_bytes() == (tmp_path / "2").read_bytes()
    read = load_file(tmp_path / "1")
    assert set(read) == set(tensors)
    for name, value in tensors.items():
        np.testing.assert_array_equal(read[name], value)


def test_half_precision_is_refused_where_it_is_too_coarse():
    with pytest.raises(ValueError, match="half precision"):
        assemble._half(np.array([0.5001]))
