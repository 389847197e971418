"""What of a command line is a command's own, and what is the configuration's."""

import pytest

from ddpm_ip import options
from ddpm_ip.parser import Parser


@pytest.fixture
def parser() -> Parser:
    parser = Parser(epilog="has overrides", allow_abbrev=False)
    options.add_runs(parser, "runs")
    parser.add_argument("--steps", type=int, nargs="+")
    parser.add_argument("-o", "--out")
    return parser


@pytest.mark.parametrize(
    ("words", "runs", "rest"),
    [
        ("--seed 3 a b", ["a", "b"], ["--seed", "3"]),
        ("--train.n_steps 5 a", ["a"], ["--train.n_steps", "5"]),
        ("a --train.n_steps=5 --steps 1 2", ["a"], ["--train.n_steps=5"]),
        ("a --perturbation.gamma -1", ["a"], ["--perturbation.gamma", "-1"]),
        ("a --train.flip -o x", ["a"], ["--train.flip"]),
        ("a --train.flip --steps 1", ["a"], ["--train.flip"]),
        ("-e a b --train.flip", ["a", "b"], ["--train.flip"]),
    ],
)
def test_values_of_the_configuration_are_not_taken_for_runs(parser, words, runs, rest):
    args, left = parser.parse_known_args(words.split())
    assert (list(map(str, args.runs)), left) == (runs, rest)


def test_what_follows_two_dashes_is_nobodys_option(parser):
    args, left = parser.parse_known_args(["-o", "x", "--", "--train.flip"])
    assert (list(map(str, args.runs)), left) == (["--train.flip"], [])


def test_a_command_without_overrides_keeps_every_word():
    parser = Parser(allow_abbrev=False)
    parser.add_argument("--out")
    assert parser.parse_known_args(["--a.b", "c"])[1] == ["--a.b", "c"]
