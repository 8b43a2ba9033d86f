# SPDX-License-Identifier: Apache-2.0
"""The shape part of the shipped face model: connectivity, symmetry, prior, expressions, rig."""

from __future__ import annotations

import json
from itertools import pairwise

import numpy as np
import pytest

import hiface
from hiface.assets import load_json_asset, load_tensors_asset

FLIP = np.array([-1.0, 1.0, 1.0])
PEOPLE = 60


class Model:
    """The file's tensors in float64, with a few shorthands."""

    def __init__(self):
        tensors, self.meta = load_tensors_asset("open/model.safetensors")
        self.t = {
            k: v.numpy().astype(np.float64 if v.is_floating_point() else np.int64) for k, v in tensors.items()
        }
        self.t["expression_basis"] = hiface.load_model("open").data.expression_basis.double().numpy()
        self.names = json.loads(self.meta["expression_names"])
        self.parts = json.loads(self.meta["part_names"])
        self.mirror = self.t["mirror_vertices"]
        self.template = self.t["template"]

    def part(self, name):
        return self.t["triangles"][self.t["triangle_parts"] == self.parts.index(name)]

    def inside(self, name):
        """Vertices of a part that are not on the skin."""
        return np.setdiff1d(self.part(name), self.part("skin"))

    def motion(self, name):
        return self.t["expression_basis"][self.names.index(name)]

    def people(self, count, seed=0):
        coefficients = np.random.default_rng(seed).standard_normal((count, len(self.t["identity_basis"])))
        return self.template + np.tensordot(coefficients, self.t["identity_basis"], 1), coefficients


@pytest.fixture(scope="module")
def model():
    return Model()


def border_loops(triangles):
    edges = {(int(a), int(b)) for t in triangles for a, b in pairwise([*t, t[0]])}
    border = {a: b for a, b in edges if (b, a) not in edges}
    sizes = []
    while border:
        start, at = border.popitem()
        size = 1
        while at != start:
            at, size = border.pop(at), size + 1
        sizes.append(size)
    return sorted(sizes)


def volume(vertices, triangles):
    a, b, c = (vertices[triangles[:, i]] for i in range(3))
    return float(np.einsum("ij,ij->i", a, np.cross(b, c)).sum() / 6.0)


def covered(vertices, points, triangles):
    """Which points have a triangle in front of them, seen from +z."""
    a, b, c = (vertices[triangles[:, i]] for i in range(3))
    area = (b[:, 0] - a[:, 0]) * (c[:, 1] - a[:, 1]) - (b[:, 1] - a[:, 1]) * (c[:, 0] - a[:, 0])
    ok = np.abs(area) > 1e-12
    a, b, c, area = a[ok], b[ok], c[ok], area[ok]
    x, y = points[:, None, 0], points[:, None, 1]
    w0 = ((b[:, 0] - x) * (c[:, 1] - y) - (b[:, 1] - y) * (c[:, 0] - x)) / area
    w1 = ((c[:, 0] - x) * (a[:, 1] - y) - (c[:, 1] - y) * (a[:, 0] - x)) / area
    w2 = 1.0 - w0 - w1
    depth = w0 * a[:, 2] + w1 * b[:, 2] + w2 * c[:, 2]
    return ((w0 >= 0) & (w1 >= 0) & (w2 >= 0) & (depth > points[:, None, 2])).any(axis=1)


def visible_eye_share(model, vertices, side="left"):
    """Share of a frontal disc of the eyeball, 9 mm in radius, that no lid covers."""
    eyeball = vertices[np.unique(model.part(f"eye_{side}"))]
    centre = eyeball.mean(axis=0)
    radius = np.linalg.norm(eyeball - centre, axis=1).mean()
    grid = np.stack(np.meshgrid(*[np.linspace(-0.009, 0.009, 13)] * 2), -1).reshape(-1, 2)
    grid = grid[np.linalg.norm(grid, axis=1) < 0.009]
    z = np.sqrt(radius**2 - (grid**2).sum(1))
    skin = model.part("skin")
    near = np.linalg.norm(vertices[skin].mean(axis=1) - centre, axis=1) < 0.03
    lids = np.concatenate([skin[near], model.part(f"socket_{side}")])
    front = vertices[lids][:, :, 2].max(axis=1) > centre[2]
    return 1.0 - covered(vertices, centre + np.column_stack([grid, z]), lids[front]).mean()


