# SPDX-License-Identifier: Apache-2.0
"""`hiface reconstruct`: photos in, a folder per person out."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro
from rich.console import Console
from rich.table import Table

from hiface.cli.bars import progress_bar
from hiface.errors import HifaceError, OptionError, UnreadableImageError

if TYPE_CHECKING:
    from hiface.cli.batch import Row


@dataclass(frozen=True)
class MethodOptions:
    """How faces are reconstructed.

    Attributes:
        method: hiface: all coefficients and detail in one pass of a network. fit: inverse rendering alone.
        align: Move pose and expression of the network's answer to the landmarks, as --refine does by itself.
        refine: Go on from the network's answer by inverse rendering, some seconds a face; for the method
            hiface.
        weights: Weights of a network of your own (hiface train hiface); for the method hiface.
        wrinkles: Put what expressions fold into the morph targets of glb files; for the method hiface.
        same_person: All photos show one person: one shape, skin and detail is fitted to all of them, with
            each photo's own expression, pose and light.
        detail_size: Side of the displacement map in texels where relief is read off the photo (--refine,
            --same-person, --method fit).
        model: Face model file of another kind (FLAME, BFM, ...), for --method fit.
        albedo_blend: Share of the model's skin colour in what is smooth in textures, 0 to 1; the rest is the
            photo's.
    """

    method: Literal["hiface", "fit"] = "hiface"
    align: bool = True
    refine: bool = False
    weights: Path | None = None
    wrinkles: bool = False
    same_person: bool = False
    detail_size: Literal["256", "512", "1024"] = "256"
    model: Path | None = None
    albedo_blend: float = 0.65


@dataclass(frozen=True)
class FileOptions:
    """Which files are written.

    Attributes:
        format: Comma-separated list of glb, obj, dense, ply, json, maps, overview.
        layout: hiface: a folder per person. deca: DECA's file names, for scripts that look for those.
        units: Unit of obj and ply files; glb and json are always in metres.
        texture_size: Side of the texture in pixels.
    """

    format: Annotated[str, tyro.conf.arg(metavar="LIST")] = "glb,obj,json,overview"
    layout: Literal["hiface", "deca"] = "hiface"
    units: Literal["m", "cm", "mm"] = "m"
    texture_size: Literal["256", "512", "1024", "2048"] = "1024"


_DEFAULT = MethodOptions()
_DEFAULT_FILES = FileOptions()


def reconstruct(
    photos: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="PHOTO ...")],
    out: Annotated[Path, tyro.conf.arg(aliases=["-o"])] = Path("hiface_out"),
    files: tyro.conf.OmitArgPrefixes[FileOptions] = _DEFAULT_FILES,
    device: Annotated[str | None, tyro.conf.arg(metavar="DEVICE")] = None,
    method: tyro.conf.OmitArgPrefixes[MethodOptions] = _DEFAULT,
    resume: bool = False,
) -> int:
    """Reconstructs every face of every photo.

    Writes OUT/<photo>/person<N>/ with face.glb (52 ARKit morph targets, skeleton, texture), face.obj,
    face.json and overview.png, and OUT/summary.json with a row per photo.

    Args:
        photos: Picture files, folders of pictures, or quoted patterns such as "photos/*.jpg".
        out: Output folder.
        files: Which files are written.
        device: Device of the HiFace network, such as cpu or cuda. Chosen by itself when left out.
        method: How faces are reconstructed.
        resume: Skip photos that an earlier run with the same options has finished in the same folder.

    Returns:
        Exit code: 0 if every photo gave at least one face, else 1.
    """
    from hiface.cli.batch import BatchOptions, run_batch, run_person
    from hiface.saving import SaveOptions

    save = SaveOptions(files.units, int(files.texture_size), method.wrinkles)
    formats = _formats(files, method)
    made_with = json.loads(json.dumps({**asdict(method), **asdict(save), "formats": formats}, default=str))
    options = BatchOptions(out, formats, save, made_with, resume)
    paths = expand_photos(photos)
    console = Console(stderr=True, emoji=False)
    reconstructor = _load(console, method, device)
    with progress_bar(console) as progress:
        task = progress.add_task("reconstructing", total=len(paths))

        def advance(name: str) -> None:
            progress.update(task, advance=1, description=name[-40:])

        run = run_person if method.same_person else run_batch
        rows = run(reconstructor, paths, options, advance)
    _print_summary(rows, out)
    return 0 if rows and all(row.status == "ok" for row in rows) else 1


def _load(console: Console, method: MethodOptions, device: str | None):
    from hiface.devices import pick_device
    from hiface.reconstructor import Reconstructor

    if method.same_person and (method.refine or not method.align):
        raise OptionError("--same-person fits by itself; leave --refine and --no-align out")
    asked = (method.refine, not method.align, method.weights, method.wrinkles)
    if method.method != "hiface" and any(asked):
        raise OptionError(
            "--refine, --no-align, --weights and --wrinkles are for the network; leave --method fit out"
        )
    if method.model is not None and method.method != "fit":
        raise OptionError("the network knows the open model only; add --method fit to --model")
    if (
        method.detail_size != "256"
        and method.method == "hiface"
        and not (method.refine or method.same_person)
    ):
        raise OptionError("--detail-size is for relief that is read off the photo; add --refine")
    with console.status("loading the face model and the networks"):
        reason = "as asked" if device else pick_device()[1]
        reconstructor = Reconstructor(
            method.method,
            face_model=method.model or "open",
            device=device,
            weights=method.weights,
            refine=method.refine,
            align=method.align,
            detail_px=int(method.detail_size),
            albedo_blend=method.albedo_blend,
        )
    console.print(f"device: {reconstructor.device} ({reason})", highlight=False)
    return reconstructor


def _formats(files: FileOptions, method: MethodOptions) -> tuple[str, ...]:
    """What is written of each face; of DECA's layout, that alone.

    Raises:
        OptionError: Options that the layout has no use for.
        MissingExtraError: The layout needs SciPy.
    """
    from hiface.cli.batch import DECA

    if files.layout != "deca":
        return parse_formats(files.format)
    if files.format != _DEFAULT_FILES.format or method.wrinkles:
        raise OptionError("--layout deca has files of its own; leave --format and --wrinkles out")
    from hiface.export.deca_layout import check_deca_extra

    check_deca_extra()
    return (DECA,)


def parse_formats(text: str) -> tuple[str, ...]:
    """Splits "glb,obj"; raises HifaceError on an unknown or empty list."""
    from hiface.saving import FORMATS

    formats = tuple(dict.fromkeys(part.strip().lower() for part in text.split(",") if part.strip()))
    unknown = [f for f in formats if f not in FORMATS]
    if unknown or not formats:
        raise HifaceError(f"--format takes a comma-separated list of {', '.join(FORMATS)}; got {text!r}")
    return formats


def expand_photos(photos: tuple[str, ...]) -> list[Path]:
    """Files named by paths, folders and patterns, in order and without repeats.

    Raises:
        UnreadableImageError: A folder or pattern holds no picture, or nothing was named.
    """
    from hiface.data.images import IMAGE_SUFFIXES

    found: list[Path] = []
    for name in photos:
        path = Path(name)
        if path.is_dir():
            inside = sorted(p for p in path.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES)
            if not inside:
                raise UnreadableImageError(f"folder {path} holds no pictures ({', '.join(IMAGE_SUFFIXES)})")
            found += inside
        elif any(c in name for c in "*?[") and not path.exists():
            base = Path(path.anchor) if path.is_absolute() else Path()
            matches = sorted(p for p in base.glob(str(path.relative_to(base))) if p.is_file())
            if not matches:
                raise UnreadableImageError(f"no file matches {name!r}")
            found += matches
        else:
            found.append(path)
    if not found:
        raise UnreadableImageError(
            "name at least one photo, for example: hiface reconstruct portrait.jpg -o out"
        )
    return list(dict.fromkeys(found))


def _print_summary(rows: list[Row], out: Path) -> None:
    table = Table(title=f"results in {out}")
    of_one = any(row.likeness is not None for row in rows)
    likeness = ["likeness"] if of_one else []
    for column in ("photo", "status", "faces", "seconds", *likeness, "folder or reason"):
        table.add_column(column, overflow="fold")
    for row in rows:
        like = "" if row.likeness is None else f"{row.likeness:.2f}"
        cells = row.photo, row.status, str(row.faces), f"{row.seconds:.1f}"
        table.add_row(*cells, *([like] if of_one else []), row.detail)
    Console(emoji=False).print(table, markup=False)
