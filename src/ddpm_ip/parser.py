"""An argparse parser that knows the nearest name of a mistyped option, before anything is said to be missing.

Options of the configuration (``--train.n_steps 9``) are put aside before argparse sees them, or some versions of it
would take their values for what stands without an option.
"""

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
        if self._subparsers is not None:
            return super().parse_known_args(args, namespace)
        self._refuse_unknown(args)
        words, overrides = self._apart(args) if self.epilog else (args, [])
        found, rest = super().parse_known_args(words, namespace)
        return found, [*rest, *overrides]

    def _apart(self, args: Sequence[str]) -> tuple[list[str], list[str]]:
        """What is this command's own, and ``--key value`` of the configuration, each in its order."""
        own: list[str] = []
        overrides: list[str] = []
        left = list(args)
        while left and left[0] != "--":
            word = left.pop(0)
            if not re.match("--[A-Za-z]", word) or word.partition("=")[0] in self._option_string_actions:
                own.append(word)
                continue
            overrides.append(word)
            if "=" not in word and left and not re.match("--[A-Za-z]", left[0]) and not self._is_option(left[0]):
                overrides.append(left.pop(0))
        return [*own, *left], overrides

    def _is_option(self, word: str) -> bool:
        return word in self._option_string_actions

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
