"""What samplers do on Gaussian data with the exact network: numbers that docs/samplers.md and docs/choosing.md quote.

    PYTHONPATH=. python benchmarks/gaussian.py --out benchmarks/results/cpu_gaussian.json

All of it is arithmetic on tables (tests/sampler/tables.py), without a network and without chance.
"""

from __future__ import annotations

import argparse
import json
from datetime import date
from pathlib import Path
from typing import Any

from tests.sampler.oracle import gaussian_moments
from tests.sampler.tables import slopes

from ddpm_ip.config import from_dict
from ddpm_ip.run.provenance import provenance
from ddpm_ip.sampler import AnySampler
from ddpm_ip.sampler.spacing import times_of
from ddpm_ip.schedule import Schedule
from ddpm_ip.texts import sampler_overrides

DEVIATION = 0.5  # of the data
STEPS = (5, 6, 10, 20, 50)
SPREADS = (
    "sa_solver", "sa_solver,linear_term=exact", "sa_solver,predictor_order=3,corrector_order=4",
    "sa_solver,tau_from=0,tau_to=1", "er_sde", "dpm_solver", "heun", "restart", "ipndm,order=4", "ddim",
)  # fmt: skip
SPACINGS = ("logsnr", "uniform-trailing", "uniform-linspace", "uniform-leading", "karras")
ORDERS = (
    "ddim", "dpm_solver", "dpm_solver,order=3", "dpm_solver,order=3,corrected=true", "unipc,order=1", "unipc",
    "unipc,order=3", "ipndm,order=2", "ipndm,order=3", "ipndm,order=4", "ipndm_v,order=2", "ipndm_v,order=3",
    "ipndm_v,order=4", "deis,order=2", "deis,order=3", "deis,order=4", "euler", "heun", "er_sde,noise_scale=ode",
    "er_sde,noise_scale=ode,difference=corrected", "sa_solver,tau=0",
)  # fmt: skip


def sampler(text: str) -> AnySampler:
    """As ``--sampler`` reads it."""
    return from_dict({"data": {"name": "digits"}}, text, sampler_overrides(text)).sampling.sampler


def spread(text: str, spacing: str, steps: int) -> float:
    """The deviation of the samples over that of the data; 1 is right."""
    schedule = Schedule()
    plan = sampler(text).plan(schedule, times_of(schedule, steps, spacing))
    return float(round(gaussian_moments(plan, 0.0, DEVIATION**2)[1] ** 0.5 / DEVIATION, 4))


def orders(text: str) -> dict[str, list[float]]:
    """log2(error / error of twice the steps), 40 to 80 to 160, over uniform lambda from -3 to 3."""
    found = {"exact history": 3, "own start": 0}
    return {name: [round(s, 3) for s in slopes(sampler(text), history=history)] for name, history in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    here = provenance()
    result: dict[str, Any] = {
        "date": date.today().isoformat(),
        **{key: here[key] for key in ("hardware", "versions", "git", "command")},
        "schedule": "linear, T = 1000",
        "deviation of the samples over the data's, data N(0, 0.25)": {
            spacing: {text: {n: spread(text, spacing, n) for n in STEPS} for text in SPREADS} for spacing in SPACINGS
        },
        "order, data N(0, 0.1)": {text: orders(text) for text in ORDERS},
    }
    args.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
