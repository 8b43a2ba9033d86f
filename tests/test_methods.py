"""Every method gives the same kind of answer; rivals do what they say, and say what they lack."""

import builtins
import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

import hiface
from hiface.assets import load_json_asset
from hiface.data import read_photo
from hiface.errors import (
    AssetError,
    MeshFileError,
    MissingExtraError,
    MissingPredictionError,
    ModelFormatError,
    OptionError,
    ShapeError,
    TopologyError,
)
from hiface.evaluation.metrics.realy import keypoint_groups
from hiface.geometry.mesh_files import obj_text
from hiface.geometry.procrustes import procrustes
from hiface.methods import METHOD_NAMES, MethodOptions, make_method
from hiface.methods.folder import FolderMethod
from hiface.methods.mediapipe_landmarker import (
    N_VERTICES,
    Landmarker,
    MediapipeMethod,
    triangles_of_lines,
    without_rotation,
)
from hiface.methods.shared import vertex_landmarks
from portrait import portrait, truth


@pytest.fixture(scope="module")
def model():
    return hiface.load_model("open")


@pytest.fixture(scope="module")
def photo():
    return read_photo(portrait())


@pytest.fixture(scope="module")
def true_face(model):
    """Vertices and 68 points of the person in the portrait."""
    params = truth()
    vertices = model.vertices(params.identity, params.expression, params.pose)
    points = model.landmarks_cam("ibug68", params.camera.to_cam(vertices))
    return vertices, params.camera.cam_to_px(points)


@pytest.fixture(scope="module")
def answers(photo):
    """One answer of each method that needs nothing to be installed."""
    return {
        name: make_method(name).reconstruct(photo) for name in ("hiface", "hiface-fit", "mean", "landmarks")
    }


def shape_error_mm(model, vertices, wanted):
    face = model.data.vertex_masks["face"]
    a, b = vertices[face].double(), wanted[face].double()
    return 1000 * float((procrustes(a, b, with_scale=True).apply(a) - b).norm(dim=-1).mean())


# --- all of them -----------------------------------------------------------------------------------------


def test_answers_are_whole(answers, model):
    for name, found in answers.items():
        assert len(found) == 1, name
        face = found[0]
        assert face.topology == "open" and face.metric
        assert face.box.shape == (4,) and face.landmarks68_px.shape == (68, 2)
        assert face.vertices.shape == face.neutral_vertices.shape == (model.data.n_vertices, 3)
        assert torch.equal(face.triangles, model.data.triangles)
        assert {"ibug68", "now7"} <= set(face.keypoints) <= set(model.data.landmark_sets)
        assert face.keypoint_places("now7", neutral=True).shape == (7, 3)
        x0, y0, x1, y1 = face.box.tolist()
        middle = face.landmarks68_px.mean(0)
        assert x0 < middle[0] < x1 and y0 < middle[1] < y1
    assert answers["hiface"][0].displacement.shape == (1, 256, 256)
    assert answers["hiface-fit"][0].displacement is not None and answers["mean"][0].displacement is None


def test_detail_follows_an_expression(answers, model):
    face = answers["hiface"][0]
    frown = model.expression_vector({"browDownLeft": 0.9, "browDownRight": 0.9})
    moved = face.reexpress(frown)
    assert moved.shape == face.displacement.shape
    assert float((moved - face.displacement).abs().max()) > 1e-5
    assert answers["landmarks"][0].reexpress is None


def test_points_lie_on_the_face(answers, true_face):
    error = {
        name: float((a[0].landmarks68_px - true_face[1]).norm(dim=-1).mean()) for name, a in answers.items()
    }
    assert max(error.values()) < 4.0
    assert error["landmarks"] < error["mean"]


def test_who_sees_more_knows_more(answers, model, true_face):
    error = {n: shape_error_mm(model, a[0].neutral_vertices, true_face[0]) for n, a in answers.items()}
    assert error["hiface"] < error["landmarks"] < error["mean"] and error["hiface-fit"] < error["landmarks"]


def test_the_mean_face_is_the_mean(answers, model):
    face = answers["mean"][0]
    assert torch.allclose(face.vertices, model.data.template, atol=1e-6)
    assert torch.allclose(face.neutral_vertices, model.data.template, atol=1e-6)


