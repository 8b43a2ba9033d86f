# SPDX-License-Identifier: Apache-2.0
"""The interactive viewer without a browser: what moves, what is drawn, and what comes in from outside."""

from __future__ import annotations

import math
import shutil
import time
from types import SimpleNamespace

import numpy as np
import pytest
import roma
import torch
from PIL import Image

from hiface.animation.live_link_udp import LiveLinkSender
from hiface.animation.motion import Motion
from hiface.animation.motion_json import write_motion_json
from hiface.animation.orders import expression_order
from hiface.app.results import ResultFiles, find_results
from hiface.app.viewer_faces import load_faces
from hiface.app.viewer_panel import FacePanel
from hiface.app.viewer_picture import PARTS, SHADINGS, fitted_camera
from hiface.app.viewer_stage import view_camera
from hiface.app.viewer_state import ViewerState, grouped, partner
from hiface.app.viewer_workers import LiveDrive, Player, Uploads
from hiface.errors import FaceFileError, LiveLinkError, OptionError
from hiface.morphable import load_model
from hiface.types import Camera
from portrait import portrait
from viewer_result import head_mask, known_params, write_result

ARKIT = expression_order("arkit52")
FACING = torch.diag(torch.tensor([1.0, -1.0, -1.0]))
VIEW = Camera.from_pose(FACING, torch.tensor([0.0, 0.0, 0.8]), 520.0, 240, 240)


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    return write_result(tmp_path_factory.mktemp("result"))


@pytest.fixture(scope="module")
def viewed(result):
    (person,) = load_faces(find_results(result.folder))
    return person


@pytest.fixture
def state(viewed):
    return ViewerState([viewed])


def turned(degrees: float) -> torch.Tensor:
    return FACING @ roma.rotvec_to_rotmat(torch.tensor([0.0, math.radians(degrees), 0.0]))


@pytest.fixture
def tracked(result, tmp_path):
    """The person in three frames: at rest, turned by 20 degrees with an open jaw, and lost."""
    folder = tmp_path / "clip" / "person1"
    shutil.copytree(result.folder, folder)
    expression = torch.zeros(3, 52)
    expression[1:, ARKIT.index("jawOpen")] = 0.9
    R = torch.stack([turned(0), turned(20), turned(20)])
    t = torch.tensor([[0.0, 0.0, 0.8], [0.05, 0.0, 0.8], [0.05, 0.0, 0.8]])
    motion = Motion(expression, R, torch.tensor([0.0, 0.1, 0.2]), t, ("ok", "ok", "missing"))
    write_motion_json(folder / "blendshapes.json", motion)
    (folder.parent / "track.json").write_text('{"camera": [[700, 0, 240], [0, 700, 280], [0, 0, 1]]}')
    (person,) = load_faces(find_results(folder.parent))
    return ViewerState([person])


@pytest.mark.parametrize("K", ["3", "[[1, 2], [3]]", '"wide"', "[[1e999, 0, 0], [0, 1, 0], [0, 0, 1]]"])
def test_a_damaged_camera_of_a_video_is_named(result, tmp_path, K):
    folder = tmp_path / "clip" / "person1"
    shutil.copytree(result.folder, folder)
    write_motion_json(folder / "blendshapes.json", Motion(torch.zeros(1, 52), None, torch.zeros(1)))
    (folder.parent / "track.json").write_text(f'{{"camera": {K}}}')
    with pytest.raises(FaceFileError, match="track the video again"):
        load_faces(find_results(folder))


def test_partners_mirror_and_eyes_look_the_same_way():
    assert partner("mouthSmileLeft") == "mouthSmileRight" and partner("eyeLookInLeft") == "eyeLookOutRight"
    assert partner("jawLeft") is None and partner("jawOpen") is None
    pairs = {name: partner(name) for name in ARKIT}
    assert all(pairs[other] == name for name, other in pairs.items() if other)
    assert sum(other is not None for other in pairs.values()) == 14 + 4 + 2 + 2 + 14
    sizes = [(label, len(names)) for label, names in grouped(ARKIT)]
    assert sizes[:3] == [("Eyes", 14), ("Brows", 5), ("Jaw", 4)]


