"""Where a run is followed while it trains: trackers (``train.trackers``), and alerts.

:mod:`ddpm_ip.tracking.base` says what a tracker does; there is a file for each. :mod:`~ddpm_ip.tracking.trackers` opens
those that are asked for, and :mod:`~ddpm_ip.tracking.metrics` is what training speaks to. No tracker can end a run: its
failures cost a warning, and those that may wait for a network do so in a thread of their own.
"""
