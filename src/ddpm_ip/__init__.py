"""Diffusion models with input perturbation (DDPM-IP) and the study of exposure bias.

Nothing is imported here, so that ``ddpm-ip --help`` answers at once. The subject lives in five short modules:
:mod:`ddpm_ip.schedule`, :mod:`ddpm_ip.perturbation`, :mod:`ddpm_ip.denoiser`, :mod:`ddpm_ip.objective` and
:mod:`ddpm_ip.sampler`.
"""

__version__ = "0.1.0"