def test_sliders_presets_and_links(state):
    start = dict(zip(ARKIT, known_params().expression.tolist(), strict=True))
    assert state.weights == pytest.approx(start, abs=1e-5)
    state.preset({"jawOpen": 0.5, "noSuchThing": 1.0})
    assert {n: v for n, v in state.weights.items() if v} == {"jawOpen": 0.5}
    assert state.move("eyeLookInRight", 0.7) == {"eyeLookInRight": 0.7, "eyeLookOutLeft": 0.7}
    state.put(linked=False)
    assert state.move("mouthSmileLeft", 1.7) == {"mouthSmileLeft": 1.0}
    assert state.weights["mouthSmileRight"] == 0 and state.weights["mouthSmileLeft"] == 1
    with pytest.raises(OptionError, match="no expression 'elbow'"):
        state.move("elbow", 1.0)
    state.photo_expression()
    assert state.weights == pytest.approx(start, abs=1e-5)
    with pytest.raises(OptionError, match="1 people"):
        state.select(1)


def test_every_change_is_noticed(state):
    for change in (
        lambda: state.move("jawOpen", 0.3),
        lambda: state.show(wires=True),
        lambda: state.put(over_photo=True),
        lambda: state.preset({}),
    ):
        state.changed.clear()
        change()
        assert state.changed.is_set()


def test_jaw_open_moves_the_mouth_and_not_the_scalp(state, result):
    before = state.picture(VIEW).astype(int)
    state.move("jawOpen", 0.9)
    changed = np.abs(state.picture(VIEW).astype(int) - before).max(-1)
    model, params = load_model("open"), result.params
    points = model.landmarks("ibug68", model.vertices(params.identity, params.expression, params.pose))
    px = VIEW.project(points).numpy()
    x0, y0 = px[48:60].min(0).astype(int)
    x1, y1 = px[48:60].max(0).astype(int)
    assert changed[y0 : y1 + 4, x0:x1].mean() > 15
    assert changed[: int(px[17:27, 1].min()) - 20].max() <= 2


def test_gaze_sliders_turn_the_eyes(state):
    state.preset({"eyeLookOutLeft": 1.0, "eyeLookInRight": 1.0})
    joints = load_model("open").data.joint_names
    pose = state.face().params.pose
    assert pose[joints.index("eye_left"), 1] > 0.3 and pose[joints.index("eye_right"), 1] > 0.3


def test_over_the_photo_it_looks_like_the_photo(state, result):
    params = result.params
    state.show(light="photo", parts="none")
    state.put(over_photo=True)
    size = Camera(VIEW.K, VIEW.T_cam_object, params.camera.width, params.camera.height)
    seen, photo = state.picture(size).astype(int), np.asarray(Image.open(result.photo)).astype(int)
    assert seen.shape == photo.shape
    mask = head_mask(params)
    assert np.abs(seen - photo)[~mask].mean() < 1.0, "beside the head stands the photo"
    assert np.abs(seen - photo)[mask].mean() < 8
    state.show(opacity=0.0)
    assert np.abs(state.picture(size).astype(int) - photo).mean() < 1.0


def test_the_photo_keeps_its_shape_in_other_views():
    camera = Camera.from_pose(FACING, torch.tensor([0.0, 0.0, 0.5]), 400.0, 300, 200)
    fit = fitted_camera(camera, height=400, width=900)  # twice as large, 150 columns at each side
    point = torch.tensor([[0.03, 0.02, 0.01]])
    expected = 2 * camera.project(point) + torch.tensor([150.0, 0.0])
    assert torch.allclose(fit.project(point), expected, atol=1e-3)


def test_looks_differ(state):
    pictures = []
    for shading in SHADINGS:
        state.show(shading=shading)
        pictures.append(state.picture(VIEW).astype(int))
    state.show(wires=True)
    pictures.append(state.picture(VIEW).astype(int))
    state.show(wires=False, shading="textured", lamp_m=(0.2, 0.0, 0.1))
    pictures.append(state.picture(VIEW).astype(int))
    drawn = np.ptp(pictures[SHADINGS.index("albedo")], axis=-1) > 20
    for i, one in enumerate(pictures):
        for other in pictures[:i]:
            assert np.abs(one - other)[drawn].mean() > 4
    clay = pictures[SHADINGS.index("clay")][drawn]
    assert np.median(np.ptp(clay, axis=1)) < 16, "clay is grey"


