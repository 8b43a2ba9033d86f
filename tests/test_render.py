# SPDX-License-Identifier: Apache-2.0
"""The renderer: conventions, exact gradients, batches, and equality of the fused and the plain path."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from hiface.render import RenderOutput, ambient_light, render, sample_texture, sh_basis, shade
from hiface.render.interpolate import interpolate_surface, to_images
from hiface.render.kernels import library
from hiface.render.rasterize import Fragments, fragments, rasterize
from hiface.render.shade import shade_rows
from hiface.render.texture import sample_fragments
from hiface.types import Camera, FaceMesh
from toy import RADII_M, sphere

FACING = torch.diag(torch.tensor([1.0, -1.0, -1.0], dtype=torch.float64))  # object axes to OpenCV camera axes


def head(rings: int = 14, segments: int = 18) -> FaceMesh:
    verts, triangles, uv, uv_triangles = sphere(rings, segments)
    return FaceMesh(verts * torch.tensor(RADII_M, dtype=torch.float64), triangles, uv, uv_triangles)


def camera(size: int = 48, distance_m: float = 0.6, tilt: float = 0.0) -> Camera:
    angle = torch.tensor(tilt, dtype=torch.float64)
    zero, one, c, s = torch.zeros_like(angle), torch.ones_like(angle), angle.cos(), angle.sin()
    turn = torch.stack([c, zero, s, zero, one, zero, -s, zero, c]).reshape(3, 3)
    t = torch.tensor([0.002, -0.003, distance_m], dtype=torch.float64)
    return Camera.from_pose(FACING @ turn, t, 2.0 * size, size, size)


def scene(size: int = 48, seed: int = 0) -> tuple[FaceMesh, Camera, Tensor, Tensor, Tensor]:
    gen = torch.Generator().manual_seed(seed)
    texture = torch.rand(3, 16, 16, generator=gen, dtype=torch.float64)
    light = ambient_light(0.7, texture) + 0.1 * torch.randn(9, 3, generator=gen, dtype=torch.float64)
    background = torch.rand(3, size, size, generator=gen, dtype=torch.float64)
    return head(), camera(size, tilt=0.3), texture, light, background


def to_float32(mesh: FaceMesh) -> FaceMesh:
    return FaceMesh(mesh.vertices.float(), mesh.triangles, mesh.uv.float(), mesh.uv_triangles)


@pytest.mark.parametrize("antialias", [False, True])
@pytest.mark.parametrize("what", ["vertices", "texture", "light", "focal", "pose", "background"])
def test_gradients_are_those_of_finite_differences(what: str, antialias: bool) -> None:
    mesh, cam, texture, light, background = scene()
    gen = torch.Generator().manual_seed(3)
    weights = torch.rand(4, 48, 48, generator=gen, dtype=torch.float64)
    inputs = {
        "vertices": mesh.vertices,
        "texture": texture,
        "light": light,
        "focal": cam.K,
        "pose": cam.T_cam_object,
        "background": background,
    }

    def loss(values: dict[str, Tensor]) -> Tensor:
        out = render(
            *[mesh.with_vertices(values["vertices"]), Camera(values["focal"], values["pose"], 48, 48)],
            *[values["texture"], values["light"], 48, values["background"], antialias],
        )
        return (torch.cat([out.image, out.alpha], dim=-3) * weights).sum()

    leaf = inputs[what].clone().requires_grad_()
    (grad,) = torch.autograd.grad(loss({**inputs, what: leaf}), leaf)
    mask = torch.ones_like(leaf)
    if what == "focal":
        mask[2] = 0
    if what == "pose":
        mask[3] = 0
    for _ in range(4):
        direction = torch.randn(leaf.shape, generator=gen, dtype=torch.float64) * mask
        step = 1e-7
        with torch.no_grad():
            plus, minus = (loss({**inputs, what: inputs[what] + s * step * direction}) for s in (1, -1))
        numeric = ((plus - minus) / (2 * step)).item()
        analytic = (grad * direction).sum().item()
        scale = (grad.norm() * direction.norm()).item() / leaf.numel() ** 0.5
        assert abs(numeric - analytic) <= 1e-5 * max(abs(analytic), scale), (numeric, analytic)
    assert grad.abs().max() > 0


@pytest.mark.parametrize("antialias", [False, True])
def test_fused_and_plain_paths_agree(antialias: bool) -> None:
    if not library.has_library():
        pytest.skip("the compiled kernels are not built here")
    mesh, cam, texture, light, background = scene(64)
    gen = torch.Generator().manual_seed(1)
    weights = torch.rand(2, 4, 64, 64, generator=gen, dtype=torch.float64)
    verts = mesh.vertices + 2e-3 * torch.randn(2, *mesh.vertices.shape, generator=gen, dtype=torch.float64)
    verts = verts.float().double()

    def run(dtype: torch.dtype) -> tuple[RenderOutput, tuple[Tensor, ...]]:
        leaves = [value.to(dtype).requires_grad_() for value in (verts, texture, light)]
        moved = FaceMesh(leaves[0], mesh.triangles, mesh.uv.to(dtype), mesh.uv_triangles)
        out = render(moved, cam.to(dtype), leaves[1], leaves[2], 64, background.to(dtype), antialias)
        total = (torch.cat([out.image, out.alpha], dim=-3) * weights.to(dtype)).sum() + out.depth.sum()
        return out, torch.autograd.grad(total + (out.normals_cam * out.uv[:, :1]).sum(), leaves)

    (plain, plain_grads), (fused, fused_grads) = run(torch.float64), run(torch.float32)
    differs = (plain.triangle_id != fused.triangle_id).double().mean()
    assert differs < 2e-3
    same = (plain.triangle_id == fused.triangle_id).unsqueeze(1)
    for name in ("image", "alpha", "depth", "normals_cam", "albedo", "shading", "uv"):
        gap = ((getattr(plain, name) - getattr(fused, name)).abs() * same).flatten()
        assert gap.quantile(0.999) < 2e-4, name
    for a, b in zip(plain_grads, fused_grads, strict=True):
        cosine = torch.nn.functional.cosine_similarity(a.flatten(), b.double().flatten(), dim=0)
        assert cosine > 0.999 and abs(b.norm() / a.norm() - 1) < 0.02


def test_dense_fragments_of_a_gpu_give_the_same_images() -> None:
    mesh, cam, texture, light, background = scene()
    verts = torch.stack([mesh.vertices, mesh.vertices * 0.9])
    verts_cam = cam.to_cam(verts)
    verts_px_z = torch.cat([cam.cam_to_px(verts_cam), verts_cam[..., 2:]], dim=-1)
    ids = rasterize(verts_px_z, mesh.triangles, 48, 48)
    listed = fragments(ids)
    dense = Fragments(ids, torch.arange(ids.numel()), (48 * 48,) * 2, (ids >= 0).reshape(-1))
    corner_values = mesh.uv[mesh.uv_triangles] * 2 - 1
    results = []
    for frags in (listed, dense):
        leaf = verts_px_z.clone().requires_grad_()
        rows = interpolate_surface(leaf, verts_cam, corner_values, mesh.triangles, frags)
        lit = shade_rows(rows[1:4], light.expand(2, 9, 3), frags)
        albedo = sample_fragments(texture.expand(2, 3, 16, 16), rows[4:], frags)
        image = to_images(torch.cat([lit, albedo, rows[:1]]), frags, background[:1].expand(2, 10, 48, 48))
        results.append((image, torch.autograd.grad(image.square().sum(), leaf)[0]))
    assert torch.allclose(results[0][0], results[1][0]) and torch.allclose(results[0][1], results[1][1])
    assert results[0][0].abs().sum() > 0 and listed.pixel.numel() < dense.pixel.numel()


@pytest.mark.parametrize("batch", [(), (2,), (1, 2)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_any_leading_batch_equals_one_by_one(batch: tuple[int, ...], dtype: torch.dtype) -> None:
    mesh, cam, texture, light, background = scene()
    mesh = FaceMesh(mesh.vertices.to(dtype), mesh.triangles, mesh.uv.to(dtype), mesh.uv_triangles)
    cam, texture, light, background = cam.to(dtype), texture.to(dtype), light.to(dtype), background.to(dtype)
    count = torch.Size(batch).numel()
    shifts = (
        torch.linspace(-0.03, 0.03, count, dtype=dtype).reshape(*batch, 1, 1) if batch else torch.zeros(1, 1)
    )
    verts = mesh.vertices + shifts.to(dtype) * torch.tensor([1.0, 0.0, 0.0], dtype=dtype)
    textures = texture * torch.linspace(0.5, 1.0, count, dtype=dtype).reshape(*batch, 1, 1, 1)
    out = render(mesh.with_vertices(verts), cam, textures, light, background=background)
    assert out.image.shape == (*batch, 3, 48, 48) and out.alpha.shape == (*batch, 1, 48, 48)
    assert out.depth.shape == (*batch, 1, 48, 48) and out.uv.shape == (*batch, 2, 48, 48)
    assert out.triangle_id.shape == (*batch, 48, 48) and out.image.dtype == dtype
    for k, (v, t) in enumerate(
        zip(verts.reshape(-1, *mesh.vertices.shape), textures.reshape(-1, 3, 16, 16), strict=True)
    ):
        single = render(mesh.with_vertices(v), cam, t, light, background=background)
        assert torch.allclose(out.image.reshape(-1, 3, 48, 48)[k], single.image, atol=1e-5)
        assert torch.allclose(out.normals_cam.reshape(-1, 3, 48, 48)[k], single.normals_cam, atol=1e-5)


def test_maps_follow_the_conventions() -> None:
    mesh, _, texture, light, _ = scene()
    out = render(mesh, camera(64), texture, light, 64, antialias=False)
    mask = out.mask[0]
    assert mask[32, 32] and not mask[0, 0]
    # The front of the head is nearer than its centre and its normals point at the camera (-z).
    assert 0.5 < out.depth[0, 32, 32] < 0.6
    assert out.normals_cam[2, 32, 32] < -0.99
    assert torch.allclose(out.normals_cam.norm(dim=0)[mask], torch.ones((), dtype=torch.float64))
    # Object +Y (up) is image up (camera -y), object +X is image right.
    assert out.normals_cam[1, 20, 32] < -0.1 and out.normals_cam[0, 32, 40] > 0.1
    # UV origin is top-left: v grows downwards, u of this sphere to the right.
    assert out.uv[1, 20, 32] < out.uv[1, 44, 32] and out.uv[0, 32, 26] < out.uv[0, 32, 38]
    inside = mask.expand(3, -1, -1)
    assert torch.allclose(out.image[inside], (out.albedo * out.shading)[inside])
    assert out.image[~inside].abs().max() == 0 and torch.equal(out.alpha[0] > 0, mask)


def test_interpolation_is_perspective_correct() -> None:
    verts = torch.tensor(
        [[-1.0, -1.0, 2.0], [1.0, -1.0, 2.0], [1.0, 1.0, 6.0], [-1.0, 1.0, 6.0]], dtype=torch.float64
    )
    uv = torch.tensor([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0]], dtype=torch.float64)
    triangles = torch.tensor([[0, 1, 2], [0, 2, 3]])
    eye = torch.eye(3, dtype=torch.float64)
    cam = Camera.from_pose(eye, torch.zeros(3, dtype=torch.float64), 40.0, 48, 48)
    ones = torch.ones(3, 2, 2, dtype=torch.float64)
    out = render(
        FaceMesh(verts, triangles, uv, triangles), cam, ones, ambient_light(1.0, ones), antialias=False
    )
    rows, columns = out.mask[0].nonzero().unbind(1)
    z = out.depth[0, rows, columns]
    x, y = (columns + 0.5 - 24) / 40 * z, (rows + 0.5 - 24) / 40 * z
    assert rows.numel() > 300
    assert torch.allclose(z, 4 + 2 * y, atol=1e-9)
    assert torch.allclose(out.uv[0, rows, columns], (x + 1) / 2, atol=1e-9)
    assert torch.allclose(out.uv[1, rows, columns], (y + 1) / 2, atol=1e-9)


def test_texel_centres_and_origin() -> None:
    texture = torch.arange(6.0).reshape(1, 2, 3)
    uv = torch.tensor([[0.5 / 3, 0.25], [2.5 / 3, 0.25], [0.5 / 3, 0.75], [1.0 / 3, 0.25], [-3.0, 5.0]])
    assert torch.allclose(
        sample_texture(texture, uv)[:, 0], torch.tensor([0.0, 2.0, 3.0, 0.5, 3.0]), atol=1e-6
    )
    assert sample_texture(texture.expand(2, 4, 1, 2, 3), uv).shape == (2, 4, 5, 1)


def test_sh_basis_is_orthonormal() -> None:
    gen = torch.Generator().manual_seed(0)
    z = torch.linspace(-1, 1, 4002, dtype=torch.float64)[1:-1:2]
    phi = torch.arange(64, dtype=torch.float64) * (2 * torch.pi / 64)
    ring = (1 - z * z).sqrt()[:, None]
    normals = torch.stack([ring * phi.cos(), ring * phi.sin(), z[:, None].expand(-1, 64)], dim=-1).reshape(
        -1, 3
    )
    basis = sh_basis(normals)
    gram = basis.T @ basis * (4 * torch.pi / normals.shape[0])
    assert torch.allclose(gram, torch.eye(9, dtype=torch.float64), atol=1e-3)
    light = torch.randn(9, 3, generator=gen, dtype=torch.float64)
    albedo = torch.rand(normals.shape, generator=gen, dtype=torch.float64)
    assert torch.allclose(shade(albedo, normals, light), albedo * (basis @ light))


def test_ambient_light_shades_evenly() -> None:
    normals = torch.nn.functional.normalize(
        torch.randn(50, 3, generator=torch.Generator().manual_seed(0)), dim=1
    )
    out = shade(torch.full((50, 3), 0.5), normals, ambient_light(0.8, normals))
    assert torch.allclose(out, torch.full((50, 3), 0.4))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_nothing_in_view_gives_the_background_and_zero_gradients(dtype: torch.dtype) -> None:
    mesh, cam, texture, light, background = scene()
    leaves = [v.to(dtype).requires_grad_() for v in (mesh.vertices + 5.0, texture, light)]
    moved = FaceMesh(leaves[0], mesh.triangles, mesh.uv.to(dtype), mesh.uv_triangles)
    out = render(moved, cam.to(dtype), leaves[1], leaves[2], background=background.to(dtype))
    assert torch.equal(out.image, background.to(dtype)) and out.alpha.max() == 0 and not out.mask.any()
    grads = torch.autograd.grad((out.image + out.alpha).sum(), leaves)
    assert all(torch.isfinite(g).all() and g.abs().max() == 0 for g in grads)


def test_one_empty_image_in_a_batch() -> None:
    mesh, cam, texture, light, _ = scene()
    verts = torch.stack([mesh.vertices, mesh.vertices + 5.0, mesh.vertices]).float().requires_grad_()
    out = render(to_float32(mesh).with_vertices(verts), cam.to(torch.float32), texture.float(), light.float())
    assert out.mask.flatten(1).any(1).tolist() == [True, False, True]
    assert torch.equal(out.image[0], out.image[2])
    out.image.sum().backward()
    assert verts.grad is not None and torch.isfinite(verts.grad).all() and verts.grad[1].abs().max() == 0


def test_head_around_the_camera_has_finite_gradients() -> None:
    mesh, _, texture, light, _ = scene()
    verts = mesh.vertices.float().requires_grad_()
    cam = camera(48, distance_m=0.05).to(torch.float32)
    out = render(to_float32(mesh).with_vertices(verts), cam, texture.float(), light.float())
    out.image.mean().backward()
    assert verts.grad is not None and torch.isfinite(verts.grad).all()
    assert torch.isfinite(out.image).all()


def test_hostile_vertices_do_not_spoil_the_picture() -> None:
    mesh, cam, texture, light, _ = scene()
    values = (float("nan"), float("inf"), 1e30, -1e30)
    extra = torch.tensor([[v, 0.0, 0.0] for v in values] + [[0.0, 0.0, v] for v in values])
    verts = torch.cat([mesh.vertices.float(), extra])
    first = len(mesh.vertices)
    spikes = torch.tensor([[first + k, 5, 9] for k in range(len(extra))])
    triangles = torch.cat([mesh.triangles, spikes])
    uv_triangles = torch.cat([mesh.uv_triangles, spikes.clamp(max=3)])
    spoiled = FaceMesh(verts, triangles, mesh.uv.float(), uv_triangles)
    out = render(spoiled, cam.to(torch.float32), texture.float(), light.float())
    assert torch.isfinite(out.image[:, 16:32, 16:32]).all() and out.alpha.max() <= 1


def test_size_and_shapes_are_checked() -> None:
    mesh, cam, texture, light, _ = scene()
    assert render(mesh, cam, texture, light, (20, 30)).image.shape == (3, 20, 30)
    bad: list[Callable[[], RenderOutput]] = [
        lambda: render(mesh, cam, texture[:2], light),
        lambda: render(mesh, cam, texture, light[:4]),
    ]
    for call in bad:
        with pytest.raises(ValueError, match="expected texture"):
            call()
