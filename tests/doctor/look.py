"""The doctor's findings, as its tests ask for them."""

from ddpm_ip.doctor import doctor


def look(config=None, folder=None, **overrides):
    """The findings by what they are about; several about one thing in a list."""
    found = {}
    for finding in doctor(config, overrides, folder):
        found.setdefault(finding.what, []).append(finding)
    return found


def levels(findings):
    return [finding.level for finding in findings]
