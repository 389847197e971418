"""What holds for all tests."""

import os

# Two cores, several processes: threads that wait must sleep, not spin. Read when torch is loaded, here and in children.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
