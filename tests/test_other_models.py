# SPDX-License-Identifier: Apache-2.0
"""Fitting, export and results with models of other projects, on files of their formats with known truth."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import roma
import torch
from PIL import Image

import hiface
from hiface.cli.main import main
from hiface.errors import AssetError, ModelFormatError
from hiface.export.morphs import (
    exported_deltas,
    exported_names,
    exported_weights,
    morph_weights,
    neutral_vertices,
)
from hiface.export.parts import split_by_material
from hiface.fitting.fit import fit_face
from hiface.fitting.linearised import is_linear, jaw_opens_mouth, layout_of, linearised
from hiface.fitting.observations import FaceObservation
from hiface.fitting.point_basis import gather_vertices, positions
from hiface.geometry.procrustes import procrustes
from hiface.methods.ours import HifaceMethod
from hiface.morphable import MorphableModel
from hiface.reconstructor import Reconstructor
from hiface.synthetic.studio import render_person, studio_params
from hiface.transfer import make_bridge
from other_models import remeshed, write_bfm, write_flame
from test_glb import Glb

OPEN = hiface.load_model("open")
PORTRAITS = (({}, 0.0), ({"jawOpen": 0.6}, 0.2), ({"mouthSmileLeft": 0.8, "mouthSmileRight": 0.8}, -0.2))


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("models")
    return {"flame": write_flame(folder), "bfm": write_bfm(folder / "model2017-1_bfm_nomouth.h5")}


@pytest.fixture(scope="module")
def flame(files) -> Reconstructor:
    return Reconstructor("fit", face_model=files["flame"])


@pytest.fixture(scope="module")
def bfm(files) -> Reconstructor:
    return Reconstructor("fit", face_model=files["bfm"])


def portraits():
    for seed, (expression, yaw) in enumerate(PORTRAITS):
        truth = studio_params(OPEN, 50 + seed, size=384, yaw=yaw, expression=expression)
        yield truth, render_person(OPEN, truth).permute(1, 2, 0).numpy()


@pytest.fixture(scope="module")
def fits(flame, bfm):
    """Faces by model name, and the true coefficients."""
    pictures = list(portraits())
    found = {"open": Reconstructor("fit"), "flame": flame, "bfm2017": bfm}
    with torch.no_grad():
        faces = {name: [r.reconstruct(image)[0] for _, image in pictures] for name, r in found.items()}
    return faces, [truth for truth, _ in pictures]


# -- The expansion about a point ----------------------------------------------------------------------


def curved(seed: int = 0) -> MorphableModel:
    """The open model with all that other models have: correctives, moving joints, a bilinear term, sigma."""
    gen = torch.Generator().manual_seed(seed)
    data = OPEN.data
    k, e, v, j = 4, 3, data.n_vertices, data.n_joints

    def random(*shape: int, size: float) -> torch.Tensor:
        return size * torch.randn(*shape, generator=gen, dtype=torch.float64)

    kinds = {"template", "skin_weights", "joints_template"}
    exact = {name: getattr(data, name).double() for name in kinds}
    weights = exact.pop("skin_weights")
    return MorphableModel(
        replace(
            data,
            **exact,
            skin_weights=weights / weights.sum(1, keepdim=True),
            identity_basis=data.identity_basis[:k].double(),
            identity_std=data.identity_std[:k],
            joints_identity_basis=data.joints_identity_basis[:k].double(),
            expression_basis=random(e, v, 3, size=0.002),
            expression_names=("a", "b", "c"),
            expression_kind="sigma",
            pose_correctives=random(9 * (j - 1), v, 3, size=0.002),
            joints_expression_basis=random(e, j, 3, size=0.002),
            bilinear_basis=random(k, e, v, 3, size=0.001),
        )
    )


def point(layout, seed: int = 1) -> torch.Tensor:
    x = torch.zeros(layout.size, dtype=torch.float64)
    gen = torch.Generator().manual_seed(seed)
    for part, size in (("identity", 1.0), ("expression", 0.8), ("gaze", 0.2)):
        x[layout[part]] = size * torch.randn(len(x[layout[part]]), generator=gen, dtype=torch.float64)
    layout.split_expression(x)[1][:] = torch.tensor([0.3, 0.05, -0.04])
    return x


def exact(model: MorphableModel, layout, x: torch.Tensor) -> torch.Tensor:
    """Posed vertices of the model itself at x."""
    expression, jaw = layout.split_expression(x)
    names = model.data.joint_names
    pose = torch.zeros(len(names), 3, dtype=x.dtype)
    pose[names.index("jaw")] = jaw
    gaze = x[layout["gaze"]].reshape(2, 2)
    pose[names.index("eye_left"), :2], pose[names.index("eye_right"), :2] = gaze
    return model.vertices(x[layout["identity"]], expression, pose)


@pytest.mark.parametrize("bilinear", [False, True])
def test_expansion_has_the_model_s_positions_and_derivatives(bilinear):
    model = curved()
    if not bilinear:
        model = MorphableModel(replace(model.data, bilinear_basis=None))
    layout = layout_of(model.data, 4)
    assert not is_linear(model.data) and jaw_opens_mouth(model.data) and layout.n_jaw == 3
    x = point(layout)
    # Vertices of the eyeballs are turned rigidly by the fit; the others by no eye joint at all.
    eyes = OPEN.data.skin_weights[:, 3:]
    ids = torch.nonzero(((eyes > 0.999) | (eyes == 0)).all(1))[::7, 0]
    data = linearised(model.data, layout, x)
    posed, jacobian, gaze = positions(gather_vertices(data, ids, 4), x, layout)
    assert torch.allclose(posed, exact(model, layout, x)[ids], atol=1e-9)
    assert gaze is not None
    rigid = (eyes[ids] == 0).all(1)
    for i in range(layout.n_identity + layout.n_expression):
        step = torch.zeros_like(x)
        step[i] = 1e-5
        slope = (exact(model, layout, x + step) - exact(model, layout, x - step))[ids] / 2e-5
        assert torch.allclose(jacobian[rigid, :, i], slope[rigid], atol=1e-7), i


def test_the_open_model_is_its_own_expansion():
    assert is_linear(OPEN.data)
    layout = layout_of(OPEN.data, 120)
    assert (layout.n_jaw, layout.sigma_expressions, layout.n_expression) == (0, False, 52)


# -- Fits ---------------------------------------------------------------------------------------------


def landmark_error(face, truth) -> float:
    """Mean distance of the 68 fitted points from the true ones, percent of the eye distance."""
    posed = OPEN.vertices(truth.identity, truth.expression, truth.pose)
    true = truth.camera.cam_to_px(OPEN.landmarks_cam("ibug68", truth.camera.to_cam(posed)))
    return float(100 * (face.landmarks() - true).norm(dim=-1).mean() / (true[36] - true[45]).norm())


def shape_error(neutral: torch.Tensor, truth) -> float:
    """Mean distance on the face after a rigid alignment, mm, of shapes in the open model's numbering."""
    face = OPEN.data.vertex_masks["face"] & OPEN.data.vertex_masks["skin"]
    true = OPEN.shape(truth.identity, torch.zeros_like(truth.expression))
    aligned = procrustes(neutral[face], true[face]).apply(neutral[face])
    return float(1000 * (aligned - true[face]).norm(dim=-1).mean())


