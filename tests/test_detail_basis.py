"""Bases of displacement: what they hold, how they are stored, and SD-DeTail on top of them."""

import json

import numpy as np
import pytest
import torch

import hiface
from hiface.assets.loader import asset_path, read_safetensors
from hiface.cli.main import main
from hiface.detail.basis import STATES, explained, load_detail_basis, read_basis, save_basis
from hiface.detail.sd_detail import compose_detail, detail_values, detailed_normals, expression_masks
from hiface.errors import AssetError, OptionError, ShapeError
from hiface.synthetic.detail_pca import build_detail_basis
from hiface.synthetic.people import sample_person
from hiface.synthetic.wrinkles import person_detail, picture_displacement


@pytest.fixture(scope="module")
def model():
    return hiface.load_model("open")


@pytest.fixture(scope="module")
def basis():
    return load_detail_basis()


@pytest.fixture(scope="module")
def people(model):
    """Displacement of people in no data set and not in the basis."""
    drawn = [sample_person(model, np.random.default_rng([i, 90210])) for i in range(24)]
    return [(p, person_detail(model, p.identity, p.wrinkles)) for p in drawn]


def codes_of(basis, detail):
    values = {state: basis.gather(getattr(detail, state)) for state in STATES}
    return [getattr(basis, state).encode(values[state]) for state in STATES]


def test_packaged_basis_has_the_papers_sizes_and_fits_the_shipped_limit(basis, model):
    assert basis.size == 256 and basis.counts[0] == 300 and min(basis.counts[1:]) >= 26
    assert basis.model == model.data.name
    assert asset_path("open/detail.safetensors").stat().st_size < 12e6
    face = model.data.vertex_masks["face"]
    assert face.any() and 5_000 < len(basis.texels) < 256 * 256 / 2


