"""Looks at a data set."""

from __future__ import annotations

import argparse
from pathlib import Path

from ddpm_ip import options


def arguments(p: argparse.ArgumentParser) -> None:
    p.add_argument(
        "action", choices=("inspect",), help="inspect: count, sizes, statistics, a contact sheet, unusable files"
    )
    options.add_config(p, ", whose data section is meant; or --data.name NAME ...")
    p.add_argument(
        "-o",
        "--out",
        type=Path,
        default=Path("contact-sheet.png"),
        metavar="FILE",
        help="the contact sheet (default: %(default)s)",
    )
    options.add_count(p, 100, "images on it", "-n")


def run(args: argparse.Namespace, rest: list[str]) -> int:
    import dataclasses

    from ddpm_ip.config import from_dict, load, parse_overrides

    overrides = parse_overrides(rest)
    data = (load(args.config, overrides) if args.config else from_dict({}, "the command line", overrides)).data
    from ddpm_ip.data import Folder, Parquet
    from ddpm_ip.data.inspect import inspect
    from ddpm_ip.files import make_folder, refuse_special

    if isinstance(data, (Folder, Parquet)):
        data = dataclasses.replace(data, on_bad="skip")  # a report on all files, not a refusal

    from ddpm_ip.output import say

    refuse_special(args.out)  # now rather than after the work
    make_folder(args.out.parent)
    images = data.open()
    say(inspect(images, args.out, args.n))
    return 1 if images.bad else 0