def test_metadata(model):
    assert model.meta["name"] == "open"
    assert model.meta["units"] == "m"
    assert "CC0" in model.meta["licence"]
    assert model.names == sorted(model.names) == list(load_json_asset("expressions/arkit52.json")["names"])
    assert json.loads(model.meta["joint_parents"]) == [-1, 0, 1, 1, 1]
    assert all(len(d) == 64 for d in json.loads(model.meta["source_sha256"]).values())


def test_every_part_winds_outwards_and_has_its_openings(model):
    loops = {name: border_loops(model.part(name)) for name in model.parts}
    assert loops["skin"] == [28, 28, 38, 48]
    assert loops["socket_left"] == loops["socket_right"] == [28]
    assert loops["mouth_interior"] == [38]
    assert loops["eye_left"] == loops["eye_right"] == loops["tongue"] == []
    skin = np.concatenate([model.part(n) for n in ("skin", "socket_left", "socket_right", "mouth_interior")])
    assert border_loops(skin) == [48]
    for name in ("skin", "eye_left", "eye_right", "tongue"):
        assert volume(model.template, model.part(name)) > 0
    assert volume(model.template, model.part("socket_left")) < 0


def test_triangles_are_the_halves_of_the_quads(model):
    halves = model.t["triangles"].reshape(-1, 6)
    assert all(set(h) == set(q) for h, q in zip(halves, model.t["quads"], strict=True))


def test_mirror_is_exact(model):
    m, triangles = model.mirror, model.t["triangles"]
    assert (m[m] == np.arange(len(m))).all()
    np.testing.assert_allclose(model.template[m] * FLIP, model.template, atol=1e-8)
    mirrored = {tuple(np.roll(t, -t.argmin())) for t in m[triangles][:, ::-1]}
    assert mirrored == {tuple(np.roll(t, -t.argmin())) for t in triangles}
    sign = np.where(model.t["identity_symmetric"], 1.0, -1.0)[:, None, None]
    basis = model.t["identity_basis"]
    np.testing.assert_allclose(basis[:, m] * FLIP * sign, basis, atol=2e-6)
    np.testing.assert_allclose(
        model.t["skin_weights"][m][:, [0, 1, 2, 4, 3]], model.t["skin_weights"], atol=1e-7
    )


def test_expressions_come_in_mirrored_pairs(model):
    for name in model.names:
        other = name.replace("Left", "\0").replace("Right", "Left").replace("\0", "Right")
        np.testing.assert_allclose(
            model.motion(name)[model.mirror] * FLIP, model.motion(other), atol=2e-5, err_msg=name
        )


def test_origin_scale_and_axes(model):
    eyes = [model.template[np.unique(model.part(f"eye_{s}"))].mean(axis=0) for s in ("left", "right")]
    np.testing.assert_allclose((eyes[0] + eyes[1]) / 2, 0.0, atol=1e-6)
    assert eyes[0][0] > 0 > eyes[1][0]
    assert 0.060 < eyes[0][0] - eyes[1][0] < 0.066
    skin = model.template[np.unique(model.part("skin"))]
    tip = skin[skin[:, 2].argmax()]
    assert abs(tip[0]) < 1e-4 and -0.06 < tip[1] < -0.03


def test_people_spread_like_people(model):
    shapes, _ = model.people(400, seed=1)
    eyes = [shapes[:, np.unique(model.part(f"eye_{s}"))].mean(axis=1) for s in ("left", "right")]
    between = np.linalg.norm(eyes[0] - eyes[1], axis=1)
    assert 0.0030 < between.std() < 0.0045
    rim = np.intersect1d(model.part("mouth_interior"), model.part("skin"))
    corner = rim[model.template[rim, 0].argmax()]
    width = np.linalg.norm(shapes[:, corner] - shapes[:, model.mirror[corner]], axis=1)
    assert 0.0035 < width.std() < 0.0055


def test_components_are_ordered_and_explain_the_rest(model):
    std, shares = model.t["identity_std"], model.t["identity_explained"]
    assert (np.diff(std) <= 1e-9).all() and std[-1] > 0
    assert (np.diff(shares) > 0).all() and 0.98 < shares[-1] < 1.0


