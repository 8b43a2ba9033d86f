# SPDX-License-Identifier: Apache-2.0
"""Runs the HiFace network on detected faces of a photo."""

from __future__ import annotations

import json
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from hiface.data.crop_arrays import eye_rolls, frames_of_points, read_crops
from hiface.data.crops import CropFrame
from hiface.morphable import MorphableModel
from hiface.networks.detect import Detection
from hiface.networks.hiface import Hiface, HifaceOutput, WithEvidence
from hiface.networks.hiface_params import output_to_params
from hiface.networks.motion_net import MotionNet
from hiface.networks.runtime import Runner, TorchRunner
from hiface.types import FaceParams

_LEAST_SIGMA = 1e-4


class HifaceReader:
    """Owns the HiFace network.

    Args:
        runner: The network, ready to run; with `motion` it gives evidence too (`WithEvidence`).
        model: Face model of the coefficients, on the CPU.
        without_detail: The network without detail codes, for faces of which motion alone is asked; the same
            network if None.
        motion: Reads changes of expression from the network's evidence; None if it was made for another one.

    Attributes:
        identity_sigma: [K] how far its identity coefficients are from the truth of people it never saw,
            standard deviations of the model; 1 where its weights do not say.
        motion: As given.
    """

    def __init__(
        self,
        runner: Runner,
        model: MorphableModel,
        without_detail: Runner | None = None,
        motion: MotionNet | None = None,
    ) -> None:
        self._runner, self._model, self.motion = runner, model, motion
        self._without_detail = without_detail or runner
        sizes = json.loads(runner.metadata["config"])
        self.crop_px, self.crop_scale = int(sizes["crop_px"]), float(sizes["crop_scale"])
        self._with_points = int(sizes["n_points"]) > 0
        said = runner.metadata.get("identity_sigma")
        self.identity_sigma = torch.tensor(json.loads(said)) if said else torch.ones(int(sizes["n_identity"]))

    @staticmethod
    def of(
        network: Hiface,
        model: MorphableModel,
        device: str,
        notes: Mapping[str, str],
        motion: MotionNet | None = None,
    ) -> HifaceReader:
        """A reader that runs a network in torch.

        Args:
            network: Is moved to the device.
            model: Face model of the coefficients, on the CPU.
            device: Torch device.
            notes: Stored with the weights (`weights_notes`).
            motion: See `HifaceReader`.
        """
        whole, quick = (TorchRunner(WithEvidence(network, detail), device, notes) for detail in (True, False))
        return HifaceReader(whole, model, quick, motion)

    def frames(self, points68_px: np.ndarray) -> np.ndarray:
        """Crops [N, 4] of faces with 68 points [N, 68, 2] pixels."""
        return frames_of_points(points68_px, self.crop_scale, eye_rolls(points68_px))

    def read(
        self, image_srgb: np.ndarray, faces: list[Detection], focal_px: float, with_detail: bool = True
    ) -> FaceParams:
        """Coefficients of faces in one forward pass.

        Args:
            image_srgb: [H, W, 3] uint8, upright.
            faces: N detected faces of the photo, at least one.
            focal_px: Focal length of the photo, pixels.
            with_detail: Whether detail is read; else its codes are 0.

        Returns:
            FaceParams with a leading dimension of N, on the CPU.
        """
        return self.read_evidence(image_srgb, faces, focal_px, with_detail)[0]

    @torch.no_grad()
    def read_traced(
        self, image_srgb: np.ndarray, faces: list[Detection], focal_px: float, with_detail: bool = True
    ) -> tuple[FaceParams, Tensor | None]:
        """What `read` gives, and traces [N, C] for `MotionNet`, None without one."""
        params, evidence = self.read_evidence(image_srgb, faces, focal_px, with_detail)
        if self.motion is None or evidence is None:
            return params, None
        return params, self.motion.trace(evidence, params.expression)

    def read_evidence(
        self, image_srgb: np.ndarray, faces: list[Detection], focal_px: float, with_detail: bool = True
    ) -> tuple[FaceParams, Tensor | None]:
        """What `read` gives, and what was seen at the landmarks [N, D], None if the runner does not say."""
        height, width = image_srgb.shape[:2]
        frames = self.frames(np.stack([face.landmarks68_px.numpy() for face in faces]))
        inputs = [read_crops(np.ascontiguousarray(image_srgb), frames, self.crop_px)]
        frame = CropFrame.unpacked(torch.from_numpy(frames))
        if self._with_points:
            inputs.append(self._points(faces, frame))
        runner = self._runner if with_detail else self._without_detail
        parts = [torch.from_numpy(part) for part in runner(*inputs)]
        n_fields = len(HifaceOutput._fields)
        out = HifaceOutput(*parts[:n_fields])
        K = torch.tensor([[focal_px, 0, width / 2], [0, focal_px, height / 2], [0, 0, 1]])
        params = output_to_params(self._model, out, frame, K.expand(len(faces), 3, 3), width, height)
        return params, parts[n_fields] if len(parts) > n_fields else None

    @staticmethod
    def _points(faces: list[Detection], frame: CropFrame) -> np.ndarray:
        """[N, P, 3] landmarks as the landmark network would give them in these crops."""
        px = torch.stack([torch.cat([f.landmarks68_px, f.dense_px, f.iris_px]) for f in faces])
        sigma = torch.stack(
            [torch.cat([f.landmarks68_sigma_px, f.dense_sigma_px, f.iris_sigma_px]) for f in faces]
        )
        log_sigma = torch.log((sigma / (0.5 * frame.side_px[:, None])).clamp_min(_LEAST_SIGMA))
        return torch.cat([frame.to_crop(px), log_sigma[..., None]], dim=-1).numpy()
