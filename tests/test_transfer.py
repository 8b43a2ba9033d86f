# SPDX-License-Identifier: Apache-2.0
"""Landmarks found on a head, bridges and completion, against the open model's own shapes on another mesh.

docs/models.md states the measured figures; the bounds here are a little wider.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import hiface
from hiface.errors import ModelFormatError, ShapeError, TopologyError
from hiface.geometry.bending import Anchors, bend_onto
from hiface.geometry.closest import SurfaceTree
from hiface.geometry.oriented import OrientedSurface, normals_of
from hiface.morphable import MorphableModel
from hiface.morphable.readers.parts import Parts, assemble
from hiface.transfer import completed, find_landmarks, is_complete, make_bridge, read_bridge, write_bridge
from hiface.transfer.bridge import Bridge, SurfaceMap, Topology, _places
from hiface.transfer.register import skin_surface
from hiface.types import LandmarkSet
from other_models import remeshed
from toy import sphere, toy_model

OPEN = hiface.load_model("open")
EYES_M = float((lambda p: (p[36] - p[45]).norm())(OPEN.landmarks("ibug68", OPEN.template)))


def as_model(template: torch.Tensor, scale: float = 1.0, **changes):
    """A model of another mesh with a shift, a scale and no landmarks, masks or colours."""
    mesh = remeshed()
    places = mesh.of(template.double()) * scale + torch.tensor([0.0, 0.02, -0.05]).double()
    parts = Parts(
        name="other",
        version="1",
        licence="none",
        unit="m",
        template=places.numpy(),
        triangles=mesh.triangles.numpy(),
        identity_basis=mesh.of(OPEN.data.identity_basis[:5].double()).numpy(),
    )
    return replace(assemble(parts), **changes)


def people(count: int, expression: float = 0.3, seed: int = 3) -> torch.Tensor:
    """[N, V, 3] people of the open model."""
    gen = torch.Generator().manual_seed(seed)
    identity = torch.randn(count, OPEN.data.n_identity, generator=gen)
    weights = torch.rand(count, len(OPEN.data.expression_names), generator=gen)
    return OPEN.shape(identity, expression * weights)


@pytest.fixture(scope="module")
def other():
    return as_model(OPEN.template)


@pytest.fixture(scope="module")
def bridge(other):
    return make_bridge(OPEN.data, other)


def face_of_mesh() -> torch.Tensor:
    return remeshed().of(OPEN.data.vertex_masks["face"].float()[:, None])[:, 0] > 0.9


def face_of_open() -> torch.Tensor:
    return OPEN.data.vertex_masks["face"] & OPEN.data.vertex_masks["skin"]


def errors_mm(bridge, shapes: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Distances of the bridge's points from the true ones, on the face: there [N, F] and back [N, F']."""
    there = remeshed().of(shapes)
    to = (bridge.vertices(shapes) - there).norm(dim=-1)[:, face_of_mesh()]
    back = (bridge.reversed().vertices(there) - shapes).norm(dim=-1)[:, face_of_open()]
    return 1000 * to, 1000 * back


@pytest.mark.parametrize(("plain", "sparse", "dense"), [(False, 2.3, 2.4), (True, 2.0, 3.6)])
def test_landmarks_are_found_on_the_open_model(plain, sparse, dense):
    found = find_landmarks(OPEN.data, plain)
    percent = {}
    for name, points in found.sets.items():
        true = OPEN.landmarks(name, OPEN.template)
        off = (points.positions(OPEN.template, OPEN.triangles) - true).norm(dim=-1)
        percent[name] = 100 * off / EYES_M
    assert percent["ibug68"][17:].mean() < sparse
    assert percent["dense"].mean() < dense
    assert {name: len(s) for name, s in found.sets.items()} == {"ibug68": 68, "dense": 320}
    assert (found.sigma_m["dense"] >= 0).all()


def test_no_face_is_an_error():
    with pytest.raises(ModelFormatError, match="no face is found"):
        find_landmarks(toy_model().data)


