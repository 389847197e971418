"""``train.alert_command``: a shell command of the person who started the training, run at each alert."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import threading

from ddpm_ip.plain import reason, visible
from ddpm_ip.run.folder import RunFolder
from ddpm_ip.tracking.base import Alert

log = logging.getLogger("ddpm_ip.train")

LIMIT_SECONDS = 30.0
SHELL = ("sh", "-c") if os.name == "posix" else ("cmd", "/c")


class AlertCommand:
    """Runs the command while training continues, each alert in a process group of its own.

    The command finds the text on its standard input, and in its environment ``DDPM_IP_ALERT`` (the kind),
    ``DDPM_IP_ALERT_STEP``, ``DDPM_IP_ALERT_TEXT`` and ``DDPM_IP_RUN`` (the run's folder). Nothing of an alert becomes
    part of the command, so no name of a file or a metric can be taken for one. Should it fail, or take longer than
    :data:`LIMIT_SECONDS`, that costs a warning.

    Args:
        command: for the shell.
        folder: of the run.
    """

    def __init__(self, command: str, folder: RunFolder) -> None:
        self._command, self._folder = command, folder.path.resolve()
        self._threads: list[threading.Thread] = []

    def __call__(self, alert: Alert) -> None:
        """Begins to run it."""
        thread = threading.Thread(target=self._run, args=(alert,), name="alert", daemon=True)
        self._threads.append(thread)
        thread.start()

    def close(self) -> None:
        """Waits for what runs."""
        for thread in self._threads:
            thread.join(LIMIT_SECONDS + 1)

    def _run(self, alert: Alert) -> None:
        try:
            failure = self._failure(alert)
        except (OSError, ValueError) as error:
            failure = reason(error)
        if failure:
            log.warning("train.alert_command failed: %s. Training continues", failure)

    def _failure(self, alert: Alert) -> str | None:
        """Runs it to its end.

        Returns:
            What went wrong, or None.
        """
        text = visible(alert.text)
        told = {"": alert.kind, "_STEP": str(alert.step), "_TEXT": text}
        process = subprocess.Popen(
            [*SHELL, self._command],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env={**os.environ, **{f"DDPM_IP_ALERT{key}": value for key, value in told.items()},
                 "DDPM_IP_RUN": str(self._folder)},
            start_new_session=True,
        )  # fmt: skip
        try:
            _, said = process.communicate(f"{text}\n".encode(), timeout=LIMIT_SECONDS)
        except subprocess.TimeoutExpired:
            _end(process)
            return f"it was ended after {LIMIT_SECONDS:.0f} s"
        if not process.returncode:
            return None
        last = said.decode("utf-8", "replace").strip().rpartition("\n")[2]
        return f"exit status {process.returncode}" + (f", {visible(last[:200])}" if last else "")


def _end(process: subprocess.Popen[bytes]) -> None:
    """Ends the shell and what it started."""
    if os.name == "posix":
        os.killpg(process.pid, signal.SIGKILL)
    else:
        process.kill()
    process.wait()