@pytest.mark.parametrize(("name", "points", "shapes"), [("flame", 1.8, 1.8), ("bfm2017", 2.6, 2.2)])
def test_fits_with_other_models_are_near_those_of_the_open_model(fits, name, points, shapes):
    faces, truths = fits
    model = faces[name][0].model
    bridge = make_bridge(OPEN.data, model.data).reversed()
    own = [landmark_error(f, t) for f, t in zip(faces["open"], truths, strict=True)]
    other = [landmark_error(f, t) for f, t in zip(faces[name], truths, strict=True)]
    assert np.mean(other) < points * np.mean(own)
    plain = np.mean([shape_error(OPEN.template, t) for t in truths])
    own = [shape_error(f.neutral().mesh.vertices, t) for f, t in zip(faces["open"], truths, strict=True)]
    other = [
        shape_error(bridge.vertices(f.neutral().mesh.vertices), t)
        for f, t in zip(faces[name], truths, strict=True)
    ]
    assert np.mean(other) < shapes * np.mean(own) and np.mean(other) < plain


def test_the_jaw_joint_opens_flame_s_mouth(fits):
    faces, _ = fits
    jaw = [float(f.params.pose[f.model.data.joint_names.index("jaw"), 0]) for f in faces["flame"]]
    assert jaw[1] > 0.08 and max(abs(jaw[0]), abs(jaw[2])) < 0.5 * jaw[1]
    gaps = [f.landmarks() for f in faces["flame"]]
    opening = [float((px[62] - px[66]).norm() / (px[36] - px[45]).norm()) for px in gaps]
    assert opening[1] > 0.2 and opening[0] < 0.06
    closed = faces["flame"][1].neutral().landmarks()
    assert float((closed[62] - closed[66]).norm() / (closed[36] - closed[45]).norm()) < 0.06


