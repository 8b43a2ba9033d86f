# SPDX-License-Identifier: Apache-2.0
"""Colour of skin from what it is made of: melanin in the epidermis, blood in the dermis.

Two layers of Kubelka and Munk: an epidermis of 60 micrometres that absorbs and scatters, on an endless
dermis. All coefficients are published approximations:

- absorption of melanosomes and of bloodless skin, scattering of the dermis: S. L. Jacques, "Skin optics",
  Oregon Medical Laser Center News, January 1998;
- the two fluxes of light and their coefficients K = 2 mu_a, S = 3/4 mu_s': R. R. Anderson and J. A. Parrish,
  "The optics of human skin", J. Invest. Dermatol. 77, 1981, after P. Kubelka, J. Opt. Soc. Am. 38, 1948;
- extinction of haemoglobin: table compiled by S. Prahl from W. B. Gratzer and N. Kollias (rounded);
- the eye's colour matching functions: Wyman, Sloan and Shirley, JCGT 2(2), 2013; daylight: CIE D65.
"""

from __future__ import annotations

import torch
from torch import Tensor


def _table(text: str) -> tuple[float, ...]:
    return tuple(float(number) for number in text.split())


_WAVELENGTHS_NM = tuple(float(nm) for nm in range(400, 701, 10))
_D65 = _table(
    "82.755 91.486 93.432 86.682 104.865 117.008 117.812 114.861 115.923 108.811 109.354 "
    "107.802 104.790 107.689 104.405 104.046 100.000 96.334 95.788 88.686 90.006 89.599 "
    "87.699 83.289 83.699 80.027 80.215 82.278 78.284 69.721 71.609"
)
_EXTINCTION_OXY = _table(
    "266232 466840 480360 246072 102580 62816 44480 33209 26629 23684 20933 "
    "20035 24202 39957 53236 43016 32613 44496 50104 14401 3200 1506 "
    "942 610 442 368 320 294 278 276 290"
)
_EXTINCTION_DEOXY = _table(
    "223296 303956 407560 528600 413280 103292 23389 16156 14550 16684 20862 "
    "25774 31590 39036 46592 53412 53788 45072 37020 28324 14677 9444 "
    "6510 5149 4345 3750 3227 2795 2408 2052 1794"
)
_HAEMOGLOBIN_G_PER_L = 150.0
_HAEMOGLOBIN_G_PER_MOL = 64500.0
_EPIDERMIS_CM = 0.006
_XYZ_TO_RGB = (
    (3.2404542, -1.5371385, -0.4985314),
    (-0.9692660, 1.8760108, 0.0415560),
    (0.0556434, -0.2040259, 1.0572252),
)

MELANIN_RANGE = (0.01, 0.43)
"""Volume fraction of melanosomes in the epidermis: light .01-.06, medium .11-.16, dark .18-.43 (Jacques)."""
BLOOD_RANGE = (0.002, 0.2)
"""Volume fraction of blood in the dermis: pale skin about .01, flushed skin about .1, lips more."""


def colour_matching(wavelengths_nm: Tensor) -> Tensor:
    """CIE 1931 colour matching functions as sums of two-sided Gaussians (Wyman et al., 2013, eq. 4).

    Args:
        wavelengths_nm: [N] nanometres.

    Returns:
        [N, 3] x, y, z.
    """

    def lobe(centre: float, below: float, above: float) -> Tensor:
        offset = wavelengths_nm - centre
        return torch.exp(-0.5 * (offset * torch.where(offset < 0, below, above)) ** 2)

    x = 0.362 * lobe(442.0, 0.0624, 0.0374) + 1.056 * lobe(599.8, 0.0264, 0.0323)
    x = x - 0.065 * lobe(501.1, 0.0490, 0.0382)
    y = 0.821 * lobe(568.8, 0.0213, 0.0247) + 0.286 * lobe(530.9, 0.0613, 0.0322)
    z = 1.217 * lobe(437.0, 0.0845, 0.0278) + 0.681 * lobe(459.0, 0.0385, 0.0725)
    return torch.stack([x, y, z], dim=-1)


