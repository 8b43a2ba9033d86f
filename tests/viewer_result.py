"""The folder that a reconstruction leaves, of a person whose photo, camera and light are known exactly."""

from __future__ import annotations

import json
import os
import shutil
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from hiface.atomic import atomic_write_bytes
from hiface.colour import linear_to_srgb
from hiface.export.clips import expression_clip
from hiface.export.detail_maps import displacement_png, tangent_normal_map
from hiface.export.glb import write_glb
from hiface.export.glb_mesh import GlbDetail
from hiface.export.json_params import FaceRecord, write_face_json
from hiface.export.pictures import png_bytes
from hiface.export.units import ExportInfo
from hiface.morphable import load_model
from hiface.render.pipeline import render
from hiface.synthetic.studio import render_person
from hiface.types import Camera, FaceParams
from portrait import truth

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
BLUE = (0.02, 0.05, 0.6)
SMILE = {"mouthSmileLeft": 0.6, "mouthSmileRight": 0.5, "browInnerUp": 0.3}


@dataclass(frozen=True)
class KnownResult:
    """Folder of one person, and the truth about it."""

    folder: Path
    photo: Path
    params: FaceParams

    @property
    def glb(self) -> bytes:
        return (self.folder / "face.glb").read_bytes()


def known_params() -> FaceParams:
    """A smiling person, not in the middle of a photo whose principal point is not there either."""
    params = truth(0.25, size=512, seed=3, **SMILE)
    cam = params.camera
    K = torch.tensor([[880.0, 0.0, 215.0], [0.0, 860.0, 300.0], [0.0, 0.0, 1.0]])
    return params.replace(camera=Camera(K, cam.T_cam_object, 480, 560))


def write_result(out: Path) -> KnownResult:
    """OUT/anna.png, and OUT/anna/person1 with face.glb, face.json and maps, as `hiface reconstruct` does."""
    model, params = load_model("open"), known_params()
    person = out / "anna" / "person1"
    picture = render_person(model, params, background=torch.tensor(BLUE)[:, None, None])
    photo = out / "anna.png"
    atomic_write_bytes(photo, b"")
    Image.fromarray(picture.permute(1, 2, 0).contiguous().numpy()).save(photo)
    rows = torch.linspace(0, 60 * torch.pi, 256)
    relief = 3e-4 * rows.sin()[None, :, None].expand(1, 256, 256).contiguous()
    rest = model.vertices(params.identity, torch.zeros_like(params.expression), params.pose)
    normals = tangent_normal_map(model, rest, relief)
    clip = expression_clip(params.expression.numpy(), model.data.expression_names)
    texture = linear_to_srgb(model.albedo_map(params.albedo))
    info = ExportInfo(provenance={"photo": photo.name})
    detail = GlbDetail(normals, None)
    write_glb(person / "face.glb", model, params, texture, detail=detail, animations=[clip], info=info)
    atomic_write_bytes(person / "normals.png", png_bytes(tangent_normal_map(model, rest, 2 * relief)))
    atomic_write_bytes(person / "displacement_static.png", displacement_png(relief))
    write_face_json(person / "face.json", FaceRecord.of(params, model.data, provenance={"photo": photo.name}))
    return KnownResult(person, photo, params)


def head_mask(params: FaceParams) -> np.ndarray:
    """[H, W] bool, where the photo's background is covered, by the project's own renderer."""
    model = load_model("open")
    mesh = model(params.identity, params.expression, params.pose)
    out = render(mesh, params.camera, model.albedo_map(params.albedo), params.light)
    return (out.mask.reshape(params.camera.height, params.camera.width) > 0.5).numpy()


def document_of(glb: bytes) -> dict[str, Any]:
    """The JSON part of a GLB file."""
    length = struct.unpack_from("<I", glb, 12)[0]
    return json.loads(glb[20 : 20 + length])


def with_document(glb: bytes, document: dict[str, Any], change: tuple[str, str] = ("", "")) -> bytes:
    """The file with another JSON part, in whose text one piece is changed."""
    length = struct.unpack_from("<I", glb, 12)[0]
    text = json.dumps(document).replace(*change).encode() if change[0] else json.dumps(document).encode()
    text += b" " * (-len(text) % 4)
    rest = glb[20 + length :]
    return struct.pack("<4sIII4s", b"glTF", 2, 20 + len(text) + len(rest), len(text), b"JSON") + text + rest


def without_targets(glb: bytes) -> bytes:
    """The file without morph targets and clips."""
    document = document_of(glb)
    for mesh in document["meshes"]:
        del mesh["weights"], mesh["extras"]
        for primitive in mesh["primitives"]:
            primitive.pop("targets")
    document.pop("animations")
    return with_document(glb, document)


@contextmanager
def chromium() -> Iterator[Callable[..., Any]]:
    """Starts headless Chromiums that draw in software; where there is none, skips the test, in CI fails it.

    Yields:
        A function of further command line arguments, and options of Playwright, that returns a browser.
    """
    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None:
        stop = pytest.fail if os.environ.get("CI") == "true" else pytest.skip
        stop(f"no Chromium on PATH ({', '.join(BROWSERS)}); apt-get install chromium")
    from playwright.sync_api import sync_playwright

    software = [
        "--no-sandbox",
        "--use-angle=swiftshader",
        "--enable-unsafe-swiftshader",
        "--disable-gpu-compositing",
    ]
    with sync_playwright() as tools:
        yield lambda *args, **more: tools.chromium.launch(
            executable_path=path, args=[*software, *args], **more
        )


def decoded(url: str) -> np.ndarray:
    """[H, W, 4] uint8 of a data URL with a picture."""
    import base64
    import io

    return np.asarray(Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2]))).convert("RGBA"))
