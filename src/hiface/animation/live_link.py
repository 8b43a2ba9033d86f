# SPDX-License-Identifier: Apache-2.0
"""The 61 channels of Live Link Face and Unreal Engine, and the packets that carry them.

Channels: the 52 shapes in the order "live_link", then yaw, pitch and roll of the head, the left eye and the
right eye.

Angles. Neither Apple nor Epic documents their unit; these are radians here. In a public recording of the app
(MySlate_1_iPhone.csv in github.com/dwskillman/BlendFiles) eyeLookDown 0.1126 stands beside an eye pitch of
0.0688 and eyeLookIn 0.0627 beside an eye yaw of 0.0382: 35 degrees at a value of 1 if the unit is the radian,
110 if it were the half turn by which Unreal's own source for phones divided in 2019 (AppleARKitFaceSupport).
MeFaMo (github.com/JimWest/MeFaMo), which drives Unreal, sends radians too.

Signs follow that source and MeFaMo, said of the face that the shapes describe: yaw is positive towards its
own right, pitch is positive downwards, roll is positive when the top of the head leans to its own left. All
are zero for a face that looks straight into an upright camera. The head is turned by yaw, then pitch, then
roll about its own axes (Unreal's FRotator). The eyes' angles are relative to the head; their roll is 0.

Packet, as PyLiveLinkFace (github.com/JimWest/PyLiveLinkFace, MIT) found it: int32 version 6, little-endian;
37 bytes ASCII, "$" and a UUID; then big-endian: int32 length of the subject's name, the name in UTF-8, int32
frame number, float32 part of a frame, int32 numerator and int32 denominator of the frames per second, uint8
61, 61 float32. The phone also sends packets without a face; they end after the name or before the values.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass

import numpy as np
import roma
import torch
from torch import Tensor

from hiface.animation.gaze import EYELOOK_NAMES, eyelook_to_gaze
from hiface.animation.orders import expression_order, live_link_rotation_channels, reorder
from hiface.errors import LiveLinkError, ShapeError

CHANNELS = 61
PORT = 11111
VERSION = 6
_SHAPES = 52
_ID_BYTES = 37
_LONGEST_NAME = 1024
_TIMING = struct.Struct(">ifii")
_GL_TO_CV = (1.0, -1.0, -1.0)


@dataclass(frozen=True)
class Channels:
    """What 61 channels say.

    Attributes:
        expression: [*B, 52] 0..1, alphabetical (ARKit) order.
        R_cam_head: [*B, 3, 3] rotation of the head, object to camera.
        gaze: Yaw and pitch [*B, 2] of the left and right eye, radians, signs as in `hiface.animation.gaze`.
    """

    expression: Tensor
    R_cam_head: Tensor
    gaze: tuple[Tensor, Tensor]


def to_channels(
    expression: Tensor, R_cam_head: Tensor | None = None, gaze: tuple[Tensor, Tensor] | None = None
) -> Tensor:
    """Channels of an expression, a head rotation and a gaze.

    Args:
        expression: [*B, 52] in alphabetical (ARKit) order; clamped to 0..1.
        R_cam_head: [*B, 3, 3] rotation, object to camera; None writes zeros, as the app does where the head's
            rotation is switched off.
        gaze: Yaw and pitch [*B, 2] of the left and right eye, radians; of the eyeLook shapes if None.

    Returns:
        [*B, 61].

    Raises:
        ShapeError: An array has the wrong shape.
    """
    shapes = reorder(expression, "arkit52", "live_link").clamp(0.0, 1.0)
    if gaze is None:
        names = expression_order("live_link")
        gaze = eyelook_to_gaze(shapes[..., [names.index(name) for name in EYELOOK_NAMES]])
    if R_cam_head is None:
        head = shapes.new_zeros(*shapes.shape[:-1], 3)
    else:
        head = rotation_to_channels(R_cam_head).to(shapes)
    yaw, pitch = (angle.to(shapes) for angle in gaze)
    eyes = torch.stack([-yaw, -pitch, torch.zeros_like(yaw)], dim=-1).flatten(-2)
    return torch.cat([shapes, head, eyes], dim=-1)


def from_channels(channels: Tensor) -> Channels:
    """Expression, head rotation and gaze of channels; the inverse of `to_channels`.

    Args:
        channels: [*B, 61].

    Returns:
        What they say; the eyes' roll is dropped.

    Raises:
        ShapeError: The last dimension is not 61.
    """
    if channels.shape[-1] != CHANNELS:
        raise ShapeError(f"channels must be [*B, {CHANNELS}], got {tuple(channels.shape)}")
    eyes = channels[..., _SHAPES + 3 :].unflatten(-1, (2, 3))
    return Channels(
        reorder(channels[..., :_SHAPES], "live_link", "arkit52").clamp(0.0, 1.0),
        channels_to_rotation(channels[..., _SHAPES : _SHAPES + 3]),
        (-eyes[..., 0], -eyes[..., 1]),
    )


def rotation_to_channels(R_cam_head: Tensor) -> Tensor:
    """HeadYaw, HeadPitch and HeadRoll [*B, 3] (radians) of rotations [*B, 3, 3], object to camera."""
    R = R_cam_head.double() * R_cam_head.new_tensor(_GL_TO_CV).double()[:, None]
    yaw, pitch, roll = roma.rotmat_to_euler("YXZ", R, as_tuple=True)
    return torch.stack([-yaw, pitch, -roll], dim=-1).to(R_cam_head)


def channels_to_rotation(head: Tensor) -> Tensor:
    """Rotations [*B, 3, 3], object to camera, of HeadYaw, HeadPitch and HeadRoll [*B, 3] in radians."""
    yaw, pitch, roll = head.double().unbind(-1)
    R = roma.euler_to_rotmat("YXZ", torch.stack([-yaw, pitch, -roll], dim=-1))
    return (R * head.new_tensor(_GL_TO_CV).double()[:, None]).to(head)


def channel_names() -> tuple[str, ...]:
    """The 61 names in the order of packets: ARKit's camelCase for shapes, Unreal's for rotations."""
    return (*expression_order("live_link"), *live_link_rotation_channels())


@dataclass(frozen=True)
class Packet:
    """One packet.

    Attributes:
        subject: Name under which Unreal lists the face.
        device_id: "$" and a UUID, 37 ASCII characters.
        channels: [61] float32 in the order of `channel_names`, or None where no face was seen.
        frame: Frame number, or None where the packet has none.
        part: Part of a frame that has passed since, 0..1.
        rate: Numerator and denominator of the frames per second; some senders write a denominator of 0.
    """

    subject: str
    device_id: str
    channels: np.ndarray | None
    frame: int | None = 0
    part: float = 0.0
    rate: tuple[int, int] = (60, 1)

    @property
    def fps(self) -> float | None:
        """Frames per second, or None where the packet says nothing sensible."""
        numerator, denominator = self.rate
        return numerator / denominator if numerator > 0 and denominator > 0 else None


def encode_packet(packet: Packet) -> bytes:
    """Bytes of a packet.

    Args:
        packet: What to send. Without channels it ends with a count of 0.

    Returns:
        The content of one datagram.

    Raises:
        LiveLinkError: The name, the id, a number or the channels do not fit.
    """
    name = packet.subject.encode("utf-8")
    if not 0 < len(name) <= _LONGEST_NAME:
        raise LiveLinkError(
            f"the subject's name must have 1 to {_LONGEST_NAME} bytes, it has {len(name)}; choose another"
        )
    if len(packet.device_id) != _ID_BYTES or not packet.device_id.isascii():
        raise LiveLinkError(
            f"the device id must be '$' and a UUID, {_ID_BYTES} characters, got {packet.device_id!r}"
        )
    head = struct.pack("<i", VERSION) + packet.device_id.encode("ascii") + struct.pack(">i", len(name)) + name
    if packet.frame is None:
        return head
    values = np.zeros(0, ">f4") if packet.channels is None else np.asarray(packet.channels).astype(">f4")
    if packet.channels is not None and (values.shape != (CHANNELS,) or not np.isfinite(values).all()):
        raise LiveLinkError(
            f"a packet holds {CHANNELS} finite channels, got {values.shape}; check the motion"
        )
    try:
        timing = _TIMING.pack(packet.frame, packet.part, *packet.rate)
    except (struct.error, OverflowError) as error:
        raise LiveLinkError(
            f"frame {packet.frame} at the rate {packet.rate} does not fit a packet ({error})"
        ) from error
    return head + timing + bytes([len(values)]) + values.tobytes()


def decode_packet(content: bytes) -> Packet:
    """Reads a packet; made for whatever comes from a network.

    Args:
        content: One datagram.

    Returns:
        The packet; its channels are as they came, not clamped.

    Raises:
        LiveLinkError: It is cut off, too long, of another version, has another number of channels, or a
            number that is not finite.
    """
    start = 4 + _ID_BYTES + 4
    if len(content) < start:
        raise LiveLinkError(f"a packet of {len(content)} bytes is cut off; is it from Live Link Face?")
    version = struct.unpack_from("<i", content)[0]
    if version != VERSION:
        raise LiveLinkError(
            f"packets of version {version} are not known, expected {VERSION}; update the sender"
        )
    length = struct.unpack_from(">i", content, start - 4)[0]
    if not 0 <= length <= min(_LONGEST_NAME, len(content) - start):
        raise LiveLinkError(
            f"a packet of {len(content)} bytes is cut off: its name should have {length} bytes"
        )
    try:
        device_id = content[4 : 4 + _ID_BYTES].decode("ascii")
        subject = content[start : start + length].decode("utf-8")
    except UnicodeDecodeError as error:
        raise LiveLinkError(
            f"a packet has a name that is no text ({error}); is it from Live Link Face?"
        ) from error
    rest = content[start + length :]
    if not rest:
        return Packet(subject, device_id, None, None)
    return _with_timing(subject, device_id, rest)


def _with_timing(subject: str, device_id: str, rest: bytes) -> Packet:
    if len(rest) < _TIMING.size:
        raise LiveLinkError(f"a packet of {subject!r} is cut off before its frame number")
    frame, part, numerator, denominator = _TIMING.unpack_from(rest)
    if not math.isfinite(part):
        raise LiveLinkError(f"a packet of {subject!r} has a frame number that is not finite")
    values = rest[_TIMING.size + 1 :]
    count = rest[_TIMING.size] if len(rest) > _TIMING.size else 0
    if count not in (0, CHANNELS):
        raise LiveLinkError(f"a packet of {subject!r} has {count} channels, expected {CHANNELS}")
    if len(values) != 4 * count:
        raise LiveLinkError(
            f"a packet of {subject!r} has {len(values)} bytes of values, expected {4 * count}"
        )
    channels = np.frombuffer(values, ">f4").astype(np.float32) if count else None
    if channels is not None and not np.isfinite(channels).all():
        raise LiveLinkError(f"a packet of {subject!r} has channels that are not finite")
    return Packet(subject, device_id, channels, frame, part, (numerator, denominator))
