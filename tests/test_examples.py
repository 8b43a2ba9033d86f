"""Every example runs as its first lines say, is short, and leaves what it speaks of."""

import runpy
import socket
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hiface.synthetic.clips import generate_clip
from hiface.synthetic.datasets import HOLDOUT_SEED, SEED_STRIDE, open_model
from hiface.synthetic.generator import Style
from portrait import portrait

EXAMPLES = sorted((Path(__file__).parents[1] / "examples").glob("*.py"))


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """A portrait, a second one of the same person, and a folder of frames."""
    folder = tmp_path_factory.mktemp("inputs")
    Image.fromarray(portrait()).save(folder / "portrait.jpg", quality=95)
    Image.fromarray(portrait(yaw_rad=-0.3)).save(folder / "second.jpg", quality=95)
    (folder / "frames").mkdir()
    person = (HOLDOUT_SEED + 17) * SEED_STRIDE + 9
    for k, sample in enumerate(generate_clip(open_model(), person, Style(256), 8)):
        Image.fromarray(sample.image_srgb.permute(1, 2, 0).numpy()).save(folder / "frames" / f"{k}.png")
    return folder


def run(monkeypatch, number, *arguments):
    (path,) = (path for path in EXAMPLES if path.name.startswith(f"{number:02d}_"))
    monkeypatch.setattr(sys, "argv", [str(path), *map(str, arguments)])
    runpy.run_path(str(path), run_name="__main__")


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_examples_are_short_and_say_how_they_are_run(path):
    lines = path.read_text(encoding="utf-8").splitlines()
    assert len(lines) < 60 and any(f"python examples/{path.name}" in line for line in lines[:8])


def test_numbers_have_no_gap():
    assert [int(path.name[:2]) for path in EXAMPLES] == list(range(1, len(EXAMPLES) + 1))


def test_photo_to_glb(monkeypatch, inputs, tmp_path, capsys):
    run(monkeypatch, 1, inputs / "portrait.jpg", tmp_path / "new" / "out")
    assert {path.suffix for path in (tmp_path / "new" / "out").iterdir()} >= {".glb", ".obj", ".json"}
    assert "face 1" in capsys.readouterr().out


def test_expressions_and_light(monkeypatch, inputs, tmp_path):
    run(monkeypatch, 2, inputs / "portrait.jpg", tmp_path)
    pictures = [np.asarray(Image.open(tmp_path / f"{name}.png")) for name in ("smile", "surprise")]
    assert np.abs(pictures[0].astype(int) - pictures[1]).mean() > 2
    assert np.asarray(Image.open(tmp_path / "sunset.png")).shape == portrait().shape


def test_many_photos(monkeypatch, inputs, tmp_path, capsys):
    run(monkeypatch, 3, tmp_path, inputs / "portrait.jpg", inputs / "second.jpg")
    assert (tmp_path / "person.glb").is_file() and "2 photos" in capsys.readouterr().out


def test_video_to_curves_and_onto_another_face(monkeypatch, inputs, tmp_path, capsys):
    run(monkeypatch, 4, inputs / "frames", tmp_path / "video")
    assert "'ok': 8" in capsys.readouterr().out
    curves, head = (
        tmp_path / "video" / "person1" / "blendshapes.csv",
        tmp_path / "video" / "person1" / "face.glb",
    )
    run(monkeypatch, 5, inputs / "portrait.jpg", curves, tmp_path / "driven", head)
    assert (tmp_path / "driven" / "driven.glb").is_file() and (tmp_path / "driven" / "face.glb").is_file()
    assert "8 frames" in capsys.readouterr().out


def test_live(monkeypatch, inputs, capsys):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as listener:
        listener.bind(("127.0.0.1", 0))
        listener.settimeout(5)
        run(monkeypatch, 6, inputs / "frames", "127.0.0.1", listener.getsockname()[1])
        assert len(listener.recv(2048)) > 250
    assert "packets" in capsys.readouterr().out


def test_viewer_page(monkeypatch, inputs, tmp_path, capsys):
    run(monkeypatch, 7, inputs / "portrait.jpg", tmp_path)
    pages = list(tmp_path.rglob("*.html"))
    assert len(pages) == 1 and pages[0].stat().st_size > 1e6 and "MB" in capsys.readouterr().out


def test_own_face_model(monkeypatch, inputs, tmp_path, capsys):
    run(monkeypatch, 8, inputs / "portrait.jpg", tmp_path)
    assert (tmp_path / "own_model1.glb").is_file() and "licence" in capsys.readouterr().out


def test_measure(monkeypatch, tmp_path, capsys):
    run(monkeypatch, 9, tmp_path)
    said = capsys.readouterr().out
    assert "mean" in said and "hiface" in said
    assert len({len(line) for line in said.splitlines()}) == 1, "columns stand below each other"