def test_random_people_are_not_torn(model):
    shapes, _ = model.people(PEOPLE, seed=2)
    skin = model.part("skin")
    edges = np.unique(
        np.sort(np.concatenate([skin[:, [0, 1]], skin[:, [1, 2]], skin[:, [2, 0]]]), axis=1), axis=0
    )

    def lengths(v):
        return np.linalg.norm(v[..., edges[:, 0], :] - v[..., edges[:, 1], :], axis=-1)

    rest = lengths(model.template)
    ratio = lengths(shapes)[:, rest > 0.002] / rest[rest > 0.002]
    assert np.isfinite(shapes).all()
    assert ratio.max() < 4.0
    assert 0.65 < np.quantile(ratio, 0.02) and np.quantile(ratio, 0.98) < 1.45


def test_eyeballs_and_upper_teeth_never_move_with_expressions(model):
    for name in ("eye_left", "eye_right", "teeth_upper"):
        assert np.abs(model.t["expression_basis"][:, np.unique(model.part(name))]).max() == 0


def test_upper_face_leaves_the_mouth_alone(model):
    inner = np.concatenate([model.inside(n) for n in ("mouth_interior", "teeth_lower", "tongue")])
    for name in model.names:
        if name.startswith(("brow", "eye", "nose", "cheekSquint")):
            assert np.abs(model.motion(name)[inner]).max() == 0, name


def test_jaw_takes_lower_teeth_and_tongue_along(model):
    jaw = model.motion("jawOpen")
    for name in ("teeth_lower", "tongue"):
        assert jaw[np.unique(model.part(name))][:, 1].mean() < -0.01
    assert jaw[np.unique(model.part("skin"))][:, 1].min() < -0.03
    assert model.motion("tongueOut")[np.unique(model.part("tongue"))][:, 2].max() > 0.015


@pytest.mark.parametrize("side", ["left", "right"])
def test_blink_closes_the_mean_eye_and_only_this_one(model, side):
    blink = model.motion(f"eyeBlink{side.title()}")
    assert visible_eye_share(model, model.template, side) > 0.3
    assert 0.05 < visible_eye_share(model, model.template + 0.5 * blink, side) < 0.4
    assert visible_eye_share(model, model.template + blink, side) == 0
    other = "right" if side == "left" else "left"
    assert np.abs(blink[np.unique(model.part(f"socket_{other}"))]).max() == 0


def test_blink_closes_the_eyes_of_others(model):
    shapes, _ = model.people(PEOPLE, seed=3)
    open_share = np.array([visible_eye_share(model, v) for v in shapes])
    closed_share = np.array([visible_eye_share(model, v + model.motion("eyeBlinkLeft")) for v in shapes])
    assert np.median(open_share) > 0.3
    assert (closed_share > 0.02).mean() < 0.1
    assert closed_share.max() < 0.15


def test_lips_of_the_mean_head_are_sealed(model):
    rim = np.intersect1d(model.part("mouth_interior"), model.part("skin"))
    x, y, z = model.template[rim].T
    middle = np.abs(x) < 0.018
    points = np.column_stack([x[middle], y[middle] + 0.0, z[middle] - 0.004])
    lips = model.part("skin")
    near = np.abs(model.template[lips].mean(axis=1) - [0, y.mean(), z.mean()]).max(axis=1) < 0.03
    assert covered(model.template, points, lips[near]).all()


def test_joints_sit_in_the_eyeballs_of_everybody(model):
    shapes, coefficients = model.people(20, seed=4)
    joints = model.t["joints_template"] + np.tensordot(coefficients, model.t["joints_identity_basis"], 1)
    for joint, name in ((3, "eye_left"), (4, "eye_right")):
        centre = shapes[:, np.unique(model.part(name))].mean(axis=1)
        np.testing.assert_allclose(joints[:, joint], centre, atol=2e-5)


def test_skin_weights(model):
    weights = model.t["skin_weights"]
    np.testing.assert_allclose(weights.sum(axis=1), 1.0, atol=1e-6)
    assert weights.min() >= 0
    rigid = {"eye_left": 3, "eye_right": 4, "teeth_upper": 1, "teeth_lower": 2, "tongue": 2}
    for name, joint in rigid.items():
        assert (weights[np.unique(model.part(name)), joint] == 1).all()
    assert weights[np.unique(model.part("skin")), 3:].max() == 0
    chin = np.unique(model.part("skin"))
    chin = chin[(model.template[chin, 1] < -0.1) & (model.template[chin, 2] > 0.01)]
    assert weights[chin, 2].min() > 0.5
