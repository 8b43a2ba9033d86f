"""The eos library on the open model and on its own files: an exact conversion, a fit that explains points."""

import builtins
import json

import numpy as np
import pytest
import roma
import torch

import hiface
from hiface.data import read_photo
from hiface.errors import FitError, MissingExtraError, ModelFormatError
from hiface.evaluation.metrics.realy import keypoint_groups
from hiface.geometry.procrustes import procrustes
from hiface.methods import MethodOptions, make_method
from hiface.methods.eos_model import SHARE_FILES, convert_model, edge_table, orthonormal
from hiface.types import Camera
from portrait import portrait, truth

FLIP = torch.diag(torch.tensor([1.0, -1.0, -1.0]))


@pytest.fixture(scope="module")
def model():
    return hiface.load_model("open")


def shape_error_mm(model, vertices, wanted):
    face = model.data.vertex_masks["face"]
    a, b = vertices[face].double(), wanted[face].double()
    return 1000 * float((procrustes(a, b, with_scale=True).apply(a) - b).norm(dim=-1).mean())


def far_points(model, identity_seed, yaw_rad, size=512):
    """Shape of a person without expression, and 68 points seen from far away: what eos's camera can see."""
    identity = 0.8 * torch.randn(
        model.data.n_identity, generator=torch.Generator().manual_seed(identity_seed)
    )
    vertices = model.vertices(identity, torch.zeros(52), torch.zeros(5, 3))
    R = FLIP @ roma.rotvec_to_rotmat(torch.tensor([0.0, yaw_rad, 0.0]))
    camera = Camera.from_pose(R, torch.tensor([0.0, 0.0, 50.0]), 50.0 * 1500.0, size, size)
    return vertices, camera.cam_to_px(model.landmarks_cam("ibug68", camera.to_cam(vertices)))


def mean_face_error_px(model, points, yaw_rad):
    """How far the mean face's points stay from `points` when they are moved, turned and scaled."""
    turned = (
        model.landmarks("ibug68", model.data.template)
        @ roma.rotvec_to_rotmat(torch.tensor([0.0, yaw_rad, 0.0])).T
    )
    flat = torch.zeros(51, 1)
    mean = torch.cat([turned[17:, :2] * torch.tensor([1.0, -1.0]), flat], dim=1)
    wanted = torch.cat([points[17:], flat], dim=1)
    moved = procrustes(mean, wanted, with_scale=True).apply(mean)
    return float((moved - wanted).norm(dim=-1).mean())


