import dataclasses

import numpy as np
import pytest
import torch

import hiface
from hiface.data import Photo
from hiface.errors import FitError, ModelFormatError, OptionError, OutputError
from hiface.reconstructor import METHODS
from portrait import portrait, truth


@pytest.fixture(scope="module", params=METHODS)
def reconstructor(request):
    return hiface.Reconstructor(request.param)


@pytest.fixture(scope="module")
def face(reconstructor):
    faces = reconstructor.reconstruct(portrait())
    assert len(faces) == 1
    return faces[0]


def test_public_names_are_frozen():
    assert sorted(hiface.__all__) == [
        "Camera",
        "FaceMesh",
        "FaceParams",
        "FaceResult",
        "Reconstructor",
        "__version__",
        "errors",
        "load_model",
        "read_light",
    ]
    fields = {f.name for f in dataclasses.fields(hiface.FaceParams)}
    assert fields == {"identity", "expression", "pose", "albedo", "light", "camera", "static"}


def test_the_mesh_lies_on_the_face(face):
    params = truth()
    model = face.model
    want = params.camera.cam_to_px(model.landmarks_cam("ibug68", model.vertices_cam(params)))
    got = face.landmarks("ibug68")
    eye_distance = (want[36] - want[45]).norm()
    nme = (got - want)[17:].norm(dim=-1).mean() / eye_distance
    assert nme < 0.06
    box = face.box
    assert (box[:2] < want[27:].amin(0) + 5).all() and (box[2:] > want[27:].amax(0) - 5).all()
    assert 0.5 < face.score <= 1


def test_shapes_and_spaces(face):
    assert face.landmarks("ibug68").shape == (68, 2)
    assert face.landmarks_3d("ibug68").shape == (68, 3)
    assert face.params.expression.shape == (52,)
    assert (face.params.expression >= 0).all() and (face.params.expression <= 1).all()
    verts_cam = face.mesh_in_camera().vertices
    assert verts_cam.shape == (face.model.data.n_vertices, 3) and (verts_cam[:, 2] > 0).all()
    torch.testing.assert_close(face.camera.cam_to_px(face.landmarks_3d()), face.landmarks())
    assert face.camera.width == 512 and face.scale_source == "model_prior"


def test_expressions_are_edited_by_name(face):
    open_mouth = face.with_expression(jawOpen=0.9)
    gap = [f.model.landmarks("ibug68", f.mesh.vertices)[[62, 66], 1] for f in (open_mouth, face.neutral())]
    assert gap[0][0] - gap[0][1] > gap[1][0] - gap[1][1] + 0.005
    assert face.neutral().expression["jawOpen"] == 0 and open_mouth.expression["jawOpen"] == pytest.approx(
        0.9
    )
    with pytest.raises(ModelFormatError, match="jawOpen"):
        face.with_expression(jawopen=0.5)
    with pytest.raises(ValueError, match="within"):
        face.with_expression(jawOpen=1.5)


def test_gaze_turns_the_eyeballs(face):
    eye = face.model.triangles[face.model.part_triangles(["eye_left"])].unique()
    moved = face.neutral().with_expression(eyeLookOutLeft=1.0).mesh.vertices - face.neutral().mesh.vertices
    assert moved[eye].norm(dim=-1).max() > 0.003


@pytest.mark.parametrize("suffix", [".glb", ".obj", ".ply", ".json"])
def test_save(face, tmp_path, suffix):
    path = face.save(tmp_path / f"face{suffix}")
    assert path.stat().st_size > 1000


def test_save_errors(face, tmp_path):
    with pytest.raises(OutputError, match=r"\.glb"):
        face.save(tmp_path / "face.fbx")
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError):
        face.save(tmp_path / "file" / "face.ply")


def test_no_face_is_an_empty_list(reconstructor):
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 255, (240, 320, 3), np.uint8)
    for image in [np.zeros((200, 300, 3), np.uint8), noise, np.full((8, 8, 3), 128, np.uint8)]:
        assert reconstructor.reconstruct(image) == []


@pytest.mark.parametrize("shape", [(8, 4000, 3), (4000, 8, 3), (2, 2, 3)])
def test_extreme_shapes_are_harmless(reconstructor, shape):
    assert reconstructor.reconstruct(np.full(shape, 90, np.uint8)) == []


def test_grey_picture_of_a_face(reconstructor):
    grey = portrait().mean(axis=-1).astype(np.uint8)
    assert len(reconstructor.reconstruct(grey)) == 1


def test_results_are_repeatable(reconstructor, face):
    again = reconstructor.reconstruct(portrait())[0]
    torch.testing.assert_close(again.mesh.vertices, face.mesh.vertices, atol=1e-6, rtol=0)


def test_a_device_that_is_not_there_is_said():
    names = ["sofa"] if torch.cuda.is_available() else ["sofa", "cuda"]
    for name in names:
        with pytest.raises(OptionError, match=f"the device {name} cannot be used"):
            hiface.Reconstructor(device=name)


def test_a_face_that_cannot_be_aligned_is_kept(monkeypatch):
    def failing(*_):
        raise FitError("no pose")

    monkeypatch.setattr("hiface.reconstructor.align_to_landmarks", failing)
    faces = hiface.Reconstructor().reconstruct(portrait())
    assert len(faces) == 1 and "align" not in faces[0].timings_s


def test_unknown_method():
    with pytest.raises(ValueError, match="fit"):
        hiface.Reconstructor(method="magic")


def test_focal_length_of_the_photo_reaches_the_detector(monkeypatch):
    reconstructor, seen = hiface.Reconstructor(), []
    monkeypatch.setattr(
        reconstructor.detector, "detect", lambda image, focal_px=None: seen.append(focal_px) or []
    )
    image = np.zeros((20, 30, 3), np.uint8)
    assert reconstructor.reconstruct(Photo(image, 41.5)) == [] and reconstructor.reconstruct(image) == []
    assert seen == [41.5, None]


def test_focal_length_turns_the_rotation_of_a_face_off_the_middle(reconstructor):
    wide = np.concatenate([portrait(), np.full((512, 512, 3), 50, np.uint8)], axis=1)
    near, far = (
        reconstructor.detector.detect(wide, focal_px)[0].R_cam_object for focal_px in (700.0, 7000.0)
    )
    turn = near.T @ far
    angle = float(torch.acos(((turn.trace() - 1) / 2).clamp(-1, 1)))
    assert 0.25 < angle < 0.4  # arctan(256 / 700) = 0.35
