import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch

import hiface
from hiface.assets import load_json_asset
from hiface.detail.displacement import displaced_normals
from hiface.detail.tension import combine_detail, tension_maps, vertex_tension
from hiface.geometry.normals import vertex_normals
from hiface.render.shade import sh_basis
from hiface.synthetic.effects import ALL_EFFECTS
from hiface.synthetic.generator import Style, generate_picture, parse_labels
from hiface.synthetic.lights import sample_surroundings
from hiface.synthetic.people import sample_person
from hiface.synthetic.records import decode_arrays, encode_arrays, sample_arrays
from hiface.synthetic.relief import light_quadratic, relief_at, relief_maps, shadow_share, slope_axes
from hiface.synthetic.shots import sitter_of
from hiface.synthetic.wrinkles import (
    MAX_DEPTH_M,
    person_detail,
    picture_displacement,
    sample_wrinkles,
    wrinkle_tables,
)
from toy import toy_model

ROOT = Path(__file__).parents[1]
KINDS = ("forehead", "glabella", "crow", "bunny", "nasolabial", "marionette", "lip_upper", "lip_lower")


@pytest.fixture(scope="module")
def model():
    return hiface.load_model("open")


@pytest.fixture(scope="module")
def tables(model):
    return wrinkle_tables(model)


def style(age, seed=1, **changes):
    plain = sample_wrinkles(np.random.default_rng(seed), age)
    return dataclasses.replace(plain, kinds=dict.fromkeys(plain.kinds, 1.0), **changes)


def detail(model, age, **changes):
    return person_detail(model, torch.zeros(model.data.n_identity), style(age, **changes))


def near_lines(tables, kind, reach_m=0.0015):
    lines = torch.tensor([k == kind for k in tables.kinds])
    return tables.texel[lines[tables.line] & (tables.across_m.abs() < reach_m)]


def test_library_is_mirrored_and_on_the_skin(model):
    library, data = load_json_asset("open/wrinkles.json"), model.data
    assert library["n_vertices"] == data.n_vertices
    skin = data.part_names.index("skin")
    ways: dict[tuple[str, str], list[torch.Tensor]] = {}
    for line in library["lines"]:
        ids, weights = torch.tensor(line["triangle_ids"]), torch.tensor(line["barycentric"])
        assert (data.triangle_parts[ids] == skin).all() and (weights >= 0).all()
        places = (data.template[data.triangles[ids]] * weights[..., None]).sum(dim=1)
        assert (places[1:] - places[:-1]).norm(dim=1).max() < 0.0045
        ways.setdefault((line["kind"], line["side"]), []).append(places)
    flip = torch.tensor([-1.0, 1, 1])
    for (kind, side), found in ways.items():
        if side == "both":
            for way in found:
                assert (way - way.flip(0) * flip).abs().max() < 2e-4
        elif side == "right":
            for way, other in zip(found, ways[kind, "left"], strict=True):
                assert (way - other * flip).abs().max() < 2e-6 and (way[:, 0] < 0).all()
    assert set(KINDS) <= {kind for kind, _ in ways} == set(library["kinds"])


def test_library_lies_where_the_landmarks_say(model, tables):
    points = model.landmarks("ibug68", model.data.template)
    places = tables.space.lift(model.data.template[None])[0].flatten(1).T

    def mean(kind):
        left = places[near_lines(tables, kind)]
        return left[left[:, 0] > 0].mean(dim=0)

    assert mean("forehead")[1] > points[24, 1] + 0.01
    assert points[45, 0] < mean("crow")[0] and abs(float(mean("crow")[1] - points[45, 1])) < 0.01
    assert abs(float(mean("glabella")[0])) < 0.012 and mean("glabella")[1] > points[27, 1]
    assert points[54, 1] < mean("nasolabial")[1] < points[30, 1]
    assert mean("marionette")[1] < points[54, 1] and mean("neck")[1] < points[8, 1]
    assert points[51, 1] < mean("lip_upper")[1] < points[33, 1]


