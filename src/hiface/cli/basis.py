# SPDX-License-Identifier: Apache-2.0
"""`hiface basis`: makes the bases of displacement maps."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import tyro


def basis(
    out: Annotated[Path, tyro.conf.arg(aliases=["-o"])],
    size: Literal[256, 512] = 512,
    people: int = 6000,
    static: int = 300,
    compressed: int = 100,
    stretched: int = 60,
    seed: int = 0,
) -> int:
    """Makes a basis of static, compressed and stretched detail from synthetic people.

    Args:
        out: File to write (.safetensors).
        size: Side of the displacement maps; the packaged basis has 256.
        people: People to draw; one in ten is kept to measure the explained variance.
        static: Coefficients of the detail at rest.
        compressed: Coefficients of what compression adds.
        stretched: Coefficients of what stretching adds.
        seed: Of the people.

    Returns:
        Exit code.
    """
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
    from rich.table import Table

    from hiface.detail.basis import explained, save_basis
    from hiface.errors import OutputError
    from hiface.morphable import load_model
    from hiface.synthetic.detail_pca import build_detail_basis

    if out.is_dir():
        raise OutputError(f"{out} is a folder; name a file, for example {out / 'detail.safetensors'}")
    console = Console(stderr=True, emoji=False)
    columns = (TextColumn("people"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console) as bar:
        item = bar.add_task("people", total=people)
        found = build_detail_basis(
            load_model("open"), people, size, (static, compressed, stretched), seed, lambda: bar.advance(item)
        )
    save_basis(found, out)
    table = Table("coefficients", *explained(found), title=f"explained variance of held people, {out}")
    steps = sorted({int(n) for shares in explained(found).values() for n in shares})
    for n in steps:
        cells = [f"{100 * s[str(n)]:.1f} %" if str(n) in s else "" for s in explained(found).values()]
        table.add_row(str(n), *cells)
    console.print(table)
    return 0
