# SPDX-License-Identifier: Apache-2.0
"""One HTML file that shows a head: the GLB, the viewer's script and what else is known, with no other file.

The script is built by tools/build_viewer from readable sources and three.js. The page's own rules forbid it
to load anything from a network.
"""

from __future__ import annotations

import base64
import gzip
import html
import io
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from hiface import __version__
from hiface.app.results import ResultFiles, read_glb_document
from hiface.assets import load_json_asset
from hiface.atomic import atomic_write_text
from hiface.data.images import Photo, read_photo
from hiface.errors import AssetError, HifaceError, MeshFileError, OptionError, ShapeError
from hiface.export.detail_maps import read_displacement_png
from hiface.export.json_params import read_face_json
from hiface.export.pictures import JPEG_QUALITY, pil_png
from hiface.export.units import units_per_metre
from hiface.render.shade import COSINE_LOBE, rotate_light
from hiface.types import Camera

LARGE_PAGE_BYTES = 15_000_000
"""Pages above this are slow to open, on telephones above all."""
PHOTO_SIDE_PX = 1600
"""Longest side of the embedded photo."""
RELIEF_M = 0.0005
"""Displacement of the strongest colours of the relief view."""
MAPS = ("normals", "relief")


def viewer_page(
    glb: bytes,
    *,
    title: str,
    photo: Photo | None = None,
    camera: Camera | None = None,
    light: Tensor | None = None,
    maps: Mapping[str, bytes] | None = None,
) -> str:
    """The page as HTML text.

    Args:
        glb: A GLB file, of hiface or of any other program; every morph target gets a slider.
        title: Shown at the top, and the name of saved pictures.
        photo: The photo that the head was made from, shown behind it; needs a camera.
        camera: The camera of the photo, unbatched; that of the file's `asset.extras.camera` if None.
        light: [9, 3] linear light of the photo in camera axes, as in face.json; needs a camera.
        maps: PNG files by name: "normals", tangent-space normals of static and dynamic detail in the photo's
            expression; "relief", colours to paint on the skin.

    Returns:
        A document that needs no other file and no network.

    Raises:
        MeshFileError: `glb` is not a GLB file, or needs other files.
        OptionError: The photo has other proportions than the camera's, a map has another name, or a number of
            camera or light is not finite.
        ShapeError: `light` has another shape.
    """
    document = read_glb_document(glb, "the file")
    extras = document["asset"]["extras"]
    camera = camera or _camera_of(extras)
    if photo is not None and camera is not None:
        _check_photo(photo, camera)
    unknown = sorted(set(maps or {}) - set(MAPS))
    if unknown:
        raise OptionError(f"there is no map {unknown[0]!r}; use {', '.join(MAPS)}")
    shown = load_json_asset("expressions/presets.json")
    facts = {
        "title": title,
        "groups": shown["groups"],
        "presets": shown["presets"],
        "camera": None if camera is None else _camera_facts(camera, _fact(extras, "units") or "m"),
        "light": None if light is None or camera is None else _light_facts(light, camera),
    }
    try:
        text = json.dumps(facts, allow_nan=False)
    except ValueError as error:
        raise OptionError(f"camera and light must be finite ({error}); leave them out") from error
    data = [_script("facts", text.replace("<", "\\u003c"), "application/json")]
    data.append(_binary("glb", gzip.compress(glb, 9, mtime=0), "model/gltf-binary", packed="gzip"))
    if photo is not None and camera is not None:
        data.append(_binary("photo-file", _jpeg(photo), "image/jpeg"))
    data += [_binary(name, content, "image/png") for name, content in (maps or {}).items()]
    parts = {
        "GENERATOR": f"hiface {__version__}",
        "TITLE": html.escape(title),
        "SUBTITLE": html.escape(_subtitle(document, extras)),
        "DATA": "\n".join(data),
        "SCRIPT": _part("viewer.js").replace("</script", "<\\/script"),
    }
    page = _part("page.html")
    return re.sub("%([A-Z]+)%", lambda mark: parts[mark[1]], page)


def write_viewer_page(
    path: str | Path, files: ResultFiles, *, photo: str | Path | None = None, with_photo: bool = True
) -> int:
    """Writes the page of one person.

    Args:
        path: File to write, for example face.html.
        files: The person's files.
        photo: The photo; if None, the one that is found by the name in face.json.
        with_photo: Whether to put the photo into the page at all.

    Returns:
        Its size in bytes.

    Raises:
        MeshFileError: The GLB file cannot be read or shown.
        FaceFileError: face.json is damaged.
        ImageError: `photo` cannot be read.
        OptionError: `photo` has other proportions than the camera's.
        OutputError: The page cannot be written.
    """
    try:
        glb = files.glb.read_bytes()
    except OSError as error:
        raise MeshFileError(f"{files.glb} cannot be read ({error.strerror}); check the path") from error
    document = read_glb_document(glb, str(files.glb))
    record = read_face_json(files.face_json) if files.face_json else None
    camera = record.params.camera if record else _camera_of(document["asset"]["extras"])
    if photo is not None and camera is None:
        raise OptionError(f"{files.glb} does not say which camera took the photo; leave out --photo")
    picture = read_photo(photo) if photo is not None else _found_photo(files.photo, camera)
    text = viewer_page(
        glb,
        title=files.title,
        photo=picture if with_photo else None,
        camera=camera,
        light=record.params.light if record else None,
        maps=_maps(files),
    )
    atomic_write_text(path, text)
    return len(text.encode("utf-8"))