def test_shipped_library_is_what_the_builder_makes(model, monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT))
    from tools.build_open_model import wrinkles

    recipe = json.loads((ROOT / "tools/build_open_model/wrinkle_recipe.json").read_text(encoding="utf-8"))
    shipped = load_json_asset("open/wrinkles.json")
    assert shipped["kinds"] == recipe["kinds"]
    skin, chosen = wrinkles.Skin(model), recipe["lines"][6]
    made = wrinkles.polyline(skin, chosen)
    same_kind = [x for x in shipped["lines"] if x["kind"] == chosen["kind"] and x["side"] == chosen["side"]]
    assert [p[0] for p in made] == same_kind[0]["triangle_ids"]
    assert np.allclose([p[1] for p in made], same_kind[0]["barycentric"], atol=1e-6)


def test_grooves_have_a_floor_and_raised_lips(model, tables):
    old = detail(model, 0.9, pores=0.0, crepe=0.0).static.reshape(-1)
    nasolabial = old[near_lines(tables, "nasolabial", 0.001)]
    assert nasolabial.quantile(0.1) < -0.0004 and old.min() >= -MAX_DEPTH_M - 1e-4
    assert 0.00005 < old.max() < 0.0008
    inside = tables.space.triangle_id.reshape(-1) >= 0
    part = model.data.triangle_parts[tables.space.triangle_id.reshape(-1).clamp_min(0).long()]
    elsewhere = inside & (part != model.data.part_names.index("skin"))
    assert elsewhere.sum() > 3000 and old[elsewhere].abs().max() == 0  # eyes, teeth, sockets


def test_age_deepens_what_rests_and_the_young_only_fold(model, tables):
    young, old = detail(model, 0.1), detail(model, 0.9)
    several = [[detail(model, age, seed=s).static.reshape(-1) for s in range(4)] for age in (0.1, 0.9)]
    for kind in ("forehead", "crow", "glabella", "marionette"):
        where = near_lines(tables, kind)
        still = [-np.mean([d[where].quantile(0.05).item() for d in found]) for found in several]
        assert still[0] < 0.0001 and still[1] > 0.00015, (kind, still)
    where = near_lines(tables, "forehead")
    assert young.compressed.reshape(-1)[where].quantile(0.05) < -0.0004
    stretched = (old.static + old.stretched).reshape(-1)[where]
    assert stretched.quantile(0.05) > 0.35 * old.static.reshape(-1)[where].quantile(0.05)


def test_same_style_same_maps(model):
    one, again, other = detail(model, 0.7), detail(model, 0.7), detail(model, 0.7, seed=2)
    assert torch.equal(one.static, again.static) and torch.equal(one.compressed, again.compressed)
    assert not torch.equal(one.static, other.static)
    # One person's two sides differ too.
    assert (one.static - one.static.flip(1)).abs().max() > 1e-4


def test_picture_is_the_formula_and_neutral_is_static(model, tables):
    person = sample_person(model, np.random.default_rng(4))
    maps = person_detail(model, person.identity, style(0.7))
    rest = torch.zeros(model.data.n_joints, 3)
    neutral = model.vertices(person.identity, torch.zeros(52), rest)
    assert torch.allclose(picture_displacement(model, maps, neutral), maps.static, atol=1e-7)
    raised = model.expression_vector(
        dict.fromkeys(("browInnerUp", "browOuterUpLeft", "browOuterUpRight"), 1.0)
    )
    moved = model.vertices(person.identity, raised, rest)
    shown = picture_displacement(model, maps, moved)
    masks = tension_maps(vertex_tension(moved, neutral, model.data.quads, 1), tables.space)
    expected = combine_detail(maps.static[None], maps.compressed[None], maps.stretched[None], masks)[0]
    assert torch.allclose(shown, expected, atol=1e-7)
    where = near_lines(tables, "forehead")
    assert (shown - maps.static).reshape(-1)[where].quantile(0.1) < -0.0001
    assert (shown - maps.static).reshape(-1)[near_lines(tables, "chin")].abs().max() < 1e-5


def test_other_models_get_pores_only():
    toy = toy_model()
    maps = person_detail(toy, torch.zeros(toy.data.n_identity), style(0.9), side=64)
    assert maps.static.shape == (64, 64) and maps.static.abs().max() < 0.001


def test_light_as_a_quadratic_form_is_the_spherical_harmonics():
    light = sample_surroundings(np.random.default_rng(0)).sh_light()
    n = torch.nn.functional.normalize(torch.randn(50, 3, generator=torch.Generator().manual_seed(0)), dim=1)
    ext = torch.cat([n, torch.ones(50, 1)], dim=1)
    assert torch.allclose(
        ((ext @ light_quadratic(light)) * ext).sum(dim=-1).T, sh_basis(n) @ light, atol=1e-4
    )
    share = shadow_share((sh_basis(n) @ light).T * 0.5, n, light_quadratic(light))
    assert torch.allclose(share, torch.tensor(0.5), atol=1e-3)


