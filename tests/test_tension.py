import pytest
import torch

import hiface
from hiface.detail.tension import combine_detail, tension_maps, tension_masks, vertex_tension
from hiface.errors import ShapeError
from hiface.render.uv_space import uv_space


def grid(n=6):
    """A plane [n * n, 3] of unit squares, its quads and its triangles."""
    y, x = torch.meshgrid(torch.arange(n), torch.arange(n), indexing="ij")
    verts = torch.stack([x, y, torch.zeros_like(x)], dim=-1).reshape(-1, 3).double() * 0.01
    i = (torch.arange(n - 1)[:, None] * n + torch.arange(n - 1)).reshape(-1)
    quads = torch.stack([i, i + 1, i + n + 1, i + n], dim=1)
    triangles = torch.cat([quads[:, [0, 1, 2]], quads[:, [0, 2, 3]]])
    return verts, quads, triangles


@pytest.fixture(scope="module")
def model():
    return hiface.load_model("open")


@pytest.mark.parametrize("factor", [0.8, 1.0, 1.25])
def test_even_stretch_gives_one_minus_the_factor(factor):
    verts, quads, triangles = grid()
    for cells in (quads, triangles):
        assert torch.allclose(vertex_tension(verts * factor, verts, cells), torch.tensor(1 - factor).double())


def test_stretch_along_one_axis_counts_half_inside():
    verts, quads, _ = grid()
    tension = vertex_tension(verts * torch.tensor([0.7, 1.0, 1.0]), verts, quads).reshape(6, 6)
    assert torch.allclose(tension[1:-1, 1:-1], torch.tensor(0.15).double())
    # A corner has one edge of each kind, a vertex on the upper rim two along x and one along y.
    assert tension[0, 0].item() == pytest.approx(0.15) and tension[0, 2].item() == pytest.approx(0.2)


def test_rigid_motion_is_no_tension(model):
    verts = model.data.template
    R = torch.linalg.qr(torch.randn(3, 3, generator=torch.Generator().manual_seed(0))).Q
    moved = verts @ R.T + torch.tensor([0.1, -0.2, 0.3])
    assert vertex_tension(moved, verts, model.data.quads).abs().max() < 2e-3  # float32 on edges of 0.3 mm
    double = vertex_tension(verts.double() @ R.double().T, verts.double(), model.data.quads)
    assert double.abs().max() < 1e-4 and double.abs().median() < 1e-6


def test_mirrored_expression_has_mirrored_tension(model):
    data = model.data
    rest = torch.zeros(data.n_joints, 3)
    left, right = (
        model.vertices(
            torch.zeros(data.n_identity), model.expression_vector({f"mouthSmile{side}": 1.0}), rest
        )
        for side in ("Left", "Right")
    )
    tension = vertex_tension(torch.stack([left, right]), data.template, data.quads)
    # Where a mean edge is below a tenth of a millimetre rounding shows.
    assert (tension[0] - tension[1][data.mirror_vertices]).abs().max() < 0.02
    assert tension[0].max() > 0.05 and tension[0].min() < -0.1
    assert (tension[0] - tension[1]).abs().max() > 0.1


def test_smile_compresses_below_the_eyes_and_stretches_the_chin(model):
    weights = {f"{stem}{side}": 0.8 for stem in ("mouthSmile", "cheekSquint") for side in ("Left", "Right")}
    verts = model.vertices(
        torch.zeros(model.data.n_identity), model.expression_vector(weights), torch.zeros(5, 3)
    )
    tension = vertex_tension(verts, model.data.template, model.data.quads, smooth_steps=1)
    points = model.landmarks("ibug68", model.data.template)
    below_eye = (model.data.template - (points[46] + torch.tensor([0, -0.008, 0.0]))).norm(dim=1) < 0.008
    below_lip = (model.data.template - (points[57] + torch.tensor([0, -0.008, 0.0]))).norm(dim=1) < 0.008
    assert tension[below_eye].mean() > 0.04 and tension[below_lip].mean() < -0.1


def test_gradient_and_batch():
    verts, quads, _ = grid(3)
    noise = torch.randn(2, 9, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1)) * 1e-3
    moved = (verts + noise).requires_grad_()
    both = vertex_tension(moved, verts, quads, smooth_steps=1)
    assert torch.allclose(both[1], vertex_tension(moved[1], verts, quads, smooth_steps=1))
    assert torch.autograd.gradcheck(lambda v: vertex_tension(v, verts, quads, smooth_steps=1), (moved,))
    collapsed = torch.zeros(9, 3, dtype=torch.float64, requires_grad=True)
    vertex_tension(collapsed, verts, quads).sum().backward()
    assert collapsed.grad is not None and collapsed.grad.isfinite().all()


def test_smoothing_keeps_a_constant_and_lowers_a_peak():
    verts, quads, _ = grid()
    moved = verts.clone()
    moved[14] += torch.tensor([0.004, 0.0, 0.0])
    sharp, soft = (vertex_tension(moved, verts, quads, smooth_steps=n) for n in (0, 2))
    assert soft.abs().max() < 0.7 * sharp.abs().max()
    assert torch.allclose(
        vertex_tension(verts * 0.9, verts, quads, smooth_steps=2), torch.tensor(0.1).double()
    )


def test_masks_are_clipped_and_exclusive():
    plus, minus = tension_masks(torch.tensor([-0.5, -0.1, 0.0, 0.1, 0.5]), gain=4.0)
    assert torch.allclose(plus, torch.tensor([0, 0, 0, 0.4, 1.0]))
    assert torch.allclose(minus, torch.tensor([1.0, 0.4, 0, 0, 0]))


def test_maps_and_their_sum_over_a_plane():
    verts, _, triangles = grid()
    verts = verts.float()
    uv = (verts[:, :2] / 0.05).contiguous()
    space = uv_space(uv, triangles, triangles, len(verts), 16)
    tension = torch.linspace(-0.2, 0.2, 6).repeat(6)  # along x
    plus, minus = tension_maps(tension, space, gain=4.0)
    expected = 4 * torch.lerp(torch.tensor(-0.2), torch.tensor(0.2), (torch.arange(16) + 0.5) / 16)
    assert torch.allclose(plus[0, 3], expected.clamp(0, 1), atol=1e-5)
    assert torch.allclose(minus[0, 9], (-expected).clamp(0, 1), atol=1e-5)
    static, compressed, stretched = torch.rand(3, 1, 16, 16)
    total = combine_detail(static, compressed, stretched, (plus, minus))
    assert torch.allclose(total, static + plus * compressed + minus * stretched)


def test_wrong_shapes_are_named():
    verts, quads, _ = grid()
    with pytest.raises(ShapeError, match="verts"):
        vertex_tension(verts[:, :2], verts, quads)
    with pytest.raises(ShapeError, match="neutral"):
        vertex_tension(verts, verts[:-1], quads)