def test_both_sides_of_a_sheet_are_told_apart():
    corners = torch.tensor([[0.0, 0, 0], [1, 0, 0], [0, 1, 0]])
    vertices = torch.cat([corners, corners + torch.tensor([0.0, 0, 0.001])])
    surface = OrientedSurface(vertices, torch.tensor([[0, 1, 2], [3, 5, 4]]))
    point = torch.tensor([[0.2, 0.2, 0.0009]])
    up = torch.tensor([[0.0, 0.0, 1.0]])
    above, below = surface.find(point, up), surface.find(point, -up)
    assert above.triangle_ids.tolist() == [0] and below.triangle_ids.tolist() == [1]
    assert above.cosines.item() == pytest.approx(1.0) and above.distances.item() == pytest.approx(0.0009)
    assert torch.allclose(above.points, torch.tensor([[0.2, 0.2, 0.0]]).double())
    edge = surface.find(torch.tensor([[0.5, -0.2, 0.0]]), up)
    assert edge.on_border.tolist() == [True] and above.on_border.tolist() == [False]


def test_a_sphere_is_bent_onto_an_ellipsoid():
    unit, triangles, _, _ = sphere(16, 24)
    start, radii = 0.1 * unit, torch.tensor([0.09, 0.12, 0.1]).double()
    fine, fine_triangles, _, _ = sphere(48, 72)
    surface = OrientedSurface(fine * radii, fine_triangles)
    ids = torch.arange(0, len(triangles), 40)
    weights = torch.full((len(ids), 3), 1 / 3).double()
    goals = (unit * radii)[triangles[ids]].mean(1)
    moved = bend_onto(start, triangles, surface, Anchors(ids, weights, goals))
    off = surface.find(moved, normals_of(moved, triangles)).distances
    before, after = ((places - unit * radii).norm(dim=1).mean() for places in (start, moved))
    assert off.mean() < 0.001
    assert before > 0.007 and after < 0.5 * before


def test_skin_is_the_largest_piece():
    eyes = as_model(OPEN.template)
    vertices, triangles = skin_surface(eyes)
    pieces = remeshed().of((OPEN.data.skin_weights[:, 3:] > 0.5).float().amax(1, keepdim=True))[:, 0] > 0.5
    assert not pieces[vertices].any() and pieces.any()
    assert eyes.triangles[triangles].unique().tolist() == vertices.tolist()


def test_shapes_go_over_the_bridge_and_back(bridge, other):
    to, back = errors_mm(bridge, people(8))
    assert to.mean() < 0.4 and back.mean() < 0.5
    assert bridge.trusted[face_of_mesh()].float().mean() > 0.99
    assert bridge.to_source.trusted[face_of_open()].float().mean() > 0.97
    inner = OPEN.data.triangle_parts == OPEN.data.part_names.index("tongue")
    assert bridge.to_source.trusted[OPEN.data.triangles[inner].unique()].float().mean() < 0.2
    sums = bridge.to_target.barycentric.sum(-1)
    assert torch.allclose(sums, torch.ones_like(sums), atol=1e-5)


def test_a_bridge_between_different_mean_faces():
    person = people(1, expression=0.0, seed=11)[0]
    found = make_bridge(OPEN.data, as_model(person, scale=0.93))
    to, back = errors_mm(found, people(8))
    assert to.mean() < 1.1 and back.mean() < 1.1
    # What the similarity alone gives: the nearest vertices of two faces that were laid over each other.
    nearest = torch.cdist(remeshed().of(person), OPEN.template).argmin(1)
    plain = 1000 * (people(8)[:, nearest] - remeshed().of(people(8))).norm(dim=-1)[:, face_of_mesh()]
    assert to.mean() < 0.3 * plain.mean()


def test_direction_does_not_matter(bridge, other):
    turned = make_bridge(other, OPEN.data)
    assert turned.source.name == "other" and turned.target.name == "open"
    assert torch.equal(turned.to_source.triangle_ids, bridge.to_target.triangle_ids)


def test_landmarks_go_both_ways(bridge, other):
    true = OPEN.data.landmark_sets["realy85"]
    there = bridge.reversed().landmarks(true, other)
    moved = remeshed().of(people(1)[0])
    places = there.positions(moved, other.triangles)
    goal = true.positions(people(1)[0], OPEN.triangles)
    assert 1000 * (places - goal).norm(dim=-1).mean() < 1.0
    back = bridge.landmarks(there, OPEN.data)
    off = back.positions(OPEN.template, OPEN.triangles) - true.positions(OPEN.template, OPEN.triangles)
    assert 1000 * off.norm(dim=-1).mean() < 1.0
    with pytest.raises(TopologyError, match="is not of the model"):
        bridge.landmarks(LandmarkSet("x", torch.tensor([10**6]), torch.ones(1, 3) / 3), OPEN.data)


