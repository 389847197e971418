"""Signals that ask a program to stop are handled for as long as it says, and then by who handled them before."""

import os
import signal
import threading

import pytest

from ddpm_ip.signals import PREEMPTION, handled


def test_a_handler_is_there_for_as_long_as_it_says():
    got, before = [], {number: signal.getsignal(number) for number in PREEMPTION}
    with handled(PREEMPTION, lambda number, frame: got.append(number)):
        for number in PREEMPTION:
            os.kill(os.getpid(), number)
    assert got == [signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP]
    assert {number: signal.getsignal(number) for number in PREEMPTION} == before


def test_it_is_taken_back_also_after_an_error():
    before = signal.getsignal(signal.SIGUSR1)
    with pytest.raises(ValueError, match="wrong"), handled([signal.SIGUSR1], print):
        raise ValueError("wrong")
    assert signal.getsignal(signal.SIGUSR1) == before


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2])
def test_what_was_ignored_stays_ignored(number):
    before = signal.signal(number, signal.SIG_IGN)
    try:
        with handled(PREEMPTION, lambda number, frame: pytest.fail("it was handled")):
            assert signal.getsignal(number) == signal.SIG_IGN
            os.kill(os.getpid(), number)
        assert signal.getsignal(number) == signal.SIG_IGN
    finally:
        signal.signal(number, before)


def test_outside_the_main_thread_nothing_changes():
    before, entered = signal.getsignal(signal.SIGTERM), []

    def enter():
        with handled(PREEMPTION, print):
            entered.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert entered == [before]
