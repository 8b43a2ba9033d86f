# SPDX-License-Identifier: Apache-2.0
"""Tar files with the same bytes for the same content, written whole or not at all (the layout of WebDataset).

Files of one sample follow each other and share their name up to the first dot.
"""

from __future__ import annotations

import hashlib
import io
import os
import tarfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO

from hiface.errors import AssetError, OutputError

_FIX = "make room or choose another folder and run the same command again: finished shards are kept"


class _Hashing(io.RawIOBase):
    """Passes what is written on to a file and keeps its hash."""

    def __init__(self, handle: IO[bytes]) -> None:
        self._handle = handle
        self.sha256 = hashlib.sha256()
        self.length = 0

    def writable(self) -> bool:
        return True

    def write(self, content) -> int:  # pyright: ignore[reportIncompatibleMethodOverride]
        self._handle.write(content)
        self.sha256.update(content)
        self.length += len(content)
        return len(content)

    def tell(self) -> int:
        return self.length


def _entry(name: str, length: int) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.size, info.mode, info.mtime = length, 0o644, 0
    return info


def sync_folder(folder: Path) -> None:
    """Makes renames in a folder last through a power cut, where the system has a way to."""
    if hasattr(os, "O_DIRECTORY"):
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def replace_file(temporary: Path, path: Path) -> None:
    """Gives a finished temporary file its name."""
    temporary.replace(path)
    sync_folder(path.parent)


def write_tar(path: Path, members: Iterable[tuple[str, bytes]]) -> tuple[int, str]:
    """Writes a tar file under a temporary name and renames it when it is whole and on the disk.

    Args:
        path: The file.
        members: Names and contents, in order; taken one by one.

    Returns:
        Length in bytes and SHA-256 of the file.

    Raises:
        OutputError: The file cannot be written; nothing is left of it.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        for stale in path.parent.glob(f".{path.name}.*.part"):
            stale.unlink(missing_ok=True)
        with temporary.open("wb") as handle:
            out = _Hashing(handle)
            with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as tar:
                for name, content in members:
                    tar.addfile(_entry(name, len(content)), io.BytesIO(content))
            handle.flush()
            os.fsync(handle.fileno())
        replace_file(temporary, path)
    except OSError as error:
        raise OutputError(f"cannot write {path.name} ({error}); {_FIX}") from error
    finally:
        temporary.unlink(missing_ok=True)
    return out.length, out.sha256.hexdigest()


def file_sha256(path: Path) -> str:
    """SHA-256 of a file."""
    digest = hashlib.sha256()
    with path.open("rb") as handle:
        while block := handle.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def read_tar(path: Path) -> Iterator[tuple[str, dict[str, bytes]]]:
    """Samples of a tar file, one after another.

    Args:
        path: The file.

    Yields:
        Key (the name up to the first dot) and the sample's files by the rest of their names.

    Raises:
        AssetError: The file is missing, cut or no tar file.
    """
    key, files = None, {}
    try:
        with tarfile.open(path, mode="r:") as tar:
            for info in tar:
                content = tar.extractfile(info)
                name, _, rest = info.name.partition(".")
                if content is None:
                    continue
                if key is not None and name != key:
                    yield key, files
                    files = {}
                key = name
                files[rest] = content.read()
                if len(files[rest]) != info.size:
                    raise tarfile.ReadError("unexpected end of data")
    except (OSError, tarfile.TarError) as error:
        raise AssetError(f"{path.name} is no whole shard ({error}); make the data again") from error
    if key is not None:
        yield key, files
