# SPDX-License-Identifier: Apache-2.0
"""Files that appear whole or not at all: written under a temporary name in the same folder, then renamed."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from hiface.errors import OutputError


def atomic_write_bytes(path: str | Path, content: bytes) -> Path:
    """Writes a file in one step; missing folders are made.

    Args:
        path: File to write or replace.
        content: Its bytes.

    Returns:
        The path.

    Raises:
        OutputError: The folder or file cannot be written.
    """
    path = Path(path)
    temporary = part_of(path)
    try:
        temporary.write_bytes(content)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise _refusal(path, error) from error
    return put_in_place(temporary, path)


def atomic_write_text(path: str | Path, content: str) -> Path:
    """Like `atomic_write_bytes`, for UTF-8 text; line ends stay as they are."""
    return atomic_write_bytes(path, content.encode("utf-8"))


def part_of(path: str | Path) -> Path:
    """Makes an empty file beside `path` for content that grows; missing folders are made.

    Args:
        path: File to write in the end.

    Returns:
        Path of the temporary file, for `put_in_place`; whoever fails before that deletes it.

    Raises:
        OutputError: The folder cannot be written.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
        os.close(handle)
    except OSError as error:
        raise _refusal(path, error) from error
    return Path(temporary)


def put_in_place(temporary: Path, path: str | Path) -> Path:
    """Gives a file of `part_of` its name, with the usual permissions; it is gone when that fails.

    Args:
        temporary: The whole file.
        path: Its name.

    Returns:
        The path.

    Raises:
        OutputError: It cannot be renamed.
    """
    path = Path(path)
    try:
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise _refusal(path, error) from error
    return path


def _refusal(path: Path, error: OSError) -> OutputError:
    return OutputError(f"{path} cannot be written ({error.strerror or error}); choose another output folder")


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
