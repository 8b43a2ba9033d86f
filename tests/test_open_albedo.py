# SPDX-License-Identifier: Apache-2.0
"""The shipped albedo model: believable colours, axes that change only what they name."""

from __future__ import annotations

import json

import numpy as np
import pytest

from hiface.assets import asset_path, load_tensors_asset


@pytest.fixture(scope="module")
def albedo():
    tensors, meta = load_tensors_asset("open/albedo.safetensors")
    basis = tensors["basis_q"].float().numpy() * tensors["basis_scale"].numpy()[:, None, None, None]
    return {
        "mean": tensors["mean"].float().numpy(),
        "basis": basis,
        "step": tensors["basis_scale"].numpy(),
        "names": json.loads(meta["names"]),
        "meta": meta,
    }


@pytest.fixture(scope="module")
def samples():
    """Position [T, 3] and texel (row, column) of the middle of every triangle, and its part's name."""
    tensors, meta = load_tensors_asset("open/model.safetensors")
    point = tensors["template"].numpy()[tensors["triangles"].numpy()].mean(axis=1)
    uv = tensors["uv"].numpy()[tensors["uv_triangles"].numpy()].mean(axis=1)
    names = np.array(json.loads(meta["part_names"]))
    return {"point": point, "uv": uv, "part": names[tensors["triangle_parts"].numpy()]}


def look_up(image, uv):
    """Nearest texel of [..., H, W] at [N, 2]."""
    size = image.shape[-1]
    column, row = np.clip((uv * size).astype(int), 0, size - 1).T
    return image[..., row, column]


def axis(albedo, name):
    return albedo["basis"][albedo["names"].index(name)]


def luminance(rgb):
    return np.tensordot(np.array([0.2126, 0.7152, 0.0722]), rgb, 1)


def test_file_is_small_and_says_what_it_is(albedo):
    assert asset_path("open/albedo.safetensors").stat().st_size <= 5e6
    assert {"names", "meaning", "colour_space", "version", "licence", "made_by"} <= set(albedo["meta"])
    assert set(json.loads(albedo["meta"]["meaning"])) == set(albedo["names"])


def test_shapes(albedo):
    a = len(albedo["names"])
    assert len(set(albedo["names"])) == a >= 15
    assert albedo["basis"].shape == (a, *albedo["mean"].shape)
    assert albedo["mean"].shape[0] == 3 and albedo["mean"].shape[1] == albedo["mean"].shape[2]


def test_gutters_are_filled(albedo):
    assert albedo["mean"].min() > 0.002
    row = albedo["mean"][:, -1, :]
    assert luminance(row).min() > 0.02


def test_single_axes_stay_in_range(albedo):
    for sign in (-2, 2):
        images = albedo["mean"] + sign * albedo["basis"]
        assert images.min() > -0.03
        assert images.max() < 1.0


def test_random_people_are_nearly_in_range(albedo):
    alpha = np.random.default_rng(0).standard_normal((50, len(albedo["names"])))
    images = albedo["mean"] + np.tensordot(alpha, albedo["basis"], 1)
    assert (images < 0).mean() < 0.005
    assert (images > 1).mean() == 0


def test_axes_use_their_eight_bits(albedo):
    assert (
        np.abs(albedo["basis"]).reshape(len(albedo["names"]), -1).max(axis=1) / albedo["step"] > 126
    ).all()


def test_left_and_right_alike(albedo):
    difference = np.abs(albedo["mean"] - albedo["mean"][:, :, ::-1])
    assert np.quantile(difference, 0.99) < 0.02
    for basis, step in zip(albedo["basis"], albedo["step"], strict=True):
        assert np.quantile(np.abs(basis - basis[:, :, ::-1]), 0.99) < max(
            0.1 * np.abs(basis).max(), 1.5 * step
        )


