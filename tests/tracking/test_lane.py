"""A tracker that hangs holds up neither the steps nor the end of the run."""

import threading

from ddpm_ip.tracking import lane
from ddpm_ip.tracking.lane import Lane


def test_a_slow_one_holds_up_nothing_and_lacks_what_finds_no_room(monkeypatch, warnings_of):
    monkeypatch.setattr(lane, "MOST", 3)
    come, done = threading.Event(), []
    slow = Lane("slow", lambda: done.append("start"))
    assert done == ["start"], "the start is waited for"
    slow(lambda: come.wait(60))
    for i in range(9):
        slow(lambda i=i: done.append(i))
    assert done == ["start"]
    assert warnings_of() == ["slow is too slow or cannot be reached: it will lack numbers of this run"]
    come.set()
    slow.close(lambda: None)
    assert done[1:3] == [0, 1]
    assert not slow._thread.is_alive()


def test_one_that_never_answers_is_given_up(monkeypatch, warnings_of):
    monkeypatch.setattr(lane, "START_SECONDS", 0.01)
    monkeypatch.setattr(lane, "CLOSE_SECONDS", 0.01)
    never = threading.Event()
    hung = Lane("hung", lambda: never.wait(60))
    hung.close(lambda: None)
    assert [text.split(" ")[0:3] for text in warnings_of()] == [["hung", "has", "not"], ["hung", "did", "not"]]
    assert hung._thread.daemon, "or the process would not end"
    never.set()
