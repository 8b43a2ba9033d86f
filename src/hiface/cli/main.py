# SPDX-License-Identifier: Apache-2.0
"""Entry point of the `hiface` command: one file per subcommand."""

from __future__ import annotations

import sys

import tyro
from rich.console import Console

from hiface.cli import (
    animate,
    basis,
    bench,
    evaluate,
    info,
    live,
    live_link,
    models,
    reconstruct,
    relight,
    retarget,
    synth,
    track,
    train,
    view,
)
from hiface.errors import HifaceError

COMMANDS = {
    "reconstruct": reconstruct.reconstruct,
    "animate": animate.animate,
    "track": track.track,
    "live": live.live,
    "retarget": retarget.retarget,
    "live-link": live_link.live_link,
    "relight": relight.relight,
    "synth": synth.synth,
    "train": train.train,
    "basis": basis.basis,
    "bench": bench.bench,
    "eval": evaluate.evaluate,
    "compare": evaluate.compare,
    "models": models.models,
    "view": view.view,
    "info": info.info,
}


def main(argv: list[str] | None = None) -> None:
    """Runs the command line and exits: 0 all went well, 1 something did not, 2 wrong usage, 130 stopped."""
    console = Console(stderr=True, emoji=False)
    try:
        code = tyro.extras.subcommand_cli_from_dict(
            COMMANDS,
            prog="hiface",
            description="A photo in, a detailed and animatable 3D face out.",
            args=argv,
        )
    except HifaceError as error:
        console.print(f"hiface: {error}", style="red", markup=False, highlight=False)
        code = 1
    except KeyboardInterrupt:
        console.print("hiface: interrupted; files already written are whole", markup=False)
        code = 130
    sys.exit(code or 0)
