# SPDX-License-Identifier: Apache-2.0
"""Output folders: made and tried, with a name for each file."""

from __future__ import annotations

import tempfile
from pathlib import Path

from hiface.errors import OutputError


def prepare_folder(out: Path) -> None:
    """Makes an output folder and tries to write into it.

    Raises:
        OutputError: It cannot be made or written.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out):
            pass
    except OSError as error:
        raise OutputError(
            f"cannot write into {out} ({error.strerror}); choose another folder with -o"
        ) from error


def unique_names(files: list[Path]) -> list[str]:
    """A folder name per file: its stem, numbered where stems repeat."""
    own = {(path.stem or "photo").casefold() for path in files}
    taken: set[str] = set()
    names = []
    for path in files:
        stem = name = path.stem or "photo"
        count = 1
        while name.casefold() in taken or (count > 1 and name.casefold() in own):
            count += 1
            name = f"{stem}-{count}"
        taken.add(name.casefold())
        names.append(name)
    return names
