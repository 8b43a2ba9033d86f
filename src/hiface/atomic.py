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
    temporary: str | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
    except OSError as error:
        if temporary is not None and os.path.exists(temporary):
            os.unlink(temporary)
        reason = error.strerror or error
        raise OutputError(f"{path} cannot be written ({reason}); choose another output folder") from error
    return path


def atomic_write_text(path: str | Path, content: str) -> Path:
    """Like `atomic_write_bytes`, for UTF-8 text; line ends stay as they are."""
    return atomic_write_bytes(path, content.encode("utf-8"))


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
