"""Errors that are meant for a person: what is wrong, where, and what to do about it."""


class UserError(Exception):
    """A mistake or a missing thing that the user can put right.

    The command line prints the message alone, without a traceback, and exits with ``exit_code``. The message is
    complete: it names the thing, the place, and what to do.
    """

    exit_code = 1


class ConfigError(UserError):
    """The configuration or the command line cannot be used as it stands."""

    exit_code = 2


class DataError(UserError):
    """A data set or an image is missing, damaged, or does not fit the model."""


class CheckpointError(UserError):
    """A checkpoint is missing, damaged, or belongs to another model."""


class NewerVersion(UserError):
    """A file was written by a newer version of this package, which lays it out differently."""


class Diverged(UserError):
    """Numbers are no longer finite: a loss, a gradient, weights, or images."""


class FastPathError(UserError):
    """The fused kernels do not give what the plain network gives."""


class OutOfMemory(UserError):
    """There is too little memory, on the GPU or the CPU, for what was asked for."""

    exit_code = 3
