# SPDX-License-Identifier: Apache-2.0
"""Pictures of people that no network was trained on, what is known of their faces, and subsets of them.

The data sets from number `HOLDOUT_SEED` on are kept for measuring: no other data set shares a person with
them (people are numbered by data set), and `ShardSet` never gives their people to training, whatever folder
it reads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from hiface.assets import load_json_asset
from hiface.colour import LUMINANCE, srgb_to_linear
from hiface.data.crops import box_of_points
from hiface.errors import AssetError, OptionError
from hiface.synthetic.datasets import HOLDOUT_SEED, held_out, make_spec
from hiface.synthetic.generator import SEGMENTATION
from hiface.synthetic.shards import write_shards
from hiface.training.shard_cache import decoded_shard
from hiface.training.shards import shard_entries

LARGE_PX, SMALL_PX = 256, 96  # a face takes 25 to 75 % of a picture's side
SMALL_SHARE = 0.25
_FLAT_FLOOR = 0.12  # share of the box's longer side; 0.15 half crop sides at a crop of 1.6 boxes


@dataclass(frozen=True)
class HeldFaces:
    """Faces with exact labels; one in each picture.

    Attributes:
        points_px: [N, L, 2] 68 and dense points, pixels; also those outside the picture or hidden.
        visible: [N, L] bool.
        space_px: [N] length of the outer eye distance in space at the depth of its middle, pixels.
        flat_px: [N] outer eye distance in the picture, at least 12 % of the longer side of the face's box.
        yaw: [N] radians that the head is turned from the camera, to the own left.
        luminance: [N] mean linear luminance of the face's skin, 0..1; NaN if none is seen.
        expression: [N, E] coefficients.
        expression_names: [E] names.
        picture_px: [N] side of the picture.
    """

    points_px: Tensor
    visible: Tensor
    space_px: Tensor
    flat_px: Tensor
    yaw: Tensor
    luminance: Tensor
    expression: Tensor
    expression_names: tuple[str, ...]
    picture_px: Tensor

    @property
    def side_px(self) -> Tensor:
        """[N] longer side of the box around the 68 points."""
        box = box_of_points(self.points_px[:, :68])
        return (box[:, 2:] - box[:, :2]).amax(dim=1)


@dataclass(frozen=True)
class SubsetLimits:
    """Where subsets begin.

    Attributes:
        profile: Least yaw, radians.
        hidden_share: Share of the 68 points that must be hidden or outside the picture for "occluded".
        lost_share: The same share for "hardly visible".
        dark: Largest mean linear luminance of the face's skin.
        strong: Least sum of the expression's coefficients (without those that follow the gaze).
        low_px: Largest longer side of the face's box, pixels.
    """

    profile: float = np.pi / 3
    hidden_share: float = 0.3
    lost_share: float = 0.8
    dark: float = 0.1
    strong: float = 4.0
    low_px: float = 48.0


def write_holdout(
    folder: Path, count: int, workers: int = 1, advance: Callable[[int, int], None] | None = None
) -> tuple[Path, Path]:
    """Makes the hold-out set; what is there already is kept.

    Args:
        folder: Where to.
        count: Number of pictures, three quarters of 256 px, the rest of 96 px.
        workers: Processes; they share the work in shards of 500 pictures.
        advance: Called with the numbers of pictures that are done and wanted.

    Returns:
        Folders of the large and of the small pictures.

    Raises:
        OptionError: A number is out of range.
        OutputError: The folder cannot be written or holds other data.
    """
    if count < 2:
        raise OptionError(f"a hold-out set has 2 pictures or more, got {count}")
    small = max(1, round(count * SMALL_SHARE))
    parts = (("large", LARGE_PX, count - small), ("small", SMALL_PX, small))
    before = 0
    for i, (name, size, number) in enumerate(parts):

        def report(done: int, _total: int, first: int = before) -> None:
            if advance is not None:
                advance(first + done, count)

        write_shards(folder / name, number, make_spec(size=size, seed=HOLDOUT_SEED + i), workers, report)
        before += number
    return folder / "large", folder / "small"


def read_holdout(
    folder: Path, names: tuple[str, ...], only_held: bool = True
) -> Iterator[tuple[np.ndarray, HeldFaces]]:
    """Pictures and faces of a folder of shards.

    Args:
        folder: Folder of shards of single pictures.
        names: Names of the expression's coefficients.
        only_held: Refuse people that may have been trained on.

    Yields:
        [N, S, S, 3] uint8 pictures of a shard, and their faces.

    Raises:
        AssetError: A shard is damaged, or its people do not belong to the data sets kept for measuring.
    """
    for entry in shard_entries(folder):
        paths = decoded_shard(folder, entry)
        images = np.load(paths.images, mmap_mode="r")
        segmentation = np.load(paths.segmentation, mmap_mode="r")
        with np.load(paths.labels) as stored:
            labels = {name: stored[name] for name in stored.files}
        if only_held and not held_out(labels["person"]).all():
            fix = f"make a hold-out set with: hiface synth --seed {HOLDOUT_SEED} -o FOLDER"
            raise AssetError(f"{folder} holds people that a network may have been trained on; {fix}")
        pictures = images[:, :3].transpose(0, 2, 3, 1)
        yield pictures, faces_of_labels(labels, pictures, segmentation, names)


def faces_of_labels(
    labels: dict[str, np.ndarray], pictures: np.ndarray, segmentation: np.ndarray, names: tuple[str, ...]
) -> HeldFaces:
    """What labels say of faces.

    Args:
        labels: Arrays of N rows, named as in `hiface.synthetic.records`.
        pictures: [N, S, S, 3] uint8.
        segmentation: [N, S, S] uint8.
        names: Names of the expression's coefficients.

    Returns:
        The faces.
    """
    points68, dense, seen68, seen_dense, K, T_cam_head, depth68, expression = (
        torch.from_numpy(np.asarray(labels[key]))
        for key in (
            "landmarks68_px",
            "dense_px",
            "visible68",
            "visible_dense",
            "K",
            "T_cam_head",
            "depth68_cam",
            "expression",
        )
    )
    depth = depth68 + T_cam_head[:, 2, 3, None]
    box = box_of_points(points68)
    right, left = load_json_asset("landmarks/ibug68_groups.json")["outer_eye_corners"]
    flat = (points68[:, right] - points68[:, left]).norm(dim=1)
    return HeldFaces(
        points_px=torch.cat([points68, dense], dim=1).float(),
        visible=torch.cat([seen68, seen_dense], dim=1),
        space_px=space_length(points68[:, [right, left]], depth[:, [right, left]], K),
        flat_px=torch.maximum(flat, _FLAT_FLOOR * (box[:, 2:] - box[:, :2]).amax(dim=1)),
        yaw=head_yaw(T_cam_head),
        luminance=skin_luminance(pictures, segmentation, box),
        expression=expression.float(),
        expression_names=names,
        picture_px=torch.full((len(points68),), float(pictures.shape[1])),
    )


def space_length(ends_px: Tensor, depth: Tensor, K: Tensor) -> Tensor:
    """How long a line is in the picture once it is turned to lie across the view.

    Its length in space times the focal length over the depth of its middle: that of the picture for a face
    from the front, and the same for the same face in profile, where the picture's own length collapses.

    Args:
        ends_px: [*B, 2, 2] ends, pixels.
        depth: [*B, 2] depth of the ends along the optical axis, metres.
        K: [*B, 3, 3].

    Returns:
        [*B] pixels.
    """
    focal = K[..., 0, 0]
    flat = (ends_px - K[..., None, :2, 2]) * (depth / focal[..., None])[..., None]
    ends = torch.cat([flat, depth[..., None]], dim=-1)
    length = (ends[..., 0, :] - ends[..., 1, :]).norm(dim=-1)
    return (length * focal / depth.mean(dim=-1)).float()


def head_yaw(T_cam_head: Tensor) -> Tensor:
    """Yaw of heads, whatever their pitch and roll: [*B, 4, 4] to [*B] radians, to the own left."""
    return torch.atan2(T_cam_head[..., 2, 0], -T_cam_head[..., 2, 2])


def skin_luminance(pictures: np.ndarray, segmentation: np.ndarray, box: Tensor) -> Tensor:
    """Mean linear luminance of the skin within faces' boxes.

    Args:
        pictures: [N, S, S, 3] uint8 sRGB.
        segmentation: [N, S, S] uint8.
        box: [N, 4] pixels.

    Returns:
        [N] 0..1; NaN where no skin is seen.
    """
    skin, out = SEGMENTATION.index("skin"), []
    for picture, regions, corners in zip(pictures, segmentation, box.tolist(), strict=True):
        x0, y0, x1, y1 = (max(0, round(c)) for c in corners)
        chosen = torch.from_numpy(picture[y0:y1, x0:x1][regions[y0:y1, x0:x1] == skin])
        linear = srgb_to_linear(chosen.float() / 255.0) @ torch.tensor(LUMINANCE)
        out.append(float(linear.mean()) if len(linear) else float("nan"))
    return torch.tensor(out)


def subsets(faces: HeldFaces, limits: SubsetLimits | None = None) -> dict[str, Tensor]:
    """Which faces belong to which subset.

    Args:
        faces: N faces.
        limits: Where subsets begin.

    Returns:
        [N] bool by name: "all", "profile", "occluded" (hidden by whatever, the head itself and the picture's
        edge included), "covered" (occluded, but neither in profile nor cut), "hardly visible", "dark",
        "strong expression", "low resolution", "cut".
    """
    limit = limits or SubsetLimits()
    free = [i for i, name in enumerate(faces.expression_names) if not name.startswith("eyeLook")]
    side = faces.picture_px[:, None, None]
    points = faces.points_px[:, :68]
    profile = faces.yaw.abs() > limit.profile
    hidden = (~faces.visible[:, :68]).float().mean(dim=1)
    occluded = hidden > limit.hidden_share
    cut = ((points < 0) | (points > side)).any(dim=2).any(dim=1)
    return {
        "all": torch.ones_like(profile),
        "profile": profile,
        "occluded": occluded,
        "covered": occluded & ~profile & ~cut,
        "hardly visible": hidden > limit.lost_share,
        "dark": faces.luminance < limit.dark,
        "strong expression": faces.expression[:, free].sum(dim=1) > limit.strong,
        "low resolution": faces.side_px < limit.low_px,
        "cut": cut,
    }


def join_faces(parts: list[HeldFaces]) -> HeldFaces:
    """Several lists of faces, one after another."""
    tensors = {
        name: torch.cat([getattr(part, name) for part in parts])
        for name, value in vars(parts[0]).items()
        if isinstance(value, Tensor)
    }
    return HeldFaces(**tensors, expression_names=parts[0].expression_names)
