# SPDX-License-Identifier: Apache-2.0
"""The interactive viewer in a real browser, on this computer only: what is moved is what is seen."""

from __future__ import annotations

import io
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from itertools import pairwise

import numpy as np
import pytest
import torch
from PIL import Image

from hiface.animation.live_link_udp import LiveLinkSender
from hiface.app.results import find_results
from hiface.app.viewer_faces import load_faces
from hiface.cli import view as command
from hiface.cli.main import main
from hiface.errors import MissingExtraError, OptionError
from portrait import portrait
from viewer_result import chromium, write_result

pytest.importorskip("viser")

from hiface.app import server
from hiface.app.server import ViewerServer, serve

SIZE = {"width": 1000, "height": 600}
HARMLESS = (  # said by viser's own page and by Chromium without a graphics processor
    "THREE.Clock: This module has been deprecated",
    "GPU stall due to ReadPixels",
    "Automatic fallback to software WebGL",
)
SLIDER = """(name) => {
  const label = [...document.querySelectorAll("*")].find((e) => !e.children.length && e.textContent === name);
  let row = label;
  while (!row.querySelector("[role=slider]")) row = row.parentElement;
  return row.querySelector("[role=slider]");
}"""


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    return write_result(tmp_path_factory.mktemp("result"))


@pytest.fixture(scope="module")
def browser():
    with chromium() as launch:
        browser = launch()
        yield browser
        browser.close()


class Page:
    """An open page of a server of its own, and everything that it has said or asked for."""

    def __init__(self, browser, people) -> None:
        self.viewer = ViewerServer(people, port=0, live_host="127.0.0.1")
        self.context = browser.new_context(viewport=SIZE)
        self.page = self.context.new_page()
        self.said, self.asked = [], []
        self.page.on("console", self.hear)
        self.page.on("pageerror", lambda e: self.said.append(f"error: {e}"))
        self.page.on("request", lambda r: self.asked.append(r.url))
        self.page.on("websocket", lambda s: self.asked.append(s.url))
        self.page.goto(self.viewer.url)
        self.wait_for(lambda: self.viewer.stage.drawn > 1, 30)
        notice = self.page.get_by_text("Software WebGL rendering detected")
        if notice.count():
            self.page.locator(".mantine-Notification-closeButton").first.click()

    def hear(self, message) -> None:
        if message.type in ("warning", "error") and not any(known in message.text for known in HARMLESS):
            self.said.append(f"{message.type}: {message.text}")

    def wait_for(self, what, seconds: float = 10.0) -> None:
        end = time.monotonic() + seconds
        while not what() and time.monotonic() < end:
            self.page.wait_for_timeout(20)
        assert what(), f"not after {seconds} s; {self.viewer.stage.fault} {self.viewer.tools.message}"

    def picture(self) -> np.ndarray:
        """[H, W, 3] the head's part of the page when nothing moves any more."""
        drawn, since = -1, time.monotonic()
        while time.monotonic() - since < 0.5:
            if self.viewer.stage.drawn != drawn or not self.viewer.stage.rests:
                drawn, since = self.viewer.stage.drawn, time.monotonic()
            self.page.wait_for_timeout(20)
        shot = self.page.screenshot(clip={"x": 0, "y": 0, "width": 620, "height": 600})
        return np.asarray(Image.open(io.BytesIO(shot)).convert("RGB")).astype(int)

    def tab(self, name: str) -> None:
        self.page.get_by_role("tab", name=name).click()

    def close(self) -> None:
        self.context.close()
        self.viewer.stop()


@pytest.fixture
def page(browser, result):
    page = Page(browser, load_faces(find_results(result.folder)))
    yield page
    page.close()
    assert not page.said, page.said
    own = (page.viewer.url, page.viewer.url.replace("http", "ws"), "blob:", "data:")
    assert [url for url in page.asked if not url.startswith(own)] == []


def head_of(picture: np.ndarray) -> tuple[int, int, int, int]:
    """Left, top, right, bottom of what is coloured like skin."""
    rows, columns = np.nonzero(picture[..., 0] - picture[..., 2] > 25)
    return columns.min(), rows.min(), columns.max(), rows.max()


