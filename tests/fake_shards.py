# SPDX-License-Identifier: Apache-2.0
"""Tiny shards in the format of the synthetic data: ellipses with two eyes and a mouth."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch

from hiface.synthetic.records import encode_arrays
from hiface.synthetic.tars import write_tar

N_DENSE, N_IRIS = 12, 2


def layout() -> tuple[np.ndarray, torch.Tensor]:
    """Fake points [L, 2] in -0.5..0.5 of the face's size and their mirror indices."""
    rng = np.random.default_rng(5)
    right = rng.uniform(-0.5, 0.0, (1000, 2)) * [1.0, 2.0] + [0.0, 0.5]
    points, mirror = [], []
    for count in (68, N_DENSE, N_IRIS):
        half = right[: count // 2] if count != N_IRIS else np.array([[-0.22, -0.12]])
        start = len(points)
        for i, p in enumerate(half):
            points += [p, p * [-1, 1]]
            mirror += [start + 2 * i + 1, start + 2 * i]
    return np.asarray(points, np.float32), torch.tensor(mirror)


def write_tar_shard(path: Path, arrays: dict[str, np.ndarray]) -> dict:
    """Writes arrays with a row per picture as a shard; returns its entry in a manifest."""
    members = []
    for i in range(len(arrays["person"])):
        for name, content in encode_arrays({k: v[i] for k, v in arrays.items()}).items():
            members.append((f"{i:09d}.{name}", content))
    size, digest = write_tar(path, members)
    return {"name": path.name, "samples": len(arrays["person"]), "bytes": size, "sha256": digest}


def write_shards(
    folder: Path, count: int = 60, size: int = 64, seed: int = 0, turned: int = 0
) -> torch.Tensor:
    """Writes one shard and its manifest; the labels turn the last `turned` heads to profile.

    Returns:
        Mirror indices.
    """
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    pattern, mirror = layout()
    ys, xs = np.mgrid[0:size, 0:size] + 0.5
    images = np.zeros((count, 4, size, size), np.uint8)
    segmentation = np.zeros((count, size, size), np.uint8)
    points = np.zeros((count, len(pattern), 2), np.float32)
    for i in range(count):
        face = rng.uniform(0.3, 0.7) * size
        centre = rng.uniform(0.35, 0.65, 2) * size
        points[i] = pattern * face + centre
        u, v = (xs - centre[0]) / face, (ys - centre[1]) / face
        head = u**2 + (v / 1.2) ** 2 < 0.27
        picture = np.full((3, size, size), rng.uniform(0, 255), np.float64)
        picture[:, head] = np.array([[200.0], [150.0], [120.0]]) * rng.uniform(0.5, 1.2)
        for x, y, r in ((-0.22, -0.12, 0.07), (0.22, -0.12, 0.07), (0.0, 0.25, 0.1)):
            picture[:, (u - x) ** 2 + (v - y) ** 2 < r**2] = 20.0
        images[i, :3] = picture.clip(0, 255)
        images[i, 3] = head * 255
        segmentation[i] = head
    visible = np.ones(points.shape[:2], bool)
    eye = np.broadcast_to(np.eye(3, dtype=np.float32), (count, 3, 3))
    T = np.tile(np.diag([1.0, -1.0, -1.0, 1.0]).astype(np.float32), (count, 1, 1))
    T[:, 2, 3] = 1.0
    T[count - turned :, :3, :3] = [[0, 0, 1], [0, -1, 0], [1, 0, 0]]
    a, b = 68, 68 + N_DENSE
    K = eye * np.array([size, size, 1.0], np.float32) + np.array(
        [[0, 0, size / 2], [0, 0, size / 2], [0, 0, 0]], np.float32
    )
    labels = {
        "landmarks68_px": points[:, :a], "dense_px": points[:, a:b], "iris_px": points[:, b:],
        "visible68": visible[:, :a], "visible_dense": visible[:, a:b], "visible_iris": visible[:, b:],
        "K": K, "T_cam_head": T, "person": np.arange(count),
    }  # fmt: skip
    pictures = {"image": images[:, :3].transpose(0, 2, 3, 1), "alpha": images[:, 3], "mask": segmentation}
    entry = write_tar_shard(folder / "shard-000000.tar", {**pictures, **labels})
    sets = {"ibug68": 68, "dense": N_DENSE, "iris": N_IRIS}
    manifest = {
        "generator_version": "fake",
        "model": {"name": "toy", "version": "1"},
        "count": count,
        "landmark_sets": sets,
        "shards": [entry],
    }
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return mirror
