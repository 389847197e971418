"""The results table."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from ddpm_ip import options
from ddpm_ip.metric import INCEPTION, usual
from ddpm_ip.options import listed


def arguments(p: argparse.ArgumentParser) -> None:
    p.add_argument("-e", "--exp_dir", type=Path, required=True, metavar="EXP_DIR", help="folder of a run")
    options.add_many(p)
    p.add_argument("--n_samples", type=int, default=50_000, metavar="N", help="images a cell (default: %(default)s)")
    p.add_argument(
        "--seeds",
        type=int,
        nargs="+",
        metavar="S",
        help="of the sampling; with several, mean and standard deviation (default: 0)",
    )
    p.add_argument(
        "--extractor",
        default="inception",
        help="of the features, as for `ddpm-ip evaluate`; FID is of inception alone (default: %(default)s)",
    )
    p.add_argument(
        "--metrics",
        nargs="+",
        metavar="M",
        help=f"as for `ddpm-ip evaluate` (default: {' '.join(usual(INCEPTION))} for inception, else "
        f"{' '.join(usual(''))})",
    )
    options.add_common(p)
    p.add_argument(
        "--keep_images", action="store_true", help="write the images, too (default: they go straight into the features)"
    )
    p.add_argument(
        "--reference",
        metavar="CONFIG",
        help="YAML file whose data section is compared with (default: the run's own training images)",
    )


def run(args: argparse.Namespace, rest: list[str]) -> int:
    from ddpm_ip.config import from_dict, load, parse_overrides
    from ddpm_ip.run.identity import identity

    own = identity(args.exp_dir)
    origin = f"the configuration in {own.origin}"
    overrides = options.common_overrides(args, parse_overrides(rest))
    config = from_dict(own.config, origin, overrides)
    reference = load(args.reference).data if args.reference else None
    from ddpm_ip.output import say
    from ddpm_ip.table.layout import as_text
    from ddpm_ip.table.program import TableOptions, table

    rows = options.variances_as_samplers(args.variance, args.sampler)
    samplers = (
        None
        if rows is None
        else [
            from_dict(own.config, origin, {**overrides, **options.sampler_overrides(row)}).sampling.sampler
            for row in rows
        ]
    )
    metrics = None if args.metrics is None else listed(" ".join(args.metrics))
    named = {name: getattr(args, name) for name in ("steps", "n_samples", "seeds", "extractor", "keep_images")}
    wanted = TableOptions(samplers, metrics=metrics, sampling=config.sampling, **named)
    grid = table(config, args.exp_dir, wanted, reference)
    if os.environ.get("RANK", "0") == "0":
        say(f"{as_text(grid)}\n{args.exp_dir / 'table'}/table.txt, .md, .csv, .json")
    return 0
