"""One spelling for one thing: what the options of all commands have in common, and the old spellings."""

import argparse
import re
from collections import defaultdict

import pytest

from ddpm_ip import cli
from ddpm_ip.parser import Parser

LISTS = {"--ema", "--steps", "--seeds", "--batch_size", "--weights", "-e"}  # one in some commands, several in others


def parsers() -> dict[str, Parser]:
    """The parser of every command."""
    found = {}
    for name, (_, arguments, _) in cli._COMMANDS.items():
        found[name] = Parser(prog=name, epilog=cli._epilog(name), allow_abbrev=False)
        arguments(found[name])
    return found


PARSERS = parsers()
ACTIONS = [(name, a) for name, parser in PARSERS.items() for a in parser._actions if a.dest != "help"]


def parsed(line: str) -> argparse.Namespace:
    command, *words = line.split()
    args, rest = PARSERS[command].parse_known_args(words)
    assert rest == []
    return args


def test_an_option_has_the_same_names_everywhere():
    """With its other spellings, so that whoever knows one command knows all."""
    names: dict[str, set[tuple[str, ...]]] = defaultdict(set)
    for _, action in ACTIONS:
        for word in action.option_strings:
            names[word].add(tuple(w for w in action.option_strings if w.startswith("--")))
    several = {word: found for word, found in names.items() if len(found) > 1}
    allowed = {
        "--n_samples": "--n is of walks and images that are no files",
        "--out": "--save_dir is xyfJASON's word for the folder of samples",
        "-o": "the same",
        "--steps": "--respace_steps is guided-diffusion's; of times and bench these are other numbers",
        "--seeds": "--seed is one of them; in a sweep they are those of the training",
        "--seed": "the same",
        "--batch_size": "--batch of bench",
    }
    assert {word for word in several if word not in allowed} == set()


def test_an_option_shows_its_value_in_the_same_way_everywhere():
    shown = defaultdict(set)
    for _, action in ACTIONS:
        if action.option_strings and action.nargs != 0:
            shown[action.option_strings[-1]].add(action.metavar or str(sorted(action.choices or [action.dest.upper()])))
    allowed = {
        "--corrections": {"NAME[,KEY=VALUE...]", "NAME[,KEY=VALUE...][+NAME...]"},  # a chain, and several chains
        "--reference": {"CONFIG", "DATA"},  # evaluate takes more than configurations
        "--exp_dir": {"EXP_DIR", "SWEEP_DIR"},
        "--out": {"FILE", "DIR", "STEM"},
        "--steps": {"K", "N"},  # bench: steps of training
    }
    assert {word: found for word, found in shown.items() if len(found) > 1} == {
        word: found for word, found in allowed.items() if len(shown[word]) > 1
    }


def test_every_value_has_a_word_and_every_default_is_told_in_the_same_way():
    for command, action in ACTIONS:
        where = f"{command} {action.option_strings or action.dest}"
        assert action.help, where
        if action.nargs != 0:
            assert action.metavar or action.choices, where
        text = re.sub(r"\(default: [^()]*(\([^()]*\)[^()]*)*\)", "", action.help)
        assert not re.search(r"by default|[;,:] default|^default|\(default", text), f"{where}: write (default: ...)"


def test_lists_are_written_with_spaces():
    """Nobody has to know which commas a command wants."""
    for command, action in ACTIONS:
        if re.search(r"with commas|,\.\.\.", action.help or ""):
            pytest.fail(f"{command} {action.option_strings}: a list is words with spaces")
    for word in ("--metrics", "--measure", "--corrections", "--rows", "--seeds", "--against", "--over", "--change"):
        found = [a.nargs for _, a in ACTIONS if word in a.option_strings]
        assert found
        assert set(found) == {"+"}, word


@pytest.mark.parametrize(
    ("by_place", "by_option", "dest"),
    [
        ("table run", "table -e run", "exp_dir"),
        ("ema run --length 0.1", "ema --exp_dir run --length 0.1", "exp_dir"),
        ("doctor run", "doctor -e run", "exp_dir"),
        ("report a b", "report -e a b", "runs"),
        ("compare-samplers a b", "compare-samplers -e a b", "runs"),
        ("export w -o x", "export --weights w -o x", "weights"),
        ("sample w --n_samples 1 -o x", "sample --weights w --n_samples 1 -o x", "weights"),
        ("calibrate w", "calibrate --weights w", "weights"),
        ("times w --steps 5", "times --weights w --steps 5", "weights"),
        ("exposure a b --seed 1", "exposure --weights a --weights b --seed 1", "weights"),
    ],
)
def test_what_is_looked_at_is_named_by_its_place_or_by_its_option(by_place, by_option, dest, capsys):
    assert getattr(parsed(by_place), dest)
    assert parsed(by_place) == parsed(by_option)
    command, first, *_ = by_place.split()
    with pytest.raises(SystemExit):
        parsed(f"{command} {first} {by_option.removeprefix(command)}")
    assert "not allowed with" in capsys.readouterr().err
    if command != "doctor":  # which looks at the machine, too
        with pytest.raises(SystemExit):
            parsed(command)
        assert "required" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("sample --weights w --n_samples 1 --save_dir d", "sample w --n_samples 1 --out d"),
        ("sample w --n_samples 1 -o d --respace_type quad", "sample w --n_samples 1 -o d --spacing quad"),
        ("sample w --n_samples 1 -o d --respace_steps 5", "sample w --n_samples 1 -o d --steps 5"),
        ("sample w --n_samples 1 -o d --var_type fixed_small", "sample w --n_samples 1 -o d --variance fixed_small"),
        ("table run --var_type fixed_small", "table run --variance fixed_small"),
        ("table run --seed 3", "table run --seeds 3"),
        ("exposure w --n 5", "exposure w --n_samples 5"),
        ("calibrate w --n 5", "calibrate w --n_samples 5"),
        ("times w --steps 5 --n 5", "times w --steps 5 --n_samples 5"),
        ("data inspect -n 5", "data inspect --n_samples 5"),
        ("bench --batch 5 6", "bench --batch_size 5 6"),
        ("bench --out x", "bench -o x"),
        ("evaluate s --reference digits --out x", "evaluate s --reference digits -o x"),
        ("train --init-from x", "train --init_from x"),
        ("export w -o x --license mit", "export w -o x --licence mit"),
    ],
)
def test_old_spellings_mean_the_same(old, new):
    assert parsed(old) == parsed(new)
