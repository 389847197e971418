"""Makes averages of any length of the snapshots of a run."""

from __future__ import annotations

import argparse
from pathlib import Path

from ddpm_ip import options
from ddpm_ip.errors import ConfigError


def arguments(p: argparse.ArgumentParser) -> None:
    options.add_run(p, "folder of a run that was trained with train.ema_power")
    p.add_argument(
        "--length",
        type=float,
        nargs="+",
        required=True,
        metavar="L",
        help="sigma_rel of each average, as in 0.08: its standard deviation in time, as a share of the training so far",
    )
    p.add_argument("--step", type=int, metavar="N", help="of a snapshot, at which the average ends (default: newest)")
    p.add_argument(
        "-o",
        "--out",
        type=Path,
        metavar="FILE",
        help="a .safetensors file, of one length (default: EXP_DIR/ema-sigma_relL-stepN.safetensors, where --weights "
        "finds the settings of the run)",
    )


def run(args: argparse.Namespace, rest: list[str]) -> int:
    if rest:
        raise ConfigError(f"unexpected argument {rest[0]!r:.80}")
    if args.out is not None and (len(args.length) > 1 or args.out.suffix != ".safetensors"):
        raise ConfigError("-o is one file that ends in .safetensors: give one --length, or leave -o out")
    from ddpm_ip.files import write_bytes
    from ddpm_ip.output import say
    from ddpm_ip.plain import shown
    from ddpm_ip.run.log import setup
    from ddpm_ip.run.snapshots import file_name, make

    setup(None, True)
    for made in make(args.exp_dir, list(dict.fromkeys(args.length)), args.step):
        path, new = args.out or args.exp_dir / file_name(made), made.to_bytes()
        if args.out is not None and path.exists() and not (path.is_file() and path.read_bytes() == new):
            raise ConfigError(f"{shown(path)} is there already, and was not touched: give another file with -o")
        write_bytes(path, new)
        say(f"{path}: {made.name}, of {len(made.used)} snapshots; its profile is {100 * made.error:.2g} % off")
    return 0
