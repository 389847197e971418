"""Makes a run of a network from elsewhere."""

from __future__ import annotations

import argparse
from pathlib import Path

from ddpm_ip import options


def arguments(p: argparse.ArgumentParser) -> None:
    p.add_argument(
        "source",
        metavar="SOURCE",
        type=Path,
        help="a .pt, .pth, .ckpt, .bin or .safetensors file of guided-diffusion (ADM, DDPM-IP), improved-diffusion, "
        "xyfJASON's repository, pytorch-ddpm, pytorch_diffusion or ermongroup/ddim; a diffusers folder; or a name on "
        "the Hugging Face hub",
    )
    p.add_argument(
        "-e", "--exp_dir", type=Path, required=True, metavar="EXP_DIR", help="the folder, which holds no run yet"
    )
    options.add_config(p, ", for what the source does not say: noise schedule, heads, size of the images, training")
    p.add_argument(
        "--licence",
        "--license",
        default="unknown",
        metavar="TEXT",
        help="of the weights, as you know it; it is kept (default: %(default)s)",
    )
    for name in ("n_heads", "head_channels"):
        p.add_argument(f"--{name}", type=int, metavar="N", help=f"the same as --model.{name}")
    p.add_argument("--attention_order", choices=("legacy", "new"), help="the same as --model.attention_order")


def run(args: argparse.Namespace, rest: list[str]) -> int:
    from ddpm_ip.config import parse_overrides
    from ddpm_ip.errors import ConfigError
    from ddpm_ip.interop.program import take
    from ddpm_ip.output import say
    from ddpm_ip.run.log import setup

    overrides = parse_overrides(rest)
    for name in ("n_heads", "head_channels", "attention_order"):
        if (value := getattr(args, name)) is not None and overrides.setdefault(f"model.{name}", value) != value:
            raise ConfigError(f"--{name} and --model.{name} say two things: give one of them")
    setup(None, True)
    take(args.source, args.exp_dir, args.config, overrides, args.licence)
    say(f"{args.exp_dir} is a run now: ddpm-ip sample {args.exp_dir}")
    return 0
