# SPDX-License-Identifier: Apache-2.0
"""The container of binary glTF 2.0: a JSON chunk, a binary chunk, and chunks of extensions."""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass
from typing import Any

from hiface.errors import MeshFileError

MAGIC, JSON_CHUNK, BIN_CHUNK = 0x46546C67, 0x4E4F534A, 0x004E4942


@dataclass(frozen=True)
class GlbContent:
    """What is in a GLB file.

    Attributes:
        document: The glTF JSON.
        binary: Content of the binary chunk with its padding, or None where there is none.
        others: Kind and content of further chunks.
    """

    document: dict[str, Any]
    binary: bytes | None
    others: tuple[tuple[int, bytes], ...] = ()


def pack_glb(content: GlbContent) -> bytes:
    """Bytes of a .glb file.

    Args:
        content: Document, binary chunk and others.

    Returns:
        The file, each chunk padded to four bytes.
    """
    text = json.dumps(content.document, separators=(",", ":"), allow_nan=False)
    chunks = [_chunk(JSON_CHUNK, text.encode("utf-8"), b" ")]
    if content.binary is not None:
        chunks.append(_chunk(BIN_CHUNK, content.binary, b"\0"))
    chunks += [_chunk(kind, other, b"\0") for kind, other in content.others]
    body = b"".join(chunks)
    return struct.pack("<III", MAGIC, 2, 12 + len(body)) + body


def unpack_glb(content: bytes) -> GlbContent:
    """Reads the container.

    Args:
        content: A .glb file.

    Returns:
        Its chunks; the document is not checked beyond being a JSON object.

    Raises:
        MeshFileError: It is no GLB of version 2, or is cut off or damaged.
    """
    if len(content) < 20 or struct.unpack_from("<I", content)[0] != MAGIC:
        raise MeshFileError("this is no GLB file; export the head as glTF binary (.glb)")
    version, total = struct.unpack_from("<II", content, 4)
    if version != 2:
        raise MeshFileError(f"this GLB has version {version}, expected 2; export it again")
    if total > len(content):
        raise MeshFileError(f"this GLB is cut off: {len(content)} of {total} bytes; copy it again")
    chunks, at = [], 12
    while at + 8 <= total:
        length, kind = struct.unpack_from("<II", content, at)
        if at + 8 + length > total:
            raise MeshFileError(f"this GLB is damaged: a chunk of {length} bytes at {at}; export it again")
        chunks.append((kind, content[at + 8 : at + 8 + length]))
        at += 8 + length
    if not chunks or chunks[0][0] != JSON_CHUNK:
        raise MeshFileError("this GLB is damaged: it does not begin with JSON; export it again")
    try:
        document = json.loads(chunks[0][1].decode("utf-8"), parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise MeshFileError(
            f"this GLB is damaged: its JSON cannot be read ({error}); export it again"
        ) from error
    if not isinstance(document, dict):
        raise MeshFileError("this GLB is damaged: its JSON is no object; export it again")
    rest = chunks[1:]
    binary = rest.pop(0)[1] if rest and rest[0][0] == BIN_CHUNK else None
    return GlbContent(document, binary, tuple(rest))


def pad4(content: bytes, filler: bytes = b"\0") -> bytes:
    """Content, filled up to a multiple of four bytes."""
    return content + filler * (-len(content) % 4)


def _refuse(word: str) -> float:
    raise ValueError(f"{word} is no JSON number")


def _chunk(kind: int, content: bytes, filler: bytes) -> bytes:
    padded = pad4(content, filler)
    return struct.pack("<II", len(padded), kind) + padded
