# SPDX-License-Identifier: Apache-2.0
"""The rasterizer's kernels: identical ids on ordinary and hostile meshes, no holes, and what happens without
them."""

from __future__ import annotations

import ctypes
import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from hiface.render import rasterize
from hiface.render.kernels import build, cpu, gpu, library, reference
from hiface.render.kernels.reference import NEAR_M
from toy import sphere

Kernel = Callable[[Tensor, Tensor, int, int], Tensor]

SHIM = """
#include <cstring>
#define __device__
#define __global__
static struct { int x, y, z; } blockIdx, blockDim, threadIdx;
static int __float2int_rn(float v) { return (int)__builtin_rintf(v); }
static float __ll2float_rn(long long v) { return (float)v; }
static float __fadd_rn(float a, float b) { volatile float r = a + b; return r; }
static float __fsub_rn(float a, float b) { volatile float r = a - b; return r; }
static float __fmul_rn(float a, float b) { volatile float r = a * b; return r; }
static float __fdiv_rn(float a, float b) { volatile float r = a / b; return r; }
static unsigned __float_as_uint(float v) { unsigned r; memcpy(&r, &v, 4); return r; }
static void atomicMin(unsigned long long *p, unsigned long long v) { if (v < *p) *p = v; }
#include "zbuffer.cu"
extern "C" void run(const float *verts, int n_images, int n_verts, const i64 *triangles, int n_triangles, int
height,
                    int width, double near_z, u64 *keys) {
    blockDim.x = 64;
    for (blockIdx.y = 0; blockIdx.y < n_images; ++blockIdx.y)
        for (blockIdx.x = (n_triangles - 1) / 64; blockIdx.x >= 0; --blockIdx.x)
            for (threadIdx.x = 63; threadIdx.x >= 0; --threadIdx.x)
                hiface_zbuffer(verts, n_verts, triangles, n_triangles, height, width, near_z, keys);
}
"""


@pytest.fixture(scope="session")
def c_kernel(tmp_path_factory: pytest.TempPathFactory) -> Kernel:
    """The C kernel, compiled from the sources under test."""
    pytest.importorskip("ziglang", reason="the C kernel needs the zig compiler")
    compiled = library.load_library(build.build_library(tmp_path_factory.mktemp("kernels")))
    return lambda verts, triangles, h, w: cpu.run_library(compiled, verts, triangles, h, w)


@pytest.fixture(scope="session")
def cuda_source_kernel(tmp_path_factory: pytest.TempPathFactory) -> Kernel:
    """The CUDA source compiled for the CPU, its threads run one after the other in reverse order."""
    folder = tmp_path_factory.mktemp("cuda")
    (folder / "shim.cpp").write_text(SHIM)
    compiler = [shutil.which("g++")] if shutil.which("g++") else [sys.executable, "-m", "ziglang", "c++"]
    command = [*compiler, "-O1", "-ffp-contract=off", "-shared", "-fPIC", f"-I{gpu.SOURCE.parent}"]
    output = folder / "cuda_on_cpu.so"
    subprocess.run([*command, "-o", str(output), str(folder / "shim.cpp")], check=True, capture_output=True)
    run = ctypes.CDLL(str(output)).run
    run.argtypes = [
        *[
            ctypes.c_void_p,
            ctypes.c_int,
            ctypes.c_int,
            ctypes.c_void_p,
            ctypes.c_int,
            ctypes.c_int,
            ctypes.c_int,
        ],
        *[ctypes.c_double, ctypes.c_void_p],
    ]
    run.restype = None

    def kernel(verts: Tensor, triangles: Tensor, height: int, width: int) -> Tensor:
        keys = torch.full((verts.shape[0], height, width), torch.iinfo(torch.int64).max)
        run(
            *[verts.data_ptr(), verts.shape[0], verts.shape[1], triangles.data_ptr(), triangles.shape[0]],
            *[height, width, NEAR_M, keys.data_ptr()],
        )
        return keys.to(torch.int32)

    return kernel


