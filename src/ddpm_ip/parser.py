"""An argparse parser that knows the nearest name of a mistyped option, before anything is said to be missing."""

from __future__ import annotations

import argparse
import dataclasses
import re
import sys
from collections.abc import Sequence
from itertools import takewhile
from typing import Any

from ddpm_ip.errors import ConfigError


class Parser(argparse.ArgumentParser):
    """Of a command; with an epilog, which says so, its other options override items of the configuration."""

    def parse_known_args(self, args: Sequence[str] | None = None, namespace: Any = None) -> Any:  # type: ignore[override]
        """As argparse does.

        Raises:
            ConfigError: an option without a dot in its name is none of this command's, nor a key of a configuration.
        """
        args = sys.argv[1:] if args is None else args
        if self._subparsers is None:
            self._refuse_unknown(args)
        return super().parse_known_args(args, namespace)

    def _refuse_unknown(self, args: Sequence[str]) -> None:
        words = [re.match(r"--[A-Za-z][\w-]*(?==|$)", word) for word in takewhile(lambda word: word != "--", args)]
        unknown = dict.fromkeys(word[0] for word in words if word and word[0] not in self._option_string_actions)
        if not unknown:
            return
        from ddpm_ip.config import Config
        from ddpm_ip.mistakes import unknown_option

        root = Config if self.epilog else None
        keys = {f"--{field.name}" for field in dataclasses.fields(Config)} if root else set()
        if wrong := [word for word in unknown if word not in keys][:20]:
            raise ConfigError("\n".join(unknown_option(word, [*self._option_string_actions], root) for word in wrong))
