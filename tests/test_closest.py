"""Closest points on meshes: the tree agrees with trying every triangle."""

import pytest
import torch

from hiface.errors import ShapeError
from hiface.geometry.closest import SurfaceTree, barycentric_of, closest_points_reference


def random_mesh(seed, n_vertices=40, n_triangles=60):
    gen = torch.Generator().manual_seed(seed)
    vertices = torch.randn(n_vertices, 3, generator=gen, dtype=torch.float64)
    triangles = torch.stack([torch.randperm(n_vertices, generator=gen)[:3] for _ in range(n_triangles)])
    points = 2 * torch.randn(200, 3, generator=gen, dtype=torch.float64)
    return vertices, triangles, points


@pytest.mark.parametrize("seed", range(5))
def test_tree_agrees_with_the_reference(seed):
    vertices, triangles, points = random_mesh(seed)
    fast = SurfaceTree(vertices, triangles).closest(points)
    slow = closest_points_reference(points, vertices, triangles)
    assert torch.allclose(fast.distances, slow.distances, atol=1e-12)
    assert torch.allclose(fast.points, slow.points, atol=1e-9)
    assert torch.allclose((fast.points - points).norm(dim=-1), fast.distances, atol=1e-12)


def test_reference_on_one_triangle():
    vertices = torch.tensor([[0.0, 0, 0], [1, 0, 0], [0, 1, 0]], dtype=torch.float64)
    triangles = torch.tensor([[0, 1, 2]])
    asked = [[0.2, 0.2, 3.0], [-1, -1, 0], [2, 0, 0], [0.5, -2, 0], [1, 1, 0]]
    found = [[0.2, 0.2, 0], [0, 0, 0], [1, 0, 0], [0.5, 0, 0], [0.5, 0.5, 0]]
    slow = closest_points_reference(torch.tensor(asked, dtype=torch.float64), vertices, triangles)
    assert torch.allclose(slow.points, torch.tensor(found, dtype=torch.float64))


def test_degenerate_triangles_are_segments_and_points():
    vertices = torch.tensor([[0.0, 0, 0], [1, 0, 0], [2, 0, 0], [5, 5, 5]], dtype=torch.float64)
    triangles = torch.tensor([[0, 1, 2], [3, 3, 3]])
    points = torch.tensor([[1.5, 1, 0], [5, 5, 7]], dtype=torch.float64)
    for found in (
        SurfaceTree(vertices, triangles).closest(points),
        closest_points_reference(points, vertices, triangles),
    ):
        assert torch.allclose(found.distances, torch.tensor([1.0, 2.0], dtype=torch.float64))


def test_barycentric_weights_give_the_points_back():
    vertices, triangles, points = random_mesh(7)
    found = SurfaceTree(vertices, triangles).closest(points)
    corners = vertices[triangles[found.triangle_ids]]
    weights = barycentric_of(found.points, corners)
    assert torch.allclose((weights[..., None] * corners).sum(1), found.points, atol=1e-9)
    assert weights.min() > -1e-9
    flat = barycentric_of(torch.zeros(1, 3), torch.ones(1, 3, 3))
    assert flat.sum() == 1 and bool(flat.isfinite().all())


@pytest.mark.parametrize("broken", ["empty", "nan", "index", "points"])
def test_bad_meshes_are_refused(broken):
    vertices, triangles, points = random_mesh(1)
    if broken == "empty":
        triangles = triangles[:0]
    if broken == "nan":
        vertices[3, 1] = float("nan")
    if broken == "index":
        triangles[0, 0] = 99
    if broken == "points":
        points[5] = float("inf")
    with pytest.raises(ShapeError):
        SurfaceTree(vertices, triangles).closest(points)