def test_a_bridge_is_for_its_models_only(bridge, other):
    with pytest.raises(TopologyError, match=r"expected values \[\*B, 4823, C\]"):
        bridge.vertices(other.template)
    with pytest.raises(TopologyError, match="this bridge is for the model 'open'"):
        bridge.landmarks(OPEN.data.landmark_sets["now7"], other)
    with pytest.raises(TopologyError, match="make one for it"):
        completed(replace(other, triangles=other.triangles.flip(0)), bridge)


def test_only_what_can_be_mixed_goes_over_a_bridge(bridge):
    mask = OPEN.data.vertex_masks["face"][:, None]
    for values in (mask, mask.long(), torch.full((OPEN.data.n_vertices, 3), 200, dtype=torch.uint8)):
        with pytest.raises(ShapeError, match=r"give values.float\(\)"):
            bridge.values(values)
    grey = bridge.values(torch.full((OPEN.data.n_vertices, 3), 200.0, dtype=torch.float64))
    assert grey.dtype == torch.float64 and torch.allclose(grey, torch.full_like(grey, 200.0), atol=1e-3)
    assert bridge.values(torch.zeros(OPEN.data.n_vertices, 3, device="meta")).device.type == "meta"


def test_meshes_tell_the_direction_of_a_bridge_file(tmp_path, bridge, other):
    named = replace(
        bridge, source=replace(bridge.source, name="same"), target=replace(bridge.target, name="same")
    )
    path = write_bridge(named, tmp_path / "same.safetensors")
    first, second = replace(OPEN.data, name="same"), replace(other, name="same")
    for found in (read_bridge(path, first, second), read_bridge(path, first), read_bridge(path)):
        assert found.source.n_vertices == OPEN.data.n_vertices
    for found in (read_bridge(path, second, first), read_bridge(path, target=first)):
        assert found.source.n_vertices == other.n_vertices
        assert torch.equal(found.to_target.triangle_ids, bridge.to_source.triangle_ids)


def test_a_bridge_from_a_model_to_itself_can_be_written(tmp_path):
    own = Topology.of(OPEN.data)
    ids = torch.zeros(own.n_vertices, dtype=torch.int64)
    places = SurfaceMap(ids, torch.full((len(ids), 3), 1 / 3), ids == 0)
    again = read_bridge(write_bridge(Bridge(own, own, places, places), tmp_path / "a.safetensors"))
    assert torch.equal(again.source.triangles, own.triangles)


DAMAGE = {
    "source.triangles": [
        lambda t: t[:0],
        lambda t: t - 1,
        lambda t: t.float(),
        lambda t: t[:, :2],
        lambda t: t + 4823,
    ],
    "to_target.triangle_ids": [lambda t: t.float(), lambda t: t - 9999, lambda t: t[:-1]],
    "to_target.trusted": [lambda t: t.float(), lambda t: t[:, None].repeat(1, 2), lambda t: t.any()],
    "to_source.barycentric": [lambda t: t * 1e9, lambda t: t.long(), lambda t: -t, lambda t: t * torch.nan],
}


@pytest.mark.parametrize("key", DAMAGE)
def test_damage_of_bridge_files(tmp_path, bridge, key):
    path = write_bridge(bridge, tmp_path / "a.safetensors")
    tensors = load_file(path)
    with safe_open(path, "pt") as file:
        meta = file.metadata()
    for spoil in DAMAGE[key]:
        save_file({**tensors, key: spoil(tensors[key]).contiguous()}, path, meta)
        with pytest.raises(ModelFormatError, match="make it again"):
            read_bridge(path)
    for models in ("[]", "null", "{}", "[" * 10**5):
        save_file(tensors, path, meta | {"models": models})
        with pytest.raises(ModelFormatError, match="make it again"):
            read_bridge(path)


