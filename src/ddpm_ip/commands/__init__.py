"""The commands of ``ddpm-ip``, a file each: what it is called with, and which program it runs.

Nothing heavy is imported before it is needed, so that ``--help`` answers at once.
"""
