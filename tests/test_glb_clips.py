# SPDX-License-Identifier: Apache-2.0
"""Clips of GLB files played as glTF says it, by code that shares nothing with the writer."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import roma
import torch

from hiface.export.clips import Clip
from hiface.export.glb import write_glb
from hiface.morphable import load_model
from hiface.tracking.outputs import clip_camera, motion_clip
from hiface.types import Camera
from portrait import truth
from test_glb import Glb

FRAMES = 5
MOVED = ("jawOpen", "mouthSmileLeft", "browInnerUp", "eyeBlinkRight")


def rotation(quaternion: np.ndarray) -> np.ndarray:
    return roma.unitquat_to_rotmat(torch.tensor(np.array(quaternion, dtype=np.float64))).numpy()


class Player:
    """What a program shows of the file's only clip at one of its keys."""

    def __init__(self, path: Path, key: int) -> None:
        self.glb, self.weights, self.changes = Glb(path), np.zeros(0), {}
        (animation,) = self.glb.json["animations"]
        for channel in animation["channels"]:
            sampler, target = animation["samplers"][channel["sampler"]], channel["target"]
            n = self.glb.json["accessors"][sampler["input"]]["count"]
            value = self.glb.accessor(sampler["output"]).reshape(n, -1)[key].astype(np.float64)
            if target["path"] == "weights":
                self.weights = value
            else:
                self.changes[target["node"], target["path"]] = value
        nodes = self.glb.json["nodes"]
        self.parents = {c: i for i, node in enumerate(nodes) for c in node.get("children", ())}

    def place(self, node: int) -> np.ndarray:
        values = self.glb.json["nodes"][node]
        T = np.eye(4)
        T[:3, :3] = rotation(self.changes.get((node, "rotation"), values.get("rotation", [0, 0, 0, 1])))
        T[:3, 3] = self.changes.get((node, "translation"), values.get("translation", [0, 0, 0]))
        return self.place(self.parents[node]) @ T if node in self.parents else T

    def vertices(self) -> np.ndarray:
        """[n, 3] of the skin, the first primitive."""
        primitive, skin = self.glb.json["meshes"][0]["primitives"][0], self.glb.json["skins"][0]
        points = self.glb.accessor(primitive["attributes"]["POSITION"]).astype(np.float64)
        for weight, target in zip(self.weights, primitive["targets"], strict=True):
            if weight:
                points += weight * self.glb.accessor(target["POSITION"])
        bind = self.glb.accessor(skin["inverseBindMatrices"]).reshape(-1, 4, 4).transpose(0, 2, 1)
        joints = np.stack([self.place(j) for j in skin["joints"]]) @ bind
        share = self.glb.accessor(primitive["attributes"]["WEIGHTS_0"])
        which = self.glb.accessor(primitive["attributes"]["JOINTS_0"]).astype(int)
        out = np.zeros_like(points)
        for k in range(4):
            T = joints[which[:, k]]
            out += share[:, k : k + 1] * (np.einsum("nij,nj->ni", T[:, :3, :3], points) + T[:, :3, 3])
        return out

    def pixels(self, points: np.ndarray, width: int, height: int) -> np.ndarray:
        """[n, 2] where the file's camera sees points."""
        nodes = self.glb.json["nodes"]
        T = self.place(next(i for i, n in enumerate(nodes) if n["name"] == "photo_camera"))
        local = (points - T[:3, 3]) @ T[:3, :3]
        assert (local[:, 2] < 0).all()
        focal = height / 2 / math.tan(self.glb.json["cameras"][0]["perspective"]["yfov"] / 2)
        seen = np.stack([local[:, 0], -local[:, 1]], axis=1) / -local[:, 2:]
        return focal * seen + np.array([width / 2, height / 2])


def nearest_mm(points: np.ndarray, surface: torch.Tensor) -> float:
    """How far the worst of some points is from the nearest of the vertices, mm."""
    some = torch.from_numpy(points[::41])
    return 1000 * float(torch.cdist(some, surface.double()).min(dim=1).values.max())


