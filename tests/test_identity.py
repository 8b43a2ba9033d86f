# SPDX-License-Identifier: Apache-2.0
"""Synthetic people have the surveys' measures, and the shape of their age, weight and sex."""

import numpy as np
import pytest
import torch

import hiface
from hiface.assets import load_json_asset, load_tensors_asset
from hiface.errors import ShapeError
from hiface.render.rasterize import rasterize
from hiface.synthetic.identity import (
    SEXES,
    Traits,
    expected_identity,
    fits,
    head_measures,
    people_tables,
    sample_identity,
    sample_traits,
)
from hiface.synthetic.people import sample_person
from toy import toy_model

PEOPLE = 700


@pytest.fixture(scope="module")
def model():
    return hiface.load_model("open")


@pytest.fixture(scope="module")
def survey():
    return load_json_asset("open/survey.json")


def measures_mm(model, identities):
    return 1e3 * head_measures(model, torch.from_numpy(np.array(identities)).float()).numpy()


def cell(sex, group, count, seed):
    """Coefficients of people of one sex and group at all ages and weights, none wider than life."""
    rng, tables = np.random.default_rng(seed), people_tables()
    log_mean, log_spread = tables.log_bmi[SEXES.index(sex)]
    out = []
    for _ in range(count):
        years, fat = np.clip(rng.normal(44, 16), 18, 80), rng.standard_normal()
        traits = Traits(sex, group, years, float(np.exp(log_mean + log_spread * fat)), 0.8, 1.0)
        out.append(sample_identity(traits, rng))
    return out


@pytest.mark.parametrize(("sex", "group"), [("female", "white"), ("male", "black"), ("female", "other")])
def test_means_and_spreads_are_the_surveys(model, survey, sex, group):
    found = measures_mm(model, cell(sex, group, PEOPLE, 3))
    for i, name in enumerate(survey["measures"]):
        wide = survey["by_sex"].get(name, {})
        if "sculpted" in wide:
            continue
        mean, sd = survey["by_group"][sex][group].get(name) or wide[sex]
        assert abs(found[:, i].mean() - mean) < 0.15 * sd + 0.3, name
        assert 0.87 < found[:, i].std() / sd < 1.13, name


def test_main_correlations_are_the_surveys(model, survey):
    found, names = measures_mm(model, cell("male", "white", PEOPLE, 4)), survey["measures"]
    table = np.corrcoef(found.T)
    for a, b, wanted in (
        ("bigonial", "bizygomatic", 0.65),
        ("bizygomatic", "head_breadth", 0.65),
        ("menton_sellion", "subnasale_sellion", 0.6),
        ("menton_sellion", "bizygomatic", 0.2),
    ):
        assert table[names.index(a), names.index(b)] == pytest.approx(wanted, abs=0.12), (a, b)


def test_same_seed_same_person_and_other_seed_another(model):
    one, again, other = (sample_person(model, np.random.default_rng(s)) for s in (5, 5, 6))
    assert torch.equal(one.identity, again.identity) and one.traits == again.traits
    assert not torch.equal(one.identity, other.identity)
    assert one.identity.dtype == torch.float32 and one.identity.shape == (model.data.n_identity,)


def test_age_and_weight_change_the_face(model):
    names, tables = people_tables().measures, people_tables()

    def head(years, bmi):
        return measures_mm(model, [expected_identity(Traits("male", "white", years, bmi, 0.8, 1.0))])[0]

    def ear_mm(years):
        z = torch.from_numpy(expected_identity(Traits("male", "white", years, 27.0, 0.8, 1.0))).float()
        ear = model.data.vertex_masks["ears"] & (model.data.template[:, 0] > 0)
        height = model.shape(z, torch.zeros(52))[ear, 1]
        return 1e3 * float(height.max() - height.min())

    thin, heavy, jaw = head(40, 19), head(40, 40), names.index("bigonial")
    assert (
        heavy[jaw] > thin[jaw] + 8
        and heavy[names.index("bizygomatic")] > thin[names.index("bizygomatic")] + 4
    )
    assert head(75, 27)[names.index("subnasale_sellion")] > head(22, 27)[names.index("subnasale_sellion")]
    # About a fifth of a millimetre a year.
    assert 5 < ear_mm(78) - ear_mm(20) < 18
    assert tables.symmetric.sum() == 125


def test_men_and_women_differ_in_more_than_the_measures(model):
    shapes = [expected_identity(Traits(sex, "white", 40.0, 26.0, 0.8, 1.0)) for sex in ("female", "male")]
    woman, man = measures_mm(model, shapes)
    assert (man - woman)[list(people_tables().measures).index("head_length")] == pytest.approx(9.7, abs=1.5)
    assert np.linalg.norm(shapes[1] - shapes[0]) > 2


