# SPDX-License-Identifier: Apache-2.0
"""`hiface models`: face models of other projects: which can be read, what is in one, conversion, bridges."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

if TYPE_CHECKING:
    from hiface.morphable import MorphableModelData

_EYES_M = (0.07, 0.11)  # between the outer corners
_WIDTH_M = (0.10, 0.30)
_HEIGHT_M = (0.12, 0.45)


@dataclass(frozen=True)
class List:
    """Lists the formats that can be read, with licence and origin."""


@dataclass(frozen=True)
class Info:
    """Shows what a model file holds and whether it looks right.

    Attributes:
        path: File or folder; "open" is the shipped model.
    """

    path: tyro.conf.Positional[str]


@dataclass(frozen=True)
class Convert:
    """Writes a model as one safetensors file, which is quick to read and needs no extra packages.

    Attributes:
        path: File or folder.
        out: File to write (.safetensors). The licence of the original goes with it.
    """

    path: tyro.conf.Positional[Path]
    out: Annotated[Path, tyro.conf.arg(aliases=["-o"])]


@dataclass(frozen=True)
class Bridge:
    """Writes which points of the open model and of another one correspond (some seconds).

    Attributes:
        path: File or folder of the other model.
        out: File to write (.safetensors): indices, weights and triangles, no vertex of either model.
    """

    path: tyro.conf.Positional[Path]
    out: Annotated[Path, tyro.conf.arg(aliases=["-o"])]


def models(
    action: tyro.conf.OmitSubcommandPrefixes[
        Annotated[List, tyro.conf.subcommand("list")]
        | Annotated[Info, tyro.conf.subcommand("info")]
        | Annotated[Convert, tyro.conf.subcommand("convert")]
        | Annotated[Bridge, tyro.conf.subcommand("bridge")]
    ],
) -> int:
    """Face models of other projects: which can be read, what one holds, one safe file of it, bridges to it.

    Args:
        action: What to do.

    Returns:
        Exit code.
    """
    if isinstance(action, Info):
        return _info(action.path)
    if isinstance(action, Convert):
        return _convert(action.path, action.out)
    if isinstance(action, Bridge):
        return _bridge(action.path, action.out)
    return _list()


def _list() -> int:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from hiface.morphable.readers import FORMATS

    headings = ("files", "licence", "commercial use", "from", "needs")
    models = [("open", "shipped with hiface", "Apache-2.0", "yes", "here", "")]
    for entry in FORMATS.values():
        extra = f"hiface[{entry.extra}]" if entry.extra else ""
        models.append((entry.title, entry.files, entry.licence, entry.commercial, entry.source, extra))
    table = Table(show_header=False, box=None, pad_edge=False)
    for title, *values in models:
        table.add_row(Text(title, style="bold"))
        for heading, value in zip(headings, values, strict=True):
            if value:
                table.add_row(Text(f"  {heading}"), Text(value))
        table.add_row()
    Console(emoji=False).print(table)
    return 0


def _plain(text: str) -> str:
    """Text without rich's markup."""
    return text.replace("[", "\\[")


def _info(path: str) -> int:
    from rich.console import Console
    from rich.table import Table

    from hiface.morphable import load_model

    data = load_model(path).data
    size_mm = [1000 * length for length in _extent_m(data)]
    unit = data.metadata.get("unit_of_file", "m")
    kind = {"unit": "0..1", "sigma": "in sigma"}[data.expression_kind]
    table = Table(show_header=False, title=f"{data.name} {data.version}")
    rows = {
        "licence": data.licence,
        "unit of the file": f"{unit} ({data.metadata.get('unit_source', 'of the format')}); read as metres",
        "vertices": f"{data.n_vertices:,}",
        "triangles": f"{len(data.triangles):,}",
        "identity": f"{data.n_identity} coefficients in sigma",
        "expression": f"{len(data.expression_names)} coefficients {kind}"
        + (", bilinear with identity" if data.bilinear_basis is not None else ""),
        "albedo": f"{len(data.albedo_names)} coefficients, {data.albedo_mean.shape[-1]} px",
        "joints": ", ".join(data.joint_names)
        + (", with pose correctives" if data.pose_correctives is not None else ""),
        "landmark sets": ", ".join(f"{k} ({len(v)})" for k, v in sorted(data.landmark_sets.items()))
        or "none",
        "vertex masks": ", ".join(sorted(data.vertex_masks)) or "none",
        "size": f"{size_mm[0]:.0f} x {size_mm[1]:.0f} x {size_mm[2]:.0f} mm",
    }
    for key, value in rows.items():
        table.add_row(key, _plain(value))
    for problem in check_model(data) or ["all passed"]:
        table.add_row("checks", _plain(problem))
    Console(emoji=False).print(table)
    return 0