def relief_picture(displacement_png: bytes) -> bytes:
    """Colours of a displacement map: blue inward, white level, red outward; full colour at `RELIEF_M`.

    Args:
        displacement_png: 16-bit grey PNG as `export.detail_maps.displacement_png` writes it.

    Returns:
        The content of an 8-bit RGB PNG file of the same size.

    Raises:
        MeshFileError: It is no such picture.
    """
    out = (read_displacement_png(displacement_png)[0].numpy() / RELIEF_M).clip(-1, 1)[..., None]
    ends = np.where(out > 0, (178, 24, 43), (33, 102, 172))
    return pil_png(Image.fromarray((245 + np.abs(out) * (ends - 245)).round().astype(np.uint8)))


def _camera_of(extras: Any) -> Camera | None:
    """The photo's camera as hiface writes it into GLB files, metres; None if there is none of use."""
    found: Any = extras.get("camera") if isinstance(extras, Mapping) else None
    try:
        K, T = (torch.tensor(found[name], dtype=torch.float32) for name in ("K", "T_cam_object"))
        camera = Camera(K, T, int(found["width"]), int(found["height"]))
    except (TypeError, KeyError, ValueError, OverflowError):
        return None
    finite = bool(K.isfinite().all() & T.isfinite().all())
    return camera if finite and camera.width > 0 and camera.height > 0 else None


def _camera_facts(camera: Camera, units: str) -> dict[str, Any]:
    """The camera as the page takes it: in the units of the file."""
    T = camera.T_cam_object.double().clone()
    T[:3, 3] *= units_per_metre(units)
    return {
        "K": camera.K.tolist(),
        "T_cam_object": T.tolist(),
        "width": camera.width,
        "height": camera.height,
    }


def _light_facts(light: Tensor, camera: Camera) -> list[list[float]]:
    """Coefficients of three.js's LightProbe: radiance, object axes."""
    if light.shape != (9, 3):
        raise ShapeError(f"light must be [9, 3], got {tuple(light.shape)}")
    turned = rotate_light(light.double(), camera.R.double().T)
    return (turned / COSINE_LOBE.double()[:, None]).tolist()


def _check_photo(photo: Photo, camera: Camera) -> None:
    if abs(photo.width * camera.height - photo.height * camera.width) > max(camera.width, camera.height):
        raise OptionError(
            f"the photo is {photo.width} x {photo.height}, the face was made from one of "
            f"{camera.width} x {camera.height}; name that photo"
        )


def _found_photo(path: Path | None, camera: Camera | None) -> Photo | None:
    """The photo of that name if it is the one of that camera."""
    if path is None or camera is None:
        return None
    try:
        photo = read_photo(path)
        _check_photo(photo, camera)
    except HifaceError:
        return None
    return photo


def _maps(files: ResultFiles) -> dict[str, bytes]:
    found = {}
    if files.normals is not None:
        found["normals"] = _whole_picture(files.normals)
    if files.static is not None:
        found["relief"] = relief_picture(files.static.read_bytes())
    return found


def _whole_picture(path: Path) -> bytes:
    """A PNG file that can be decoded."""
    try:
        with Image.open(path, formats=("PNG",)) as picture:
            picture.load()
        return path.read_bytes()
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise MeshFileError(f"{path} cannot be read ({error}); write the maps again") from error


def _jpeg(photo: Photo) -> bytes:
    picture = Image.fromarray(photo.image_srgb)
    picture.thumbnail((PHOTO_SIDE_PX, PHOTO_SIDE_PX), Image.Resampling.LANCZOS)
    stream = io.BytesIO()
    picture.save(stream, "JPEG", quality=JPEG_QUALITY)
    return stream.getvalue()


def _subtitle(document: Mapping[str, Any], extras: Any) -> str:
    """Who wrote the file, and from which photo."""
    software = document["asset"].get("generator", "an unknown program")
    photo = _fact(extras, "provenance", "photo")
    return f"{photo}, by {software}" if photo else f"by {software}"


def _fact(extras: Any, *keys: str) -> str | None:
    """A text of the extras, where other programs may have put anything."""
    for key in keys:
        extras = extras.get(key) if isinstance(extras, Mapping) else None
    return extras if isinstance(extras, str) else None


def _part(name: str) -> str:
    """One of the page's own files."""
    try:
        return (Path(__file__).parent / "page" / name).read_text(encoding="utf-8")
    except OSError as error:
        raise AssetError(f"packaged file {name!r} is missing; reinstall hiface") from error


def _script(name: str, content: str, kind: str, **facts: str) -> str:
    data = "".join(f' data-{key}="{html.escape(value)}"' for key, value in facts.items())
    return f'<script id="{name}" type="{kind}"{data}>{content}</script>'


def _binary(name: str, content: bytes, mime: str, **facts: str) -> str:
    text = base64.b64encode(content).decode("ascii")
    return _script(name, text, "application/octet-stream", mime=mime, **facts)