@pytest.mark.parametrize("state", STATES)
def test_codes_come_back_from_the_maps_they_make(basis, state):
    part = getattr(basis, state)
    codes = torch.randn(3, part.count, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(part.encode(part.decode(codes)), codes, atol=0.1)  # rows are one byte a number
    rows = part.rows * part.weight
    cosines = (rows @ rows.T) / (rows.norm(dim=1)[:, None] * rows.norm(dim=1))
    assert (cosines - torch.eye(part.count)).abs().max() < 0.05
    assert (part.variances[1:] < 1.05 * part.variances[:-1]).all()


def test_notes_tell_the_share_of_variance_that_other_people_have(basis, people):
    for state, shares in explained(basis).items():
        values = [shares[n] for n in sorted(shares, key=int)]
        assert values == sorted(values) and 0.2 < values[0] < values[-1] < 1, state
    static = torch.stack([basis.gather(detail.static) for _, detail in people])
    part = basis.static
    left = (part.decode(part.encode(static)) - static).square().sum()
    measured = 1 - float(left / (static - part.mean).square().sum())
    # The notes count all of the face, the grain of the cheeks too, which the basis leaves out.
    assert explained(basis)["static"]["300"] - 0.05 < measured < 0.95


def test_codes_of_people_have_the_stated_spread(basis, people):
    codes = torch.stack([torch.cat(codes_of(basis, detail)) for _, detail in people])
    assert 0.6 < float(codes.square().mean().sqrt()) < 1.5


def test_maps_and_texels_are_inverse_and_other_sizes_are_refused(basis):
    values = torch.rand(2, len(basis.texels))
    maps = basis.scatter(values)
    assert maps.shape == (2, 1, 256, 256) and torch.equal(basis.gather(maps), values)
    assert torch.equal(basis.gather(maps[0, 0]), values[0])
    outside = torch.ones(256 * 256, dtype=torch.bool)
    outside[basis.texels] = False
    assert (maps.flatten(-2)[..., outside] == 0).all()
    with pytest.raises(ShapeError, match="256 x 256"):
        basis.gather(torch.zeros(1, 512, 512))
    with pytest.raises(ShapeError, match="300 coefficients"):
        basis.static.decode(torch.zeros(301))


def test_a_stored_basis_is_the_same_basis(basis, tmp_path):
    small = basis.first(5, 4, 3)
    save_basis(small, tmp_path / "basis.safetensors")
    read = read_basis(tmp_path / "basis.safetensors")
    assert read.counts == (5, 4, 3) and torch.equal(read.texels, small.texels)
    for state in STATES:
        a, b = getattr(read, state), getattr(small, state)
        assert torch.allclose(a.rows, b.rows, atol=float(b.rows.abs().max()) / 127)
        assert torch.allclose(a.mean, b.mean) and torch.allclose(a.weight, b.weight)
    assert not list(tmp_path.glob("*.part"))


def test_wrong_files_are_named_errors(basis, tmp_path):
    with pytest.raises(AssetError, match="not a detail basis"):
        read_basis(asset_path("weights/finder.safetensors"))
    path = tmp_path / "cut.safetensors"
    path.write_bytes(asset_path("open/detail.safetensors").read_bytes()[:5000])
    with pytest.raises(AssetError, match="damaged"):
        read_basis(path)
    save_basis(basis.first(3, 2, 2), tmp_path / "other.safetensors")
    with pytest.raises(AssetError, match="texture spaces differ"):
        load_detail_basis("another", tmp_path / "other.safetensors")
    from safetensors.torch import save_file

    tensors, notes = read_safetensors(tmp_path / "other.safetensors")
    del tensors["stretched.rows"]
    save_file(tensors, str(tmp_path / "less.safetensors"), metadata=notes)
    with pytest.raises(AssetError, match="not a whole detail basis"):
        read_basis(tmp_path / "less.safetensors")


def test_a_basis_is_made_by_the_command(tmp_path, capsys):
    path = tmp_path / "mine.safetensors"
    numbers = ["--people", "80", "--static", "6", "--compressed", "4", "--stretched", "3"]
    with pytest.raises(SystemExit) as done:
        main(["basis", "-o", str(path), "--size", "256", *numbers])
    assert done.value.code == 0
    made = read_basis(path)
    assert made.counts == (6, 4, 3) and made.size == 256
    shares = json.loads(made.notes["explained"])
    assert 0.15 < shares["static"]["3"] < 1
    with pytest.raises(SystemExit) as failed:
        main(["basis", "-o", str(tmp_path)])
    assert failed.value.code == 1 and "name a file" in " ".join(capsys.readouterr().err.split())


def test_too_few_people_are_refused(model):
    with pytest.raises(OptionError, match="too few"):
        build_detail_basis(model, people=200, counts=(300, 26, 26))


def expressive(model, person, **weights):
    expression = model.expression_vector(weights)
    neutral = model.shape(person.identity, torch.zeros_like(expression))
    return expression, neutral, model.shape(person.identity, expression)


def test_composed_detail_is_the_generators_up_to_the_basis(model, basis, people):
    ratios = []
    for person, detail in people[:8]:
        _, neutral, shape = expressive(model, person, browInnerUp=1.0, mouthSmileLeft=1.0, jawOpen=0.4)
        static, *dynamic = codes_of(basis, detail)
        maps = compose_detail(model, basis, neutral, shape, static, torch.cat(dynamic))
        truth = basis.gather(picture_displacement(model, detail, shape))
        error = (basis.gather(maps.displacement) - truth).square().mean()
        ratios.append(float(error / truth.square().mean()))
        assert torch.allclose(maps.displacement, maps.static + maps.dynamic)
    assert np.median(ratios) < 0.4


def test_at_rest_nothing_is_dynamic_and_parts_are_what_they_say(model, basis, people):
    person, detail = people[0]
    static, *dynamic = codes_of(basis, detail)
    dynamic = torch.cat(dynamic)
    _, neutral, smile = expressive(model, person, mouthSmileLeft=1.0, mouthSmileRight=1.0)
    rest = compose_detail(model, basis, neutral, neutral, static, dynamic)
    assert rest.dynamic.abs().max() == 0
    both = compose_detail(model, basis, neutral, smile, static, dynamic)
    assert both.dynamic.abs().max() > 1e-5
    only = {
        part: compose_detail(model, basis, neutral, smile, static, dynamic, part).displacement
        for part in ("none", "static", "dynamic")
    }
    assert only["none"].abs().max() == 0
    assert torch.allclose(only["static"], both.static) and torch.allclose(only["dynamic"], both.dynamic)
    with pytest.raises(ShapeError, match="dynamic coefficients"):
        detail_values(basis, static, dynamic[:5], (torch.zeros(1), torch.zeros(1)))


def test_masks_rise_where_the_brow_is_raised_and_let_gradients_through(model, basis):
    identity = torch.zeros(1, model.data.n_identity)
    expression = model.expression_vector({"browInnerUp": 1.0})[None].requires_grad_(True)
    plus, minus = expression_masks(model, identity, expression, basis)
    assert (
        plus.shape == (1, len(basis.texels))
        and 0 <= float(plus.detach().min()) <= float(plus.detach().max()) <= 1
    )
    assert float(plus.detach().max()) > 0.1 and float((plus * minus).detach().abs().max()) == 0
    plus.sum().backward()
    assert float(expression.grad.abs().max()) > 0


def test_normals_of_detail_differ_from_smooth_ones_only_where_it_is(model, basis):
    bump = torch.zeros(1, len(basis.texels))
    bump[:, ::50] = 1e-3
    smooth = detailed_normals(model, model.template[None], torch.zeros(1, 1, 256, 256))
    rough = detailed_normals(model, model.template[None], basis.scatter(bump))
    moved = (smooth - rough).norm(dim=1) > 1e-4
    assert moved.any() and moved.float().mean() < 0.5
    lengths = rough.norm(dim=1)[smooth.norm(dim=1) > 0.5]
    assert torch.allclose(lengths, torch.ones_like(lengths), atol=1e-4)
