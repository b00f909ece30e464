"""What every error of this package that is meant for a user has in common. Light to import: torch stays out."""

from __future__ import annotations


class ModelError(Exception):
    """Something a person can mend: the message is a sentence that says what is wrong and what to do."""


class DeviceLost(ModelError):  # noqa: N818 - named for what happened
    """The GPU failed under this process, which cannot use it again: CUDA gives it back only to a new one."""


class TrainingError(ModelError):
    """Training cannot start or go on. The message says why and what to do."""
