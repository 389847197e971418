"""Writes a trained network for other programs."""

from __future__ import annotations

import argparse
from pathlib import Path

from ddpm_ip import options


def arguments(p: argparse.ArgumentParser) -> None:
    options.add_weights(p)
    p.add_argument("-o", "--out", type=Path, required=True, metavar="DIR", help="the folder to write; new, or empty")
    p.add_argument(
        "--format",
        choices=("diffusers", "safetensors"),
        default="diffusers",
        help="a DDPMPipeline that diffusers loads, or one file with its configuration in the header, which "
        "`ddpm-ip sample --weights FILE` takes alone (default: %(default)s)",
    )
    p.add_argument(
        "--licence",
        "--license",
        metavar="TEXT",
        help="of the weights, for the card, such as apache-2.0 or cc-by-nc-4.0 (default: that of imported weights, or "
        "unknown)",
    )
    p.add_argument("--push", metavar="NAME", help="upload the folder to huggingface.co as the model USER/MODEL, too")


def run(args: argparse.Namespace, rest: list[str]) -> int:
    from ddpm_ip.config import parse_overrides
    from ddpm_ip.interop.export import ExportOptions, export, refuse_used
    from ddpm_ip.interop.find import find_weights
    from ddpm_ip.interop.push import push, refuse_to_push
    from ddpm_ip.output import say
    from ddpm_ip.run.log import setup
    from ddpm_ip.sample.program import configured

    overrides = parse_overrides(rest)
    refuse_used(args.out)
    if args.push:
        refuse_to_push(args.push)
    setup(None, True)
    weights = find_weights(args.weights, args.config, overrides, args.ema)
    config = configured(weights, args.weights, args.config, overrides)
    name = args.push.rpartition("/")[2] if args.push else None
    say(str(export(config, weights, args.weights, args.out, ExportOptions(args.format, args.licence, name))))
    if args.push:
        say(push(args.out, args.push))
    return 0