def reflectance_to_rgb(reflectance: Tensor) -> Tensor:
    """Linear sRGB of a surface in daylight, relative to a perfect white diffuser.

    Args:
        reflectance: [*B, 31] in [0, 1] at 400, 410, ..., 700 nm.

    Returns:
        [*B, 3] linear RGB; (1, 1, 1) for reflectance one.
    """
    nm = reflectance.new_tensor(_WAVELENGTHS_NM)
    weights = colour_matching(nm) * reflectance.new_tensor(_D65)[:, None]
    weights = weights @ reflectance.new_tensor(_XYZ_TO_RGB).T
    return reflectance @ (weights / weights.sum(dim=0))


def skin_reflectance(melanin: Tensor, haemoglobin: Tensor, oxygenation: float = 0.75) -> Tensor:
    """Diffuse reflectance spectrum of skin, without the gloss of its surface.

    Args:
        melanin: [*B] volume fraction of melanosomes in the epidermis, see `MELANIN_RANGE`.
        haemoglobin: [*B] volume fraction of blood in the dermis, see `BLOOD_RANGE`.
        oxygenation: Share of the haemoglobin that carries oxygen.

    Returns:
        [*B, 31] in [0, 1] at 400, 410, ..., 700 nm.
    """
    nm = melanin.new_tensor(_WAVELENGTHS_NM)
    baseline = 0.244 + 85.3 * torch.exp(-(nm - 154.0) / 66.2)
    epidermis = melanin[..., None] * (6.6e11 * nm**-3.33) + (1.0 - melanin[..., None]) * baseline
    extinction = oxygenation * nm.new_tensor(_EXTINCTION_OXY) + (1.0 - oxygenation) * nm.new_tensor(
        _EXTINCTION_DEOXY
    )
    blood = 2.303 * extinction * (_HAEMOGLOBIN_G_PER_L / _HAEMOGLOBIN_G_PER_MOL)
    dermis = haemoglobin[..., None] * blood + (1.0 - haemoglobin[..., None]) * baseline
    scattering = 0.75 * (2e5 * nm**-1.5 + 2e12 * nm**-4.0)
    below = _endless_layer(2.0 * dermis / scattering)
    reflected, passed = _thin_layer(2.0 * epidermis, scattering, _EPIDERMIS_CM)
    return reflected + passed.square() * below / (1.0 - reflected * below)


def _endless_layer(absorption_over_scattering: Tensor) -> Tensor:
    """Reflectance of an endlessly thick layer (Kubelka, 1948), of K / S."""
    ratio = absorption_over_scattering
    return 1.0 / (1.0 + ratio + torch.sqrt(ratio * (ratio + 2.0)))


def _thin_layer(absorption: Tensor, scattering: Tensor, thickness: float) -> tuple[Tensor, Tensor]:
    """Reflectance and transmittance of a free layer (Kubelka, 1948), of K, S and the thickness."""
    a = 1.0 + absorption / scattering
    b = torch.sqrt(a.square() - 1.0)
    argument = b * scattering * thickness
    denominator = a * torch.sinh(argument) + b * torch.cosh(argument)
    return torch.sinh(argument) / denominator, b / denominator


def skin_tone_rgb(melanin: Tensor, haemoglobin: Tensor, oxygenation: float = 0.75) -> Tensor:
    """Albedo of skin, linear sRGB. Differentiable in both fractions.

    Args:
        melanin: [*B] volume fraction of melanosomes in the epidermis, see `MELANIN_RANGE`.
        haemoglobin: [*B] volume fraction of blood in the dermis, see `BLOOD_RANGE`.
        oxygenation: Share of the haemoglobin that carries oxygen.

    Returns:
        [*B, 3] in [0, 1].
    """
    return reflectance_to_rgb(skin_reflectance(melanin, haemoglobin, oxygenation)).clamp(0.0, 1.0)
