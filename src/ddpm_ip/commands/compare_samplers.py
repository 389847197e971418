"""Every sampler at a few numbers of network evaluations: the results table with other defaults."""

from __future__ import annotations

import argparse

from ddpm_ip import options
from ddpm_ip.commands import table

EVALUATIONS = (6, 10, 20, 50)
SPACINGS = ("uniform-linspace", "logsnr")


def arguments(p: argparse.ArgumentParser) -> None:
    options.add_runs(p, "folders of runs, measured one after another")
    defaults = {
        "rows": "every sampler there is",
        "spacing": f"of every sampler {' '.join(SPACINGS)}, else sampling.spacing of the config",
        "columns": f"--evaluations {' '.join(map(str, EVALUATIONS))}",
    }
    table.add_measuring(p, n_samples=2_000, defaults=defaults, seeds=table.SEEDS)
    p.set_defaults(grid=True)


def run(args: argparse.Namespace, rest: list[str]) -> int:
    from ddpm_ip.run.builtin import taken

    args.runs = [taken(run) for run in args.runs]
    if args.sampler is None and args.variance is None and args.rows is None:
        args.sampler = every_sampler()
        args.spacing = list(SPACINGS) if args.spacing is None else args.spacing
    if args.steps is None and args.evaluations is None:
        args.evaluations = list(EVALUATIONS)
    if len(args.runs) > 1:
        table.refuse_uncalibrated(args.runs, args, rest)
    for folder in args.runs:
        table.measure(folder, args, rest)
    return 0


def every_sampler() -> list[str]:
    """The names of all samplers; the ancestral one by its small variance, which is the better one at few steps."""
    from ddpm_ip.sampler import AnySampler
    from ddpm_ip.variants import variant_name, variants

    names = [variant_name(sampler) for sampler in variants(AnySampler)]
    return ["fixed_small" if name == "ancestral" else name for name in names]
