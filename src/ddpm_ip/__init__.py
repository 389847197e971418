"""Diffusion models with input perturbation (DDPM-IP) and the study of exposure bias.

    import ddpm_ip as ip

    run = ip.load("runs/exp-1")                     # ip.new(config, exp_dir) begins one
    walk = run.sample(64, sampler=ip.DPMSolver(order=2), steps=10)
    print(ip.measure(walk, reference="digits", features="pixels"))

What is public is listed here, and imported when it is first used: ``import ddpm_ip`` and ``ddpm-ip --help`` answer at
once. No public name is that of a module. All else may change with any version. The subject is in five short modules:
:mod:`ddpm_ip.schedule`, :mod:`ddpm_ip.perturbation`, :mod:`ddpm_ip.denoiser`, :mod:`ddpm_ip.objective` and
:mod:`ddpm_ip.sampler`. All samplers, spacings and corrections, with settings and sources, are in docs/samplers.md.
"""

import os
import sys
from typing import TYPE_CHECKING, Any

__version__ = "0.2.0"

if sys.platform == "darwin":  # read when torch is loaded; PyTorch warns of each operation that an Apple GPU lacks
    os.environ.setdefault("PYTORCH_ENABLE_MPS_FALLBACK", "1")

# What is public, by subject and by module; the reference has these headings, in this order.
_GROUPS: dict[str, dict[str, tuple[str, ...]]] = {
    "Runs": {
        "notebook": ("load", "new", "Run"),
        "train.callback": ("Progress",),
        "config": ("Config",),
    },
    "Samples and numbers": {
        "sample.samples": ("Samples",),
        "own": ("samples",),
        "judging": ("measure",),
        "run.record": ("Evaluation",),
        "exposure.curves": ("Exposure",),
        "exposure.calibrate": ("Calibration",),
        "report.exposure": ("write_figures",),
        "images": ("grid",),
    },
    "Images to train on": {
        "data": ("Cifar10", "Digits", "Folder", "ImageSet", "Mnist", "Npz", "Parquet"),
        "data.arrays": ("save_images",),
    },
    "The model": {
        "schedule": ("Schedule",),
        "perturbation": ("InputPerturbation", "NoPerturbation"),
        "denoiser": ("Denoiser", "Prediction"),
        "objective": ("Objective",),
    },
    "Samplers": {
        "sampler.sampling": ("Sampling",),
        "sampler": (
            "Ancestral",
            "DDIM",
            "DDIMInversion",
            "DEIS",
            "DPMSolver",
            "DPMSolverSDE",
            "DPMSolverSingle",
            "ERSDE",
            "Euler",
            "Heun",
            "IPNDM",
            "IPNDMV",
            "Restart",
            "SASolver",
            "UniPC",
            "slerp",
        ),
    },
    "Corrections": {
        "sampler.correction": (
            "Auto",
            "BandGains",
            "DCW",
            "DynamicThresholding",
            "EpsilonScaling",
            "Guidance",
            "IPEmulator",
            "TSR",
            "TimeShift",
            "VarianceNormalisation",
        ),
    },
    "Methods of your own": {
        "sampler.base": ("Plan", "Rows", "Sampler", "State", "steps"),
        "sampler.walk": ("walk",),
        "sampler.correction.base": ("Correction", "Row"),
    },
    "Errors": {
        "errors": ("UserError", "CheckpointError", "ConfigError", "DataError", "Diverged", "OutOfMemory"),
    },
}
_HOME = {name: module for group in _GROUPS.values() for module, names in group.items() for name in names}
__all__ = ["__version__", *sorted(_HOME)]