def test_the_fit_s_points_are_the_model_s(fits):
    """What the last expansion says agrees with the model itself, whose points `landmarks` projects."""
    faces, _ = fits
    for face in faces["flame"]:
        assert float(face.params.expression.abs().max()) <= 4.0
        off = (face.landmarks() - face.detection.landmarks68_px).norm(dim=-1)[17:]
        box = face.box[2:] - face.box[:2]
        assert off.median() < 0.02 * float(box.max())


def test_a_model_without_landmarks_names_the_fix(files):
    observation = FaceObservation(100, 100, torch.rand(68, 2) * 100)
    with pytest.raises(ModelFormatError, match=r"hiface\.transfer\.completed"):
        fit_face(hiface.load_model(files["flame"]), observation)


def test_the_network_is_for_the_open_model(files):
    with pytest.raises(AssetError):
        Reconstructor("hiface", face_model=files["flame"])


# -- Results ------------------------------------------------------------------------------------------


def glb_vertices(path: Path, model: MorphableModel) -> torch.Tensor:
    """Posed vertices of the model's numbering, as a viewer works them out."""
    glb = Glb(path)
    mesh, skin = glb.json["meshes"][0], glb.json["skins"][0]
    world = {}

    def walk(index: int, parent: np.ndarray) -> None:
        node, local = glb.json["nodes"][index], np.eye(4)
        rotation = torch.tensor(node.get("rotation", [0.0, 0, 0, 1]), dtype=torch.float64)
        local[:3, :3] = roma.unitquat_to_rotmat(rotation).numpy()
        local[:3, 3] = node.get("translation", [0, 0, 0])
        world[index] = parent @ local
        for child in node.get("children", []):
            walk(child, world[index])

    for root in glb.json["scenes"][0]["nodes"]:
        walk(root, np.eye(4))
    bind = glb.accessor(skin["inverseBindMatrices"]).reshape(-1, 4, 4).transpose(0, 2, 1)
    matrices = np.stack([world[j] @ b for j, b in zip(skin["joints"], bind, strict=True)])
    result = torch.zeros(model.data.n_vertices, 3)
    for primitive, part in zip(mesh["primitives"], split_by_material(model.data), strict=True):
        attributes = primitive["attributes"]
        at = glb.accessor(attributes["POSITION"]).astype(np.float64)
        for weight, target in zip(mesh["weights"], primitive["targets"], strict=True):
            at = at + weight * glb.accessor(target["POSITION"])
        joints, weights = glb.accessor(attributes["JOINTS_0"]), glb.accessor(attributes["WEIGHTS_0"])
        blended = (matrices[joints] * weights[..., None, None]).sum(1)
        posed = (blended @ np.concatenate([at, np.ones((len(at), 1))], axis=1)[..., None])[:, :3, 0]
        result[part.vertex_ids] = torch.from_numpy(posed).float()
    return result


def test_glb_shows_the_fitted_face(fits, tmp_path):
    faces, _ = fits
    for name in ("flame", "bfm2017"):
        face = faces[name][1]
        path = face.save(tmp_path / f"{name}.glb")
        mesh = Glb(path).json["meshes"][0]
        names = mesh["extras"]["targetNames"]
        own = list(face.model.data.expression_names)
        assert names == ([*own[:52], "present"] if name == "flame" else own)
        assert len(mesh["weights"]) == len(names)
        off = (glb_vertices(path, face.model) - face.mesh.vertices).norm(dim=-1)
        assert off.max() < 1e-4, name


