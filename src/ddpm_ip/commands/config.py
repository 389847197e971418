"""Shows the configurations that come with the package, and every key of one."""

from __future__ import annotations

import argparse

from ddpm_ip.errors import ConfigError


def arguments(p: argparse.ArgumentParser) -> None:
    p.add_argument(
        "name",
        nargs="?",
        metavar="NAME",
        help="print this preset, with its comments, as a file of one's own to begin with; or a file (default: list all "
        "presets)",
    )
    p.add_argument(
        "--keys",
        nargs="*",
        metavar="PART",
        help="list every key with its default, type and meaning; or those of a section, a key or a name, such as "
        "train.optim, gamma or ddim",
    )


def run(args: argparse.Namespace, rest: list[str]) -> int:
    if rest:
        raise ConfigError(f"unexpected argument {rest[0]!r:.80}")
    if args.name is not None and args.keys is not None:
        raise ConfigError(f"NAME ({args.name:.80}) prints a configuration, and --keys lists keys: give one of them")
    from ddpm_ip.output import say

    if args.keys is not None:
        from ddpm_ip import keys

        found = [section for part in args.keys for section in keys.find(part)]
        say(keys.as_text(found if args.keys else keys.all_sections()))
        return 0
    from ddpm_ip import presets

    if args.name is not None:
        say(presets.text_of(presets.find(args.name)).rstrip("\n"))
    else:
        known = presets.names()
        width = max(map(len, known), default=0)
        say("\n".join(f"{name:{width}}  {presets.summary(name)}" for name in known))
        say("\n`ddpm-ip config NAME` prints one, `-c NAME` uses it, `ddpm-ip config --keys` lists every key")
    return 0