@pytest.mark.parametrize("kept", ["above the mouth", "the face"])
def test_nothing_beyond_the_border_is_trusted(other, kept):
    """A model that ends early: registered exactly, so only the border can tell what it lacks."""
    shift = torch.tensor([0.0, 0.02, -0.05])
    mouth = OPEN.data.landmark_sets["ibug68"].positions(OPEN.template, OPEN.triangles)[48:].mean(0)
    height, depth = (other.template - shift)[other.triangles].unbind(-1)[1:]
    inside = (height > mouth[1]).all(1) if kept == "above the mouth" else (depth > 0.02).all(1)
    used, local = other.triangles[inside].unique(return_inverse=True)
    bent = (OPEN.template + shift).double()
    found = _places(bent, OPEN.triangles, other.template[used].double(), local)
    lost = SurfaceTree(other.template, other.triangles[~inside]).closest(bent)
    near = SurfaceTree(other.template, other.triangles[inside]).closest(bent)
    to_lost, to_kept = ((side.points - bent).norm(dim=1) for side in (lost, near))
    beyond = (to_lost + 0.0007 < to_kept) & (to_kept < 0.0025)
    assert beyond.sum() > 10
    assert not found.trusted[beyond].any()
    well_inside = (to_kept + 0.004 < to_lost) & face_of_open()
    assert well_inside.sum() > 300 and found.trusted[well_inside].float().mean() > 0.97


