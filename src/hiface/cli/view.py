# SPDX-License-Identifier: Apache-2.0
"""`hiface view`: looks at results, as pages that need no server or from a server of its own."""

from __future__ import annotations

import webbrowser
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from hiface.errors import OptionError

if TYPE_CHECKING:
    from rich.console import Console

    from hiface.app.results import ResultFiles


def view(
    result: Annotated[Path, tyro.conf.Positional],
    html: bool = False,
    out: Annotated[Path | None, tyro.conf.arg(aliases=["-o"])] = None,
    photo: Path | None = None,
    backdrop: bool = True,
    open: bool = False,
) -> int:
    """Shows what was reconstructed, with expression sliders.

    With --html, writes a page beside each face.glb, which opens by double click and needs no network.

    Args:
        result: A .glb file, the folder of a person or of a photo, or the output folder of a command.
        html: Write one HTML file per person.
        out: Name of the HTML file, where there is one person; face.html beside face.glb when left out.
        photo: The photo that the head was made from, where it is no longer at its place.
        backdrop: Put the photo into the page, so that the head can be seen over it.
        open: Open the first page in the web browser.

    Returns:
        Exit code.
    """
    from rich.console import Console

    from hiface.app.results import find_results

    if not html and (out is not None or photo is not None or open or not backdrop):
        raise OptionError("--out, --photo, --no-backdrop and --open belong to --html; add it")
    people = find_results(result)
    if not html:
        return _serve(people)
    if len(people) > 1 and (out is not None or photo is not None):
        raise OptionError(
            f"{result} has {len(people)} people; --out and --photo are for one, name its folder"
        )
    console = Console(stderr=True, emoji=False)
    pages = [_write(person, out, photo, backdrop, console) for person in people]
    if open and not webbrowser.open(pages[0].absolute().as_uri()):
        console.print(f"no web browser was found; open {pages[0]} by hand", markup=False, highlight=False)
    return 0


def _write(
    person: ResultFiles, out: Path | None, photo: Path | None, backdrop: bool, console: Console
) -> Path:
    """One page; says where it is."""
    from hiface.app.html import LARGE_PAGE_BYTES, write_viewer_page

    page = out or person.glb.with_suffix(".html")
    size = write_viewer_page(page, person, photo=photo, with_photo=backdrop)
    console.print(f"{page}: {size / 1e6:.1f} MB", markup=False, highlight=False)
    if size > LARGE_PAGE_BYTES:
        console.print(
            f"hiface: {page.name} is large and slow on telephones; write {person.glb.name} without --wrinkles"
            " or with a smaller --texture-size",
            style="yellow",
            markup=False,
            highlight=False,
        )
    return page


def _serve(people: list[ResultFiles]) -> int:
    """The interactive server."""
    try:
        from hiface.app.server import serve  # pyright: ignore[reportMissingImports]
    except ModuleNotFoundError as error:
        if error.name != "hiface.app.server":
            raise
        raise OptionError("this hiface has no interactive viewer; add --html to write pages") from error
    return serve(people)
