# SPDX-License-Identifier: Apache-2.0
"""Speed of the renderer: `python benchmarks/render.py [--out FILE] [--repeats N]`.

Candidates take turns within each repeat (short ones ten at a time), after a warm-up, on one thread. Wall time
and the thread's own processor time are reported as minimum, median and quartiles; on a busy machine the
minimum of the processor time says most.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import time
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path
from unittest import mock

import torch
from torch import Tensor

from hiface.detail.displacement import displaced_normals
from hiface.errors import AssetError
from hiface.geometry.normals import vertex_normals
from hiface.morphable import load_model
from hiface.render import ambient_light, rasterize, render
from hiface.render.kernels import fused, reference
from hiface.types import Camera, FaceMesh

BATCH = 16
SIZE_PX = 224
TEXTURE_PX = 256
Candidate = Callable[[], object]


def ellipsoid_head(rings: int = 59, segments: int = 80) -> FaceMesh:
    """Stand-in for the open model: an ellipsoid of 9,280 triangles."""
    lat = torch.linspace(0, torch.pi, rings + 1)
    lon = torch.linspace(-torch.pi, torch.pi, segments + 1)
    rows, columns = torch.meshgrid(lat, lon, indexing="ij")
    unit = torch.stack([rows.sin() * columns.sin(), rows.cos(), rows.sin() * columns.cos()], dim=-1)
    uv = torch.stack([columns / (2 * torch.pi) + 0.5, rows / torch.pi], dim=-1)
    index = torch.arange((rings + 1) * (segments + 1)).reshape(rings + 1, segments + 1)
    a, b, c, d = (q.reshape(-1) for q in (index[:-1, :-1], index[:-1, 1:], index[1:, :-1], index[1:, 1:]))
    triangles = torch.cat([torch.stack([a, c, d], 1)[:-segments], torch.stack([a, d, b], 1)[segments:]])
    verts = (unit * torch.tensor([0.075, 0.12, 0.1])).reshape(-1, 3)
    return FaceMesh(verts, triangles, uv.reshape(-1, 2), triangles)


def head() -> tuple[str, FaceMesh]:
    """The open model's neutral head, or the ellipsoid where its file is missing."""
    try:
        data = load_model("open").data
    except AssetError:
        return "ellipsoid", ellipsoid_head()
    return "open", FaceMesh(data.template, data.triangles, data.uv, data.uv_triangles)


def frame(mesh: FaceMesh, size_px: int) -> Camera:
    """Camera 0.6 m in front of the head, which fills nine tenths of the picture's height."""
    low, high = mesh.vertices.amin(dim=0), mesh.vertices.amax(dim=0)
    flip = torch.diag(torch.tensor([1.0, -1.0, -1.0]))
    t = torch.tensor([0.0, 0.0, 0.6]) - flip @ ((low + high) / 2)
    focal_px = 0.9 * size_px * 0.6 / float((high - low)[:2].max())
    return Camera.from_pose(flip, t, focal_px, size_px, size_px)


def pixel_verts(mesh: FaceMesh, camera: Camera) -> Tensor:
    """[V, 3] as `rasterize` takes them."""
    verts_cam = camera.to_cam(mesh.vertices)
    return torch.cat([camera.cam_to_px(verts_cam), verts_cam[:, 2:]], dim=1).contiguous()


def photometric(mesh: FaceMesh, antialias: bool, compiled: bool) -> Candidate:
    """Mean absolute colour difference of a batch, forward and backward to vertices, texture and light."""
    gen = torch.Generator().manual_seed(0)
    shifts = 0.002 * torch.randn(BATCH, 1, 3, generator=gen)
    verts = (mesh.vertices + shifts).requires_grad_()
    texture = torch.rand(BATCH, 3, TEXTURE_PX, TEXTURE_PX, generator=gen).requires_grad_()
    light = (
        ambient_light(0.7, verts.detach()) + 0.1 * torch.randn(BATCH, 9, 3, generator=gen)
    ).requires_grad_()
    target = torch.rand(BATCH, 3, SIZE_PX, SIZE_PX, generator=gen)
    camera = frame(mesh, SIZE_PX)

    def run() -> None:
        out = render(mesh.with_vertices(verts), camera, texture, light, antialias=antialias)
        loss = torch.nn.functional.l1_loss(out.image, target)
        torch.autograd.grad(loss, (verts, texture, light))

    def run_plain() -> None:
        with mock.patch.object(fused, "is_available", return_value=False):
            run()

    return run if compiled else run_plain


def displacement(size_px: int) -> Candidate:
    """Normals of a displaced surface, forward and backward to the displacement."""
    gen = torch.Generator().manual_seed(0)
    positions, normals = (torch.rand(3, size_px, size_px, generator=gen) for _ in range(2))
    moved = torch.rand(1, size_px, size_px, generator=gen).requires_grad_()
    return lambda: torch.autograd.grad(displaced_normals(positions, normals, moved), moved, positions)