def test_bridge_files(tmp_path, bridge, other):
    path = write_bridge(bridge, tmp_path / "bridge.safetensors")
    again = read_bridge(path, OPEN.data, other)
    shapes = people(2)
    assert torch.equal(again.vertices(shapes), bridge.vertices(shapes))
    assert torch.equal(again.trusted, bridge.trusted)
    turned = read_bridge(path, source=other)
    assert turned.source.name == "other"
    with pytest.raises(TopologyError, match="for the model 'other'"):
        read_bridge(path, OPEN.data, toy_model().data)
    with pytest.raises(TopologyError, match="make one for it"):
        read_bridge(path, OPEN.data, replace(other, triangles=other.triangles.flip(0)))
    content = path.read_bytes()
    (tmp_path / "cut.safetensors").write_bytes(content[: len(content) // 2])
    with pytest.raises(ModelFormatError, match="expected a whole bridge"):
        read_bridge(tmp_path / "cut.safetensors")
    hiface.morphable.write_model(other, tmp_path / "model.safetensors")
    with pytest.raises(ModelFormatError, match="models bridge"):
        read_bridge(tmp_path / "model.safetensors")
    places = bridge.to_target
    past = replace(bridge, to_target=replace(places, triangle_ids=places.triangle_ids + 9999))
    with pytest.raises(ModelFormatError, match="points past the mesh"):
        read_bridge(write_bridge(past, tmp_path / "past.safetensors"))


@pytest.fixture(scope="module")
def filled(other, bridge):
    own = LandmarkSet("now7", torch.arange(7), torch.full((7, 3), 1 / 3))
    mask = torch.zeros(other.n_vertices, dtype=torch.bool)
    return completed(replace(other, landmark_sets={"now7": own}, vertex_masks={"nose": mask}), bridge)


def test_completion_adds_what_is_missing(filled):
    true, mesh = OPEN.data, remeshed()
    assert is_complete(filled) and not is_complete(replace(filled, landmark_sets={}))
    for name in ("ibug68", "dense", "realy85"):
        off = filled.landmark_sets[name].positions(filled.template, filled.triangles)
        goal = true.landmark_sets[name].positions(true.template, true.triangles)
        off = off - torch.tensor([0.0, 0.02, -0.05]) - goal
        assert 100 * off.norm(dim=-1).mean() / EYES_M < 1.0, name
    for name in ("face", "skin", "mouth", "forehead", "cheek", "neck", "ears"):
        wanted = mesh.of(true.vertex_masks[name].float()[:, None])[:, 0] > 0.5
        both = float((wanted & filled.vertex_masks[name]).sum())
        assert both / float((wanted | filled.vertex_masks[name]).sum()) > 0.85, name
    assert filled.contour is not None and true.contour is not None
    assert filled.contour.valid.sum() > 0.9 * true.contour.valid.sum()
    lips = filled.template[filled.pairs["lip_pairs"]]
    assert 0 < (lips[:, 0] - lips[:, 1]).norm(dim=1).mean() < 0.02
    assert "iris" not in filled.landmark_sets  # its eyes cannot turn
    assert "ibug68" in filled.metadata["completed"] and "now7" not in filled.metadata["completed"]


def test_completion_keeps_what_is_there(filled, bridge):
    assert filled.landmark_sets["now7"].triangle_ids.tolist() == list(range(7))
    assert not filled.vertex_masks["nose"].any()
    coloured = replace(filled, albedo_mean=torch.rand_like(filled.albedo_mean))
    assert torch.equal(completed(coloured, bridge).albedo_mean, coloured.albedo_mean)
    assert completed(OPEN.data) is OPEN.data


def test_completion_takes_only_what_is_trusted(filled, bridge):
    bare = replace(filled, vertex_masks={}, pairs={}, contour=None)  # the albedo stays, which takes long
    to, back = bridge.to_target, bridge.to_source
    pairs, lines = OPEN.data.pairs["lip_pairs"], OPEN.data.contour
    assert lines is not None
    # Both ends of one pair are at one place; one end of another and one candidate are not trusted.
    ids, weights, trusted = back.triangle_ids.clone(), back.barycentric.clone(), back.trusted.clone()
    trusted[pairs.flatten()] = True
    nearest = bridge.target.triangles[ids].gather(1, weights.argmax(1)[:, None])[:, 0]
    moved = [tuple(pair) for pair in nearest[pairs].tolist()]
    good = [i for i, pair in enumerate(moved) if pair[0] != pair[1] and moved.count(pair) == 1]
    unsafe, same = good[0], good[-1]
    trusted[pairs[unsafe, 1]] = False
    ids[pairs[same, 1]], weights[pairs[same, 1]] = ids[pairs[same, 0]], weights[pairs[same, 0]]
    line, place = (int(i) for i in torch.nonzero(lines.valid)[5])
    candidate = line * lines.valid.shape[1] + place
    trusted[OPEN.triangles[lines.points.triangle_ids[candidate]][0]] = False
    unsure = torch.zeros_like(to.trusted)
    unsure[torch.nonzero(filled.vertex_masks["face"])[::3, 0]] = True
    made = replace(
        bridge,
        to_target=replace(to, trusted=~unsure),
        to_source=SurfaceMap(ids, weights, trusted),
    )
    found = completed(bare, made)
    whole = completed(bare, replace(made, to_target=replace(to, trusted=torch.ones_like(to.trusted))))
    for name in ("face", "skin"):
        assert torch.equal(found.vertex_masks[name], whole.vertex_masks[name] & ~unsure)
        assert (whole.vertex_masks[name] & unsure).any()
    got = {tuple(pair) for pair in found.pairs["lip_pairs"].tolist()}
    assert moved[unsafe] not in got and all(first != second for first, second in got)
    assert moved[good[1]] in got and len(got) > len(good) / 2
    assert found.contour is not None and not found.contour.valid[line, place]
    assert found.contour.valid.sum() > 0.9 * lines.valid.sum()


def test_completion_has_the_model_s_dtype(other, bridge):
    exact = {
        name: value.double()
        for name, value in vars(other).items()
        if isinstance(value, torch.Tensor) and value.is_floating_point()
    }
    data = completed(replace(other, **exact), bridge)
    assert {data.albedo_mean.dtype, data.albedo_basis.dtype} == {torch.float64}
    assert {points.barycentric.dtype for points in data.landmark_sets.values()} == {torch.float64}
    assert data.contour is not None and data.contour.points.barycentric.dtype == torch.float64
    model = MorphableModel(data)
    albedo = model.albedo_map(torch.zeros(len(data.albedo_names), dtype=torch.float64))
    assert torch.equal(albedo, data.albedo_mean)


def test_albedo_is_resampled(filled):
    assert filled.albedo_names == OPEN.data.albedo_names
    for axis in (0, 3):
        seen = []
        for data in (OPEN.data, filled):
            points = data.landmark_sets["dense"]
            uv = (data.uv[data.uv_triangles[points.triangle_ids]] * points.barycentric[..., None]).sum(1)
            texel = (uv * 256).long().clamp(0, 255)
            picture = data.albedo_mean + 0.8 * data.albedo_basis[axis]
            seen.append(picture[:, texel[:, 1], texel[:, 0]])
        assert (seen[0] - seen[1]).abs().mean() < 0.02
        assert torch.corrcoef(torch.stack([s.flatten() for s in seen]))[0, 1] > 0.9
