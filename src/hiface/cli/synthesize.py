# SPDX-License-Identifier: Apache-2.0
"""`hiface synthesize`: makes labelled pictures of people who do not exist."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import tyro


def synthesize(
    out: Annotated[Path, tyro.conf.arg(aliases=["-o"])],
    count: int = 1000,
    size: int = 192,
    seed: int = 0,
    workers: int = 1,
) -> int:
    """Makes labelled pictures of people who do not exist; an interrupted run goes on where it stopped.

    Args:
        out: Folder of shards.
        count: Number of pictures.
        size: Side of a picture, pixels.
        seed: The same seed makes the same pictures.
        workers: Processes.

    Returns:
        Exit code.
    """
    from hiface.synthetic.generator import main_generate

    main_generate(out, count, size=size, seed=seed, workers=workers)
    return 0
