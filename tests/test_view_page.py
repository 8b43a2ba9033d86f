"""The viewer page in a real browser, opened from a file: what is seen is what was asked for."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from hiface.animation.motion import Motion
from hiface.animation.onto_glb import animate_glb
from hiface.app import viewer_page, write_viewer_page
from hiface.app.results import ResultFiles, find_results
from hiface.assets import load_json_asset
from hiface.export.clips import expression_clip
from hiface.export.glb import write_glb
from hiface.morphable import load_model
from toy import toy_model
from viewer_result import (
    chromium,
    decoded,
    document_of,
    head_mask,
    known_params,
    with_document,
    without_targets,
    write_result,
)

SIZE = {"width": 800, "height": 520}
ARKIT = load_json_asset("expressions/arkit52.json")["names"]
CANVAS = """async () => {
  const v = await window.hifaceViewer;
  await v.stage.drawn();
  return v.stage.canvas.toDataURL();
}"""

AWAIT_HALF_A_SECOND = """async () => {
  const time = document.getElementById("time");
  for (let i = 0; time.valueAsNumber < 0.5 && i < 200; i++) {
    await new Promise((done) => setTimeout(done, 100));
  }
  if (time.valueAsNumber < 0.5) throw new Error(`stands at ${time.value}`);
}"""


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    return write_result(tmp_path_factory.mktemp("result"))


@pytest.fixture(scope="module")
def address(result) -> str:
    path = result.folder / "face.html"
    write_viewer_page(path, find_results(result.folder)[0])
    return path.as_uri()


@pytest.fixture(scope="module")
def launch():
    with chromium() as launch:
        yield launch


@pytest.fixture(scope="module")
def browser(launch):
    browser = launch()
    yield browser
    browser.close()


class Viewer:
    """One open page, and everything that it has said or asked for."""

    def __init__(self, browser, address: str, size=SIZE) -> None:
        self.context = browser.new_context(viewport=size, offline=True)
        self.page = self.context.new_page()
        self.said: list[str] = []
        self.asked: list[str] = []
        self.page.on("console", self.hear)
        self.page.on("pageerror", lambda e: self.said.append(f"error: {e}"))
        self.page.on("request", lambda r: self.asked.append(r.url))
        self.page.goto(address)
        self.shown = self.page.evaluate("window.hifaceViewer.then(Boolean)")

    def hear(self, message) -> None:
        if "GPU stall due to ReadPixels" not in message.text:  # these tests read pixels, the page does not
            self.said.append(f"{message.type}: {message.text}")

    def canvas(self) -> np.ndarray:
        """[H, W, 4] what WebGL has drawn, without what is behind."""
        return decoded(self.page.evaluate(CANVAS)).astype(int)

    def weights(self) -> dict[str, float]:
        return self.page.evaluate("window.hifaceViewer.then(v => Object.fromEntries(v.head.weights))")

    def move(self, name: str, value: float) -> None:
        self.page.locator(f"input[name={name}]").fill(str(value))

    def box(self, what: str) -> tuple[float, float, float, float]:
        box = self.page.locator(what).bounding_box()
        assert box
        return box["x"], box["y"], box["width"], box["height"]

    def over_the_photo(self, opacity: float = 1.0) -> None:
        self.page.check("#backdrop")
        self.page.locator("#opacity").fill(str(opacity))

    def photo_to_canvas(self, points: np.ndarray, width: int) -> np.ndarray:
        """Pixels of the photo as pixels of the canvas, by where the browser lays the two."""
        (px, py, pw, _), (cx, cy, _, _) = self.box("#photo"), self.box("#view")
        return points * pw / width + np.array([px - cx, py - cy])


@pytest.fixture
def viewer(browser, address):
    viewer = Viewer(browser, address)
    assert viewer.shown, viewer.page.inner_text("#message")
    yield viewer
    viewer.context.close()
    assert not viewer.said, viewer.said


def test_it_opens_alone_and_asks_for_nothing(viewer):
    assert viewer.page.locator("#message").is_hidden()
    assert [url for url in viewer.asked if not url.startswith("blob:")] == [viewer.page.url]
    drawn = viewer.canvas()[..., 3] > 128
    assert 0.15 < drawn.mean() < 0.7 and not drawn[0].any() and not drawn[:, 0].any()
    sliders = viewer.page.locator("#sliders input")
    assert sliders.count() == 52 and set(viewer.weights()) == set(ARKIT)
    assert viewer.page.locator("#sliders summary").all_inner_texts() == [
        "Eyes 14",
        "Brows 5",
        "Jaw 4",
        "Mouth 23",
        "Cheeks 3",
        "Nose 2",
        "Tongue 1",
    ]


def test_it_opens_with_the_expression_of_the_photo(viewer):
    truth = dict(zip(ARKIT, known_params().expression.tolist(), strict=True))
    assert viewer.weights() == pytest.approx(truth, abs=1e-5)
    shown = viewer.page.locator(".slider", has_text="mouthSmileLeft").locator("output").inner_text()
    assert shown == "0.60"


def test_the_head_lies_on_the_photo_and_looks_like_it(viewer, result):
    viewer.over_the_photo()
    canvas, camera = viewer.canvas(), result.params.camera
    photo = np.asarray(Image.open(result.photo)).astype(int)
    rows, columns = np.mgrid[: camera.height, : camera.width]
    at = viewer.photo_to_canvas(np.stack([columns, rows], -1) + 0.5, camera.width)
    x, y = np.floor(at).astype(int).transpose(2, 0, 1)
    inside = (x >= 0) & (y >= 0) & (x < canvas.shape[1]) & (y < canvas.shape[0])
    seen, truth = canvas[y[inside], x[inside]], head_mask(result.params)[inside]
    assert truth.sum() >= 0.95 * head_mask(result.params).sum()
    drawn = seen[:, 3] > 128
    overlap = (drawn & truth).sum() / (drawn | truth).sum()
    assert overlap > 0.98, f"silhouettes overlap by {overlap:.4f}"
    off = np.abs(seen[:, :3] - photo[inside])[drawn & truth].mean()
    assert off < 9, f"colours are {off:.1f} of 255 off, with the light of the photo"


def test_the_photo_shows_through(viewer):
    viewer.over_the_photo(0.25)
    assert viewer.page.locator("#view").evaluate("e => getComputedStyle(e).opacity") == "0.25"
    assert viewer.page.locator("#photo").is_visible()
    viewer.page.keyboard.press("b")
    assert viewer.page.locator("#photo").is_hidden()
    assert viewer.page.locator("#view").evaluate("e => getComputedStyle(e).opacity") == "1"


def test_jaw_open_moves_the_mouth_and_not_the_scalp(viewer, result):
    viewer.over_the_photo()
    before = viewer.canvas()
    viewer.move("jawOpen", 0.9)
    after = viewer.canvas()
    params, model = result.params, load_model("open")
    verts = model.vertices(params.identity, params.expression, params.pose)
    points = params.camera.project(model.landmarks("ibug68", verts)).numpy()
    points = viewer.photo_to_canvas(points, params.camera.width)
    changed = np.abs(after - before).max(-1)
    x0, y0 = points[48:60].min(0).astype(int)
    x1, y1 = points[48:60].max(0).astype(int)
    assert changed[y0:y1, x0:x1].mean() > 15
    top, brows = np.flatnonzero(before[..., 3].any(1))[0], points[17:27, 1].min()
    assert changed[: int(0.5 * (top + brows))].max() <= 2 and viewer.weights()["jawOpen"] == pytest.approx(
        0.9
    )


def test_sides_move_together_when_linked(viewer):
    viewer.page.click("text=neutral")
    assert not any(viewer.weights().values())
    for name, value in {"mouthSmileLeft": 0.4, "eyeLookInRight": 0.7, "jawLeft": 0.5}.items():
        viewer.move(name, value)
    moved = {name: round(value, 4) for name, value in viewer.weights().items() if value}
    expected = {"mouthSmileLeft": 0.4, "mouthSmileRight": 0.4, "eyeLookInRight": 0.7, "eyeLookOutLeft": 0.7}
    assert moved == {**expected, "jawLeft": 0.5}
    viewer.page.uncheck("#link")
    viewer.move("mouthSmileLeft", 0.9)
    assert viewer.weights()["mouthSmileRight"] == pytest.approx(0.4)
    viewer.page.click("#reset-sliders")
    assert not any(viewer.weights().values())


def test_presets_and_search(viewer):
    presets = load_json_asset("expressions/presets.json")["presets"]
    for name in ("surprise", "wink"):
        viewer.page.get_by_role("button", name=name, exact=True).click()
        assert {k: v for k, v in viewer.weights().items() if v} == pytest.approx(presets[name], abs=1e-6)
    viewer.page.get_by_role("button", name="random").click()
    assert 0 < max(viewer.weights().values()) <= 1
    viewer.page.fill("#search", "JAW")
    shown = [s for s in viewer.page.locator(".slider").all() if s.is_visible()]
    assert len(shown) == 4 and viewer.page.locator("#no-match").is_hidden()
    viewer.page.fill("#search", "elbow")
    assert viewer.page.locator("#no-match").is_visible()


def test_shadings_differ_and_come_back(viewer):
    first = viewer.canvas()
    pictures = {}
    for mode in ("clay", "normals", "albedo", "relief", "textured"):
        viewer.page.check(f"input[value={mode}]")
        pictures[mode] = viewer.canvas()
    assert np.array_equal(pictures["textured"], first)
    drawn = first[..., 3] == 255
    for mode in ("clay", "normals", "albedo", "relief"):
        assert np.abs(pictures[mode] - first)[drawn].mean() > 8, mode
    spread = np.ptp(pictures["clay"][drawn][:, :3], axis=1)
    assert np.median(spread) < 16, "clay is grey"
    head = np.argwhere(drawn)
    top, bottom = head[:, 0].min(), head[:, 0].max()
    row = top + (bottom - top) // 4  # across the forehead, above the ears
    columns = np.flatnonzero(drawn[row])
    across = pictures["normals"][row, columns[0] + 8 : columns[-1] - 8]
    assert across[-8:, 0].mean() > 190 and across[:8, 0].mean() < 65, "red to the right"


def test_wires_come_and_go(viewer):
    before = viewer.canvas()
    viewer.page.keyboard.press("w")
    wires = viewer.canvas()
    drawn = before[..., 3] == 255
    assert (np.abs(wires - before).max(-1)[drawn] > 25).mean() > 0.1
    viewer.page.keyboard.press("w")
    assert np.array_equal(viewer.canvas(), before)


def test_detail_can_be_switched(viewer):
    """The known relief is rows of 0.3 mm; the normals beside the file say twice as much."""
    viewer.page.check("input[value=clay]")
    rough = {}
    for choice in ("off", "static", "photo"):
        viewer.page.select_option("#detail", choice)
        picture = viewer.canvas()
        drawn = np.argwhere(picture[..., 3] == 255)
        (top, left), (bottom, right) = drawn.min(0), drawn.max(0)
        third, middle = (bottom - top) // 3, (left + right) // 2
        forehead = picture[top + third // 3 : top + third, middle - 30 : middle + 30, 1]
        rough[choice] = np.abs(np.diff(forehead, 2, axis=0)).mean()
    assert rough["static"] > 1.5 * rough["off"] and rough["photo"] > 1.3 * rough["static"], rough


def test_the_clip_plays(viewer, result):
    page = viewer.page
    clip = expression_clip(result.params.expression.numpy(), ARKIT)
    page.locator("#time").fill("3.45")
    expected = {n: np.interp(3.45, clip.times, clip.weights[:, i]) for i, n in enumerate(ARKIT)}
    assert viewer.weights() == pytest.approx(expected, abs=1e-4) and expected["eyeBlinkLeft"] > 0.9
    page.locator("#time").fill("0")
    page.locator("#view").focus()
    page.keyboard.press(" ")
    page.evaluate(AWAIT_HALF_A_SECOND)
    assert page.inner_text("#play") == "Pause"
    page.keyboard.press(" ")
    stopped = viewer.weights()
    assert page.inner_text("#play") == "Play"
    viewer.move("jawOpen", 0.5)
    assert viewer.weights()["mouthSmileLeft"] == stopped["mouthSmileLeft"]


def halves(picture: np.ndarray) -> float:
    """How much brighter the drawn head is in its right half."""
    drawn = picture[..., 3] == 255
    columns = np.flatnonzero(drawn.any(0))
    middle = int(columns.mean())
    light = picture[..., :3].mean(-1)
    return light[:, middle:][drawn[:, middle:]].mean() - light[:, :middle][drawn[:, :middle]].mean()


def drag(page, start, end) -> None:
    page.mouse.move(*start)
    page.mouse.down()
    page.mouse.move(*end, steps=3)
    page.mouse.up()


def test_the_light_follows_ball_keys_and_shift_drag(viewer):
    page = viewer.page
    x, y, w, h = viewer.box("#ball")
    drag(page, (x + w / 2, y + h / 2), (x + 0.9 * w, y + h / 2))
    assert halves(viewer.canvas()) > 15
    page.locator("#ball").focus()
    for _ in range(20):
        page.keyboard.press("ArrowLeft")
    assert halves(viewer.canvas()) < -15
    before = viewer.canvas()[..., 3]
    page.keyboard.down("Shift")
    drag(page, (180, 260), (390, 260))
    page.keyboard.up("Shift")
    after = viewer.canvas()
    assert halves(after) > 15 and np.array_equal(after[..., 3], before), "the camera stays"
    page.locator("#intensity").fill("0.3")
    dim = viewer.canvas()
    assert dim[..., :3].sum() < 0.75 * after[..., :3].sum()


def test_dragging_turns_and_r_resets(viewer):
    before = viewer.canvas()
    drag(viewer.page, (180, 260), (300, 260))
    viewer.page.wait_for_timeout(300)
    assert np.abs(viewer.canvas() - before).mean() > 5
    viewer.page.keyboard.press("r")
    viewer.page.wait_for_timeout(600)
    assert np.abs(viewer.canvas() - before).mean() < 0.5
    viewer.page.locator("#view").focus()
    for key in ("ArrowLeft", "ArrowLeft", "ArrowUp"):
        viewer.page.keyboard.press(key)
    assert np.abs(viewer.canvas() - before).mean() > 2
    for key in ("ArrowRight", "ArrowRight", "ArrowDown"):
        viewer.page.keyboard.press(key)
    assert np.abs(viewer.canvas() - before).mean() < 0.5


def test_a_picture_is_saved(viewer):
    viewer.over_the_photo(0.5)
    with viewer.page.expect_download() as waiting:
        viewer.page.click("#save")
    picture = np.asarray(Image.open(waiting.value.path()).convert("RGB")).astype(int)
    shot = viewer.page.locator("#stage").screenshot()
    seen = np.asarray(Image.open(io.BytesIO(shot)).convert("RGB")).astype(int)
    assert picture.shape == seen.shape and waiting.value.suggested_filename == "anna person1.png"
    apart = np.abs(picture - seen)[:, 100:].mean()  # the ball is part of the page, not of the picture
    assert apart < 3, apart


def test_controls_have_names_and_fit_a_telephone(browser, address):
    viewer = Viewer(browser, address, {"width": 360, "height": 740})
    nameless = viewer.page.evaluate(
        """() => [...document.querySelectorAll("input, select, button, canvas, #ball")].filter(e =>
        !(e.getAttribute("aria-label") || e.textContent.trim() || [...(e.labels ?? [])].some(l =>
        l.textContent.trim()))).map(e => e.outerHTML)"""
    )
    assert nameless == []
    assert viewer.page.evaluate("document.documentElement.scrollWidth") <= 360
    wide = viewer.page.evaluate(
        "[...document.querySelectorAll('#panel *')].filter(e => e.getBoundingClientRect().right > 361).length"
    )
    drawn = viewer.canvas()[..., 3] > 128
    assert wide == 0 and drawn.mean() > 0.1 and not drawn[:, 0].any() and not viewer.said
    viewer.context.close()


def test_the_panel_fits_with_ordinary_scrollbars(launch, address):
    browser = launch(ignore_default_args=["--hide-scrollbars"])
    viewer = Viewer(browser, address, {"width": 1280, "height": 900})
    gutter, over = viewer.page.evaluate(
        """() => [panel.offsetWidth - panel.clientWidth, [panel, ...panel.querySelectorAll(".slider > *")]
        .filter(e => e.scrollWidth > e.clientWidth && e.clientWidth).map(e => e.outerHTML.slice(0, 80))]"""
    )
    edge = viewer.page.evaluate("panel.getBoundingClientRect().left + panel.clientWidth")
    x, _, width, _ = viewer.box(".slider output >> nth=0")
    assert gutter > 5 and over == [] and x + width <= edge
    browser.close()


def test_a_video_opens_with_its_first_frame(browser, result, tmp_path):
    document = document_of(result.glb)
    document["meshes"][0].pop("weights")
    for node in document["nodes"]:
        node.pop("weights", None)
    motion = Motion(torch.full((2, 52), 0.25), None, torch.tensor([0.0, 1.0]))
    document.pop("animations")
    viewer = plain_page(browser, tmp_path, animate_glb(with_document(result.glb, document), motion))
    assert set(viewer.weights().values()) == {0.25} and not viewer.said
    viewer.page.click("text=neutral")
    assert set(viewer.weights().values()) == {0}
    viewer.page.click("text=as opened")
    assert set(viewer.weights().values()) == {0.25}
    viewer.context.close()


def test_a_map_that_the_browser_cannot_read_is_missing(browser, result, tmp_path):
    page = viewer_page(result.glb, title="", maps={"normals": b"no picture", "relief": b"nor this"})
    (tmp_path / "a.html").write_text(page, encoding="utf-8")
    viewer = Viewer(browser, (tmp_path / "a.html").as_uri())
    assert viewer.shown and viewer.page.locator("#relief-choice").is_hidden()
    assert viewer.page.locator("#detail option[value=photo]").count() == 0
    viewer.context.close()


def plain_page(browser, folder: Path, glb: bytes) -> Viewer:
    path = folder / "other.glb"
    path.write_bytes(glb)
    write_viewer_page(path.with_suffix(".html"), ResultFiles(path))
    return Viewer(browser, path.with_suffix(".html").as_uri())


def test_a_file_without_morph_targets_is_shown(browser, result, tmp_path):
    viewer = plain_page(browser, tmp_path, without_targets(result.glb))
    assert viewer.shown and not viewer.said and (viewer.canvas()[..., 3] > 128).mean() > 0.1
    assert viewer.page.locator("#no-expressions").is_visible()
    hidden = ("#expressions", "#clip-section", "#photo-section")
    assert all(viewer.page.locator(name).is_hidden() for name in hidden)
    viewer.context.close()


def test_other_names_get_sliders_too(browser, tmp_path):
    model = toy_model()
    named = model.data.expression_names
    params = known_params().replace(
        identity=known_params().identity[: model.data.n_identity] * 0,
        expression=model.expression_vector({}),
        albedo=known_params().albedo[: len(model.data.albedo_names)],
    )
    write_glb(tmp_path / "toy.glb", model, params, None, units="mm")
    document = (tmp_path / "toy.glb").read_bytes()
    for i, name in enumerate(named):
        document = document.replace(f'"{name}"'.encode(), f'"{i:0{len(name)}d}"'.encode())
    viewer = plain_page(browser, tmp_path, document)
    assert viewer.shown and not viewer.said and (viewer.canvas()[..., 3] > 128).mean() > 0.1
    assert viewer.page.locator("#sliders summary").all_inner_texts() == [f"Other {len(named)}"]
    assert viewer.page.locator("#presets button").all_inner_texts() == ["neutral"]
    viewer.context.close()


def test_a_browser_without_webgl_says_so(launch, address):
    browser = launch("--disable-3d-apis")
    viewer = Viewer(browser, address)
    assert not viewer.shown and "WebGL" in viewer.page.inner_text("#message")
    browser.close()