def brute_force(verts: Tensor, triangles: Tensor, height: int, width: int) -> list[list[int]]:
    """The rules once more, one image, in Python integers; nearness in float64 (so only for clear depth
    order)."""
    corners = [[round(c * 256) for c in xyz[:2]] + [1 / xyz[2]] for xyz in verts.double().tolist()]
    ids = [[-1] * width for _ in range(height)]
    best = [[0.0] * width for _ in range(height)]

    def edge(a: list[float], b: list[float], p: tuple[int, int]) -> float:
        return (b[0] - a[0]) * (p[1] - a[1]) - (b[1] - a[1]) * (p[0] - a[0])

    for number, triangle in enumerate(triangles.tolist()):
        a, b, c = (corners[i] for i in triangle)
        area = edge(a, b, (c[0], c[1]))
        if area == 0:
            continue
        if area < 0:
            area, b, c = -area, c, b
        for row in range(height):
            for column in range(width):
                p = (256 * column + 128, 256 * row + 128)
                values = []
                for s, e in ((b, c), (c, a), (a, b)):
                    value = edge(s, e, p)
                    top_left = e[1] < s[1] or (e[1] == s[1] and e[0] > s[0])
                    values.append(value if value > 0 or (value == 0 and top_left) else None)
                if None in values:
                    continue
                w = sum(v * q[2] for v, q in zip(values, (a, b, c), strict=True)) / area
                if w > best[row][column]:
                    best[row][column], ids[row][column] = w, number
    return ids


def soup(n_triangles: int, height: int, width: int, seed: int, scale: float = 1.0) -> tuple[Tensor, Tensor]:
    """Random triangles, two images."""
    gen = torch.Generator().manual_seed(seed)
    centre = torch.rand(2, n_triangles, 1, 3, generator=gen) * torch.tensor([width, height, 1.0])
    corners = centre + (torch.rand(2, n_triangles, 3, 3, generator=gen) - 0.5) * torch.tensor(
        [width * scale, height * scale, 0.3]
    )
    corners[..., 2] += 0.5
    return corners.reshape(2, -1, 3).contiguous(), torch.arange(3 * n_triangles).reshape(-1, 3)


def grid_mesh(size: int, on_centres: bool) -> tuple[Tensor, Tensor]:
    """Flat grid whose vertices and edges lie exactly on pixel centres, or on pixel corners."""
    axis = torch.arange(size + 1, dtype=torch.float32) * 2 + (0.5 if on_centres else 0.0)
    verts = torch.stack([*torch.meshgrid(axis, axis, indexing="xy"), torch.ones(size + 1, size + 1)], dim=-1)
    index = torch.arange((size + 1) ** 2).reshape(size + 1, size + 1)
    a, b, c, d = (q.reshape(-1) for q in (index[:-1, :-1], index[:-1, 1:], index[1:, :-1], index[1:, 1:]))
    triangles = torch.cat([torch.stack([a, b, c], 1), torch.stack([b, c, d], 1)])
    return verts.reshape(1, -1, 3).contiguous(), triangles


def hostile(height: int, width: int) -> tuple[Tensor, Tensor]:
    """Slivers, huge and tiny triangles, NaN, infinities, behind the camera, degenerate, out of range."""
    verts, triangles = soup(120, height, width, seed=5, scale=0.7)
    gen = torch.Generator().manual_seed(6)
    flat = verts.reshape(2, -1, 3, 3)
    flat[:, 0:10] *= torch.tensor([1.0, 1e-3, 1.0])
    flat[:, 10:20, 2] = flat[:, 10:20, 1] + torch.tensor([1e-3, 2e-3, 0.0])
    flat[:, 20:26, 0, :2] = (torch.rand(2, 6, 2, generator=gen) - 0.5) * 2.0**22.9
    flat[:, 26:28, 0, 0] = float("nan")
    flat[:, 28:30, 1, 2] = float("nan")
    flat[:, 30:32, 2, 1] = float("inf")
    flat[:, 32:34, 0, 2] = float("inf")
    flat[:, 34:40, 0, 2] = torch.tensor([0.0, -1.0, -0.0, 1e-4, NEAR_M, 3.3e38])
    flat[:, 40:44, 2] = flat[:, 40:44, 1]
    flat[:, 44:48, 2] = (flat[:, 44:48, 0] + flat[:, 44:48, 1]) / 2
    flat[:, 48:52, :, :2] += 4.0 * max(height, width)
    flat[:, 52:54, 0, :2] = torch.tensor([2.0**22, -(2.0**22)])
    flat[:, 54:56, 0, :2] = torch.tensor([2.0**22 - 1, -(2.0**22) + 1])
    flat[:, 60:80] = flat[:, 80:100]
    triangles = triangles.clone()
    triangles[56, 0], triangles[57, 1], triangles[58] = 360, -1, torch.tensor([2**40, 0, 1])
    return verts, triangles


