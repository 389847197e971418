"""Makes images from trained weights."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from ddpm_ip import options


def arguments(p: argparse.ArgumentParser) -> None:
    options.add_weights(p)
    p.add_argument("--n_samples", type=int, default=64, metavar="N", help="how many images (default: %(default)s)")
    p.add_argument(
        "-o",
        "--out",
        "--save_dir",
        dest="save_dir",
        type=Path,
        metavar="DIR",
        help="folder for PNG files and grid.png, or a file that ends in .npz (default: a folder in RUN/samples; there, "
        "images of which neither an option nor the configuration says how are made by dpm_solver_sde in 50 steps)",
    )
    options.add_single(p)
    options.add_guidance(p)
    options.add_common(p)
    p.add_argument(
        "--mode",
        default="sample",
        choices=("sample", "denoise", "progressive", "interpolate", "reconstruction"),
        help="finished images; or, for each, a strip of its noisy states, or of the clean image predicted on the way; "
        "strips from image 2i to image 2i + 1; or the images of --input_dir next to what DDIM inversion gives again",
    )
    p.add_argument(
        "--n_denoise", type=int, default=20, metavar="N", help="pictures in a strip of --mode denoise (default: 20)"
    )
    p.add_argument(
        "--n_progressive", type=int, default=20, metavar="N", help="the same for --mode progressive (default: 20)"
    )
    p.add_argument(
        "--n_interpolate", type=int, default=16, metavar="N", help="the same for --mode interpolate (default: 16)"
    )
    p.add_argument(
        "--input_dir", type=Path, metavar="DIR", help="folder of images for --mode reconstruction, the first N of them"
    )


def run(args: argparse.Namespace, rest: list[str]) -> int:
    from ddpm_ip.config import parse_overrides
    from ddpm_ip.interop.find import find_weights
    from ddpm_ip.run.builtin import ready
    from ddpm_ip.run.log import setup
    from ddpm_ip.sample.program import SampleOptions, configured, sample
    from ddpm_ip.sample.usual import place, usual

    overrides = options.single_overrides(args, parse_overrides(rest))
    setup(None, os.environ.get("RANK", "0") == "0")
    weights = find_weights(args.weights, args.config, overrides, args.ema)
    config = configured(weights, args.weights, args.config, overrides)
    names = ("n_samples", "mode", "n_denoise", "n_progressive", "n_interpolate", "input_dir")
    wanted = {name: getattr(args, name) for name in names}
    sampling = config.sampling if args.guidance is None else config.sampling.guided(args.guidance)
    if (save_dir := args.save_dir) is None:
        sampling = usual(sampling, config, overrides, args.mode)
        save_dir = place(weights, args.weights, SampleOptions(sampling=sampling, **wanted))
        ready(save_dir)
    sample(config, weights, save_dir, SampleOptions(sampling=sampling, **wanted))
    return 0
