"""Signals during training; what they lead to is in tests/reliability/test_07_signals.py."""

import signal

from tests.tiny import (
    TRAIN_SCRIPT,
    finish,
    start,
    wait_for,
    yaml_file,
)


def test_what_was_ignored_at_the_start_stays_ignored(tmp_path):
    """As SIGHUP is under nohup."""
    config = yaml_file(tmp_path, n_steps=100_000, save_freq=100_000)
    code = "import runpy, signal, sys\nsignal.signal(signal.SIGHUP, signal.SIG_IGN)\nsys.argv = sys.argv[1:]\n"
    code += "runpy.run_path(sys.argv[0], run_name='__main__')"
    process = start("-c", code, TRAIN_SCRIPT, "-c", config, "-e", tmp_path / "run")
    wait_for(process, "step 1/100000")
    process.send_signal(signal.SIGHUP)
    wait_for(process, "step ")
    process.send_signal(signal.SIGUSR2)
    returned, output = finish(process)
    assert returned == 140, output
    assert "stopped by signal 12 at step" in output