def lower_and_upper(before: np.ndarray, after: np.ndarray) -> tuple[float, float]:
    left, top, right, bottom = head_of(before)
    changed = np.abs(after - before).max(-1)[:, left:right]
    middle = top + (bottom - top) // 2
    forehead = changed[top : top + (middle - top) // 2]
    return changed[middle:bottom].mean(), np.quantile(forehead, 0.8)  # viser may smooth the outline later on


def test_it_shows_the_head(page):
    picture = page.picture()
    left, top, right, bottom = head_of(picture)
    assert 0.4 * 600 < bottom - top < 0.95 * 600 and right - left > 150
    assert page.page.get_by_text("jawOpen", exact=True).count() == 1
    assert page.viewer.face.handles["person"].value == "anna person1"


def test_a_value_set_by_a_program_opens_the_jaw(page):
    before = page.picture()
    page.viewer.face.sliders["jawOpen"].value = 0.9
    page.wait_for(lambda: page.viewer.state.weights["jawOpen"] == pytest.approx(0.9))
    lower, upper = lower_and_upper(before, page.picture())
    assert lower > 3 and upper <= 1, (lower, upper)


def test_the_slider_of_the_page_opens_the_jaw(page):
    before = page.picture()
    thumb = page.page.evaluate_handle(SLIDER, "jawOpen").as_element()
    box = thumb.bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    drag = page.page.mouse
    drag.move(x, y)
    drag.down()
    drag.move(x + 60, y, steps=4)
    drag.up()
    page.wait_for(lambda: 0.1 < page.viewer.state.weights["jawOpen"] < 0.9)
    thumb.focus()
    page.page.keyboard.press("End")  # arrows would turn viser's view as well
    page.wait_for(lambda: page.viewer.state.weights["jawOpen"] == pytest.approx(1.0))
    lower, upper = lower_and_upper(before, page.picture())
    assert lower > 3 and upper <= 1, (lower, upper)


def test_controls_follow_presets_and_links(page):
    page.page.get_by_role("button", name="wink").click()
    sliders = page.viewer.face.sliders
    page.wait_for(lambda: sliders["eyeBlinkLeft"].value == 1 and sliders["mouthSmileRight"].value == 0)
    sliders["mouthSmileRight"].value = 0.4
    page.wait_for(lambda: sliders["mouthSmileLeft"].value == pytest.approx(0.4))
    assert page.viewer.state.weights["mouthSmileLeft"] == pytest.approx(0.4)
    page.page.get_by_role("button", name="neutral").click()
    page.wait_for(lambda: not any(slider.value for slider in sliders.values()))
    assert not any(page.viewer.state.weights.values())


def test_shadings_wires_and_photo_change_the_picture(page):
    page.tab("Look")
    handles = page.viewer.face.handles
    seen = [page.picture()]
    handles["shading"].value = "clay"
    seen.append(page.picture())
    page.page.locator("input[type=checkbox]:visible").first.click()
    page.wait_for(lambda: page.viewer.state.look.wires)
    seen.append(page.picture())
    handles["over_photo"].value = True
    seen.append(page.picture())
    for one, other in pairwise(seen):
        assert np.abs(one - other).mean() > 0.5
    blue = seen[3][..., 2] - seen[3][..., 0] > 40  # the photo's background
    assert blue.mean() > 0.2 and page.viewer.state.look.light == "photo"


def test_dragging_turns_the_head(page):
    before = page.picture()
    page.page.mouse.move(300, 450)
    page.page.mouse.down()
    page.page.mouse.move(420, 450, steps=4)
    page.page.mouse.up()
    after = page.picture()
    assert np.abs(after - before).mean() > 3 and page.viewer.state.weights["jawOpen"] < 0.05


def test_dragging_the_lamp_moves_the_light(page):
    """By its arrow to the right, over the head to the other side."""
    page.viewer.face.handles["shading"].value = "clay"
    before = page.picture()
    (client,) = page.viewer.stage.clients
    view = page.viewer.stage.view_of(client)
    lamp = torch.tensor(page.viewer.state.look.lamp_m)
    (_, y), (arrow_x, _) = view.project(torch.stack([lamp, lamp + torch.tensor([0.03, 0.0, 0.0])])).tolist()
    scale = page.page.locator("canvas").first.bounding_box()["width"] / view.width
    page.page.mouse.move(scale * arrow_x, scale * y)
    page.page.wait_for_timeout(300)
    page.page.mouse.down()
    page.page.wait_for_timeout(100)
    page.page.mouse.move(scale * arrow_x + 360, scale * y, steps=6)
    page.page.wait_for_timeout(200)
    page.page.mouse.up()
    page.wait_for(lambda: page.viewer.state.look.lamp_m[0] > 0.05)
    after = page.picture()
    left, top, right, bottom = head_of(np.where(before < 200, [90, 0, 0], [0, 0, 0]))
    half = (left + right) // 2
    change = (after - before)[(2 * top + bottom) // 3 : bottom, :, 1]
    assert change[:, left + 20 : half - 40].mean() < -8 and change[:, half + 40 : right - 20].mean() > 8


def test_dropped_files_end_in_a_second_face_or_a_message(page, tmp_path):
    path = tmp_path / "berta.png"
    path.write_bytes(b"no picture at all")
    page.page.set_input_files("input[type=file]", path)
    page.wait_for(lambda: "berta.png" in page.viewer.tools.message)
    page.page.get_by_text("That did not work").wait_for(timeout=5000)
    before = page.picture()
    path = tmp_path / "carla.png"  # a browser says nothing of the same file again
    Image.fromarray(portrait(400, 5)).save(path)
    page.page.set_input_files("input[type=file]", path)
    page.wait_for(lambda: len(page.viewer.state.people) == 2, 60)
    page.wait_for(lambda: page.viewer.face.handles["person"].value == "carla")
    assert np.abs(page.picture() - before).mean() > 2
    page.viewer.face.handles["person"].value = page.viewer.face.handles["person"].options[0]
    page.wait_for(lambda: page.viewer.state.index == 0)


def test_picture_and_glb_are_saved(page):
    page.tab("Look")
    with page.page.expect_download() as waiting:
        page.page.get_by_role("button", name="picture").click()
    saved = np.asarray(Image.open(waiting.value.path()).convert("RGB")).astype(int)
    seen = page.picture()
    assert waiting.value.suggested_filename.endswith(".png") and saved.shape[0] == 600
    assert np.abs(saved[200:, 300:600] - seen[200:, 300:600]).mean() < 6
    page.viewer.state.preset({"jawOpen": 0.5})
    with page.page.expect_download() as waiting:
        page.page.get_by_role("button", name="GLB").click()
    assert waiting.value.path().read_bytes()[:4] == b"glTF"


HOSTILE = "<img src=x onerror=\"document.title='taken'\"> **bold** ![a](b.png) [c](http://d.e/)"


def test_text_of_strangers_stays_text(page, tmp_path):
    page.tab("Motion")
    page.viewer.tools.live.start(0)
    with LiveLinkSender("127.0.0.1", page.viewer.tools.live.port, HOSTILE) as sender:
        sender.send(torch.zeros(52))
    page.wait_for(lambda: page.viewer.tools.live.frames == 1)
    page.page.get_by_text(HOSTILE).wait_for(timeout=5000)
    path = tmp_path / "_<img src=x onerror=alert(1)>_.png"
    path.write_bytes(b"no picture at all")
    page.page.set_input_files("input[type=file]", path)
    page.page.get_by_text(path.name).first.wait_for(timeout=5000)
    assert page.page.title() != "taken"
    assert page.page.locator("img[src=x], a[href*='d.e'], strong").count() == 0


def test_an_empty_viewer_waits_for_photos(browser):
    page = Page(browser, [])
    assert page.page.get_by_text("Add a photo").count() == 1
    page.viewer.face.sliders["jawOpen"].value = 0.5
    assert page.picture()[300:, 100:500].min() > 150
    page.close()
    assert not page.said


def test_live_link_listens_where_the_page_is_served():
    with ViewerServer(host="127.0.0.1", port=0) as viewer:
        viewer.tools.live.start(0)
        receiver = viewer.tools.live._receiver
        assert receiver is not None and receiver._socket.getsockname()[0] == "127.0.0.1"


def test_controls_follow_on_after_a_fault(monkeypatch):
    with ViewerServer(port=0) as viewer:
        done = threading.Event()

        def fails() -> None:
            monkeypatch.setattr(viewer.tools, "sync", done.set)
            raise RuntimeError("gone")

        monkeypatch.setattr(viewer.tools, "sync", fails)
        assert done.wait(5.0) and viewer.fault == "RuntimeError: gone"


def test_a_busy_port_is_named(result):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(OptionError, match=rf"port {port} .*--port"):
            ViewerServer(port=port)
    with pytest.raises(OptionError, match="--port"):
        ViewerServer(port=70000)
    with pytest.raises(OptionError, match="--host"):
        ViewerServer(host="no.such.host.invalid", port=0)


def test_without_viser_the_line_to_type_is_said(monkeypatch):
    monkeypatch.setitem(sys.modules, "viser", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'hiface\[view\]'"):
        serve([])


def test_ctrl_c_ends_the_command(result):
    code = "from hiface.cli.main import main; main()"
    command = [sys.executable, "-c", code, "view", str(result.folder), "--port", "0"]
    env = {**os.environ, "COLUMNS": "200"}
    running = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=env)
    try:
        assert running.stderr is not None
        line = running.stderr.readline()
        assert line.startswith("http://127.0.0.1:"), line
        port = int(line.split(":")[2].split()[0])
        with socket.create_connection(("127.0.0.1", port), timeout=5):
            pass
        running.send_signal(signal.SIGINT)
        assert running.wait(timeout=20) == 0 and "Traceback" not in running.stderr.read()
    finally:
        running.kill()
        running.wait()


def test_the_command_and_the_server_have_the_same_defaults():
    assert (command._HOST, command._PORT) == (server.HOST, server.PORT)


def test_options_of_pages_and_server_are_kept_apart(result, capsys):
    for words in (["--html", "--port", "9000"], ["--html"], ["-o", "a.html"]):
        where = [] if words == ["--html"] else [str(result.folder)]
        with pytest.raises(SystemExit) as stopped:
            main(["view", *where, *words])
        assert stopped.value.code == 1 and "--html" in " ".join(capsys.readouterr().err.split())
