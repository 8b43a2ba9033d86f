"""Files of other projects' formats with the open model's shapes on another mesh, so that truth is known."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

import hiface
from hiface.geometry.closest import SurfaceTree, barycentric_of
from model_files import flame_bytes

IDENTITIES = 150
EXPRESSIONS = (
    "mouthSmileLeft",
    "mouthSmileRight",
    "browInnerUp",
    "mouthPucker",
    "mouthFunnel",
    "eyeBlinkLeft",
)
EXPRESSIONS += ("eyeBlinkRight", "cheekPuff", "noseSneerLeft", "noseSneerRight", "mouthFrownLeft")


@dataclass(frozen=True)
class Remeshed:
    """The open model's skin (and eyeballs) with other vertices and triangles.

    Attributes:
        corners: [V, 3] vertices of the open model around each vertex.
        weights: [V, 3] their weights.
        triangles: [T, 3].
    """

    corners: Tensor
    weights: Tensor
    triangles: Tensor

    def of(self, values: Tensor) -> Tensor:
        """Values of the open model's vertices [*B, V, C] on this mesh."""
        return (values[..., self.corners, :] * self.weights.to(values.dtype)[..., None]).sum(-2)


@cache
def remeshed(triangles: int = 12000, parts: tuple[str, ...] = ("skin", "eye_left", "eye_right")) -> Remeshed:
    """Decimates each part by itself, mixes the vertices' order."""
    import igl

    data = hiface.load_model("open").data
    corners, weights, faces, count = [], [], [], 0
    for part in parts:
        own = data.triangles[data.triangle_parts == data.part_names.index(part)]
        used, local = own.unique(return_inverse=True)
        wanted = triangles if part == "skin" else 120
        v, f = igl.upsample(data.template[used].double().numpy(), local.numpy().astype(np.int64))
        found = igl.decimate(v, f, wanted)
        arrays = [np.asarray(x) for x in found]  # what else comes along depends on the version
        points = next(x for x in arrays if x.dtype.kind == "f")
        thin = next(x for x in arrays if x.dtype.kind in "iu" and x.ndim == 2)
        near = SurfaceTree(data.template, own).closest(torch.from_numpy(points))
        around = own[near.triangle_ids]
        bary = barycentric_of(near.points, data.template.double()[around]).clamp_min(0)
        corners.append(around)
        weights.append(bary / bary.sum(-1, keepdim=True))
        faces.append(torch.from_numpy(thin.astype(np.int64)) + count)
        count += len(points)
    order = torch.from_numpy(np.random.default_rng(5).permutation(count))
    place = torch.empty(count, dtype=torch.int64)
    place[order] = torch.arange(count)
    return Remeshed(torch.cat(corners)[order], torch.cat(weights)[order], place[torch.cat(faces)])