def test_expressions_and_joints_stay_out_of_the_neutral_face(model):
    from hiface.methods.shared import model_prediction

    params = truth(jawOpen=0.8)
    pose = params.pose.clone()
    pose[2, 0] = 0.3
    face = model_prediction(model, params.replace(pose=pose), torch.zeros(4))
    rest = model_prediction(model, truth(), torch.zeros(4))
    assert torch.equal(face.neutral_vertices, rest.vertices)
    assert float((face.vertices - rest.vertices).norm(dim=-1).max()) > 0.01


def test_landmark_fit_sees_no_more_than_68_points(photo):
    """Another answer of the dense points changes nothing."""
    from dataclasses import replace

    from hiface.fitting.fit import fit_face
    from hiface.methods.shared import sparse_observation
    from hiface.networks.detect import FaceDetector

    detection = FaceDetector().detect(photo.image_srgb)[0]
    other = replace(detection, dense_px=detection.dense_px + 30.0, iris_px=detection.iris_px - 9.0)
    model = hiface.load_model("open")
    a, b = (fit_face(model, sparse_observation(d, photo)).params for d in (detection, other))
    assert torch.equal(a.identity, b.identity) and torch.equal(a.expression, b.expression)


def test_nobody_on_an_empty_photo():
    empty = read_photo(np.full((120, 160, 3), 127, np.uint8))
    for name in ("hiface", "mean", "landmarks"):
        assert make_method(name).reconstruct(empty) == []


def test_unknown_names_list_the_known_ones():
    for text in ("deca", "", "folder:", "hiface-"):
        with pytest.raises(OptionError) as error:
            make_method(text)
        assert all(name in str(error.value) for name in METHOD_NAMES)


def test_every_name_makes_a_method_of_that_name(tmp_path):
    for name in METHOD_NAMES:
        text = name.replace("PATH", str(tmp_path))
        method = make_method(text, MethodOptions())
        assert method.name == text and method.licence and method.description


def test_options_reach_the_methods(tmp_path):
    lost = tmp_path / "lost"
    options = MethodOptions(weights=lost, mediapipe_model=lost, template=lost.with_suffix(".obj"))
    with pytest.raises(AssetError, match="lost"):
        make_method("hiface", options).load()
    with pytest.raises(AssetError, match="lost"):
        make_method("mediapipe", options).load()
    with pytest.raises(MeshFileError, match="lost"):
        make_method(f"folder:{tmp_path}", options).load()


def test_vertices_as_landmarks():
    triangles = torch.tensor([[0, 1, 2], [2, 1, 3]])
    places = torch.rand(5, 3)
    found = vertex_landmarks("some", [3, 0, 2], triangles)
    assert torch.equal(found.positions(places, triangles), places[[3, 0, 2]])
    with pytest.raises(ShapeError, match=r"\[4\]"):
        vertex_landmarks("some", [1, 4], triangles)


# --- MediaPipe -------------------------------------------------------------------------------------------


def mesh_of_468():
    """A bowl of 18 x 26 points that bulges to +Z, in units of its width."""
    x, y = torch.meshgrid(torch.linspace(-0.5, 0.5, 18), torch.linspace(-0.6, 0.6, 26), indexing="ij")
    places = torch.stack([x, y, 0.3 - x**2 - 0.5 * y**2], dim=-1).reshape(-1, 3)
    corner = torch.arange(N_VERTICES).reshape(18, 26)
    a, b, c, d = corner[:-1, :-1], corner[1:, :-1], corner[1:, 1:], corner[:-1, 1:]
    halves = [torch.stack(half, dim=-1).reshape(-1, 3) for half in ((a, b, c), (a, c, d))]
    return places, torch.cat(halves)


def fake_landmarker(pose, places_px, size):
    """The package's classes as far as the method uses them."""
    width, height = size
    face = [
        SimpleNamespace(x=x / width, y=-y / height, z=-z / width) for x, y, z in places_px.double().tolist()
    ] + [SimpleNamespace(x=0.5, y=0.5, z=0.0)] * 10
    result = SimpleNamespace(face_landmarks=[face], facial_transformation_matrixes=[pose])
    seen = []
    task = SimpleNamespace(detect=lambda picture: seen.append(picture) or result)
    return Landmarker(task, lambda image: image.shape, mesh_of_468()[1]), seen


