"""Retargeting, motions from files, and the animate command with an untrained network of the right format."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import hiface
from hiface.animation.motion import Motion, motion_of
from hiface.animation.motion_files import read_motion_csv
from hiface.animation.retarget import drive, with_detail_of
from hiface.cli.animate import different_frames
from hiface.cli.main import main
from hiface.detail.basis import load_detail_basis
from hiface.errors import AssetError, FaceFileError, ShapeError
from hiface.export.detail_pictures import encode_animation, face_picture, portrait_camera
from hiface.morphable import MorphableModel
from hiface.networks.hiface import build_hiface
from hiface.networks.weights import save_weights
from hiface.types import Camera, FaceParams
from portrait import portrait

NAMES = hiface.load_model("open").data.expression_names


def a_face(seed=0, **expression):
    model = hiface.load_model("open")
    gen = torch.Generator().manual_seed(seed)
    R = torch.diag(torch.tensor([1.0, -1.0, -1.0]))
    camera = Camera.from_pose(R, torch.tensor([0.0, 0.0, 0.8]), 600.0, 320, 320)
    return FaceParams(
        identity=torch.randn(150, generator=gen),
        expression=model.expression_vector(expression),
        pose=torch.zeros(5, 3),
        albedo=torch.randn(21, generator=gen),
        light=torch.zeros(9, 3),
        camera=camera,
        static=torch.randn(300, generator=gen),
    )


def test_the_driver_gives_expression_and_pose_and_nothing_else():
    model = hiface.load_model("open")
    source, driver = a_face(1, jawOpen=0.2), a_face(2, mouthSmileLeft=0.9, eyeLookUpLeft=0.8)
    c, s = 0.8, 0.6
    turned = torch.tensor([[c, 0.0, s], [0.0, -1.0, 0.0], [s, 0.0, -c]])
    T = driver.camera.T_cam_object.clone()
    T[:3, :3] = turned
    driver = driver.replace(camera=Camera(driver.camera.K, T, 320, 320))
    (frame,) = drive(model, source, motion_of([driver]))
    for kept in ("identity", "albedo", "light", "static"):
        assert torch.equal(getattr(frame, kept), getattr(source, kept))
    assert torch.equal(frame.expression, driver.expression)
    assert torch.equal(frame.camera.R, turned) and torch.equal(frame.camera.t, source.camera.t)
    assert float(frame.pose[3].abs().max()) > 0.1  # the left eye looks up
    (still,) = drive(model, source, motion_of([driver]), with_pose=False)
    assert torch.equal(still.camera.T_cam_object, source.camera.T_cam_object)


def test_detail_moves_from_person_to_person():
    target, donor = a_face(1), a_face(2)
    mixed = with_detail_of(target, donor)
    assert torch.equal(mixed.static, donor.static) and torch.equal(mixed.identity, target.identity)
    with pytest.raises(ShapeError, match="no detail codes"):
        with_detail_of(target, donor.replace(static=None))
    with pytest.raises(ShapeError, match="one network"):
        with_detail_of(target, donor.replace(static=torch.zeros(10)))
    with pytest.raises(ShapeError, match="N times"):
        Motion(torch.zeros(2, 52), None, torch.zeros(3))


def test_live_link_and_plain_tables_are_read(tmp_path):
    head = "Timecode,BlendShapeCount," + ",".join(n[0].upper() + n[1:] for n in reversed(NAMES)) + ",HeadYaw"
    values = [f"{i / 100:.4f}" for i in reversed(range(52))]
    (tmp_path / "live.csv").write_text(
        "\n".join([head, *(f"17:12:{i:02d},61,{','.join(values)},0.3" for i in range(3))]) + "\n"
    )
    motion = read_motion_csv(tmp_path / "live.csv", NAMES)
    assert len(motion) == 3 and motion.R_cam_head is None
    assert torch.allclose(motion.expression[0], torch.arange(52) / 100, atol=1e-4)
    assert motion.times.tolist() == pytest.approx([0, 1 / 60, 2 / 60])
    (tmp_path / "mine.csv").write_text("time,jawOpen\n0,0.5\n0.5,1.5\n")
    plain = read_motion_csv(tmp_path / "mine.csv", NAMES)
    assert plain.times.tolist() == [0, 0.5] and plain.expression[1, NAMES.index("jawOpen")] == 1


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "no frames"),
        ("jawOpen\n", "no frames"),
        ("a,b\n1,2\n", "no column"),
        ("jawOpen\nwide\n", "frame 1"),
        ("jawOpen\nnan\n", "not finite"),
        ("time,jawOpen\n1,0\n0,0\n", "do not increase"),
    ],
)
def test_tables_that_make_no_motion_are_named_errors(tmp_path, content, words):
    (tmp_path / "a.csv").write_text(content)
    with pytest.raises(FaceFileError, match=words):
        read_motion_csv(tmp_path / "a.csv", NAMES)


def test_a_picture_shows_the_relief():
    model, basis, face = hiface.load_model("open"), load_detail_basis(), a_face(0)
    face = face.replace(identity=torch.zeros(150))
    camera = portrait_camera(model, face, 96)
    none = torch.zeros(1, 256, 256)
    relief = basis.scatter(basis.static.decode(torch.full((1,), 4.0)))
    smooth = np.asarray(face_picture(model, face, none, camera)).astype(int)
    rough = np.asarray(face_picture(model, face, relief, camera)).astype(int)
    assert smooth.shape == (96, 96, 3) and 0.004 < (np.abs(smooth - rough).max(-1) > 4).mean() < 0.6
    points = camera.project(model.landmarks("ibug68", model.shape(face.identity, face.expression)))
    assert float(points.min()) > 10 and float(points.max()) < 86
    coloured = face_picture(model, face, none, camera, torch.full((3, 8, 8), 0.5))
    assert coloured.size == (96, 96)


def test_animations_keep_their_times():
    import io

    frames = [Image.new("RGB", (8, 8), (i * 60, 0, 0)) for i in range(3)]
    read = Image.open(io.BytesIO(encode_animation(frames, [0.0, 0.1, 0.3])))
    assert read.n_frames == 3
    durations = []
    for i in range(3):
        read.seek(i)
        read.load()
        durations.append(read.info["duration"])
    assert durations == [100, 200, 200]
    assert Image.open(io.BytesIO(encode_animation(frames[:1], [0.0]))).size == (8, 8)


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "hiface.safetensors"
    save_weights(build_hiface().eval(), path, {})
    return path


def run(*words):
    with pytest.raises(SystemExit) as done:
        main(["animate", *map(str, words)])
    return done.value.code


def test_the_command_writes_grid_film_and_head(tmp_path, weights, capsys):
    photo = tmp_path / "a.png"
    Image.fromarray(portrait()).save(photo)
    table = tmp_path / "move.csv"
    table.write_text("time,jawOpen,browInnerUp\n0,0,0\n0.1,0.5,0.2\n0.2,1,1\n")
    options = ("--weights", weights, "--size", "64", "--wrinkles")
    code = run("--source", photo, "--driving", table, "-o", tmp_path / "out", *options)
    assert code == 0, capsys.readouterr().err
    film = Image.open(tmp_path / "out" / "animation.webp")
    assert film.n_frames == 3 and film.size == (64, 64)
    sheet = np.asarray(Image.open(tmp_path / "out" / "grid.png").convert("RGB"))
    assert sheet.shape[1] > 5 * 64 and sheet.shape[0] > 3 * 64
    first, below = sheet[25:80, 20:70], sheet[120:, 20:70]
    assert first.std() > 20 and below.std() < 1, "the source is there once"
    content = (tmp_path / "out" / "animated.glb").read_bytes()
    document = json.loads(content[20 : 20 + int.from_bytes(content[12:16], "little")])
    assert [a["name"] for a in document["animations"]] == ["driven"]
    assert any("normalTexture" in m for m in document["materials"])
    assert max(a["count"] for a in document["accessors"] if a["type"] == "VEC2") > 40_000  # the fine skin
    code = run("--source", photo, "--driving", photo, "-o", tmp_path / "two", "--detail", "static", *options)
    assert code == 0 and Image.open(tmp_path / "two" / "grid.png").width > 6 * 64


def test_the_grid_shows_frames_that_differ():
    """A minute of talk with two blinks, one laugh and a pause."""
    expression = 0.02 * torch.rand(600, 52, generator=torch.Generator().manual_seed(0))
    blink, laugh = [NAMES.index(f"eyeBlink{s}") for s in ("Left", "Right")], NAMES.index("mouthSmileLeft")
    expression[100:103, blink] = expression[400:403, blink] = 1.0
    expression[250:260, laugh] = 0.7
    chosen = different_frames(expression, 3)
    assert chosen == sorted(chosen) and sum(i in (*range(100, 103), *range(400, 403)) for i in chosen) == 1
    assert any(250 <= i < 260 for i in chosen)
    assert len(different_frames(torch.full((9, 52), 0.5))) == 1
    assert different_frames(torch.eye(52)[:4]) == [0, 1, 2, 3]


def test_frames_without_a_face_keep_the_clip_in_step(tmp_path, weights, capsys):
    """Before the first face its first frame stands, after it the last one seen."""
    clip = tmp_path / "clip"
    clip.mkdir()
    for i, shown in enumerate((False, True, False)):
        picture = portrait() if shown else np.full((512, 512, 3), 90, np.uint8)
        Image.fromarray(picture).save(clip / f"{i}.png")
    options = ("--weights", weights, "--size", "64")
    assert run("--source", clip / "1.png", "--driving", clip, "-o", tmp_path / "out", *options) == 0
    assert "3 frames in" in " ".join(capsys.readouterr().err.split())


def test_what_cannot_be_animated_is_said(tmp_path, weights, capsys):
    sky = tmp_path / "sky.png"
    Image.new("RGB", (200, 200), (90, 120, 150)).save(sky)
    assert run("--source", sky, "--driving", sky, "-o", tmp_path / "o", "--weights", weights) == 1
    assert "no face was found" in " ".join(capsys.readouterr().err.split())
    assert run("--source", sky, "--driving", sky, "-o", tmp_path / "o", "--size", "9") == 1
    assert "--size" in capsys.readouterr().err
    (tmp_path / "file").write_text("")
    assert run("--source", sky, "--driving", sky, "-o", tmp_path / "file" / "x") == 1
    if not (Path(hiface.__file__).parent / "assets/weights/hiface.safetensors").is_file():
        assert run("--source", sky, "--driving", sky, "-o", tmp_path / "o") == 1
        assert "no trained weights" in " ".join(capsys.readouterr().err.split())


def test_a_network_reconstructs_and_is_refined(tmp_path, weights, capsys):
    photo = tmp_path / "a.png"
    Image.fromarray(portrait()).save(photo)

    def reconstruct(*words):
        with pytest.raises(SystemExit) as done:
            main(["reconstruct", str(photo), "-o", str(tmp_path / "out"), *map(str, words)])
        return done.value.code

    assert reconstruct("--format", "json,maps", "--weights", weights) == 0
    person = tmp_path / "out" / "a" / "person1"
    seen = json.loads((person / "face.json").read_text())
    assert (person / "displacement.png").is_file()
    code = reconstruct("--format", "json", "--weights", weights, "--refine")
    assert code == 0, capsys.readouterr().err
    refined = json.loads((person / "face.json").read_text())
    assert refined != seen
    for option in ("--refine", "--no-align"):
        assert reconstruct("--method", "fit", option) == 1
    assert "leave --method fit out" in " ".join(capsys.readouterr().err.split())


def test_refined_faces_lie_on_the_photo(weights):
    """Even an untrained network's answer ends on the landmarks, and carries its detail along."""
    face = hiface.Reconstructor("hiface", weights=weights, refine=True).reconstruct(portrait())[0]
    error = (face.landmarks()[17:] - face.detection.landmarks68_px[17:]).norm(dim=-1).mean()
    assert error < 0.06 * (face.box[2:] - face.box[:2]).max()
    assert face.params.static is not None and face.displacement().abs().max() > 0
    assert {"network", "refine"} <= set(face.timings_s)
    with pytest.raises(ValueError, match="goes on from a network"):
        hiface.Reconstructor("fit", refine=True)
    with pytest.raises(ValueError, match="only a Reconstructor"):
        hiface.Reconstructor("fit").refined(face)


def test_weights_that_cannot_serve_are_named(tmp_path, weights):
    with pytest.raises(AssetError, match="there is no file"):
        hiface.Reconstructor("hiface", weights=tmp_path / "typo.safetensors")
    data = hiface.load_model().data
    cut = ("identity_basis", "identity_std", "joints_identity_basis")
    less = dataclasses.replace(data, **{name: getattr(data, name)[:20] for name in cut})
    with pytest.raises(AssetError, match="trained for a face model"):
        hiface.Reconstructor("hiface", MorphableModel(less), weights=weights)
    own = hiface.load_model()
    assert hiface.Reconstructor("hiface", own, weights=weights).reconstruct(portrait())[0].model is own
