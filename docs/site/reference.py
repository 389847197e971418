"""The generated parts of the reference, as Markdown: commands, keys of the configuration, public names of Python."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable
from pathlib import Path

import ddpm_ip
from ddpm_ip import cli
from ddpm_ip.keys import NEEDED, Key, Section, all_sections
from ddpm_ip.parser import Parser

ROOT = Path(__file__).parents[2]


def commands() -> str:
    """Every command: what it does, how it is called, its options."""
    return "\n\n".join(_command(name) for name in cli._COMMANDS)


def _command(name: str) -> str:
    text, arguments, _ = cli._COMMANDS[name]
    parser = Parser(prog=f"ddpm-ip {name}", epilog=cli._epilog(name), allow_abbrev=False)
    arguments(parser)
    options = [_option(parser, action) for action in parser._actions if action.help != argparse.SUPPRESS]
    more = [escaped(f"{parser.epilog}.")] if parser.epilog else []
    return "\n\n".join([f"## {name}", escaped(text), f"```text\n{_usage(parser)}\n```", *options[1:], *more])


def _usage(parser: argparse.ArgumentParser) -> str:
    """How a command is called, with what it cannot do without."""
    if parser.usage:
        return parser.usage.replace("%(prog)s", parser.prog)
    needed = [_call(parser, action) for action in parser._actions if action.required]
    return " ".join([parser.prog, *needed, "[OPTIONS]"])


def _call(parser: argparse.ArgumentParser, action: argparse.Action, names: str = "") -> str:
    """An option, or a positional argument, as it is written: ``--steps K [K ...]``, ``EXP_DIR``."""
    formatter = parser._get_formatter()
    if not action.option_strings:
        return formatter._format_args(action, formatter._get_default_metavar_for_positional(action))
    names = names or action.option_strings[-1]
    if action.nargs == 0:
        return names
    return f"{names} {formatter._format_args(action, formatter._get_default_metavar_for_optional(action))}"


def _option(parser: argparse.ArgumentParser, action: argparse.Action) -> str:
    text = parser._get_formatter()._expand_help(action) if action.help else ""
    return f"`{_call(parser, action, ', '.join(action.option_strings))}`\n: {escaped(text)}"


def escaped(text: str) -> str:
    """Plain text as Markdown that shows it; options, and what is between backticks, are code; pages are links."""
    marked = re.sub(r"(`[^`]*`)|(?<![\w`./-])(--?[A-Za-z][\w.-]*\w|-[a-z])(?![\w-])", _as_code, " ".join(text.split()))
    parts = re.split(r"(`[^`]*`)", marked)
    return "".join(part if n % 2 else _plain(part) for n, part in enumerate(parts))


def _plain(text: str) -> str:
    return re.sub(r"\bdocs/([\w-]+\.md)", r"[\1](\1)", re.sub(r"([\\*_<>\[\]|#~{}])", r"\\\1", text))


def _as_code(found: re.Match[str]) -> str:
    return found[1] or f"`{found[2]}`"


def keys() -> str:
    """Every key of the configuration, a part for each section and for each of its names."""
    parts = []
    for section in all_sections():
        if section.keys or section.name:
            parts.append(f"## {_heading(section)}\n\n{escaped(section.meaning)}")
            parts += [_key(key) for key in section.keys]
    return "\n\n".join(parts)


def _heading(section: Section) -> str:
    if not section.path:
        return "Outside all sections"
    return section.path if section.name is None else f"{section.path}: {section.name}"


def _key(key: Key) -> str:
    default = "no default" if key.default == NEEDED else f"default `{key.default}`"
    told = f"{escaped(key.meaning[0].upper() + key.meaning[1:])}\\\n  " if key.meaning else ""
    return f"`{key.path}`\n: {told}*{escaped(key.type)}; {default}; {key.change}*"


def python() -> str:
    """The public names by subject, for autodoc."""
    found = []
    for title, modules in ddpm_ip._GROUPS.items():
        names = [name for group in modules.values() for name in group]
        found.append(f"## {title}\n\n```{{eval-rst}}\n" + "\n".join(map(_name, names)) + "\n```")
    return "\n\n".join(found)


def _name(name: str) -> str:
    if isinstance(getattr(ddpm_ip, name), type):
        return f".. autoclass:: ddpm_ip.{name}\n   :members:\n"
    return f".. autofunction:: ddpm_ip.{name}\n"


def changes() -> str:
    """CHANGELOG.md without its title, its links as a page in docs/ has them."""
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8").partition("\n")[2]
    links = re.compile(r"\]\((?![a-z]+:|#)(docs/)?([^)\s]+)\)")
    return links.sub(lambda link: f"]({'' if link[1] else '../'}{link[2]})", text.replace("[docs/", "["))


PARTS: dict[str, Callable[[], str]] = {"commands": commands, "keys": keys, "python": python, "changes": changes}
