# SPDX-License-Identifier: Apache-2.0
"""Relief from shading, texel by texel."""

from __future__ import annotations

from dataclasses import replace

import pytest
import roma
import torch

from hiface.detail.basis import load_detail_basis
from hiface.errors import FitError, ShapeError
from hiface.fitting.fine_shading import TexelPlaces, read_fine_shading
from hiface.fitting.relief import (
    ReliefConfig,
    _Shading,
    _System,
    fit_relief,
    fit_shared_relief,
    skin_places,
)
from hiface.morphable import load_model
from hiface.render.pipeline import render
from hiface.render.shade import ambient_light
from hiface.types import Camera
from test_detail_fit import SIZE, face, lit_texture


@pytest.fixture(scope="module")
def model():
    return load_model("open")


def close_up(model):
    """The face of the other tests, near enough for lines of two millimetres."""
    params = face(model)
    K = params.camera.K.clone()
    K[0, 0] = K[1, 1] = 1100.0
    return params.replace(camera=replace(params.camera, K=K))


def photo(model, params, displacement):
    camera = replace(params.camera, K=params.camera.K[None], T_cam_object=params.camera.T_cam_object[None])
    texture = lit_texture(model, params, displacement)[None]
    mesh = model.mesh(model.shape(params.identity, params.expression)[None])
    return render(mesh, camera, texture, ambient_light(1.0, texture)[None]).image[0]


def lines():
    """Grooves 0.15 mm deep across forehead and cheeks."""
    rows = torch.arange(256)[:, None].expand(256, 256).float()
    return -1.5e-4 * torch.exp(-((((rows % 14) - 7) / 1.6) ** 2))[None]


def correlation(a, b):
    a, b = a - a.mean(), b - b.mean()
    return float((a * b).sum() / (a.norm() * b.norm()))


def test_grooves_are_found(model):
    params, truth = close_up(model), lines()
    places = skin_places(model, 256)
    image = photo(model, params, truth)
    nothing = torch.zeros(1, 256, 256)
    clean = ReliefConfig(effective_share=3.0, bend=0.03)  # a picture without noise may be believed
    found = fit_relief(model, params, image, nothing, config=clean)
    seen = read_fine_shading(model, params, image, places, (256, 448), 16)
    assert seen is not None
    good = places.texels[seen.weight > 0.9]
    assert len(good) > 3000
    assert correlation(found.flatten()[good], truth.flatten()[good]) > 0.7
    assert float(found.flatten()[good].std()) > 0.4 * float(truth.flatten()[good].std())
    smooth = fit_relief(model, params, photo(model, params, nothing), nothing, config=clean)
    assert float(smooth.flatten()[good].std()) < 0.3 * float(found.flatten()[good].std())


def test_a_finer_map_finds_the_same(model):
    params, truth = close_up(model), lines()
    image = photo(model, params, truth)
    found = fit_relief(model, params, image, torch.zeros(1, 512, 512), load_detail_basis())
    coarse = fit_relief(model, params, image, torch.zeros(1, 256, 256), load_detail_basis())
    assert found.shape == (1, 512, 512)
    small = torch.nn.functional.avg_pool2d(found, 2).flatten()
    assert correlation(small[coarse.flatten() != 0], coarse.flatten()[coarse.flatten() != 0]) > 0.8


def test_what_is_known_stays_where_the_photo_says_nothing(model):
    params, known = face(model), lines()
    assert torch.equal(fit_relief(model, params, torch.zeros(3, SIZE, SIZE), known), known)
    white = torch.ones(3, SIZE, SIZE)
    assert torch.equal(fit_relief(model, params, white, known), known)
    with pytest.raises(ShapeError, match=r"\[1, S, S\]"):
        fit_relief(model, params, white, known[0])


