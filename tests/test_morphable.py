import math

import pytest
import roma
import torch

import hiface
from hiface.errors import AssetError, ModelFormatError, ShapeError
from hiface.morphable.skinning import linear_blend_skinning
from hiface.types import Camera, FaceParams, LandmarkSet
from toy import toy_model

MODEL = toy_model()


@pytest.mark.parametrize("batch", [(), (2,), (1, 2)])
def test_vertices_are_the_formula_for_any_batch(batch):
    identity, expression = torch.randn(*batch, 8), torch.rand(*batch, 52)
    got = MODEL.vertices(identity, expression, torch.zeros(*batch, 5, 3))
    want = (
        MODEL.template
        + torch.einsum("...k,kvc->...vc", identity, MODEL.identity_basis)
        + torch.einsum("...e,evc->...vc", expression, MODEL.expression_basis)
    )
    assert got.shape == (*batch, MODEL.data.n_vertices, 3)
    torch.testing.assert_close(got, want, atol=1e-6, rtol=1e-5)


def test_fewer_identity_coefficients_are_zero_padded():
    identity = torch.randn(8)
    identity[3:] = 0
    zero = torch.zeros(52)
    torch.testing.assert_close(MODEL.shape(identity[:3], zero), MODEL.shape(identity, zero))


def test_skinning_rotates_about_the_joint():
    verts = torch.randn(10, 3)
    joints = torch.tensor([[0.0, 0.0, 0.0], [1.0, 0.0, 0.0]])
    rotvec = torch.zeros(2, 3)
    rotvec[1, 2] = math.pi / 2
    weights = torch.tensor([[0.0, 1.0]]).repeat(10, 1)
    got = linear_blend_skinning(verts, joints, rotvec, (-1, 0), weights)
    R = roma.rotvec_to_rotmat(rotvec[1])
    torch.testing.assert_close(got, (verts - joints[1]) @ R.T + joints[1], atol=1e-6, rtol=1e-5)


def test_skinning_chains_parents():
    joints = torch.tensor([[0.0, 0.0, 0.0], [1.0, 0.0, 0.0]])
    rotvec = torch.tensor([[0.0, 0.0, math.pi / 2], [0.0, 0.0, math.pi / 2]])
    got = linear_blend_skinning(
        torch.tensor([[2.0, 0.0, 0.0]]), joints, rotvec, (-1, 0), torch.tensor([[0.0, 1.0]])
    )
    torch.testing.assert_close(got, torch.tensor([[-1.0, 1.0, 0.0]]), atol=1e-6, rtol=0)


def test_gradients_reach_every_coefficient():
    model = toy_model().double()
    args = [torch.randn(8), torch.rand(52), 0.3 * torch.randn(5, 3)]
    args = [a.double().requires_grad_() for a in args]
    assert torch.autograd.gradcheck(lambda *a: model.vertices(*a)[::97], args, atol=1e-6)


def test_albedo_map():
    albedo = torch.randn(4, 3) * 0.1
    want = MODEL.albedo_mean + torch.einsum("ba,achw->bchw", albedo, MODEL.albedo_basis)
    torch.testing.assert_close(MODEL.albedo_map(albedo), want.clamp(0, 1))


def test_landmark_positions_are_barycentric():
    points = LandmarkSet("one", torch.tensor([5]), torch.tensor([[0.2, 0.3, 0.5]]))
    got = points.positions(MODEL.template, MODEL.triangles)
    corner = MODEL.template[MODEL.triangles[5]]
    torch.testing.assert_close(got[0], 0.2 * corner[0] + 0.3 * corner[1] + 0.5 * corner[2])


def test_expression_names():
    vector = MODEL.expression_vector({"jawOpen": 0.5})
    assert vector[MODEL.expression_index("jawOpen")] == 0.5 and vector.sum() == 0.5
    with pytest.raises(ModelFormatError, match="did you mean 'jawOpen'"):
        MODEL.expression_vector({"jawopen": 1.0})


def test_wrong_sizes_are_errors():
    with pytest.raises(ShapeError):
        MODEL.shape(torch.zeros(9), torch.zeros(52))
    with pytest.raises(ShapeError):
        MODEL.shape(torch.zeros(8), torch.zeros(51))
    with pytest.raises(ModelFormatError, match="unknown face model"):
        hiface.load_model("flamingo")
    with pytest.raises(ModelFormatError, match="no landmark set"):
        MODEL.landmark_set("nope")


def test_damaged_model_file_is_a_typed_error(tmp_path):
    from hiface.assets.loader import asset_path, read_safetensors

    raw = asset_path("open/model.safetensors").read_bytes()
    broken = tmp_path / "model.safetensors"
    broken.write_bytes(raw[: len(raw) // 2])
    with pytest.raises(AssetError, match=r"model\.safetensors"):
        read_safetensors(broken)


def test_params_index_replace_and_move():
    camera = Camera.from_pose(torch.eye(3).expand(2, 3, 3), torch.rand(2, 3) + 1, 500.0, 64, 48)
    params = FaceParams(
        torch.rand(2, 8),
        torch.rand(2, 52),
        torch.zeros(2, 5, 3),
        torch.rand(2, 3),
        torch.rand(2, 9, 3),
        camera,
    )
    one = params[1]
    assert one.identity.shape == (8,) and one.camera.K.shape == (3, 3) and one.static is None
    assert params.to(torch.float64).camera.K.dtype == torch.float64
    assert params.replace(identity=torch.zeros(2, 8)).identity.sum() == 0
    verts = MODEL.vertices_cam(params)
    torch.testing.assert_close(verts[1], MODEL.vertices_cam(one), atol=1e-6, rtol=1e-5)
