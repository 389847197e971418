"""A small, fixed share of the stress program, and that it sees what it looks for."""

import ctypes
import os
import time
from collections import Counter
from pathlib import Path

import pytest
from tests.stress import damages, kills, races, readers
from tests.stress.__main__ import PLAYS, mutations
from tests.stress.cases import Case, Fault, run_all
from tests.tiny import CORES

from ddpm_ip.errors import UserError

MUTATIONS = mutations(5000, seed=1)
SOME = 6  # damages of each command
KILLED = ("train", "sample", "sample-npz", "evaluate", "table")
GENTLY = kills.GENTLE + "train"


def faults(cases: list[Case], module) -> list[str]:
    """What went wrong, in one process on this worker's core."""
    for name in dict.fromkeys(case.name for case in cases):
        module.prepare(name)
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    outcomes = list(run_all(cases, PLAYS, [CORES[worker % len(CORES)]]))
    assert len(outcomes) == len(cases)
    return [f"{outcome.fault}: {outcome.case.again}" for outcome in outcomes if outcome.fault]


@pytest.mark.parametrize("name", readers.READERS)
def test_whatever_is_in_a_file_is_read_or_refused(name):
    assert faults([case for case in MUTATIONS if case.name == name], readers) == []


@pytest.mark.parametrize("command", damages.COMMANDS)
def test_a_damaged_folder_is_used_or_refused(command):
    every = damages.cases(command)
    assert faults([Case("damages", command, i) for i in range(0, every, -(-every // SOME))], damages) == []


@pytest.mark.parametrize("name", KILLED)
def test_kills_change_no_byte(name):
    assert faults([Case("kills", name, 0)], kills) == []


def test_signals_save_before_the_end():
    assert faults([Case("kills", GENTLY, 0)], kills) == []


@pytest.mark.parametrize("name", races.RACES)
def test_of_several_that_start_together_one_succeeds_and_none_does_harm(name):
    assert faults([Case("races", name, 0)], races) == []


def segfault() -> None:
    ctypes.string_at(0)


def take_memory() -> None:
    bytes(1) + b"x" * 700_000_000


def take_addresses() -> None:
    bytearray(10**11)


def write_elsewhere() -> None:
    (Path(__file__).parent / "pwned").open("w").close()


def leave() -> None:
    raise SystemExit(0)


def start_a_program() -> None:
    os.system("true")


def tell_too_much() -> None:
    from tests.stress.cases import asked

    def endless():
        raise UserError("x" * 10**6)

    asked(endless)


WRONG = {
    segfault: "SIGSEGV",
    take_memory: "MB of memory",
    take_addresses: "MemoryError",
    write_elsewhere: "writing to",
    leave: "SystemExit",
    start_a_program: "os.system",
    tell_too_much: "1,000,000 characters",
}


def test_what_is_wrong_is_seen_and_the_next_case_is_played():
    wrong = list(WRONG)

    def play(case: Case, home: Path) -> Counter[str]:
        if case.number % 2:
            wrong[case.number // 2]()
        return Counter(played=1)

    found = {}
    for outcome in run_all([Case("wrong", "x", i) for i in range(2 * len(wrong))], {"wrong": play}, [CORES[0]]):
        found[outcome.case.number] = outcome
    (Path(__file__).parent / "pwned").unlink()
    assert [found[i].counts["played"] for i in range(0, 2 * len(wrong), 2)] == [1] * len(wrong)
    for i, one in enumerate(wrong):
        assert WRONG[one] in (found[2 * i + 1].fault or ""), one.__name__


def test_what_hangs_is_ended(monkeypatch):
    monkeypatch.setattr("tests.stress.cases.LONGEST", {"hangs": 1.0})
    (outcome,) = run_all([Case("hangs", "x", 0)], {"hangs": lambda case, home: time.sleep(1000)}, [CORES[0]])
    assert outcome.fault == "the process ended: it took too long"


def test_a_case_is_the_same_each_time():
    first, second = (Case("mutations", "npz", 7, 3).rng.random() for _ in range(2))
    assert first == second != Case("mutations", "npz", 8, 3).rng.random()


def test_a_fault_says_how_to_see_it_again():
    assert Case("mutations", "npz", 7, 3).again.endswith("--seed 3 --part mutations --name npz --case 7")
    assert isinstance(Fault(), AssertionError)
