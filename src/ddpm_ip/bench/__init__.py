"""How fast this machine trains, samples and loads: ours, plain PyTorch and diffusers, side by side in one run.

:mod:`ddpm_ip.bench.run` is the program. What is timed is a :data:`ddpm_ip.bench.measure.Step`, a function without
arguments: :mod:`~ddpm_ip.bench.ours` and :mod:`~ddpm_ip.bench.theirs` make them, :mod:`~ddpm_ip.bench.measure` holds
the clock, and :mod:`~ddpm_ip.bench.table` shows the rows.
"""
