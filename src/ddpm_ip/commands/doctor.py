"""Looks for what is missing or wrong."""

from __future__ import annotations

import argparse

from ddpm_ip import options
from ddpm_ip.errors import ConfigError


def arguments(p: argparse.ArgumentParser) -> None:
    options.add_run(p, "folder of a run that is looked at, too: its checkpoints", needed=False)
    options.add_config(p, ", that is looked at, too: its data, its average")
    p.add_argument("--json", action="store_true", help="print the findings as JSON")


def run(args: argparse.Namespace, rest: list[str]) -> int:
    from ddpm_ip.config import parse_overrides

    overrides = parse_overrides(rest)
    if overrides and not (args.config or args.exp_dir):
        raise ConfigError(f"--{next(iter(overrides))} overrides an item of a config: name the config with -c, or -e")
    from ddpm_ip.doctor import as_json, as_text, doctor
    from ddpm_ip.output import say
    from ddpm_ip.run.builtin import found

    findings = doctor(args.config, overrides, args.exp_dir and found(args.exp_dir))
    say(as_json(findings) if args.json else as_text(findings))
    return int(any(finding.level == "problem" for finding in findings))
