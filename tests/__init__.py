"""Tests: ``room/test_x.py`` is that of ``src/ddpm_ip/room/x.py``. A package, since torch-fidelity installs one, too.

Processes that tests fork are killed at any moment, also while they write a line. tqdm's lock for lines is shared with
what is forked, and would stay taken for ever: each child has its own.
"""

import os
import threading

from tqdm import tqdm

os.register_at_fork(after_in_child=lambda: tqdm.set_lock(threading.RLock()))