def test_principal_components_are_the_same_distribution():
    basis = torch.randn(6, 40, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    columns, variance = orthonormal(basis)
    assert torch.allclose(columns.T @ columns, torch.eye(6, dtype=torch.float64), atol=1e-9)
    assert bool((variance[:-1] >= variance[1:]).all())
    rows = basis.flatten(1)
    assert torch.allclose((columns * variance) @ columns.T, rows.T @ rows, atol=1e-9)
    assert orthonormal(basis, 2)[0].shape == (120, 2)
    doubled = torch.cat([basis, basis])  # as many directions as before
    assert orthonormal(doubled)[0].shape == (120, 6)


def test_edges_know_their_triangles():
    triangles = torch.tensor([[0, 1, 2], [2, 1, 3], [3, 1, 4]])
    owners, ends = edge_table(triangles, torch.ones(5, dtype=torch.bool))
    assert sorted(zip(map(tuple, ends), map(tuple, owners), strict=True)) == [
        ((2, 3), (1, 2)),
        ((2, 4), (2, 3)),
    ]
    assert edge_table(triangles, torch.tensor([1, 1, 1, 0, 1]).bool())[1] == [[2, 3]]


def test_it_absent_names_the_line_to_type(monkeypatch):
    real = builtins.__import__

    def without(name, *args, **kwargs):
        if name == "eos":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(MissingExtraError, match="pip install eos-py"):
        make_method("eos").load()


@pytest.fixture(scope="module")
def eos_method():
    pytest.importorskip("eos")
    method = make_method("eos")
    method.load()
    return method


def test_converted_model_is_the_same_model(model, eos_method):
    parts = convert_model(model)
    shape, n = parts.model.get_shape_model(), model.data.n_vertices
    assert np.allclose(shape.get_mean().reshape(-1, 3)[:n], 1000 * model.data.template.numpy(), atol=1e-3)
    basis = torch.from_numpy(np.array(shape.get_rescaled_pca_basis()).T)[:, : 3 * n]
    person = truth().identity @ (1000 * model.data.identity_basis).flatten(1)
    size = torch.linalg.lstsq(basis.T.double(), person[:, None].double()).solution
    assert torch.allclose(basis.T.double() @ size, person[:, None].double(), atol=1e-2)  # 10 micrometres
    assert parts.n_vertices == n and shape.get_data_dimension() == 3 * (n + 68)
    assert parts.mapper.convert("31") == str(n + 30) and parts.mapper.convert("1") is None
    where = torch.from_numpy(np.array(shape.draw_sample(size[:, 0].tolist()))).reshape(-1, 3)[n:] / 1000
    wanted = model.landmarks("ibug68", model.shape(truth().identity, torch.zeros(52)))
    assert torch.allclose(where, wanted, atol=1e-5)


@pytest.mark.parametrize("yaw_rad", [0.0, 0.35, -0.35])
def test_it_explains_exact_landmarks(model, eos_method, yaw_rad):
    """In a large picture, where the weight of eos's prior, which is per pixel, is small."""
    scale = 10
    vertices, points = far_points(model, 5, yaw_rad)
    face = eos_method.fit(scale * points, torch.zeros(4), (scale * 512, scale * 512))
    error = (face.landmarks68_px / scale - points).norm(dim=-1)  # the face is 200 pixels wide
    assert float(error[17:].mean()) < 0.5
    assert float(error[17:].mean()) < 0.3 * mean_face_error_px(model, points, yaw_rad)
    assert float(error[:17].mean()) < 4.0
    own = shape_error_mm(model, face.neutral_vertices, vertices)
    assert own < shape_error_mm(model, model.data.template, vertices)
    assert face.topology == "open" and face.metric
    assert face.neutral_vertices.shape == face.vertices.shape == vertices.shape


def test_it_sees_a_smile(model, eos_method):
    params = truth(yaw_rad=0.0, mouthSmileLeft=0.9, mouthSmileRight=0.9)
    vertices = model.vertices(params.identity, params.expression, params.pose)
    points = params.camera.cam_to_px(model.landmarks_cam("ibug68", params.camera.to_cam(vertices)))
    face = eos_method.fit(points, torch.zeros(4), (512, 512))
    mouth = [model.landmarks("ibug68", v)[[48, 54]] for v in (face.vertices, face.neutral_vertices)]
    wide, rest = (float((pair[0] - pair[1]).norm()) for pair in mouth)
    assert wide > rest + 0.003


def test_it_on_a_photo_and_on_broken_points(model, eos_method):
    params = truth()
    vertices = model.vertices(params.identity, params.expression, params.pose)
    points = params.camera.cam_to_px(model.landmarks_cam("ibug68", params.camera.to_cam(vertices)))
    (face,) = eos_method.reconstruct(read_photo(portrait()))
    assert float((face.landmarks68_px - points).norm(dim=-1).mean()) < 5.0
    with pytest.raises(FitError, match="not finite"):
        eos_method.fit(torch.full((68, 2), torch.nan), torch.zeros(4), (512, 512))


def test_it_reads_its_own_files(model, eos_method, tmp_path):
    """The open model as files of eos's own names; a jaw without vertices, as in eos's landmark file."""
    import eos

    def padded(move):
        points = model.landmarks("ibug68", move)
        return 1000 * torch.cat([move, points]).flatten().numpy()

    parts = convert_model(model)
    points = model.data.landmark_sets["ibug68"]
    ids = model.data.triangles[points.triangle_ids, points.barycentric.argmax(1)].tolist()
    blendshapes = [
        eos.morphablemodel.Blendshape(name, padded(move))
        for name, move in zip(
            model.data.expression_names[24:28], model.data.expression_basis[24:28], strict=True
        )
    ]
    shape = eos.morphablemodel.MorphableModel(parts.model.get_shape_model(), eos.morphablemodel.PcaModel())
    paths = {kind: tmp_path / name for kind, name in SHARE_FILES.items()}
    with pytest.raises(ModelFormatError, match=SHARE_FILES["model"]):
        make_method("eos", MethodOptions(eos_share=tmp_path)).load()
    eos.morphablemodel.save_model(shape, str(paths["model"]))
    eos.morphablemodel.save_edge_topology(parts.edges, str(paths["edges"]))
    lines = ["[landmark_mappings]", *(f"{k + 1} = {ids[k]}" for k in range(17, 68) if k not in (60, 64))]
    lines += ["[contour_landmarks]", 'right = [ "3", "4" ]', 'left = [ "14", "15" ]']
    paths["landmarks"].write_text("\n".join(lines) + "\n")
    paths["contours"].write_text(
        json.dumps({"model_contour": {"right_contour": ids[2:4], "left_contour": ids[13:15]}})
    )
    with pytest.raises(ModelFormatError, match=SHARE_FILES["blendshapes"]):
        make_method("eos", MethodOptions(eos_share=tmp_path)).load()
    eos.morphablemodel.save_blendshapes(blendshapes, str(paths["blendshapes"]))
    method = make_method("eos", MethodOptions(eos_share=tmp_path))
    method.load()
    vertices, points = far_points(model, 5, 0.0)
    face = method.fit(points, torch.zeros(4), (512, 512))
    own = face.neutral_vertices[: model.data.n_vertices]
    assert shape_error_mm(model, own, vertices) < shape_error_mm(model, model.data.template, vertices)
    assert torch.equal(
        face.keypoint_places("now7"), face.vertices[[ids[k] for k in keypoint_groups()["seven"]]]
    )
    assert not face.metric and face.landmarks68_px is None and face.topology == "sfm_shape_3448"
    assert set(face.keypoints) == {"now7"}
    paths["model"].write_bytes(b"not a model")
    with pytest.raises(ModelFormatError, match="cannot read"):
        make_method("eos", MethodOptions(eos_share=tmp_path)).load()