def test_mean_cheek_is_skin(albedo, samples):
    cheek = (samples["part"] == "skin") & (np.abs(np.abs(samples["point"][:, 0]) - 0.042) < 0.008)
    cheek &= (np.abs(samples["point"][:, 1] + 0.035) < 0.012) & (samples["point"][:, 2] > 0)
    red, green, blue = look_up(albedo["mean"], samples["uv"][cheek]).mean(axis=1)
    assert 0.3 < red < 0.6
    assert 1.2 < red / green < 2.0
    assert 1.05 < green / blue < 1.6


def test_melanin_spans_light_to_dark(albedo, samples):
    skin = samples["part"] == "skin"
    light, dark = (
        look_up(albedo["mean"] + s * axis(albedo, "melanin"), samples["uv"][skin]).mean(axis=1)
        for s in (-2, 2)
    )
    assert luminance(light) > 0.42
    assert 0.04 < luminance(dark) < 0.13
    assert dark[2] > 0.01


def test_haemoglobin_reddens(albedo, samples):
    skin = samples["uv"][samples["part"] == "skin"]
    pale, ruddy = (
        look_up(albedo["mean"] + s * axis(albedo, "haemoglobin"), skin).mean(axis=1) for s in (-2, 2)
    )
    assert ruddy[0] / ruddy[1] > 1.15 * pale[0] / pale[1]
    assert (ruddy < pale).all()


@pytest.mark.parametrize("name", ["lip_blood", "lip_melanin"])
def test_lip_axes_stay_on_the_lips(albedo, samples, name):
    change = np.abs(look_up(axis(albedo, name), samples["uv"])).max(axis=0)
    x, y = np.abs(samples["point"][:, 0]), samples["point"][:, 1]
    near = (x < 0.034) & (y > -0.100) & (y < -0.050) & (samples["part"] == "skin")
    assert change[~near].max() < 0.001
    assert change.max() > 0.01


@pytest.mark.parametrize("name", ["iris_lightness", "iris_hue", "sclera"])
def test_eye_axes_stay_on_the_eyes(albedo, samples, name):
    change = np.abs(look_up(axis(albedo, name), samples["uv"])).max(axis=0)
    eyes = np.char.startswith(samples["part"].astype(str), "eye")
    assert change[~eyes].max() < 0.001
    assert change[eyes].max() > 0.01


@pytest.mark.parametrize("name", ["brow_density", "brow_thickness", "brow_position"])
def test_brow_axes_stay_above_the_eyes(albedo, samples, name):
    change = np.abs(look_up(axis(albedo, name), samples["uv"])).max(axis=0)
    x, y = np.abs(samples["point"][:, 0]), samples["point"][:, 1]
    brows = (y > 0.004) & (y < 0.038) & (x > 0.003) & (x < 0.068)
    assert change[~brows].max() < 0.004
    assert change[brows].max() > 0.01


def test_brows_are_darker_than_the_forehead(albedo, samples):
    density = np.abs(look_up(axis(albedo, "brow_density"), samples["uv"])).max(axis=0)
    y, z = samples["point"][:, 1], samples["point"][:, 2]
    forehead = (samples["part"] == "skin") & (y > 0.04) & (y < 0.06) & (z > 0)
    shade = luminance(look_up(albedo["mean"], samples["uv"]))
    assert shade[density > 0.8 * density.max()].mean() < 0.6 * shade[forehead].mean()


def test_pupil_iris_and_white(albedo, samples):
    on_eye = samples["part"] == "eye_left"
    uv = samples["uv"][on_eye]
    shade = luminance(albedo["mean"])
    size = shade.shape[0]
    front = uv[np.argsort(-samples["point"][on_eye, 2])[:12]].mean(axis=0) * size
    row, column = int(front[1]), int(front[0])
    ring = [
        shade[row + round(r * np.sin(a)), column + round(r * np.cos(a))] for r in (0, 5, 11) for a in range(6)
    ]
    pupil, iris, white = np.reshape(ring, (3, 6)).mean(axis=1)
    assert pupil < 0.5 * iris < 0.5 * white
