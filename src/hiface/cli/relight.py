# SPDX-License-Identifier: Apache-2.0
"""`hiface relight`: a photo in another light, and its head from other sides."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from hiface.cli.animate import faces_of
from hiface.cli.folders import prepare_folder, unique_names
from hiface.errors import OptionError

if TYPE_CHECKING:
    from rich.console import Console
    from torch import Tensor

    from hiface.result import FaceResult

_TURNS = 18  # from one side to the other
_FPS = 18.0


@dataclass(frozen=True)
class RelightOptions:
    """What the pictures show.

    Attributes:
        turn: Turns the light about the vertical, degrees; at 90 what was behind the head is at the right.
        yaw: Sides from which the head is seen in sheet.png, degrees; positive turns it to the right.
        turntable: Write the turning head too.
        refine: Fit the face by inverse rendering first, some seconds a face.
        size: Side of the pictures of the head, pixels.
    """

    turn: float = 0.0
    yaw: tuple[float, ...] = (-35.0, 0.0, 35.0)
    turntable: bool = True
    refine: bool = True
    size: int = 320


_DEFAULT = RelightOptions()


def relight(
    photo: Annotated[Path, tyro.conf.Positional],
    out: Annotated[Path, tyro.conf.arg(aliases=["-o"])],
    light: Annotated[tuple[str, ...], tyro.conf.arg(metavar="LIGHT ...")] = (
        "soft",
        "left",
        "above",
        "sunset",
    ),
    options: tyro.conf.OmitArgPrefixes[RelightOptions] = _DEFAULT,
    weights: Path | None = None,
) -> int:
    """Lights the faces of a photo anew and shows the largest one's head from other sides.

    Writes, for each light, OUT/photo_<light>.png (the photo, all its faces in that light) and
    OUT/turning_<light>.webp (the head with its de-lit texture, turning), and OUT/sheet.png with all lights.

    Args:
        photo: A picture file.
        out: Output folder.
        light: One or more of: soft, front, left, right, above, below, sunset, neon; panoramas of
            surroundings (.hdr and .exr with the package OpenImageIO, or pictures twice as wide as high); a
            face.json, whose photo's light is taken.
        options: What the pictures show.
        weights: Weights of the hiface network; the packaged ones when left out.

    Returns:
        Exit code.
    """
    from rich.console import Console

    from hiface.export.relight import read_light
    from hiface.reconstructor import Reconstructor

    if not 64 <= options.size <= 2048:
        raise OptionError(f"--size must be 64 to 2048, got {options.size}")
    if not light or not options.yaw:
        raise OptionError("--light and --yaw need one value at least")
    lights = {name: read_light(name, options.turn) for name in light}
    prepare_folder(out)
    console = Console(stderr=True, emoji=False)
    with console.status("loading the face model and the networks"):
        reconstructor = Reconstructor("hiface", device="cpu", weights=weights, refine=options.refine)
    with console.status("reconstructing"):
        faces = faces_of(reconstructor, photo)
    _write(faces, lights, out, options, console)
    turning = ", turning_*.webp" if options.turntable else ""
    count = "1 light" if len(lights) == 1 else f"{len(lights)} lights"
    console.print(f"{count} in {out}: sheet.png, photo_*.png{turning}", highlight=False)
    return 0


def _title(light: str) -> str:
    """What the files of a light are named after; each face.json has one name, so its photo and person."""
    path = Path(light)
    if path.name != "face.json":
        return light
    folder = path.resolve().parent
    photo = f"{folder.parent.name}-" if re.fullmatch(r"person\d+", folder.name) else ""
    return f"{photo}{folder.name}{path.suffix}"


def _write(
    faces: list[FaceResult], lights: dict[str, Tensor], out: Path, options: RelightOptions, console: Console
) -> None:
    """All files; `faces` are those of one photo, the largest first."""
    from PIL import Image
    from rich.progress import track

    from hiface.atomic import atomic_write_bytes
    from hiface.export.detail_pictures import encode_animation, photo_panel
    from hiface.export.draw import grid
    from hiface.export.pictures import pil_png
    from hiface.export.relight import light_ball

    face, size = faces[0], options.size
    panels = []
    names = unique_names([Path(_title(name)) for name in lights])
    work = list(zip(names, lights.values(), strict=True))
    for name, light in track(work, description="lights", console=console, transient=True):
        image = face.photo.image_srgb
        for one in sorted(faces, key=lambda f: -float(f.fitted.camera.t[2])):
            image = one.relight(light, image)
        atomic_write_bytes(out / f"photo_{name}.png", pil_png(Image.fromarray(image)))
        panels += [(name, light_ball(light, size)), ("photo", photo_panel(image, face.box, size))]
        panels += [(f"{yaw:+.0f} degrees", face.picture(size, yaw=yaw, light=light)) for yaw in options.yaw]
        if options.turntable:
            angles = [-50.0 * math.cos(math.pi * k / _TURNS) for k in range(_TURNS + 1)]
            frames = [face.picture(size, yaw=angle, light=light) for angle in angles]
            frames += frames[-2:0:-1]  # and back
            times = [k / _FPS for k in range(len(frames))]
            atomic_write_bytes(out / f"turning_{name}.webp", encode_animation(frames, times))
    atomic_write_bytes(out / "sheet.png", pil_png(grid(panels, 2 + len(options.yaw))))