def test_relief_tilts_like_the_displaced_surface(model, tables):
    data, space = model.data, tables.space
    normals = vertex_normals(data.template, data.triangles)
    rows = torch.cat([data.template, normals, slope_axes(model, data.template, normals)], dim=1)
    maps = space.lift(rows)
    height = torch.nn.functional.avg_pool2d(detail(model, 0.9).static[None, None] * 0.5, 3, 1, 1)[0, 0]
    smooth = torch.nn.functional.normalize(maps[3:6], dim=0)
    truth = displaced_normals(maps[:3], smooth, height[None])
    facet = displaced_normals(maps[:3], smooth, 0 * height[None])
    centre = (torch.arange(256) + 0.5) / 128 - 1
    grid = torch.stack(torch.meshgrid(centre, centre, indexing="xy")).reshape(2, -1)
    light = light_quadratic(sample_surroundings(np.random.default_rng(0)).sh_light())
    found = relief_at(relief_maps(height), grid, smooth.flatten(1), maps[6:].flatten(1), light)
    tilt, expected = found.normals - smooth.flatten(1), (truth - facet).flatten(1)
    inside = ((tables.regions["face"] > 0.99) & (tables.regions["skin"] > 0.99)).reshape(-1)
    inside &= (height.reshape(-1).abs() > 5e-5) & (tables.regions["lips"] < 0.01).reshape(-1)
    error = (tilt - expected)[:, inside].norm(dim=0)
    size = expected[:, inside].norm(dim=0)
    assert inside.sum() > 1000 and size.median() > 0.02
    assert error.median() < 0.25 * size.median()
    cosine = torch.nn.functional.cosine_similarity(tilt[:, inside], expected[:, inside], dim=0)
    assert cosine.median() > 0.97


def test_smooth_skin_is_left_alone(model):
    normals = torch.nn.functional.normalize(torch.randn(3, 20), dim=0)
    found = relief_at(
        torch.zeros(3, 8, 8), torch.rand(2, 20), normals, torch.ones(6, 20), torch.ones(3, 4, 4)
    )
    assert torch.allclose(found.normals, normals, atol=1e-6)
    assert found.shift.abs().max() < 1e-5 and torch.equal(found.cavity, torch.ones(3, 20))


def test_pictures_carry_their_displacement(model):
    style = Style(96, labels=parse_labels(["displacement"]))
    sitter = sitter_of(model, 5)
    shown = generate_picture(model, 15, style, sitter)
    smooth = generate_picture(model, 15, style, dataclasses.replace(sitter, detail=None))
    p = shown.params
    verts = model.vertices(p.identity, p.expression, p.pose)
    assert sitter.detail is not None
    expected = picture_displacement(model, sitter.detail, verts)
    assert torch.allclose(shown.maps["displacement"], expected, atol=1e-7)
    assert torch.equal(shown.maps["displacement_compressed"], sitter.detail.compressed)
    assert smooth.maps["displacement"].abs().max() == 0 and len(smooth.maps) == 4
    assert torch.equal(shown.landmarks68_px, smooth.landmarks68_px)
    difference = (shown.image_srgb.int() - smooth.image_srgb.int()).abs().amax(dim=0)
    assert difference[shown.segmentation == 1].float().mean() > 0.2
    assert sitter_of(model, 5, ALL_EFFECTS - {"wrinkles"}).detail is None
    read = decode_arrays(encode_arrays(sample_arrays(shown)))
    assert np.abs(read["map.displacement"] - expected.numpy()).max() < 1.01e-7


def test_ages_differ_and_grey_hair_goes_with_age(model):
    people = [sample_person(model, np.random.default_rng(i)) for i in range(150)]
    age = np.array([p.wrinkles.age for p in people])
    assert 0.3 < age.mean() < 0.55 and age.min() < 0.1 and age.max() > 0.85
    pale = np.array([p.hair.colour.min() > 0.12 and np.ptp(p.hair.colour) < 0.08 for p in people])
    assert pale[age > 0.7].mean() > pale[age < 0.35].mean() + 0.25
