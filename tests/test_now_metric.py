"""NoW's metric where the answer is known."""

import math

import pytest
import torch

import hiface
from hiface.errors import EvaluationDataError, ShapeError
from hiface.evaluation.metrics.now import (
    NowPrediction,
    Scan,
    crop_face,
    landmark_alignment,
    now_distances,
    refine,
)
from hiface.geometry.closest import SurfaceTree
from hiface.geometry.mesh_files import PlainMesh
from scans import shape
from test_realy import turn


def head(vertices):
    model = hiface.load_model()
    return PlainMesh(vertices.double(), model.triangles), model.landmarks("now7", vertices).double()


def scan_of(vertices):
    mesh, marks = head(1e3 * vertices)
    return Scan(mesh, marks)


def test_the_identical_surface_moved_scaled_and_cut_has_no_error():
    person, gen = shape(1), torch.Generator().manual_seed(0)
    scan = scan_of(person)
    torn = torch.rand(len(scan.mesh.triangles), generator=gen) < 0.6
    torn &= scan.mesh.vertices[scan.mesh.triangles][:, :, 0].mean(1) > -20.0
    used, corners = torch.unique(scan.mesh.triangles[torn], return_inverse=True)
    scan = Scan(PlainMesh(scan.mesh.vertices[used], corners.reshape(-1, 3)), scan.landmarks)
    mesh, marks = head(0.37 * person.double() @ turn(4).T + torch.tensor([1.0, 2.0, -3.0]))
    marks += 0.37e-3 * torch.randn(7, 3, generator=gen, dtype=torch.float64)
    reached = torch.isin(scan_of(person).mesh.vertices, crop_face(scan)).all(dim=1)
    kept = mesh.triangles[reached[mesh.triangles].any(dim=1)]
    assert len(kept) < 0.8 * len(mesh.triangles) and len(crop_face(scan)) > 1000
    distances = now_distances(NowPrediction(PlainMesh(mesh.vertices, kept), marks), scan)
    assert distances.max() < 0.02


def test_metrical_variant_sees_a_wrong_size():
    person = shape(2)
    mesh, marks = head(person * 1.05)
    scan = scan_of(person)
    assert now_distances(NowPrediction(mesh, marks), scan).mean() < 0.02
    metrical = now_distances(NowPrediction(mesh, marks), scan, unit_mm=1000.0)
    right = now_distances(NowPrediction(*head(person)), scan, unit_mm=1000.0)
    assert right.mean() < 0.02 and metrical.mean() > 0.5


def test_crop_is_the_published_ball():
    marks = torch.tensor(
        [[-50.0, 40, 0], [-15, 40, 0], [15, 40, 0], [50, 40, 0], [0, -10, 20], [-25, -40, 0], [25, -40, 0]]
    )
    gen = torch.Generator().manual_seed(0)
    cloud = 200 * torch.randn(4000, 3, generator=gen)
    kept = crop_face(Scan(PlainMesh(cloud.double(), torch.tensor([[0, 1, 2]])), marks))
    centre = torch.tensor([0.0, -10 + 0.3 * 50, 20 - 0.3 * 20])
    radius = 1.4 * (100 + math.hypot(50, 20)) / 2
    expected = cloud[(cloud - centre).norm(dim=-1) <= radius]
    assert torch.equal(kept.float(), expected) and 20 < len(kept) < 4000


def test_first_alignment_may_be_a_reflection():
    points = torch.randn(7, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    found = landmark_alignment(points, 2 * points * torch.tensor([-1.0, 1.0, 1.0]))
    assert torch.linalg.det(found.R) < 0 and torch.isclose(found.scale, found.scale.new_tensor(2.0))


def test_refinement_ends_in_a_least_sum_of_squares():
    person, other = 1e3 * shape(3).double(), 1e3 * shape(4).double()
    points = crop_face(scan_of(person / 1e3))
    triangles = hiface.load_model().triangles
    tree = SurfaceTree(other, triangles)
    pose = refine(tree, points, with_scale=True)

    def cost(R, t, scale):
        return float((SurfaceTree(scale * other @ R.T + t, triangles).closest(points).distances ** 2).sum())

    best = cost(pose.R, pose.t, pose.scale)
    assert best < 0.8 * cost(torch.eye(3).double(), torch.zeros(3).double(), torch.ones(()).double())
    gen = torch.Generator().manual_seed(5)
    for _ in range(12):
        w = 2e-3 * torch.randn(3, generator=gen, dtype=torch.float64)
        skew = torch.tensor([[0, -w[2], w[1]], [w[2], 0, -w[0]], [-w[1], w[0], 0]], dtype=torch.float64)
        R = torch.linalg.matrix_exp(skew) @ pose.R
        shift = 0.2 * torch.randn(3, generator=gen, dtype=torch.float64)
        size = 1 + 2e-3 * torch.randn((), generator=gen, dtype=torch.float64)
        assert cost(R, pose.t + shift, size * pose.scale) > best


def test_bad_landmarks_and_scans_are_refused():
    mesh, marks = head(shape(1))
    with pytest.raises(ShapeError, match="prediction needs"):
        now_distances(NowPrediction(mesh, marks[:6]), scan_of(shape(1)))
    with pytest.raises(ShapeError, match="scan needs"):
        now_distances(NowPrediction(mesh, marks), Scan(mesh, marks * float("nan")))
    with pytest.raises(EvaluationDataError, match="millimetres"):
        now_distances(NowPrediction(mesh, marks), Scan(scan_of(shape(1)).mesh, marks + 50.0))