@pytest.fixture(scope="module")
def motion():
    """A person whose head turns and comes nearer while the face moves."""
    model, params = load_model("open"), truth(0.0, size=320, **dict.fromkeys(MOVED, 0.1))
    gen = torch.Generator().manual_seed(1)
    expression = torch.zeros(FRAMES, 52)
    for name in MOVED:
        expression[:, model.expression_index(name)] = torch.rand(FRAMES, generator=gen)
    T = params.camera.T_cam_object.repeat(FRAMES, 1, 1)
    turn = roma.rotvec_to_rotmat(0.4 * torch.randn(FRAMES, 3, generator=gen))
    T[:, :3, :3] = T[:, :3, :3] @ turn
    T[:, :3, 3] += 0.06 * torch.randn(FRAMES, 3, generator=gen)
    return model, params, expression, T


@pytest.mark.parametrize("key", range(FRAMES))
def test_a_tracked_head_is_seen_where_the_video_shows_it(motion, key, tmp_path):
    """Head, expression and camera of the clip together give the pixels of the frame."""
    model, params, expression, T = motion
    still = params.replace(expression=torch.zeros(52))
    person = SimpleNamespace(
        there=np.ones(FRAMES, bool), T_cam_object=T, blendshapes=expression, camera=params.camera
    )
    track = SimpleNamespace(times_s=[0.04 * k for k in range(FRAMES)])
    clip = motion_clip(person, track)  # type: ignore[arg-type]
    placed = still.replace(camera=clip_camera(person))  # type: ignore[arg-type]
    player = Player(write_glb(tmp_path / "face.glb", model, placed, None, animations=[clip]), key)
    camera = Camera(params.camera.K, T[key], params.camera.width, params.camera.height)
    wanted = camera.project(model.vertices(params.identity, expression[key], still.pose))
    pixels = torch.from_numpy(player.pixels(player.vertices(), camera.width, camera.height)[::41])
    away = torch.cdist(pixels, wanted.double()).min(dim=1).values
    assert float(away.max()) < 0.02
    others = [k for k in range(FRAMES) if k != key]
    assert all(float((T[k] - T[key]).abs().max()) > 1e-2 for k in others)


def test_gaps_hold_the_camera_and_the_head(motion):
    """A video that begins without the person starts where the person is seen first."""
    _, params, expression, T = motion
    T = T.clone()
    T[:2] = float("nan")
    there = np.array([False, False, True, True, True])
    person = SimpleNamespace(there=there, T_cam_object=T, blendshapes=expression, camera=params.camera)
    track = SimpleNamespace(times_s=[0.04 * k for k in range(FRAMES)])
    clip = motion_clip(person, track)  # type: ignore[arg-type]
    assert clip.T_head is not None and np.isfinite(clip.T_head).all()
    assert torch.equal(clip_camera(person).t, T[2, :3, 3])  # type: ignore[arg-type]
    assert np.allclose(clip.T_head[0], clip.T_head[2]) and not clip.T_head[0, :3, 3].any()


def test_a_clip_with_a_jaw_and_a_moving_head_gives_the_models_vertices(motion, tmp_path):
    model, params, expression, _ = motion
    jaw = np.linspace([0.0, 0.0, 0.0], [0.25, 0.05, 0.0], FRAMES)
    T_head = np.tile(np.eye(4), (FRAMES, 1, 1))
    T_head[:, :3, :3] = roma.rotvec_to_rotmat(torch.tensor(jaw)).numpy().transpose(0, 2, 1)
    T_head[:, 1, 3] = np.linspace(0, 0.1, FRAMES)
    clip = Clip("take", 0.1 * np.arange(FRAMES), expression.numpy(), {"jaw": jaw}, T_head)
    path = write_glb(tmp_path / "a.glb", model, params, None, animations=[clip])
    number = model.data.joint_names.index("jaw")
    for key in (0, FRAMES - 1):
        pose = params.pose.clone()
        pose[number] = torch.from_numpy(jaw[key]).float()
        wanted = model.vertices(params.identity, expression[key], pose).double().numpy()
        wanted = torch.from_numpy(wanted @ T_head[key, :3, :3].T + T_head[key, :3, 3])
        assert nearest_mm(Player(path, key).vertices(), wanted) < 0.02
