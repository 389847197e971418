"""``ddpm-ip doctor``: does this machine, this configuration, this run have what it takes; if not, what to do about it.

Nothing is opened that takes long, and nothing that is broken can break the doctor: each check stands for itself, and
imports what it needs when it is made. A check yields :class:`Finding` objects (:mod:`~ddpm_ip.doctor.findings`); what
is looked at is the machine (:mod:`~ddpm_ip.doctor.machine`), a configuration with its data
(:mod:`~ddpm_ip.doctor.configuration`) and a run (:mod:`~ddpm_ip.doctor.run`), one after the other
(:mod:`~ddpm_ip.doctor.program`).
"""

from ddpm_ip.doctor.findings import Finding, as_json, as_text
from ddpm_ip.doctor.program import doctor

__all__ = ["Finding", "as_json", "as_text", "doctor"]
