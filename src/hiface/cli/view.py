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

_HOST, _PORT = "127.0.0.1", 8080  # those of hiface.app.server, which is slow to import


def view(
    result: Annotated[Path | None, tyro.conf.Positional] = None,
    html: bool = False,
    out: Annotated[Path | None, tyro.conf.arg(aliases=["-o"])] = None,
    photo: Path | None = None,
    backdrop: bool = True,
    open: bool = False,
    host: str = _HOST,
    port: int = _PORT,
) -> int:
    """Shows what was reconstructed, with expression sliders, from a local web server that Ctrl-C ends.

    With --html, writes a page beside each face.glb, which opens by double click and needs no network.

    Args:
        result: A .glb file, the folder of a person or of a photo, or the output folder of a command. Without
            it the viewer is empty; photos can be dropped into it.
        html: Write one HTML file per person.
        out: Name of the HTML file, where there is one person; face.html beside face.glb when left out.
        photo: The photo that the head was made from, where it is no longer at its place; with --html.
        backdrop: Put the photo into the page, so that the head can be seen over it; with --html.
        open: Open the first page in the web browser.
        host: Own address of the server; 0.0.0.0 lets other computers see the faces.
        port: Port of the server; 0 takes a free one.

    Returns:
        Exit code.
    """
    from rich.console import Console

    from hiface.app.results import find_results

    console = Console(stderr=True, emoji=False)
    if not html:
        if out is not None or photo is not None or not backdrop:
            raise OptionError("--out, --photo and --no-backdrop belong to --html; add it")
        return _serve([] if result is None else find_results(result), host, port, open, console)
    if (host, port) != (_HOST, _PORT):
        raise OptionError("--host and --port belong to the server; leave out --html")
    if out is not None and out.suffix.lower() not in (".html", ".htm"):
        raise OptionError(f"-o must end in .html, got {out.name}")
    if result is None:
        raise OptionError("--html needs a result; name a .glb file or the output folder of a command")
    people = find_results(result)
    if len(people) > 1 and (out is not None or photo is not None):
        raise OptionError(
            f"{result} has {len(people)} people; --out and --photo are for one, name its folder"
        )
    pages = [_write(person, out, photo, backdrop, console) for person in people]
    if open:
        _open(pages[0].absolute().as_uri(), str(pages[0]), console)
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


def _serve(people: list[ResultFiles], host: str, port: int, open: bool, console: Console) -> int:
    """The interactive server."""
    from hiface.app.server import serve

    def say(url: str) -> None:
        console.print(f"{url}  (Ctrl-C ends)", markup=False, highlight=False)
        if open:
            _open(url, url, console)

    return serve(people, host, port, say)


def _open(address: str, name: str, console: Console) -> None:
    if not webbrowser.open(address):
        console.print(f"no web browser was found; open {name} by hand", markup=False, highlight=False)