def test_system_is_that_of_the_dense_matrices():
    """Hessian, gradient and diagonal of two photos against matrices built column by column."""
    gen = torch.Generator().manual_seed(3)
    inside = torch.rand(12, 12, generator=gen) > 0.3
    places = TexelPlaces.of(inside.flatten().nonzero()[:, 0], 12)
    n = len(places.texels)

    def draw(*shape):
        return torch.randn(*shape, n, generator=gen).double()

    photos = [_Shading(tuple(draw(3)), draw().abs(), draw()) for _ in range(2)]
    prior, stiff, relief = draw().abs(), draw().abs(), draw()
    system = _System(places, photos, prior, stiff)
    eye = torch.eye(n, dtype=torch.float64)
    d_u, d_v = places.differences(eye)
    grid = places.to_map(eye)
    padded = torch.nn.functional.pad(grid, (1, 1, 1, 1))
    assert torch.equal(places.to_map(d_u), (padded[:, 1:-1, 2:] - padded[:, 1:-1, :-2]) * inside)
    around = sum(padded[:, 1 + i : 13 + i, 1 + j : 13 + j] for i, j in ((0, 1), (1, 0), (0, -1), (-1, 0)))
    laplacian = (around.flatten(1)[:, places.texels] - 4 * eye).T
    dense = torch.diag(prior) + laplacian.T @ (stiff[:, None] * laplacian)
    bend = laplacian @ relief
    down = -prior * relief - laplacian.T @ (stiff * bend)
    for photo in photos:
        to_u, to_v, to_d = photo.slopes
        jacobian = (d_u * to_u + d_v * to_v + eye * to_d).T
        dense = dense + jacobian.T @ (photo.weight[:, None] * jacobian)
        down = down + jacobian.T @ (photo.weight * photo.residual)
    assert torch.allclose(torch.stack([system(column) for column in eye], dim=1), dense)
    assert torch.allclose(system.diagonal(), dense.diagonal())
    assert torch.allclose(system.gradient(relief, bend), down)


def test_several_photos_show_more_than_one(model):
    """Two noisy photos from two sides, with different known displacement, against each alone."""
    truth, gen = lines(), torch.Generator().manual_seed(0)
    places = skin_places(model, 256)
    shots = []
    for yaw in (0.3, -0.3):
        params = close_up(model)
        turn = roma.rotvec_to_rotmat(torch.tensor([0.0, yaw, 0.0]))
        pose = params.camera.T_cam_object.clone()
        pose[:3, :3] = pose[:3, :3] @ turn
        params = params.replace(camera=replace(params.camera, T_cam_object=pose))
        known = 1e-5 * torch.randn(1, 256, 256, generator=gen)
        image = photo(model, params, truth + known)
        shots.append((params, (image + 0.02 * torch.randn(image.shape, generator=gen)).clamp(0, 1), known))

    def score(found):
        return correlation(*(m.flatten()[places.texels] for m in (found, truth)))

    alone = [score(fit_shared_relief(model, [shot])) for shot in shots]
    assert score(fit_shared_relief(model, shots)) > max(alone) + 0.02
    with pytest.raises(FitError, match="no photo"):
        fit_shared_relief(model, [])
    with pytest.raises(ShapeError, match="one S"):
        fit_shared_relief(model, [shots[0], (*shots[1][:2], torch.zeros(1, 128, 128))])


def test_an_enlarged_photo_says_less(model):
    """The same small photo, and one made four times as large by the reader: less is taken from it."""
    params, truth = face(model), lines()
    K = params.camera.K.clone()
    K[:2] *= 0.25
    small = params.replace(camera=Camera(K, params.camera.T_cam_object, SIZE // 4, SIZE // 4))
    places = skin_places(model, 256)
    image = photo(model, small, truth)
    seen = read_fine_shading(model, small, image, places, (256, 448), 16)
    assert seen is not None and 0.02 < seen.own_share < 0.3
    near = read_fine_shading(
        model, close_up(model), photo(model, close_up(model), truth), places, (256, 448), 16
    )
    assert near is not None and near.own_share == 1.0
