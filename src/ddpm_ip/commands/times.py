"""Finds the best times of a few steps for given weights."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from ddpm_ip import options

TEACHER = "ipndm"  # the published one


def arguments(p: argparse.ArgumentParser) -> None:
    options.add_weights(p)
    p.add_argument(
        "--steps", type=int, nargs="+", required=True, metavar="K", help="numbers of steps; the times of each are found"
    )
    p.add_argument(
        "--sampler",
        default=TEACHER,
        metavar="NAME[,KEY=VALUE...]",
        help="the teacher, which draws no noise (default: %(default)s)",
    )
    options.add_count(p, 256, "its trajectories")
    options.add_seed(p, "of their noises")
    p.add_argument("--whole", action="store_true", help="whole times only, for a network that takes no others")
    options.add_chain(p)
    options.add_common(p)
    p.add_argument("-o", "--out", type=Path, metavar="FILE", help="a JSON file instead of that next to the weights")


def run(args: argparse.Namespace, rest: list[str]) -> int:
    from ddpm_ip.config import parse_overrides
    from ddpm_ip.interop.find import find_weights
    from ddpm_ip.output import say
    from ddpm_ip.run.log import setup
    from ddpm_ip.sample.optimised import TimesOptions, optimise
    from ddpm_ip.sample.program import configured

    # A teacher walks along times of its own, all the way to the clean image.
    own = dict.fromkeys(("steps", "spacing", "afs", "denoise_to_zero", "var_type", "ddim_eta"))
    given = argparse.Namespace(**{**vars(args), **own})
    overrides = options.single_overrides(given, parse_overrides(rest))
    setup(None, os.environ.get("RANK", "0") == "0")
    weights = find_weights(args.weights, args.config, overrides, args.ema)
    config = configured(weights, args.weights, args.config, overrides)
    found = optimise(config, weights, TimesOptions(args.steps, config.sampling, args.n, args.whole, args.out))
    if os.environ.get("RANK", "0") == "0":
        for steps, times in found.items():
            say(f"{steps} steps: {' '.join(f'{t:g}' if t.is_integer() else f'{t:.4f}' for t in times)}")
    return 0