def test_mediapipe_gives_an_upright_isotropic_mesh():
    import roma

    rest, _ = mesh_of_468()
    R = roma.rotvec_to_rotmat(torch.tensor([0.2, 0.5, -0.1]))
    seen_px = 120.0 * rest @ R.T + torch.tensor([200.0, -90.0, 7.0])
    pose = np.eye(4)
    pose[:3, :3], pose[:3, 3] = 1.02 * R.numpy(), (1.0, -2.0, -40.0)
    landmarker, seen = fake_landmarker(pose, seen_px, (400, 200))
    (face,) = MediapipeMethod(landmarker=landmarker).reconstruct(
        read_photo(np.zeros((200, 400, 3), np.uint8))
    )
    assert seen == [(200, 400, 3)]
    wanted = 120.0 * (rest - rest.mean(0))
    assert torch.allclose(face.vertices, wanted, atol=1e-3)
    assert face.topology == "mediapipe468" and not face.metric and face.neutral_vertices is None
    ids = load_json_asset("landmarks/mediapipe_ibug68.json")["vertices"]
    in_picture = seen_px[:, :2] * torch.tensor([1.0, -1.0])
    assert torch.allclose(face.landmarks68_px, in_picture[ids], atol=1e-3)
    assert torch.allclose(face.box, torch.cat([in_picture.amin(0), in_picture.amax(0)]), atol=1e-3)
    seven = [ids[point] for point in keypoint_groups()["seven"]]
    assert torch.allclose(face.keypoint_places("now7"), wanted[seven], atol=1e-3)
    assert torch.allclose(face.keypoint_places("ibug68"), wanted[ids], atol=1e-3)


def test_rotation_is_taken_out_whatever_the_scale():
    import roma

    points = torch.randn(30, 3, generator=torch.Generator().manual_seed(1))
    points = points - points.mean(0)
    R = roma.rotvec_to_rotmat(torch.tensor([0.3, -0.8, 0.2]))
    assert torch.allclose(without_rotation(points @ R.T + 4.0, 3.0 * R), points, atol=1e-5)


def test_mediapipe_numbers_mirror_one_another():
    """Points of the iBUG set that mirror each other are 68 different vertices, the middle ones unpaired."""
    ids = load_json_asset("landmarks/mediapipe_ibug68.json")["vertices"]
    assert len(set(ids)) == 68 and max(ids) < N_VERTICES
    assert (ids[8], ids[33], ids[51], ids[57]) == (152, 2, 0, 17)


def test_tesselation_lines_become_triangles():
    lines = [(0, 1), (1, 2), (2, 0), (2, 1), (1, 3), (3, 2)]
    assert triangles_of_lines(lines).tolist() == [[0, 1, 2], [2, 1, 3]]
    for bad in (lines[:4], [(0, 1), (1, 2), (2, 3)], []):
        with pytest.raises(ModelFormatError, match=r"mediapipe 1\.2"):
            triangles_of_lines(bad)


def test_mediapipe_names_what_it_lacks(tmp_path, monkeypatch):
    with pytest.raises(OptionError, match="--mediapipe-model"):
        make_method("mediapipe").load()
    file = tmp_path / "face_landmarker.task"
    file.write_bytes(b"not a task")
    real = builtins.__import__

    def without(name, *args, **kwargs):
        if name.split(".")[0] == "mediapipe":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(MissingExtraError, match="pip install 'mediapipe"):
        make_method("mediapipe", MethodOptions(mediapipe_model=file)).load()


# --- meshes of a folder ----------------------------------------------------------------------------------

VERTICES = torch.tensor([[0.0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]], dtype=torch.float64)
TRIANGLES = torch.tensor([[0, 1, 2], [0, 2, 3]])


