"""What the viewer page is made of, read back from its text; finding results; the command."""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import json
import re
import shutil
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from hiface.app import viewer_page, write_viewer_page
from hiface.app.html import RELIEF_M, relief_picture
from hiface.app.results import find_results
from hiface.app.viewer_faces import load_faces
from hiface.assets import load_json_asset
from hiface.cli import view as command
from hiface.cli.main import main
from hiface.data.images import Photo
from hiface.errors import FaceFileError, MeshFileError, OptionError, OutputError, ShapeError
from hiface.export.detail_maps import displacement_png, read_displacement_png
from hiface.export.pictures import pil_png
from hiface.render.shade import shade
from viewer_result import document_of, with_document, write_result

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    return write_result(tmp_path_factory.mktemp("result"))


def script(page: str, name: str) -> str | None:
    found = re.search(rf'<script id="{name}"[^>]*>(.*?)</script>', page, re.DOTALL)
    return found and found[1]


def facts(page: str) -> dict:
    return json.loads(script(page, "facts") or "")


def three_js_light(rows: list, normals: np.ndarray) -> np.ndarray:
    """What LightProbe adds to a white surface: Ramamoorthi and Hanrahan 2001, equation 13, over pi."""
    c1, c2, c3, c4, c5 = 0.429043, 0.511664, 0.743125, 0.886227, 0.247708
    L00, L1_1, L10, L11, L2_2, L2_1, L20, L21, L22 = np.asarray(rows)
    x, y, z = (normals[:, i, None] for i in range(3))
    out = c4 * L00 + 2 * c2 * (L1_1 * y + L10 * z + L11 * x) + c3 * z * z * L20 - c5 * L20
    out = out + 2 * c1 * (L2_2 * x * y + L2_1 * y * z + L21 * x * z) + c1 * L22 * (x * x - y * y)
    return out / np.pi


def test_the_page_carries_the_file_whole(result):
    page = viewer_page(result.glb, title="anna")
    assert gzip.decompress(base64.b64decode(script(page, "glb") or "")) == result.glb
    assert script(page, "photo-file") is None and facts(page)["light"] is None
    camera = result.params.camera
    assert np.allclose(facts(page)["camera"]["K"], camera.K) and facts(page)["camera"]["width"] == 480
    assert not re.search(r'(src|href)="', page), "the page names another file"
    assert "default-src 'none'" in page and "three.js authors" in page


def test_text_of_others_stays_text(result):
    glb = result.glb
    document = document_of(glb)
    document["asset"]["extras"]["provenance"]["photo"] = "<script>a.jpg"
    page = viewer_page(with_document(glb, document), title="</script><b>&%DATA%")
    assert facts(page)["title"] == "</script><b>&%DATA%"
    assert "<b>" not in page and "<script>a.jpg" not in page
    assert page.count("<title>&lt;/script&gt;&lt;b&gt;&amp;%DATA%</title>") == 1


def test_light_is_that_of_the_photo_in_object_axes(result):
    params = result.params
    light = params.light + 0.1 * torch.randn(9, 3, generator=torch.Generator().manual_seed(0))
    rows = facts(viewer_page(result.glb, title="", light=light))["light"]
    normals = torch.nn.functional.normalize(torch.randn(50, 3), dim=1)
    expected = shade(torch.ones(50, 3), normals @ params.camera.R.T, light)
    assert np.allclose(three_js_light(rows, normals.numpy()), expected, atol=1e-4)
    with pytest.raises(ShapeError, match="light"):
        viewer_page(result.glb, title="", light=light[:4])


def test_the_camera_is_in_the_units_of_the_file(result):
    document = document_of(result.glb)
    document["asset"]["extras"]["units"] = "mm"
    t = np.asarray(
        facts(viewer_page(with_document(result.glb, document), title=""))["camera"]["T_cam_object"]
    )
    assert np.allclose(t[:3, 3], 1000 * result.params.camera.t, rtol=1e-5)
    assert np.allclose(t[:3, :3], result.params.camera.R, atol=1e-6)


def test_a_photo_of_other_proportions_is_refused(result):
    with pytest.raises(OptionError, match="480 x 560"):
        viewer_page(result.glb, title="", photo=Photo(np.zeros((480, 560, 3), np.uint8)))
    with pytest.raises(OptionError, match="gloss"):
        viewer_page(result.glb, title="", maps={"gloss": b""})


