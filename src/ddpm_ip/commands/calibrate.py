"""Finds the corrections that weights, a sampler and its times need."""

from __future__ import annotations

import argparse
import os

from ddpm_ip import options


def arguments(p: argparse.ArgumentParser) -> None:
    options.add_weights(p)
    options.add_single(p)
    options.add_guidance(p)
    options.add_common(p)
    options.add_count(p, 2000, "walks behind each fit")
    p.add_argument(
        "--extractor",
        metavar="NAME",
        help="features that decide, as for `ddpm-ip evaluate`, and a short search in them (default: none; a distance "
        "that needs no network decides)",
    )
    options.add_reference(p)
    p.add_argument(
        "--times",
        action="store_true",
        help="calibrate with --spacing optimised, too (as `ddpm-ip times` finds them, unless they are there), and say "
        "which of the two leaves the smaller mismatch",
    )


def run(args: argparse.Namespace, rest: list[str]) -> int:
    from ddpm_ip.config import load, parse_overrides
    from ddpm_ip.exposure.calibrate import CalibrateOptions, calibrate
    from ddpm_ip.exposure.times import calibrate_with_times
    from ddpm_ip.interop.find import find_weights
    from ddpm_ip.output import say
    from ddpm_ip.run.log import setup
    from ddpm_ip.sample.program import configured

    overrides = options.single_overrides(argparse.Namespace(**{**vars(args), "seed": None}), parse_overrides(rest))
    setup(None, os.environ.get("RANK", "0") == "0")
    weights = find_weights(args.weights, args.config, overrides, args.ema)
    config = configured(weights, args.weights, args.config, overrides)
    sampling = config.sampling if args.guidance is None else config.sampling.guided(args.guidance)
    seed = {} if args.seed is None else {"seed": args.seed}
    reference = load(args.reference).data if args.reference else None
    wanted = CalibrateOptions(n=args.n, extractor=args.extractor, reference=reference, **seed)
    found = (calibrate_with_times if args.times else calibrate)(config, weights, sampling, wanted)
    if os.environ.get("RANK", "0") == "0":
        say(found.as_text())
    return 0