def test_asymmetry_is_there_and_small(model):
    rng, flip = np.random.default_rng(2), torch.tensor([-1.0, 1.0, 1.0])
    face, apart = model.data.vertex_masks["face"], []
    for _ in range(60):
        traits = sample_traits(rng, 0.0, 0.4)
        z = torch.from_numpy(sample_identity(traits, rng)).float()
        vertices = model.shape(z, torch.zeros(52))
        gap = (vertices - vertices[model.data.mirror_vertices] * flip)[face]
        apart.append(1e3 * float(gap.norm(dim=-1).mean()))
    assert min(apart) > 0.2 and 0.6 < np.mean(apart) < 3.0 and max(apart) < 5.0


def test_sockets_and_mouth_never_show_through_the_skin(model):
    data, size = model.data, 192
    inside = [data.part_names.index(n) for n in ("mouth_interior", "socket_left", "socket_right")]
    inside = torch.isin(data.triangle_parts, torch.tensor(inside))
    for number in (5, 11, 59, 95, 99, 142, 145, 153, 179):  # flat beside the nose or around the eyes
        person = sample_person(model, np.random.default_rng([number, 3]))
        vertices = model.shape(person.identity, torch.zeros(52))
        points = data.landmark_sets["ibug68"].positions(vertices, data.triangles)
        scale = size / 0.2
        x, y, z = (vertices * scale).unbind(1)
        flat = torch.stack([size / 2 + x, size / 2 - y, 1e3 - z], dim=1).contiguous()
        drawn = rasterize(flat, data.triangles, size, size)
        shown = (drawn >= 0) & inside[drawn.clamp_min(0).long()]
        for hole in (points[36:42], points[42:48], points[48:60]):
            low = torch.stack([hole[:, 0], -hole[:, 1]], dim=1).amin(dim=0) * scale + size / 2 - 2
            high = torch.stack([hole[:, 0], -hole[:, 1]], dim=1).amax(dim=0) * scale + size / 2 + 2
            shown[int(low[1]) : int(high[1]) + 1, int(low[0]) : int(high[0]) + 1] = False
        assert not bool(shown.any()), number


def test_few_triangles_turn_over(model):
    skin = model.data.triangle_parts == model.data.part_names.index("skin")
    corners = model.data.triangles[skin]

    def normals(vertices):
        a, b, c = vertices[corners].unbind(1)
        return torch.linalg.cross(b - a, c - a)

    rest, turned = normals(model.data.template), []
    for i in range(60):
        person = sample_person(model, np.random.default_rng([i, 3]))
        turned.append(
            ((normals(model.shape(person.identity, torch.zeros(52))) * rest).sum(1) < 0).float().mean()
        )
    assert float(torch.stack(turned).mean()) < 0.003 and float(torch.stack(turned).quantile(0.9)) < 0.01


def test_people_are_as_many_women_and_reach_the_ends_of_age_and_weight(model):
    people = [sample_person(model, np.random.default_rng([i, 1])) for i in range(300)]
    traits = [p.traits for p in people]
    assert 0.4 < np.mean([t.sex == "female" for t in traits]) < 0.6
    assert min(np.mean([t.group == g for t in traits]) for g in people_tables().groups) > 0.15
    assert min(t.body_mass_index for t in traits) < 20 and max(t.body_mass_index for t in traits) > 38
    assert min(t.years for t in traits) < 22 and max(t.years for t in traits) > 70
    assert 0.1 < np.mean([t.spread > 1 for t in traits]) < 0.3
    beard = torch.tensor([p.beard.kind != "none" for p in people])
    male = torch.tensor([t.sex == "male" for t in traits])
    assert beard[male].float().mean() > beard[~male].float().mean() + 0.3


def test_other_models_keep_their_own_prior():
    model = toy_model()
    assert not fits(model)
    person = sample_person(model, np.random.default_rng(1))
    assert person.identity.shape == (8,)
    with pytest.raises(ShapeError, match="open model"):
        head_measures(model, person.identity)


def test_asset_says_what_it_was_made_from():
    tensors, meta = load_tensors_asset("open/people.safetensors")
    survey = load_json_asset("open/survey.json")
    assert meta["measures"].count('"') == 2 * len(survey["measures"]) and "command" in meta
    slopes, pull, residual = (tensors[name].double() for name in ("slopes", "pull", "residual"))
    assert torch.allclose(slopes @ pull, torch.eye(len(slopes), dtype=torch.float64), atol=1e-4)
    assert (slopes @ residual).abs().max() < 1e-6