SCENES = {
    "soup": lambda: (*soup(150, 41, 53, 0), 41, 53),
    "small": lambda: (*soup(400, 64, 64, 1, scale=0.08), 64, 64),
    "wide": lambda: (*soup(30, 5, 300, 2), 5, 300),
    "narrow": lambda: (*soup(30, 40, 3, 3), 40, 3),
    "one_pixel": lambda: (*soup(30, 1, 1, 4), 1, 1),
    "huge": lambda: (*soup(30, 70, 210, 5, scale=8.0), 70, 210),
    "hostile": lambda: (*hostile(48, 60), 48, 60),
    "grid_on_centres": lambda: (*grid_mesh(12, True), 25, 25),
    "grid_on_corners": lambda: (*grid_mesh(12, False), 25, 25),
    "no_triangles": lambda: (torch.rand(2, 4, 3), torch.zeros(0, 3, dtype=torch.int64), 4, 6),
}


@pytest.mark.parametrize("scene", SCENES)
def test_c_kernel_gives_the_ids_of_the_reference(scene: str, c_kernel: Kernel) -> None:
    verts, triangles, height, width = SCENES[scene]()
    expected = reference.rasterize(verts, triangles, height, width)
    assert torch.equal(c_kernel(verts, triangles, height, width), expected)


@pytest.mark.parametrize("scene", SCENES)
def test_cuda_source_gives_the_ids_of_the_reference(scene: str, cuda_source_kernel: Kernel) -> None:
    verts, triangles, height, width = SCENES[scene]()
    expected = reference.rasterize(verts, triangles, height, width)
    assert torch.equal(cuda_source_kernel(verts, triangles, height, width), expected)


def test_scenes_are_not_trivial() -> None:
    for name in ("soup", "small", "huge", "hostile"):
        ids = reference.rasterize(*SCENES[name]())
        assert ids.unique().numel() > 6, name


@pytest.mark.parametrize("name", ["soup", "grid_on_centres", "grid_on_corners"])
def test_reference_agrees_with_brute_force(name: str) -> None:
    verts, triangles, height, width = SCENES[name]()
    height, width = min(height, 20), min(width, 20)
    ids = reference.rasterize(verts, triangles, height, width)
    expected = torch.tensor(brute_force(verts[0], triangles, height, width))
    assert (ids[0] != expected).sum() <= (2 if name == "soup" else 0)


def test_reference_in_chunks_equals_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    verts, triangles, height, width = SCENES["soup"]()
    expected = reference.rasterize(verts, triangles, height, width)
    monkeypatch.setattr(reference, "_CANDIDATES_PER_CHUNK", 500)
    assert torch.equal(reference.rasterize(verts, triangles, height, width), expected)


def test_every_pixel_of_a_tiling_is_covered_exactly_once() -> None:
    gen = torch.Generator().manual_seed(0)
    for on_centres in (True, False):
        verts, triangles = grid_mesh(10, on_centres)
        inner = verts.clone()
        inner[0, :, :2] += (torch.rand(verts.shape[1], 2, generator=gen) - 0.5) * 0.8
        cover = torch.zeros(21, 21, dtype=torch.int64)
        for k in range(triangles.shape[0]):
            cover += reference.rasterize(inner, triangles[k : k + 1], 21, 21)[0] >= 0
        assert cover.max() == 1
        assert (cover[3:17, 3:17] == 1).all()


@pytest.mark.parametrize("seed", range(6))
def test_closed_mesh_has_no_hole(seed: int) -> None:
    verts, triangles, _, _ = sphere(40, 60)
    gen = torch.Generator().manual_seed(seed)
    rotation, _ = torch.linalg.qr(torch.randn(3, 3, generator=gen, dtype=torch.float64))
    points = verts @ rotation.T * torch.tensor([30.0, 28.0, 0.2]) + torch.tensor([32.3, 31.7, 1.0])
    mask = rasterize(points, triangles, 64, 64) >= 0
    # The outline of this convex body is convex: every row and column is one run of covered pixels.
    for image in (mask, mask.T):
        assert image.to(torch.int8).diff(dim=1).abs().sum(dim=1).max() <= 2
    assert mask.sum() == pytest.approx(3.14159 * 30 * 28, rel=0.02)