if TYPE_CHECKING:  # the same names for mypy and editors; tests/test_imports.py compares
    from ddpm_ip.config import Config as Config
    from ddpm_ip.data import Cifar10 as Cifar10
    from ddpm_ip.data import Digits as Digits
    from ddpm_ip.data import Folder as Folder
    from ddpm_ip.data import ImageSet as ImageSet
    from ddpm_ip.data import Mnist as Mnist
    from ddpm_ip.data import Npz as Npz
    from ddpm_ip.data import Parquet as Parquet
    from ddpm_ip.data.arrays import save_images as save_images
    from ddpm_ip.denoiser import Denoiser as Denoiser
    from ddpm_ip.denoiser import Prediction as Prediction
    from ddpm_ip.errors import CheckpointError as CheckpointError
    from ddpm_ip.errors import ConfigError as ConfigError
    from ddpm_ip.errors import DataError as DataError
    from ddpm_ip.errors import Diverged as Diverged
    from ddpm_ip.errors import OutOfMemory as OutOfMemory
    from ddpm_ip.errors import UserError as UserError
    from ddpm_ip.exposure.calibrate import Calibration as Calibration
    from ddpm_ip.exposure.curves import Exposure as Exposure
    from ddpm_ip.images import grid as grid
    from ddpm_ip.judging import measure as measure
    from ddpm_ip.notebook import Run as Run
    from ddpm_ip.notebook import load as load
    from ddpm_ip.notebook import new as new
    from ddpm_ip.objective import Objective as Objective
    from ddpm_ip.own import samples as samples
    from ddpm_ip.perturbation import InputPerturbation as InputPerturbation
    from ddpm_ip.perturbation import NoPerturbation as NoPerturbation
    from ddpm_ip.report.exposure import write_figures as write_figures
    from ddpm_ip.run.record import Evaluation as Evaluation
    from ddpm_ip.sample.samples import Samples as Samples
    from ddpm_ip.sampler import DDIM as DDIM
    from ddpm_ip.sampler import DEIS as DEIS
    from ddpm_ip.sampler import ERSDE as ERSDE
    from ddpm_ip.sampler import IPNDM as IPNDM
    from ddpm_ip.sampler import IPNDMV as IPNDMV
    from ddpm_ip.sampler import Ancestral as Ancestral
    from ddpm_ip.sampler import DDIMInversion as DDIMInversion
    from ddpm_ip.sampler import DPMSolver as DPMSolver
    from ddpm_ip.sampler import DPMSolverSDE as DPMSolverSDE
    from ddpm_ip.sampler import DPMSolverSingle as DPMSolverSingle
    from ddpm_ip.sampler import Euler as Euler
    from ddpm_ip.sampler import Heun as Heun
    from ddpm_ip.sampler import Restart as Restart
    from ddpm_ip.sampler import SASolver as SASolver
    from ddpm_ip.sampler import UniPC as UniPC
    from ddpm_ip.sampler import slerp as slerp
    from ddpm_ip.sampler.base import Plan as Plan
    from ddpm_ip.sampler.base import Rows as Rows
    from ddpm_ip.sampler.base import Sampler as Sampler
    from ddpm_ip.sampler.base import State as State
    from ddpm_ip.sampler.base import steps as steps
    from ddpm_ip.sampler.correction import DCW as DCW
    from ddpm_ip.sampler.correction import TSR as TSR
    from ddpm_ip.sampler.correction import Auto as Auto
    from ddpm_ip.sampler.correction import BandGains as BandGains
    from ddpm_ip.sampler.correction import DynamicThresholding as DynamicThresholding
    from ddpm_ip.sampler.correction import EpsilonScaling as EpsilonScaling
    from ddpm_ip.sampler.correction import Guidance as Guidance
    from ddpm_ip.sampler.correction import IPEmulator as IPEmulator
    from ddpm_ip.sampler.correction import TimeShift as TimeShift
    from ddpm_ip.sampler.correction import VarianceNormalisation as VarianceNormalisation
    from ddpm_ip.sampler.correction.base import Correction as Correction
    from ddpm_ip.sampler.correction.base import Row as Row
    from ddpm_ip.sampler.sampling import Sampling as Sampling
    from ddpm_ip.sampler.walk import walk as walk
    from ddpm_ip.schedule import Schedule as Schedule
    from ddpm_ip.train.callback import Progress as Progress


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value = globals()[name] = getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME})
