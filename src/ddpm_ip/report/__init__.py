"""Runs in, one self-contained page out.

:func:`ddpm_ip.report.page.write_report` writes the HTML page, :func:`ddpm_ip.report.page.markdown_table` the numbers
alone. The parts: :mod:`~ddpm_ip.report.run` reads a run folder, :mod:`~ddpm_ip.report.table` decides which numbers may
stand side by side, :mod:`~ddpm_ip.report.plots` draws, :mod:`~ddpm_ip.report.page` puts it together.
"""