def test_nearest_wins_and_ties_go_to_the_lowest_id() -> None:
    square = torch.tensor([[0.0, 0.0], [8.0, 0.0], [0.0, 8.0]])
    verts = torch.cat([torch.cat([square, torch.full((3, 1), z)], dim=1) for z in (2.0, 1.0, 1.0, 1.5)])
    ids = rasterize(verts, torch.arange(12).reshape(4, 3), 8, 8)
    assert set(ids.unique().tolist()) == {-1, 1}


def test_pixel_centres_are_at_one_half() -> None:
    verts = torch.tensor([[2.5, 1.5, 1.0], [3.5, 1.5, 1.0], [2.5, 2.5, 1.0]])
    ids = rasterize(verts, torch.tensor([[0, 1, 2]]), 4, 5)
    assert (ids >= 0).nonzero().tolist() == [[1, 2]]


@pytest.mark.parametrize("batch", [(), (2,), (1, 2)])
def test_any_leading_batch(batch: tuple[int, ...]) -> None:
    verts, triangles = soup(40, 20, 24, 7)
    shaped = verts[: torch.Size(batch).numel()].reshape(*batch, -1, 3)
    ids = rasterize(shaped, triangles, 20, 24)
    assert ids.shape == (*batch, 20, 24) and ids.dtype == torch.int32
    assert torch.equal(
        ids.reshape(-1, 20, 24), reference.rasterize(verts[: ids.numel() // 480], triangles, 20, 24)
    )


def test_operator_passes_torch_checks() -> None:
    verts, triangles = soup(20, 12, 10, 8)
    torch.library.opcheck(torch.ops.hiface.rasterize, (verts, triangles, 12, 10))


def test_shapes_are_checked() -> None:
    verts, triangles = soup(4, 8, 8, 0)
    for bad in ((verts[..., :2], triangles, 8, 8), (verts, triangles[:, :2], 8, 8), (verts, triangles, 0, 8)):
        with pytest.raises(ValueError, match="must"):
            rasterize(*bad)


def test_several_threads_give_the_same_ids_also_after_a_fork() -> None:
    verts, triangles = soup(100, 32, 32, 9)
    verts = verts.repeat(4, 1, 1)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        expected = reference.rasterize(verts, triangles, 32, 32)
        assert torch.equal(rasterize(verts, triangles, 32, 32), expected)
        if hasattr(os, "fork"):
            child = os.fork()
            if child == 0:
                os._exit(0 if torch.equal(rasterize(verts, triangles, 32, 32), expected) else 1)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    finally:
        torch.set_num_threads(threads)


def test_missing_library_warns_once_and_still_rasterizes(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    verts, triangles = soup(30, 16, 16, 10)
    library.packaged_library.cache_clear()
    try:
        with monkeypatch.context() as patched, caplog.at_level(logging.WARNING):
            patched.setattr(library, "_LIBRARY_NAMES", ("absent.so",))
            for _ in range(2):
                ids = rasterize(verts, triangles, 16, 16)
        assert torch.equal(ids, reference.rasterize(verts, triangles, 16, 16))
        assert sum("pip install ziglang" in record.getMessage() for record in caplog.records) == 1
    finally:
        library.packaged_library.cache_clear()


def test_damaged_library_is_named(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    (tmp_path / "_kernels.so").write_bytes(b"not a library")
    library.packaged_library.cache_clear()
    try:
        with monkeypatch.context() as patched, caplog.at_level(logging.WARNING):
            patched.setattr(library, "__file__", str(tmp_path / "library.py"))
            assert not library.has_library()
        assert "_kernels.so do not load" in caplog.text
    finally:
        library.packaged_library.cache_clear()


def test_libraries_build_for_other_systems(tmp_path: Path) -> None:
    pytest.importorskip("ziglang")
    made = build.build_library(tmp_path, "aarch64-linux-musl")
    assert made.name == "_kernels.so" and made.read_bytes()[:4] == b"\x7fELF"
    assert build.library_name("x86_64-windows-gnu") == "_kernels.dll"
    assert build.library_name("aarch64-macos.11.0") == "_kernels.dylib"
    with pytest.raises(RuntimeError, match="failed"):
        build.build_library(tmp_path, "x86_64-nonsense")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("scene", SCENES)
def test_gpu_gives_the_ids_of_the_reference(scene: str) -> None:
    verts, triangles, height, width = SCENES[scene]()
    expected = reference.rasterize(verts, triangles, height, width)
    device = torch.device("cuda")
    assert torch.equal(rasterize(verts.to(device), triangles.to(device), height, width).cpu(), expected)
