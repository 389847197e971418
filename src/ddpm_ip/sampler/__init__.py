"""Samplers: one method a file, each a table (:mod:`ddpm_ip.sampler.base`). A new one is a file and a line in the union.

Read :mod:`ddpm_ip.sampler.base` first, then :mod:`ddpm_ip.sampler.ancestral`, then :mod:`ddpm_ip.sampler.walk`.
"""

from __future__ import annotations

from ddpm_ip.sampler.ancestral import Ancestral, Variance, VarType
from ddpm_ip.sampler.base import Plan, Rows, Sampler, State
from ddpm_ip.sampler.ddim import DDIM
from ddpm_ip.sampler.deis import DEIS
from ddpm_ip.sampler.dpm_solver import DPMSolver
from ddpm_ip.sampler.dpm_solver_sde import DPMSolverSDE
from ddpm_ip.sampler.dpm_solver_single import DPMSolverSingle
from ddpm_ip.sampler.er_sde import ERSDE
from ddpm_ip.sampler.euler import Euler
from ddpm_ip.sampler.heun import Heun
from ddpm_ip.sampler.interpolation import slerp
from ddpm_ip.sampler.inversion import DDIMInversion
from ddpm_ip.sampler.ipndm import IPNDM, IPNDMV
from ddpm_ip.sampler.restart import Restart
from ddpm_ip.sampler.sa_solver import SASolver
from ddpm_ip.sampler.spacing import Spacing, respace
from ddpm_ip.sampler.unipc import UniPC
from ddpm_ip.sampler.walk import walk

__all__ = [
    "DDIM",
    "DEIS",
    "ERSDE",
    "IPNDM",
    "IPNDMV",
    "Ancestral",
    "AnySampler",
    "DDIMInversion",
    "DPMSolver",
    "DPMSolverSDE",
    "DPMSolverSingle",
    "Euler",
    "Heun",
    "Plan",
    "Restart",
    "Rows",
    "SASolver",
    "Sampler",
    "Spacing",
    "State",
    "UniPC",
    "VarType",
    "Variance",
    "respace",
    "slerp",
    "walk",
]

AnySampler = (
    Ancestral
    | DDIM
    | DEIS
    | DPMSolver
    | DPMSolverSDE
    | DPMSolverSingle
    | ERSDE
    | Euler
    | Heun
    | IPNDM
    | IPNDMV
    | Restart
    | SASolver
    | UniPC
)