@cache
def flame_content() -> dict[str, np.ndarray]:
    """What a FLAME file holds: 300 + 100 directions, five joints, pose correctives; the jaw opens the mouth.

    The first `IDENTITIES` directions are the open model's, the first expressions are `EXPRESSIONS` at 0.3 a
    sigma, the others are zero. The jaw's weights are those that explain the open model's jawOpen best.
    """
    model = hiface.load_model("open")
    data, mesh = model.data, remeshed()
    v = len(mesh.corners)
    basis = np.zeros((v, 3, 400))
    basis[..., :IDENTITIES] = mesh.of(data.identity_basis[:IDENTITIES].double()).permute(1, 2, 0).numpy()
    rows = [data.expression_names.index(name) for name in EXPRESSIONS]
    basis[..., 300 : 300 + len(rows)] = (
        0.3 * mesh.of(data.expression_basis[rows].double()).permute(1, 2, 0).numpy()
    )
    template = mesh.of(data.template.double()).numpy()
    joints = [data.joint_names.index(name) for name in ("neck", "jaw", "eye_left", "eye_right")]
    opened = mesh.of(data.expression_basis[data.expression_names.index("jawOpen")].double()).numpy()
    places = np.concatenate([np.zeros((1, 3)), data.joints_template.double().numpy()[joints]])
    angle = 0.35
    turn = np.array([[1, 0, 0], [0, np.cos(angle), -np.sin(angle)], [0, np.sin(angle), np.cos(angle)]])
    arm = (template - places[2]) @ (turn - np.eye(3)).T
    jaw = ((arm * opened).sum(1) / np.maximum((arm * arm).sum(1), 1e-12)).clip(0, 1)
    weights = np.zeros((v, 5))
    eyes = mesh.of(data.skin_weights.double())[:, joints[2:]].numpy() > 0.5
    weights[:, 3:] = eyes
    weights[:, 2] = np.where(eyes.any(1), 0.0, jaw)
    weights[:, 1] = 1 - weights.sum(1)
    regressor = np.zeros((5, v))
    for j, place in enumerate(places):
        near = np.argsort(np.linalg.norm(template - place, axis=1))[:12]
        system = np.concatenate([template[near].T, np.ones((1, 12))])
        regressor[j, near] = np.linalg.lstsq(system, np.r_[place, 1.0], rcond=None)[0]
    correctives = np.zeros((v, 3, 36))
    # What is left of jawOpen after the turn, at its two large entries of R - I.
    left = opened - weights[:, 2:3] * arm
    correctives[..., 9 + 7] = left * np.sin(angle) / (2 * np.sin(angle) ** 2)
    correctives[..., 9 + 5] = -left * np.sin(angle) / (2 * np.sin(angle) ** 2)
    return {
        "v_template": template,
        "f": mesh.triangles.numpy().astype(np.uint32),
        "shapedirs": basis,
        "posedirs": correctives,
        "J_regressor": regressor,
        "weights": weights,
        "kintree_table": np.array([[2**32 - 1, 0, 1, 1, 1], range(5)], dtype=np.int64),
    }


def write_flame(folder: Path) -> Path:
    """generic_model.pkl of `flame_content`."""
    path = folder / "generic_model.pkl"
    path.write_bytes(flame_bytes(flame_content()))
    return path


def write_bfm(path: Path) -> Path:
    """A statismo file in millimetres of the face alone: no rig, a colour for each vertex."""
    import h5py

    data, mesh = hiface.load_model("open").data, remeshed(7000, ("skin",))
    v = len(mesh.corners)
    identity = mesh.of(data.identity_basis[:IDENTITIES].double()).flatten(1).T.numpy() * 1000.0
    rows = [data.expression_names.index(name) for name in (*EXPRESSIONS, "jawOpen")]
    moved = 0.3 * mesh.of(data.expression_basis[rows].double()).flatten(1).T.numpy() * 1000.0
    rng = np.random.default_rng(3)
    template = mesh.of(data.template.double()).numpy() * 1000.0
    colour = np.tile([0.72, 0.55, 0.48], v) + 0.01 * rng.standard_normal(3 * v)
    parts = {
        "shape": (template.reshape(-1), identity),
        "expression": (np.zeros(3 * v), moved),
        "color": (colour, np.tile(np.array([0.06, 0.07, 0.07]), v)[:, None] * np.ones((1, 2))),
    }
    with h5py.File(path, "w") as file:
        for part, (mean, basis) in parts.items():
            size = np.maximum(np.linalg.norm(basis, axis=0), 1e-9)
            file[f"{part}/model/mean"] = mean.astype(np.float32)
            file[f"{part}/model/pcaBasis"] = (basis / size).astype(np.float32)
            file[f"{part}/model/pcaVariance"] = (size**2).astype(np.float32)
            file[f"{part}/representer/cells"] = mesh.triangles.numpy().T.astype(np.int32)
            file[f"{part}/version/majorVersion"] = np.int32(0)
            file[f"{part}/version/minorVersion"] = np.int32(9)
    return path
