"""What every error of this package that is meant for a user has in common. Light to import: torch stays out."""

from __future__ import annotations


class ModelError(Exception):
    """Something a person can mend: the message is a sentence that says what is wrong and what to do."""


class TrainingError(ModelError):
    """Training cannot start or go on. The message says why and what to do."""