def _extent_m(data: MorphableModelData) -> list[float]:
    """Width, height and depth of the mean face."""
    return (data.template.amax(dim=0) - data.template.amin(dim=0)).tolist()


def check_model(data: MorphableModelData) -> list[str]:
    """What looks wrong with a model: its size, its unit, its axes, its mesh.

    Args:
        data: The model.

    Returns:
        One sentence per problem.
    """
    problems = []
    published = data.metadata.get("published_vertices", "")
    if published.isdecimal() and int(published) != data.n_vertices:
        problems.append(f"{data.n_vertices:,} vertices; the published mesh has {int(published):,}")
    extent = _extent_m(data)
    for name, length, (low, high) in (("wide", extent[0], _WIDTH_M), ("high", extent[1], _HEIGHT_M)):
        if not low <= length <= high:
            problems.append(
                f"the face is {1000 * length:.0f} mm {name}, expected {1000 * low:.0f}-{1000 * high:.0f} mm: "
                "the file may be in another unit"
            )
    corners = {"ibug68": (36, 45), "now7": (0, 3)}
    for name, (right, left) in corners.items():
        if name in data.landmark_sets:
            points = data.landmark_sets[name].positions(data.template, data.triangles)
            across = float((points[left] - points[right]).norm())
            if not _EYES_M[0] <= across <= _EYES_M[1]:
                problems.append(
                    f"the outer eye corners are {1000 * across:.0f} mm apart, expected "
                    f"{1000 * _EYES_M[0]:.0f}-{1000 * _EYES_M[1]:.0f} mm: the file may be in another unit"
                )
            if points[left, 0] <= points[right, 0]:
                problems.append("the left eye is not at +X: the file may be mirrored or have other axes")
            break
    return problems


def _check_name(out: Path) -> None:
    from hiface.errors import OutputError

    if out.is_dir() or out.suffix != ".safetensors":
        raise OutputError(f"{out} must be a file whose name ends in .safetensors")


def _bridge(path: Path, out: Path) -> int:
    from rich.console import Console

    from hiface.morphable import load_model
    from hiface.transfer import make_bridge, write_bridge

    _check_name(out)
    console = Console(stderr=True, emoji=False)
    with console.status("looking for corresponding points"):
        bridge = make_bridge(load_model("open").data, load_model(str(path)).data)
    write_bridge(bridge, out)
    shares = [
        round(100 * float(places.trusted.float().mean())) for places in (bridge.to_target, bridge.to_source)
    ]
    sides = ((bridge.target, bridge.source, shares[0]), (bridge.source, bridge.target, shares[1]))
    for own, other, share in sides:
        text = f"{share} % of the {own.n_vertices:,} vertices of {own.name} {own.version} lie on {other.name}"
        console.print(text, markup=False)
    console.print(f"{out}: {out.stat().st_size / 1e6:.1f} MB", markup=False)
    return 0


def _convert(path: Path, out: Path) -> int:
    from rich.console import Console

    from hiface.morphable import load_model
    from hiface.morphable.readers import write_model

    _check_name(out)
    data = load_model(str(path)).data
    write_model(data, out)
    console = Console(stderr=True, emoji=False)
    console.print(f"{out}: {data.name} {data.version}, {out.stat().st_size / 1e6:.1f} MB", markup=False)
    console.print(f"licence of the data: {data.licence}", markup=False)
    for problem in check_model(data):
        console.print(f"check: {problem}", markup=False)
    return 0
