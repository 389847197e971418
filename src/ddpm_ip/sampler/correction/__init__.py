"""Corrections: one a file, each composes with every sampler. A new one is a file and a line in the union below."""

from __future__ import annotations

from ddpm_ip.sampler.correction.band_gains import BandGains
from ddpm_ip.sampler.correction.base import Correction, Denoise, Row
from ddpm_ip.sampler.correction.clip import Clip, ClipMode
from ddpm_ip.sampler.correction.dcw import DCW
from ddpm_ip.sampler.correction.dynamic_thresholding import DynamicThresholding
from ddpm_ip.sampler.correction.epsilon_scaling import EpsilonScaling

__all__ = [
    "DCW",
    "AnyCorrection",
    "BandGains",
    "Clip",
    "ClipMode",
    "Correction",
    "Denoise",
    "DynamicThresholding",
    "EpsilonScaling",
    "Row",
]

AnyCorrection = BandGains | DCW | DynamicThresholding | EpsilonScaling