def test_large_photos_are_made_smaller(result):
    big = Photo(np.zeros((5600, 4800, 3), np.uint8))
    content = base64.b64decode(script(viewer_page(result.glb, title="", photo=big), "photo-file") or "")
    assert Image.open(io.BytesIO(content)).size == (1371, 1600)


def test_colours_of_relief():
    metres = torch.tensor([[[-RELIEF_M, -0.5 * RELIEF_M, 0.0, 0.5 * RELIEF_M, 2 * RELIEF_M]] * 5])
    row = np.asarray(Image.open(io.BytesIO(relief_picture(displacement_png(metres)))))[0].astype(int)
    assert row.shape == (5, 3) and (row[2] == 245).all()
    assert row[0, 2] > row[0, 0] + 100 and row[4, 0] > row[4, 2] + 100
    assert np.abs(2 * row[[1, 3]] - row[[0, 4]] - row[2]).max() <= 2, "half the relief, half the colour"
    for bad in (b"", (ROOT / "docs/images/worst.jpg").read_bytes()):
        with pytest.raises(MeshFileError, match="displacement"):
            relief_picture(bad)


def damaged(glb: bytes) -> dict[str, tuple[bytes, str]]:
    document = document_of(glb)
    outside = {**document, "images": [{"uri": "skin.png"}]}
    packed = {**document, "extensionsRequired": ["KHR_draco_mesh_compression"]}
    return {
        "empty": (b"", "no GLB"),
        "picture": (b"\x89PNG" + glb[4:], "no GLB"),
        "cut": (glb[:-5], "cut off"),
        "version": (glb[:4] + b"\1" + glb[5:], "version 1"),
        "json": (glb[:24] + b"\xff\xfe" + glb[26:], "damaged"),
        "list": (with_document(glb, []), "damaged"),  # pyright: ignore[reportArgumentType]
        "kinds": (with_document(glb, {**document, "buffers": 3}), "no glTF"),
        "no mesh": (with_document(glb, {"asset": {"version": "2.0"}}), "no mesh"),
        "outside": (with_document(glb, outside), "skin.png"),
        "packed": (with_document(glb, packed), "draco"),
        "no scenes": (with_document(glb, {k: v for k, v in document.items() if k != "scenes"}), "no scene"),
        "another scene": (with_document(glb, {**document, "scene": 3}), "no scene"),
    }


@pytest.mark.parametrize(
    "kind",
    [
        *["empty", "picture", "cut", "version", "json", "list", "kinds", "no mesh", "outside", "packed"],
        *["no scenes", "another scene"],
    ],
)
def test_files_that_cannot_be_shown(result, kind):
    content, reason = damaged(result.glb)[kind]
    with pytest.raises(MeshFileError, match=reason):
        viewer_page(content, title="")


@pytest.mark.parametrize("extras", [None, 3, [], {"camera": 1, "units": 5, "provenance": []}, {"camera": {}}])
def test_extras_of_other_programs_are_passed_over(result, extras):
    document = document_of(result.glb)
    document["asset"]["extras"] = extras
    page = viewer_page(with_document(result.glb, document), title="")
    assert facts(page)["camera"] is None


@pytest.mark.parametrize(
    ("key", "at", "text"),
    [
        ("K", (0, 0), "1e999"),
        ("K", (0, 0), "9" * 400),
        ("T_cam_object", (0, 3), "-1e999"),
        ("width", (), "1e999"),
        ("width", (), "0"),
        ("height", (), "-5"),
    ],
)
def test_a_camera_that_cannot_be_is_passed_over(result, key, at, text):
    document = document_of(result.glb)
    place, name = document["asset"]["extras"]["camera"], key
    for index in at:
        place, name = place[name], index
    place[name] = 271828.25
    content = with_document(result.glb, document, ("271828.25", text))
    page = viewer_page(content, title="", photo=Photo(np.zeros((8, 8, 3), np.uint8)))
    assert facts(page)["camera"] is None and script(page, "photo-file") is None