def test_the_lamp_lights_its_own_side(state):
    state.show(shading="clay", parts="none")
    sides = {}
    for x in (-0.2, 0.2):
        state.show(lamp_m=(x, 0.0, 0.05))
        picture = state.picture(VIEW).astype(float).mean(-1)[80:160]
        sides[x] = picture[:, 130:160].mean() - picture[:, 80:110].mean()
    assert sides[0.2] > 30 and sides[-0.2] < -30, sides


def test_detail_is_the_relief_of_the_files(state, result):
    """The static map beside the file is rows of 0.3 mm; there are no codes, so nothing is dynamic."""
    rows = 3e-4 * torch.linspace(0, 60 * torch.pi, 256).sin()
    assert torch.allclose(state.face().displacement("static")[0, :, 7], rows, atol=5e-8 + 4e-3 / 65536)
    state.show(shading="clay")
    rough = {}
    for parts in PARTS:
        state.show(parts=parts)
        rough[parts] = np.abs(np.diff(state.picture(VIEW)[70:110, 105:135, 1].astype(int), 2, axis=0)).mean()
    assert rough["static"] > 2 * rough["none"] and rough["both"] == rough["static"]
    assert rough["dynamic"] == rough["none"]


def test_the_view_is_that_of_the_page():
    """Half a metre before the face, 60 degrees high: what lies 0.5 tan(30) up is at the upper border."""
    facing_wxyz = np.array([0.0, 1.0, 0.0, 0.0])  # half a turn about x: OpenCV's axes looking along -z
    view = view_camera(np.array([0.1, 0.2, 0.5]), facing_wxyz, math.radians(60), height=300, width=400)
    up = 0.5 * math.tan(math.radians(30))
    points = torch.tensor([[0.1, 0.2, 0.0], [0.1, 0.2 + up, 0.0], [0.2, 0.2, 0.0]])
    px = view.project(points)
    assert torch.allclose(px[:2], torch.tensor([[200.0, 150.0], [200.0, 0.0]]), atol=1e-2)
    assert px[2, 0] > 201, "its right is the picture's right"


def test_a_motion_moves_face_and_head(tracked):
    assert (tracked.frame, tracked.status) == (0, "ok") and tracked.weights["jawOpen"] == 0
    still = tracked.picture(VIEW).astype(int)
    tracked.show_frame(1)
    assert tracked.weights["jawOpen"] == pytest.approx(0.9)
    moved = tracked.picture(VIEW).astype(int)
    tracked.put(head_moves=False)
    face_only = tracked.picture(VIEW).astype(int)
    assert np.abs(moved - still).mean() > np.abs(face_only - still).mean() > 0.5
    tracked.show_frame(2)
    assert tracked.status == "missing"
    tracked.photo_expression()
    assert tracked.frame is None and tracked.status == ""


def test_a_frame_is_seen_through_the_videos_camera(tracked):
    film = np.full((560, 480, 3), (5, 10, 200), np.uint8)
    tracked.show_frame(1, film)
    tracked.put(over_photo=True)
    picture = tracked.picture(Camera(VIEW.K, VIEW.T_cam_object, 480, 560))
    drawn = np.abs(picture.astype(int) - film).max(-1) > 30
    K = torch.tensor([[700.0, 0, 240], [0, 700, 280], [0, 0, 1]])
    T = torch.eye(4)
    T[:3, :3], T[:3, 3] = turned(20), torch.tensor([0.05, 0.0, 0.8])
    opened = load_model("open").expression_vector({"jawOpen": 0.9})
    truth = head_mask(known_params().replace(camera=Camera(K, T, 480, 560), expression=opened))
    assert (drawn & truth).sum() / (drawn | truth).sum() > 0.97


def wait_for(what, seconds: float = 5.0) -> None:
    end = time.monotonic() + seconds
    while not what() and time.monotonic() < end:
        time.sleep(0.01)
    assert what()


def test_playing_goes_through_the_frames(tracked):
    player = Player(tracked)
    seen = set()
    player.speed, player.playing = 0.5, True
    wait_for(lambda: seen.add(tracked.frame) or seen >= {0, 1, 2})
    player.playing = False
    player.stop()


