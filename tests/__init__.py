"""Tests: ``room/test_x.py`` is that of ``src/ddpm_ip/room/x.py``. A package, since torch-fidelity installs one, too."""