def test_numbers_that_are_not_finite_make_no_dead_page(result):
    light = torch.full((9, 3), float("inf"))
    with pytest.raises(OptionError, match="finite"):
        viewer_page(result.glb, title="", light=light)


def huge_png(side: int) -> bytes:
    """A picture of zeros that is small as a file."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return (
            struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        )

    about = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 16, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + about + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


def maps_that_are_none() -> dict[str, bytes]:
    grey = np.zeros((8, 8), np.uint8)
    long = Image.fromarray(np.zeros((8, 4), np.uint16))
    return {
        "no picture": b"garbage",
        "8 bit": pil_png(Image.fromarray(grey)),
        "colours": pil_png(Image.fromarray(np.stack([grey] * 3, -1))),
        "long": pil_png(long),
        "cut": displacement_png(torch.rand(1, 64, 64))[:-200],
        "large": huge_png(9000),
        "huge": huge_png(40000),
    }


@pytest.mark.parametrize("kind", ["no picture", "8 bit", "colours", "long", "cut", "large", "huge"])
def test_maps_that_are_none_are_named(result, tmp_path, kind):
    person = tmp_path / "anna" / "person1"
    shutil.copytree(result.folder, person)
    (files,) = find_results(person)
    (person / "displacement_static.png").write_bytes(maps_that_are_none()[kind])
    with pytest.raises(MeshFileError, match="write the maps again"):
        write_viewer_page(tmp_path / "a.html", files)
    with pytest.raises(MeshFileError, match=r"displacement_static\.png.*write the maps again"):
        load_faces([files])
    (person / "displacement_static.png").unlink()
    if kind in ("no picture", "cut", "huge"):
        (person / "normals.png").write_bytes(maps_that_are_none()[kind])
        with pytest.raises(MeshFileError, match=r"normals\.png.*write the maps again"):
            write_viewer_page(tmp_path / "a.html", find_results(person)[0])


def test_a_displacement_map_comes_back():
    metres = 0.0021 * torch.rand(1, 32, 32) - 0.001
    read = read_displacement_png(displacement_png(metres))
    assert read.shape == (1, 32, 32) and float((read - metres).abs().max()) < 4e-8


def test_results_are_found_from_any_of_their_folders(result, tmp_path):
    out = result.folder.parents[1]
    for path in (result.folder / "face.glb", result.folder, out / "anna", out):
        (person,) = find_results(path)
        assert person.glb == result.folder / "face.glb" and person.title == "anna person1"
        assert person.photo is not None and person.photo.samefile(result.photo)
        assert person.normals and person.static and person.face_json
    (other,) = find_results(shutil.copy(person.glb, tmp_path / "smile.glb"))
    assert other.title == "smile" and other.face_json is None
    assert find_results(tmp_path) == [other]
    for path in (tmp_path / "nothing", ROOT / "docs"):
        with pytest.raises(MeshFileError):
            find_results(path)


def test_the_photo_is_found_where_the_run_says(result, tmp_path):
    person = tmp_path / "out" / "anna" / "person1"
    shutil.copytree(result.folder, person)
    assert find_results(person)[0].photo is None
    place = tmp_path / "far" / "away"
    place.mkdir(parents=True)
    shutil.copy(result.photo, place / "anna.png")
    (person.parent / "photo.json").write_text(json.dumps({"photo": str(place / "anna.png")}))
    assert find_results(person)[0].photo == place / "anna.png"
    (person.parent / "photo.json").write_text("{damaged")
    rows = [
        {"photo": "x.png", "detail": "out/bert"},
        {"photo": str(place / "anna.png"), "detail": "out/anna"},
    ]
    (tmp_path / "out" / "person.json").write_text(json.dumps({"photos": rows}))
    assert find_results(person)[0].photo == place / "anna.png"


def test_another_photo_of_that_name_is_left_out(result, tmp_path):
    person = tmp_path / "anna" / "person1"
    shutil.copytree(result.folder, person)
    Image.new("RGB", (560, 480)).save(tmp_path / "anna.png")
    (files,) = find_results(person)
    assert files.photo is not None
    write_viewer_page(tmp_path / "a.html", files)
    assert script((tmp_path / "a.html").read_text(encoding="utf-8"), "photo-file") is None
    with pytest.raises(OptionError, match="480 x 560"):
        write_viewer_page(tmp_path / "a.html", files, photo=tmp_path / "anna.png")


def test_bad_neighbours_are_errors(result, tmp_path):
    person = tmp_path / "person1"
    shutil.copytree(result.folder, person)
    with pytest.raises(OutputError):
        write_viewer_page(person / "face.glb" / "a.html", find_results(person)[0])
    (person / "face.json").write_text("{}")
    with pytest.raises(FaceFileError):
        write_viewer_page(tmp_path / "a.html", find_results(person)[0])
    assert not (tmp_path / "a.html").exists()


def run(*words: object) -> int:
    with pytest.raises(SystemExit) as stop:
        main([str(word) for word in words])
    return int(stop.value.code or 0)


def said(capsys: pytest.CaptureFixture[str]) -> str:
    return " ".join(capsys.readouterr().err.split())


def test_the_command_writes_a_page_per_person(result, tmp_path, capsys, monkeypatch):
    out = tmp_path / "out"
    for name in ("person1", "person2"):
        shutil.copytree(result.folder, out / "anna" / name)
    shutil.copy(result.photo, tmp_path)
    opened = []
    monkeypatch.setattr(command.webbrowser, "open", lambda url: opened.append(url) or True)
    assert run("view", out, "--html", "--open") == 0
    pages = sorted(out.rglob("*.html"))
    assert [p.relative_to(out).as_posix() for p in pages] == [
        "anna/person1/face.html",
        "anna/person2/face.html",
    ]
    assert opened == [pages[0].as_uri()]
    assert "person2" in facts(pages[1].read_text(encoding="utf-8"))["title"]
    assert all(p.stat().st_size < 15e6 for p in pages) and " MB" in said(capsys)
    assert script(pages[0].read_text(encoding="utf-8"), "photo-file")
    assert run("view", out, "--html", "-o", tmp_path / "a.html") == 1 and "2 people" in said(capsys)
    one = tmp_path / "a.html"
    assert run("view", pages[0].parent, "--html", "-o", one, "--no-backdrop") == 0
    assert script(one.read_text(encoding="utf-8"), "photo-file") is None


def test_wrong_uses_of_the_command(result, tmp_path, capsys, monkeypatch):
    assert run("view", result.folder, "--no-backdrop") == 1 and "--html" in said(capsys)
    assert run("view", tmp_path, "--html") == 1 and "hiface reconstruct" in said(capsys)
    monkeypatch.setattr("hiface.app.html.LARGE_PAGE_BYTES", 1000)
    assert run("view", result.folder, "--html", "-o", tmp_path / "a.html") == 0
    assert "large" in said(capsys)


def test_a_page_never_takes_the_place_of_a_head(result, tmp_path, capsys):
    glb = Path(shutil.copy(result.folder / "face.glb", tmp_path / "a.glb"))
    assert run("view", glb, "--html", "-o", glb) == 1 and "end in .html" in said(capsys)
    assert glb.read_bytes() == result.glb
    assert run("view", glb, "--html", "-o", tmp_path / "a.HTM") == 0


def test_presets_are_arkits():
    shown = load_json_asset("expressions/presets.json")
    names = load_json_asset("expressions/arkit52.json")["names"]
    for preset in shown["presets"].values():
        assert set(preset) <= set(names) and all(0 < value <= 1 for value in preset.values())
    for name in names:
        assert sum(name.startswith(group["prefix"]) for group in shown["groups"]) == 1


def test_the_bundle_is_built_from_the_sources():
    digest = hashlib.sha256()
    for path in sorted((ROOT / "tools/build_viewer/src").iterdir()):
        assert path.read_text(encoding="utf-8").startswith("// SPDX-License-Identifier: Apache-2.0\n")
        digest.update(path.read_bytes())
    bundle = (ROOT / "src/hiface/app/page/viewer.js").read_bytes()
    assert digest.hexdigest().encode() in bundle[:400], (
        "run: cd tools/build_viewer && npm ci && npm run build"
    )
    version = json.loads((ROOT / "tools/build_viewer/package.json").read_text())["dependencies"]["three"]
    assert f"three.js {version}:".encode() in bundle[:400] and len(bundle) <= 900_000
    assert version in (ROOT / "THIRD_PARTY.md").read_text(encoding="utf-8")
