# SPDX-License-Identifier: Apache-2.0
"""`hiface animate`: one person's face with another's expression."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from hiface.cli.folders import prepare_folder
from hiface.errors import NoFaceError, OptionError

if TYPE_CHECKING:
    from PIL import Image
    from rich.console import Console
    from torch import Tensor

    from hiface.animation.motion import Motion
    from hiface.reconstructor import Reconstructor
    from hiface.result import FaceResult


_SAME = 0.05  # root of the sum of squared differences of expressions that look the same
Shown = Literal["static", "dynamic", "both", "none"]


@dataclass(frozen=True)
class AnimationOptions:
    """What the animation shows.

    Attributes:
        detail: Which detail is seen: what the person is, what the expression does, or both.
        detail_from: Photo of a person whose static detail the source gets.
        pose: Turn the head as the driver does.
        size: Side of the pictures, pixels.
        fps: Frames per second of a folder of photos, and of motions without times; 24 for photos and 60 for
            motions when left out.
        wrinkles: Put what expressions fold into the morph targets of animated.glb.
    """

    detail: Shown = "both"
    detail_from: Path | None = None
    pose: bool = True
    size: int = 320
    fps: float | None = None
    wrinkles: bool = False


_DEFAULT = AnimationOptions()


def animate(
    source: Path,
    driving: Path,
    out: Annotated[Path, tyro.conf.arg(aliases=["-o"])],
    options: tyro.conf.OmitArgPrefixes[AnimationOptions] = _DEFAULT,
    weights: Path | None = None,
) -> int:
    """Gives the face of one photo the expressions of another, of a clip, or of recorded coefficients.

    Writes OUT/grid.png (driver, and the source with static, dynamic and both kinds of detail),
    OUT/animation.webp and OUT/animated.glb.

    Args:
        source: Photo of the person to animate.
        driving: A photo, a folder of photos (frames in the order of their names), a face.json, a motion in
            JSON, or a CSV table with a column per ARKit blendshape (Live Link Face writes such).
        out: Output folder.
        options: What the animation shows.
        weights: Weights of the hiface network; the packaged ones when left out.

    Returns:
        Exit code.
    """
    from rich.console import Console

    from hiface.animation.retarget import with_detail_of
    from hiface.reconstructor import Reconstructor

    size, fps = options.size, options.fps
    if not 64 <= size <= 2048 or not (fps is None or 1 <= fps <= 240):
        raise OptionError(f"--size must be 64 to 2048 and --fps 1 to 240, got {size} and {fps}")
    prepare_folder(out)
    console = Console(stderr=True, emoji=False)
    with console.status("loading the face model and the networks"):
        reconstructor = Reconstructor("hiface", device="cpu", weights=weights)
    face = largest_face(reconstructor, source)
    if options.detail_from is not None:
        donor = largest_face(reconstructor, options.detail_from)
        face = face.with_params(with_detail_of(face.params, donor.params))
    motion, pictures = read_driver(reconstructor, driving, fps, console)
    _write(face, motion, pictures, out, options, console)
    console.print(f"{len(motion)} frames in {out}: grid.png, animation.webp, animated.glb", highlight=False)
    return 0


def largest_face(reconstructor: Reconstructor, path: Path) -> FaceResult:
    """The largest face of a photo.

    Raises:
        NoFaceError: There is none.
    """
    return faces_of(reconstructor, path)[0]


def faces_of(reconstructor: Reconstructor, path: Path) -> list[FaceResult]:
    """The faces of a photo, largest first.

    Raises:
        NoFaceError: There is none.
    """
    faces = reconstructor.reconstruct(path)
    if not faces:
        raise NoFaceError(f"no face was found in {path}; choose a photo that shows one, 60 px or larger")
    return faces


def read_driver(
    reconstructor: Reconstructor, path: Path, fps: float | None, console: Console
) -> tuple[Motion, list[FaceResult | None]]:
    """The driver's motion, and the reconstruction that each frame comes from if it is a picture.

    Raises:
        NoFaceError: No frame shows a face.
    """
    from rich.progress import track

    from hiface.animation.motion import motion_of
    from hiface.animation.motion_files import read_motion
    from hiface.cli.reconstruct import expand_photos

    if path.suffix.lower() in (".csv", ".json"):
        motion = read_motion(path, reconstructor.model.data.expression_names, fps or 60.0)
        return motion, [None] * len(motion)
    found: list[FaceResult] = []
    waiting = 0
    files = expand_photos((str(path),))
    for file in track(files, description="driver", console=console, transient=True):
        faces = reconstructor.reconstruct(file)
        if faces:
            found += (waiting + 1) * [faces[0]]
            waiting = 0
        elif found:
            found.append(found[-1])  # a frame without a face keeps the last one, the first ones the next
        else:
            waiting += 1
    if not found:
        raise NoFaceError(f"no face was found in {path}; choose a driver that shows one, 60 px or larger")
    return motion_of([face.params for face in found], fps or 24.0), list(found)


def different_frames(expression: Tensor, most: int = 6) -> list[int]:
    """Frames that show what there is in a motion: each next one differs most from those before it.

    Args:
        expression: [N, E] 0..1.
        most: How many at most.

    Returns:
        Numbers of the frames in order of time, the most expressive one among them; fewer than `most` where
        all others are nearly the same as one of these.
    """
    chosen = [int(expression.norm(dim=1).argmax())]
    apart = (expression - expression[chosen[0]]).norm(dim=1)
    while len(chosen) < most and float(apart.max()) > _SAME:
        chosen.append(int(apart.argmax()))
        apart = apart.minimum((expression - expression[chosen[-1]]).norm(dim=1))
    return sorted(chosen)


def _write(
    face: FaceResult,
    motion: Motion,
    pictures: list[FaceResult | None],
    out: Path,
    options: AnimationOptions,
    console: Console,
) -> None:
    """The three files."""
    import torch
    from PIL import Image
    from rich.progress import track

    from hiface.animation.retarget import drive
    from hiface.atomic import atomic_write_bytes
    from hiface.export.clips import Clip
    from hiface.export.detail_pictures import encode_animation, face_picture, photo_panel, portrait_camera
    from hiface.export.draw import PAPER, grid
    from hiface.export.morphs import morph_weights
    from hiface.export.pictures import pil_png
    from hiface.saving import SaveOptions, save_animation

    pose, size = options.pose, options.size
    frames = drive(face.model, face.params, motion, pose)
    driven = [face.with_params(params) for params in frames]

    def picture(frame: FaceResult, parts: Shown) -> Image.Image:
        turn = frame.camera.R if pose and motion.R_cam_head is not None else None
        camera = portrait_camera(frame.model, frame.params, size, turn)
        return face_picture(frame.model, frame.params, frame.displacement(parts), camera)

    rows = different_frames(motion.expression)
    panels = []
    for i in rows:
        seen = pictures[i]
        if seen is not None:
            panels.append(("driver", photo_panel(seen.photo.image_srgb, seen.box, size)))
        if i == rows[0]:
            panels.append(("source", photo_panel(face.photo.image_srgb, face.box, size)))
        else:
            panels.append(("", Image.new("RGB", (size, size), PAPER)))
        for parts in ("none", "static", "dynamic", "both"):
            panels.append(("coarse" if parts == "none" else parts, picture(driven[i], parts)))
    columns = len(panels) // len(rows)
    atomic_write_bytes(out / "grid.png", pil_png(grid(panels, columns)))
    moving = [
        picture(frame, options.detail)
        for frame in track(driven, description="frames", console=console, transient=True)
    ]
    atomic_write_bytes(out / "animation.webp", encode_animation(moving, motion.times.tolist()))
    weights = torch.stack([morph_weights(f.model, f.params.expression, f.params.pose) for f in driven])
    clip = Clip("driven", motion.times.double().numpy(), weights.numpy())
    save_animation(face, out / "animated.glb", clip, SaveOptions(wrinkles=options.wrinkles))