@pytest.fixture
def photos(tmp_path):
    """Photos a/anna.png and b/anna.png, and an empty folder for meshes."""
    found = []
    for name in ("a", "b"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        Image.new("RGB", (40, 30)).save(tmp_path / "photos" / name / "anna.png")
        found.append(read_photo(tmp_path / "photos" / name / "anna.png"))
    (tmp_path / "meshes").mkdir()
    return found


def put(path, vertices=VERTICES, triangles=TRIANGLES):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(obj_text(vertices, triangles))


def test_folder_keeps_the_photos_folders(photos, tmp_path):
    folder = tmp_path / "meshes"
    method = FolderMethod(folder)
    with pytest.raises(MissingPredictionError, match=r"neither anna\.obj nor anna\.ply.*a/anna\.obj"):
        method.reconstruct(photos[0])
    put(folder / "a" / "anna.obj")
    put(folder / "photos" / "b" / "anna.OBJ", 2 * VERTICES)
    one, two = (method.reconstruct(photo)[0] for photo in photos)
    assert torch.equal(one.vertices, VERTICES) and torch.equal(two.vertices, 2 * VERTICES)
    assert torch.equal(one.triangles, TRIANGLES) and not one.metric and one.neutral_vertices is None
    assert one.box.tolist() == [0, 0, 40, 30] and one.landmarks68_px is None


def test_folder_does_not_give_a_mesh_to_two_photos(photos, tmp_path):
    put(tmp_path / "meshes" / "anna.obj")
    method = FolderMethod(tmp_path / "meshes")
    assert len(method.reconstruct(photos[0])) == len(method.reconstruct(photos[0])) == 1
    with pytest.raises(MeshFileError, match="two photos"):
        method.reconstruct(photos[1])


def test_folder_reads_what_lies_beside_a_mesh(photos, tmp_path):
    base = tmp_path / "meshes" / "anna"
    put(base.with_suffix(".obj"))
    put(base.with_name("anna.neutral.obj"), VERTICES + 1)
    seven = torch.tensor([[0.1 * k, 0.05 * k, 0.01] for k in range(7)])
    np.save(base.with_suffix(".npy"), seven.numpy())
    points = [[float(k), 2.0 * k] for k in range(68)]
    base.with_suffix(".json").write_text(json.dumps({"landmarks68": points, "unit": "mm"}))
    (face,) = FolderMethod(tmp_path / "meshes").reconstruct(photos[0])
    assert face.metric and torch.allclose(face.vertices, 0.001 * VERTICES)
    assert torch.allclose(face.neutral_vertices, 0.001 * (VERTICES + 1))
    flat = seven.double() * torch.tensor([0.001, 0.001, 0.0], dtype=torch.float64)
    assert torch.allclose(face.keypoint_places("now7"), flat, atol=1e-7)
    assert face.landmarks68_px.tolist() == points and face.box.tolist() == [0, 0, 67, 134]


def test_folder_checks_the_template(photos, tmp_path):
    folder, template = tmp_path / "meshes", tmp_path / "head.obj"
    put(template)
    content = {"triangle_ids": [1], "barycentric": [[0.0, 0.0, 1.0]]}
    template.with_suffix(".json").write_text(json.dumps({"realy85": content}))
    put(folder / "anna.obj", 3 * VERTICES)
    (face,) = FolderMethod(folder, template).reconstruct(photos[0])
    assert face.topology == "head" and face.keypoint_places("realy85").tolist() == [[0, 3, 0]]
    put(folder / "anna.obj", torch.cat([VERTICES, VERTICES]))
    with pytest.raises(TopologyError, match=r"8 vertices, .*head\.obj has 4"):
        FolderMethod(folder, template).reconstruct(photos[0])
    put(folder / "anna.obj", triangles=TRIANGLES[:1])
    with pytest.raises(TopologyError, match="1 triangles"):
        FolderMethod(folder, template).reconstruct(photos[0])
    put(folder / "anna.obj", triangles=TRIANGLES[:, [1, 2, 0]])
    with pytest.raises(TopologyError, match="triangle 0"):
        FolderMethod(folder, template).reconstruct(photos[0])
    put(folder / "anna.obj")
    put(folder / "anna.neutral.obj", torch.cat([VERTICES, VERTICES]))
    with pytest.raises(TopologyError, match=r"anna\.obj has 4"):
        FolderMethod(folder).reconstruct(photos[0])


def test_folder_names_what_is_wrong(photos, tmp_path):
    with pytest.raises(MeshFileError, match="not a folder"):
        FolderMethod(tmp_path / "lost").load()
    base = tmp_path / "meshes" / "anna"
    put(base.with_suffix(".obj"))
    method = FolderMethod(tmp_path / "meshes")
    for suffix, text, message in (
        (".json", '{"unit": "inch"}', "inch"),
        (".json", '{"landmarks68": [[1, 2]]}', "68 pairs"),
        (".json", "[1]", "object"),
        (".json", "{", "not JSON"),
        (".txt", "1 2 3\n4 5 6\n", "7 finite points"),
        (".txt", "9 9 9\n" * 7, "not on anna"),
    ):
        file = base.with_suffix(suffix)
        file.write_text(text)
        with pytest.raises(MeshFileError, match=message):
            method.reconstruct(photos[0])
        file.unlink()
    with pytest.raises(MeshFileError, match="file name"):
        method.reconstruct(read_photo(np.zeros((30, 40, 3), np.uint8)))