def test_morph_targets_add_up_to_the_face():
    """Bilinear terms are in the targets; correctives and expressions past the limit are in `present`."""
    small = curved().data
    wide = replace(
        small,
        expression_basis=small.expression_basis.repeat(20, 1, 1) * torch.linspace(0.5, 1, 60)[:, None, None],
        expression_names=tuple(f"e{i}" for i in range(60)),
        joints_expression_basis=None,
        bilinear_basis=small.bilinear_basis.repeat(1, 20, 1, 1),
    )
    for data, count in ((small, 4), (wide, 53)):
        model, gen = MorphableModel(data), torch.Generator().manual_seed(4)
        sizes = (4, len(data.expression_names)), (data.n_joints, 3)
        identity, expression = (torch.randn(n, generator=gen, dtype=torch.float64) for n in sizes[0])
        pose = 0.2 * torch.randn(sizes[1], generator=gen, dtype=torch.float64)
        face = studio_params(OPEN, 1).replace(identity=identity, expression=expression, pose=pose)
        deltas, names = exported_deltas(model, face), exported_names(model)
        weights = exported_weights(model, morph_weights(model, expression, pose))
        assert len(names) == len(deltas) == len(weights) == count and names[-1] == "present"
        shown = neutral_vertices(model, face) + torch.tensordot(weights, deltas, 1)
        wanted = model.shape(identity, expression) + model.pose_offsets(pose)
        assert torch.allclose(shown, wanted, atol=1e-12)


def test_obj_json_and_overview(fits, tmp_path):
    faces, _ = fits
    face = faces["flame"][1]
    text = face.save(tmp_path / "face.obj", units="mm").read_text().splitlines()
    rows = torch.tensor([[float(w) for w in line.split()[1:]] for line in text if line.startswith("v ")])
    assert torch.allclose(rows, 1000 * face.mesh.vertices, atol=1e-3)
    assert sum(line.startswith("f ") for line in text) == len(face.mesh.triangles)
    content = json.loads(face.save(tmp_path / "face.json").read_text())
    assert content["model"]["name"] == "flame"
    assert content["pose_rotvec"]["jaw"] == pytest.approx(face.params.pose[2].tolist())
    assert len(content["expression"]) == 100 and len(content["identity"]) == 300
    assert face.with_expression(expression000=-1.5).expression["expression000"] == -1.5
    texture = face.texture(256)
    assert texture.shape == (3, 256, 256) and bool(texture.isfinite().all())
    assert 0.05 < float(face.texture_seen(256).float().mean()) < 0.9


def test_predictions_for_scores_have_keypoints(files, flame):
    method = HifaceMethod("hiface-fit", face_model=files["bfm"])
    _, image = next(portraits())
    (found,) = method.reconstruct(hiface.data.read_photo(image))
    assert found.topology == "bfm2017" and {"ibug68", "now7", "realy85"} <= set(found.keypoints)
    assert found.vertices.shape == (len(remeshed(7000, ("skin",)).corners), 3)


def command(*words: object) -> int:
    """Exit code of the command line."""
    with pytest.raises(SystemExit) as stop:
        main([str(word) for word in words])
    return int(stop.value.code or 0)


def test_commands(files, tmp_path, capsys):
    out = tmp_path / "bridge.safetensors"
    assert command("models", "bridge", files["bfm"], "-o", out) == 0
    assert out.is_file() and "vertices of bfm2017 2017 lie on open" in " ".join(
        capsys.readouterr().err.split()
    )
    assert command("models", "bridge", files["bfm"], "-o", tmp_path / "bridge.bin") == 1
    photo = tmp_path / "photo.png"
    _, image = next(portraits())
    Image.fromarray(image).save(photo)
    asked = ("reconstruct", photo, "-o", tmp_path / "out", "--model", files["bfm"])
    assert command(*asked) == 1
    assert "--method fit" in capsys.readouterr().err
    assert command(*asked, "--method", "fit", "--format", "json") == 0
    content = json.loads((tmp_path / "out" / "photo" / "person1" / "face.json").read_text())
    assert content["model"]["name"] == "bfm2017"
