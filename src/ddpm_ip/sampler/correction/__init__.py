"""Corrections: one a file, each composes with every sampler. A new one is a file and a line in the union below.

They are applied in order, the first next to the network, and each may be given once. ``guidance``, which asks the
network twice, must be the first. What asks it in another way follows (``ip_emulator``), then what changes eps
(``epsilon_scaling``, ``tsr``), then what changes x_0 (thresholding), then ``time_shift``, which asks all before it at
the time that it chooses; clipping is always the last.
``auto`` stands for what was calibrated, after ``guidance``.
The order of those that change the state after a visit (``variance_normalisation``) counts among themselves alone.
"""

from __future__ import annotations

from ddpm_ip.sampler.correction.auto import Auto
from ddpm_ip.sampler.correction.band_gains import BandGains
from ddpm_ip.sampler.correction.base import Correction, Denoise, Row
from ddpm_ip.sampler.correction.clip import Clip, ClipMode
from ddpm_ip.sampler.correction.dcw import DCW
from ddpm_ip.sampler.correction.dynamic_thresholding import DynamicThresholding
from ddpm_ip.sampler.correction.epsilon_scaling import EpsilonScaling
from ddpm_ip.sampler.correction.guidance import Guidance
from ddpm_ip.sampler.correction.ip_emulator import IPEmulator
from ddpm_ip.sampler.correction.time_shift import TimeShift
from ddpm_ip.sampler.correction.tsr import TSR
from ddpm_ip.sampler.correction.variance_normalisation import VarianceNormalisation

__all__ = [
    "DCW",
    "TSR",
    "AnyCorrection",
    "Auto",
    "BandGains",
    "Clip",
    "ClipMode",
    "Correction",
    "Denoise",
    "DynamicThresholding",
    "EpsilonScaling",
    "Guidance",
    "IPEmulator",
    "Row",
    "TimeShift",
    "VarianceNormalisation",
]

AnyCorrection = (
    Auto
    | BandGains
    | DCW
    | DynamicThresholding
    | EpsilonScaling
    | Guidance
    | IPEmulator
    | TimeShift
    | TSR
    | VarianceNormalisation
)