def test_live_link_packets_move_the_face(state):
    live = LiveDrive(state, "127.0.0.1")
    live.start(0)
    assert live.port
    with LiveLinkSender("127.0.0.1", live.port, "phone") as sender:
        smile = torch.zeros(52)
        smile[ARKIT.index("mouthSmileLeft")] = 0.8
        sender.send(smile, turned(15))
        wait_for(lambda: live.frames == 1)
        assert state.weights["mouthSmileLeft"] == pytest.approx(0.8) and live.subject == "phone"
        sender.send(None)
        with pytest.raises(LiveLinkError, match="taken"):
            LiveDrive(state, "127.0.0.1").start(live.port)
        live.stop()
        assert live.port is None and live.frames == 1
        sender.send(torch.zeros(52))
    assert state.weights["mouthSmileLeft"] == pytest.approx(0.8)


def test_dropped_photos_become_people(tmp_path, state):
    told, failed = [], []
    uploads = Uploads(lambda text, share: told.append(share), failed.append, state.add)
    uploads.put("notes.txt", b"no picture")
    path = tmp_path / "anna.png"
    Image.fromarray(np.full((300, 300, 3), 90, np.uint8)).save(path)
    uploads.put("empty.png", path.read_bytes())
    wait_for(lambda: len(failed) == 2, 60)
    assert "notes.txt" in failed[0] and "no face was found" in failed[1]
    Image.fromarray(portrait()).save(path)
    uploads.put("anna.png", path.read_bytes())
    wait_for(lambda: len(state.people) == 2, 60)
    uploads.stop()
    assert state.index == 1 and state.viewed.title == "anna" and state.can_be_over_photo
    assert told[0] < told[-1] and len(failed) == 2


def test_results_that_cannot_be_shown(result, tmp_path):
    shutil.copy(result.folder / "face.glb", tmp_path / "other.glb")
    with pytest.raises(OptionError, match="--html"):
        load_faces([ResultFiles(tmp_path / "other.glb")])
    text = (result.folder / "face.json").read_text().replace('"name": "open"', '"name": "flame2020"')
    (tmp_path / "face.json").write_text(text)
    with pytest.raises(OptionError, match="flame2020"):
        load_faces([ResultFiles(tmp_path / "other.glb", tmp_path / "face.json")])


class Control:
    """A control of a page that is not there."""

    def __init__(self, *given, initial_value=None, **more) -> None:
        self.value = given[1] if initial_value is None and len(given) > 1 else initial_value
        self.hear = lambda event: None

    def on_update(self, react):
        self.hear = react
        return react

    def on_click(self, react):
        return react

    def __enter__(self):
        return self

    def __exit__(self, *_):
        return None

    def set_by_page(self, value) -> None:
        self.value = value

    def heard(self) -> None:
        self.hear(SimpleNamespace(target=self))


class Page:
    """Takes any control; `gui` and `scene` of viser's server."""

    def __getattr__(self, name):
        return lambda *given, **more: Control(*given, **more)


def test_controls_and_state_do_not_overrule_each_other(state):
    panel = FacePanel(SimpleNamespace(gui=Page(), scene=Page()), state)
    panel.build_person()
    panel.build_expression()
    panel.build_look()
    panel.sync()
    jaw, smile = panel.sliders["jawOpen"], panel.sliders["mouthSmileLeft"]
    assert smile.value == pytest.approx(0.6) and panel.handles["person"].value == "anna person1"
    jaw.set_by_page(0.8)
    panel.sync()  # before anybody has heard of it
    assert jaw.value == 0.8
    jaw.heard()
    assert state.weights["jawOpen"] == pytest.approx(0.8)
    state.preset({"jawOpen": 0.2})
    panel.sync()
    assert (jaw.value, smile.value) == (0.2, 0.0)
    jaw.heard()  # the echo of what was told
    smile.heard()
    assert {n: v for n, v in state.weights.items() if v} == {"jawOpen": pytest.approx(0.2)}


def test_an_empty_viewer_shows_its_backdrop():
    state = ViewerState()
    picture = state.picture(VIEW)
    assert picture.shape == (240, 240, 3) and picture.min() > 150 and state.weights == {}
    state.preset({"jawOpen": 1.0})
    state.photo_expression()
    assert state.face() is None