def candidates(mesh: FaceMesh) -> dict[str, tuple[Candidate, int]]:
    """What is measured: function and number of images in one call."""
    verts = {size: pixel_verts(mesh, frame(mesh, size)) for size in (224, 512)}
    many = mesh.vertices.expand(BATCH, -1, -1).clone().requires_grad_()

    def normals() -> None:
        out = vertex_normals(many, mesh.triangles)
        torch.autograd.grad(out, many, torch.ones_like(out))

    found: dict[str, tuple[Candidate, int]] = {
        "rasterize 224 px, C": (lambda: rasterize(verts[224], mesh.triangles, 224, 224), 1),
        "rasterize 512 px, C": (lambda: rasterize(verts[512], mesh.triangles, 512, 512), 1),
        "rasterize 224 px, reference": (
            lambda: reference.rasterize(verts[224][None], mesh.triangles, 224, 224),
            1,
        ),
        "photometric 224 px, forward + backward": (photometric(mesh, False, True), BATCH),
        "photometric 224 px + antialias, forward + backward": (photometric(mesh, True, True), BATCH),
        "photometric 224 px + antialias, plain torch": (photometric(mesh, True, False), BATCH),
        "vertex normals, batch 16, forward + backward": (normals, BATCH),
    }
    square, block = torch.rand(1024, 1024), torch.rand(1 << 23)
    target = torch.empty_like(block)
    found["calibration: 1024 x 1024 matrix product"] = (lambda: square @ square, 1)
    found["calibration: copy of 32 MiB"] = (lambda: target.copy_(block), 1)
    for size_px in (256, 512):
        found[f"displacement to normals {size_px} px, forward + backward"] = (displacement(size_px), 1)
    return found


def summary(times_ms: list[float]) -> dict[str, float]:
    """Minimum, median and quartiles."""
    low, middle, high = statistics.quantiles(times_ms, n=4)
    values = {"min": min(times_ms), "q1": low, "median": middle, "q3": high}
    return {name: round(value, 3) for name, value in values.items()}


def measure(found: dict[str, tuple[Candidate, int]], repeats: int) -> dict[str, dict[str, dict[str, float]]]:
    """Milliseconds per image of every candidate."""
    turns = {}
    for name, (run, _) in found.items():
        run()
        start = time.perf_counter()
        run()
        turns[name] = 10 if time.perf_counter() - start < 0.02 else 1
    wall: dict[str, list[float]] = {name: [] for name in found}
    processor: dict[str, list[float]] = {name: [] for name in found}
    for _ in range(repeats):
        for name, (run, images) in found.items():
            for _ in range(turns[name]):
                start, start_cpu = time.perf_counter(), time.thread_time()
                run()
                processor[name].append(1e3 * (time.thread_time() - start_cpu) / images)
                wall[name].append(1e3 * (time.perf_counter() - start) / images)
    return {name: {"wall_ms": summary(wall[name]), "cpu_ms": summary(processor[name])} for name in found}


def metadata(model: str, mesh: FaceMesh, repeats: int) -> dict[str, object]:
    """What is needed to read the numbers later."""
    commit = subprocess.run(
        ["git", "rev-parse", "--verify", "HEAD"],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parent,
    )
    cpuinfo = Path("/proc/cpuinfo")
    names = cpuinfo.read_text().split("\n") if cpuinfo.is_file() else []
    processor = next((n.split(":")[1].strip() for n in names if n.startswith("model name")), None)
    ids = rasterize(pixel_verts(mesh, frame(mesh, 224)), mesh.triangles, 224, 224)
    return {
        "command": "python benchmarks/render.py",
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "commit": commit.stdout.strip() or None,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "machine": platform.platform(),
        "processor": processor,
        "load": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "threads": 1,
        "repeats": repeats,
        "mesh": model,
        "triangles": mesh.triangles.shape[0],
        "vertices": mesh.vertices.shape[0],
        "covered": round(float((ids >= 0).float().mean()), 3),
    }


def main() -> None:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, help="JSON file")
    record = Path(__file__).parent / "results" / "render.json"
    parser.add_argument("--record", dest="out", action="store_const", const=record, help="what docs quote")
    parser.add_argument("--repeats", type=int, default=20)
    options = parser.parse_args()
    torch.set_num_threads(1)
    model, mesh = head()
    result = {
        "metadata": metadata(model, mesh, options.repeats),
        "results": measure(candidates(mesh), options.repeats),
    }
    for name, row in result["results"].items():
        cpu, wall = row["cpu_ms"], row["wall_ms"]
        print(f"{name:52s} cpu {cpu['min']:7.3f} wall {wall['min']:7.3f} median {wall['median']:7.3f} ms")
    if options.out is not None:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
