"""What holds for all tests."""

import os

# Two cores, several processes: threads that wait must sleep, not spin. Read when torch is loaded, here and in children.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch

# Where there is no GPU its kernels run in Triton's interpreter; Triton asks when it is first imported.
if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"
