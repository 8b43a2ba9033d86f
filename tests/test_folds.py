"""Skin that a photo shows folded, and what is too bright to be skin, are no colours of the person."""

import pytest
import torch

import hiface
from hiface.colour import srgb_to_linear
from hiface.export.folds import unfolded
from hiface.export.texture import bake_texture
from hiface.render import render
from hiface.render.pyramid import resize
from hiface.render.uv_space import uv_space
from hiface.types import Camera, FaceParams

SIZE = 512


@pytest.fixture(scope="module")
def model():
    return hiface.load_model("open")


def neutral(model, **camera) -> FaceParams:
    light = torch.zeros(9, 3)
    light[0] = 0.8 / 0.282095
    where = Camera.from_pose(
        torch.diag(torch.tensor([1.0, -1.0, -1.0])),
        torch.tensor([0.0, camera.get("y", 0.0), 0.6]),
        1500,
        700,
        700,
    )
    zeros = torch.zeros(model.data.n_joints, 3)
    data = model.data
    return FaceParams(
        torch.zeros(data.n_identity),
        torch.zeros(len(data.expression_names)),
        zeros,
        torch.zeros(len(data.albedo_names)),
        light,
        where,
    )


def with_blink(model, params, value):
    expression = params.expression.clone()
    for side in ("Left", "Right"):
        expression[model.expression_index(f"eyeBlink{side}")] = value
    return params.replace(expression=expression)


def test_lids_of_open_eyes_are_folded_and_of_shut_ones_are_not(model):
    params = neutral(model)
    lids, face = (model.data.vertex_masks[name] for name in ("eyelids", "face"))
    opened, shut = unfolded(model, params), unfolded(model, with_blink(model, params, 1.0))
    assert float(shut.min()) == 1.0
    assert float((opened[lids] < 0.5).float().mean()) > 0.05
    assert float((opened[face & ~lids] > 0.99).float().mean()) > 0.97


def test_white_of_the_eye_stays_off_lids_that_the_fit_misses_by_some_pixels(model):
    albedo = resize(model.albedo_map(torch.zeros(len(model.data.albedo_names))), SIZE)
    space = uv_space(model.uv, model.uv_triangles, model.triangles, model.data.n_vertices, SIZE)
    names = model.data.part_names
    part = torch.where(space.mask, model.data.triangle_parts[space.triangle_id.long().clamp_min(0)], -1)
    for name in ("eye_left", "eye_right"):
        albedo[:, part == names.index(name)] = 0.9
    params = neutral(model)
    photo = render(
        model(params.identity, params.expression, params.pose), params.camera, albedo, params.light
    ).image.clamp(0, 1)
    bake = bake_texture(model, neutral(model, y=-0.0016), photo, size=SIZE, blend=0.0)  # 4 pixels
    found = srgb_to_linear(bake.image_srgb)
    lids = space.lift(model.data.vertex_masks["eyelids"].float()[:, None])[0] > 0.99
    lids &= part == names.index("skin")
    off = (found[:, lids].mean(0) / albedo[:, lids].mean(0)).log()
    assert float((off > 0.4).float().mean()) < 0.03


def test_patch_far_brighter_than_skin_is_not_taken(model):
    params = neutral(model)
    plain = resize(model.albedo_map(params.albedo), SIZE)
    spoilt = plain.clone()
    rows, columns = slice(int(0.45 * SIZE), int(0.48 * SIZE)), slice(int(0.28 * SIZE), int(0.32 * SIZE))
    spoilt[:, rows, columns] = 0.95  # a cheek
    mesh = model(params.identity, params.expression, params.pose)
    found = []
    for albedo in (plain, spoilt):
        photo = render(mesh, params.camera, albedo, params.light).image.clamp(0, 1)
        bake = bake_texture(model, params, photo, size=SIZE, blend=0.0)
        found.append(srgb_to_linear(bake.image_srgb)[:, rows, columns].mean())
    assert float(found[1]) < 1.15 * float(found[0])
