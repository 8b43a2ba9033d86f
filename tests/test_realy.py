"""REALY's steps one by one: against formulas written out, and where the answer is known."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

import hiface
from hiface.errors import EvaluationDataError, ShapeError
from hiface.evaluation.metrics.realy import (
    REGIONS,
    PredictedMesh,
    Subject,
    bent_error,
    global_alignment,
    keypoint_groups,
    merged,
    realy_errors,
    regional_alignment,
    similarity,
)
from hiface.geometry import nonrigid
from hiface.geometry.closest import SurfaceTree
from hiface.geometry.mesh_files import PlainMesh
from hiface.geometry.nonrigid import Keypoints, deform_to_points
from hiface.geometry.procrustes import Similarity
from scans import UNIT_M, keypoints, predicted, region_masks, shape, subject


def turn(seed=0):
    gen = torch.Generator().manual_seed(seed)
    U, _, Vh = torch.linalg.svd(torch.randn(3, 3, generator=gen, dtype=torch.float64))
    R = U @ Vh
    return R * R.det().sign()


def bent_by_the_book(vertices, triangles, targets, ids=None, places=None):
    """The published loop on dense matrices, by least squares of all rows."""
    v, n = vertices.numpy().copy(), len(vertices)
    edges = sorted(
        {tuple(sorted((t[i], t[j]))) for t in triangles.tolist() for i, j in ((0, 1), (0, 2), (1, 2))}
    )
    M = np.zeros((len(edges), n))
    for row, (i, j) in enumerate(edges):
        M[row, i], M[row, j] = 1, -1

    def solved(alpha, G, w, w_places, k, k_places):
        D = np.zeros((n, 4 * n))
        for i in range(n):
            D[i, 4 * i : 4 * i + 4] = [*v[i], 1]
        rows = [alpha * np.kron(M, np.diag(G)), w[:, None] * D, k[:, None] * D]
        right = [np.zeros((4 * len(edges), 3)), w[:, None] * w_places, k[:, None] * k_places]
        X = np.linalg.lstsq(np.vstack(rows), np.vstack(right), rcond=None)[0]
        return X, D @ X

    X, before, count, none = np.ones((4 * n, 3)), np.zeros((4 * n, 3)), 0, np.zeros(n)
    chosen, k_places = np.zeros(n), np.zeros((n, 3))
    if ids is not None:
        chosen[ids], k_places[ids] = 1, places
        before = X
        X, v = solved(150, [2, 2, 3, 2], none, np.zeros((n, 3)), 50 * chosen, k_places)
        count = 1
    for level in range(3):
        step = 0
        while np.linalg.norm(X - before) > 0.5**level and (ids is None or step <= 10):
            distance = np.linalg.norm(v[:, None] - targets.numpy()[None], axis=-1)
            nearest = targets.numpy()[distance.argmin(1)]
            near = (distance.min(1) < max(2 * distance.min(1).mean(), 1)).astype(float)
            before = X
            k = 50 * math.exp(-0.9 * count) / 10 * chosen
            X, v = solved(50 * math.exp(-0.5 * level), [1, 1, 1, 1], near, nearest, k, k_places)
            step, count = step + 1, count + 1
    return v


@pytest.mark.parametrize("pulled", [False, True])
@pytest.mark.parametrize("tolerance, off", [(None, 1e-5), (1e-10, 1e-5), (nonrigid._TOLERANCE, 1e-2)])
def test_bending_follows_the_published_equations(monkeypatch, pulled, tolerance, off):
    if tolerance is not None:  # by conjugate gradients, as larger meshes are
        monkeypatch.setattr(nonrigid, "_SAMPLES", 12)
        monkeypatch.setattr(nonrigid, "_TOLERANCE", tolerance)
    gen = torch.Generator().manual_seed(3)
    x, y = torch.meshgrid(torch.arange(9.0), torch.arange(9.0), indexing="ij")
    flat = torch.stack([x.ravel(), y.ravel(), 0.1 * x.ravel() ** 2], dim=1).double() * 0.7
    flat += 0.05 * torch.randn(flat.shape, generator=gen)
    cell = [(9 * i + j, 9 * i + j + 1, 9 * i + j + 9, 9 * i + j + 10) for i in range(8) for j in range(8)]
    triangles = torch.tensor([t for a, b, c, d in cell for t in ((a, b, c), (b, d, c))])
    targets = flat @ turn(1)[:, [0, 1, 2]] * 0.1 + flat + torch.tensor([0.3, -0.2, 0.4]).double()
    targets[5] += 6.0
    ids = torch.tensor([0, 8, 40, 72, 80, 44]) if pulled else None
    places = targets[ids] + 0.2 if pulled else None
    found = deform_to_points(flat, triangles, targets, Keypoints(ids, places) if pulled else None)
    expected = bent_by_the_book(flat, triangles, targets, ids, None if places is None else places.numpy())
    assert np.abs(found.numpy() - expected).max() < off
    assert np.abs(expected - flat.numpy()).max() > 0.3


def test_vertices_without_triangles_are_refused():
    with pytest.raises(ShapeError, match="belong to a triangle"):
        deform_to_points(torch.randn(5, 3), torch.tensor([[0, 1, 2]]), torch.randn(4, 3))


def test_similarity_has_the_published_scale():
    gen = torch.Generator().manual_seed(0)
    source, target = torch.randn(2, 7, 3, generator=gen, dtype=torch.float64)
    found = similarity(source, target, with_scale=True)
    s, t = source - source.mean(0), target - target.mean(0)
    U, _, Vh = np.linalg.svd(t.numpy().T @ s.numpy())
    R = U @ Vh
    scale = np.abs(t.numpy()).sum() / np.abs(s.numpy() @ R.T).sum()
    assert np.allclose(found.R, R) and np.isclose(float(found.scale), scale)
    assert np.allclose(found.apply(source).mean(0), target.mean(0))
    exact = similarity(source, 3 * source @ turn().T + 1, with_scale=True)
    assert 2.5 < float(exact.scale) < 3.5 and torch.allclose(exact.R, turn(), atol=1e-9)


def test_a_mesh_moved_turned_and_scaled_has_no_error():
    person = shape(1)
    moved = 7.3 * person.double() @ turn(2).T + torch.tensor([5.0, -2.0, 9.0])
    errors = realy_errors(predicted(moved), subject(person, 1))
    for region in REGIONS:
        assert max(errors[region]["rigid"], errors[region]["global"]) < 1e-3, region
        assert errors[region]["bent"] < 0.03, region  # keypoints lie between vertices of the scan


def test_regional_alignment_finds_a_region_that_was_moved():
    person = shape(2)
    truth = subject(person)
    shift = torch.tensor([0.1, -0.2, 0.15]).double()
    moved = person.double() / UNIT_M @ turn_by(0.03).T + shift
    tree = SurfaceTree(moved, hiface.load_model().triangles)
    for region in REGIONS:
        found = regional_alignment(tree, keypoints(moved), truth, region)
        back = found.apply(moved)
        mask = region_masks()[region]
        assert (back - person.double() / UNIT_M)[mask].norm(dim=-1).mean() < 0.01, region


ALIGNED_BY = {
    "nose": [*range(27, 32), 35, 32, 33, 34, 70, 71],
    "mouth": [*range(48, 61), 64],
    "forehead": [*range(36, 48), *range(17, 27)],
    "cheek": [*range(48, 61), 64, 76, 77, 36, 41, 40, 39, 42, 47, 46, 45, 7, 8, 9],
}


@pytest.mark.parametrize("region", REGIONS)
def test_regional_alignment_follows_the_published_loop(region):
    person, triangles = shape(2), hiface.load_model().triangles
    truth = subject(person)
    vertices, points = shape(6).double() / UNIT_M, keypoints(shape(6)).double() / UNIT_M
    tree = SurfaceTree(vertices, triangles)
    found = regional_alignment(tree, points, truth, region)
    scan, chosen = truth.regions[region].vertices, ALIGNED_BY[region]
    rate = int(len(scan) / len(chosen) / (4 if region == "cheek" else 1))
    moved, marks, before = vertices.clone(), points[chosen].repeat(rate, 1), 0.0
    target = torch.cat([scan, truth.keypoints[chosen].repeat(rate, 1)]).numpy()
    for _ in range(101):
        nearest = SurfaceTree(moved, triangles).closest(scan).points
        source = torch.cat([nearest, marks]).numpy()
        s, t = source - source.mean(0), target - target.mean(0)
        U, _, Vh = np.linalg.svd(t.T @ s)
        R = U @ Vh
        shift = (target - source @ R.T).mean(0)
        error = ((source @ R.T + shift - target) ** 2).sum(1).mean()
        if abs(error - before) < 1e-6:
            break
        before = error
        moved, marks = (torch.from_numpy(p.numpy() @ R.T + shift) for p in (moved, marks))
    assert torch.allclose(found.apply(vertices), moved, atol=1e-8)
    assert (moved - vertices).norm(dim=-1).mean() > 0.05


def turn_by(angle):
    c, s = math.cos(angle), math.sin(angle)
    return torch.tensor([[c, -s, 0], [s, c, 0], [0, 0, 1]], dtype=torch.float64)


@pytest.mark.parametrize("size", [0.25, 0.5])
@pytest.mark.parametrize("direction", [(0.0, 0.0, 1.0), (0.6, 0.0, 0.8)])
def test_a_rigid_offset_of_known_size_is_the_error(direction, size):
    person = shape(3)
    truth = subject(person, 2)
    scan, chosen = merged(truth.regions["nose"]).vertices, keypoint_groups()["bent_by"]["nose"]
    places = truth.keypoints.clone()
    places[chosen] = scan[torch.cdist(places[chosen], scan).argmin(1)]
    truth = replace(truth, keypoints=places)
    offset = size * torch.tensor(direction).double()
    tree = SurfaceTree(person.double() / UNIT_M + offset, hiface.load_model().triangles)
    bent = float(bent_error(tree, places + offset, truth, "nose").mean())
    assert abs(bent / size - 1) < 0.02
    assert tree.closest(scan).distances.mean() < 0.9 * bent  # what slides along the surface is not seen


def test_a_region_of_somebody_else_shows_in_that_region_only():
    person, other = shape(4), shape(5)
    mask = region_masks()["nose"]
    mixed = person.clone()
    own = Similarity(*(part for part in _rigid(other[mask], person[mask])))
    mixed[mask] = own.apply(other.double())[mask].float()
    errors = realy_errors(predicted(mixed), subject(person))
    clean = realy_errors(predicted(person), subject(person))
    true_mm = 1e3 * float((mixed - person)[mask].norm(dim=-1).mean())
    assert 0.6 * true_mm < errors["nose"]["bent"] < 1.2 * true_mm
    for region in ("forehead", "cheek"):
        assert errors[region]["bent"] < clean[region]["bent"] + 0.15 * errors["nose"]["bent"]


def _rigid(source, target):
    found = similarity(source, target, with_scale=False)
    return found.R, found.t, found.scale


def test_merging_keeps_order_and_drops_what_no_triangle_uses():
    vertices = torch.tensor(
        [[9.0, 9, 9], [0, 0, 0], [1, 0, 0], [0, 1, 0], [1, 0, 0], [1, 1, 0]], dtype=torch.float64
    )
    mesh = merged(PlainMesh(vertices, torch.tensor([[1, 2, 3], [4, 5, 3]])))
    assert mesh.vertices.tolist() == [[0, 0, 0], [1, 0, 0], [0, 1, 0], [1, 1, 0]]
    assert mesh.triangles.tolist() == [[0, 1, 2], [1, 3, 2]]


def test_keypoint_groups_are_the_published_ones():
    groups = keypoint_groups()
    assert [len(groups["aligned_by"][region]) for region in REGIONS] == [11, 14, 22, 27]
    assert [len(groups["bent_by"][region]) for region in REGIONS] == [9, 14, 22, 0]
    now7 = hiface.load_model().landmarks("now7", shape(1))
    assert torch.equal(keypoints(shape(1))[groups["seven"]], now7)


def test_missing_parts_are_named():
    person = shape(1)
    truth = subject(person)
    few = PredictedMesh(person, hiface.load_model().triangles, keypoints(person)[:68])
    with pytest.raises(ShapeError, match="85"):
        realy_errors(few, truth)
    regions = {name: mesh for name, mesh in truth.regions.items() if name != "mouth"}
    with pytest.raises(EvaluationDataError, match="mouth"):
        realy_errors(predicted(person), Subject("1", truth.keypoints, regions, 1.0))
    assert global_alignment(predicted(person), truth.keypoints).scale > 0
