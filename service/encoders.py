"""Where checkpoint files lie, so that every process of a gallery can load every checkpoint it wants.

A file is copied into the data folder under its id, which is a hash of its content; replicas and workers on other
machines find it there through the shared folder. Which checkpoints are wanted is the database's to say.
"""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Protocol

from indexer.checkpoints import FOLDER, SUFFIX
from indexer.errors import CheckpointMissing, GalleryError
from service.context import QueryEncoder
from service.settings import ServiceSettings

LEFT_SECONDS = 3600.0  # without a byte more: nobody is writing this upload any longer


class InvalidCheckpoint(GalleryError):  # noqa: N818  (named like the other errors of the gallery)
    """The file is no checkpoint this version can use."""

    code = "invalid_checkpoint"


class EncoderFiles(Protocol):
    """Files of checkpoints, and the encoders they become."""

    def load(self, checkpoint_id: str) -> QueryEncoder:
        """The encoder of a checkpoint that was admitted. Raises CheckpointMissing."""
        ...

    def admit(self, path: Path, called: str) -> QueryEncoder:
        """Verify a file, keep a copy under its id, and return its encoder. Raises InvalidCheckpoint, which calls the
        file what the user calls it.
        """
        ...

    def remove(self, checkpoint_id: str) -> None:
        """Forget the file of a retired checkpoint."""
        ...

    def upload(self) -> AbstractContextManager[Path]:
        """A place for a file on its way in, on the same disk; removed afterwards."""
        ...


class CheckpointFiles:
    """The files in the data folder, loaded with torch."""

    def __init__(self, settings: ServiceSettings) -> None:
        self._folder = settings.data_dir / FOLDER
        self._settings = settings

    def path(self, checkpoint_id: str) -> Path:
        return self._folder / f"{checkpoint_id}{SUFFIX}"

    def load(self, checkpoint_id: str) -> QueryEncoder:
        from model.errors import ModelError

        path = self.path(checkpoint_id)
        if not path.exists():
            configured = self._configured(checkpoint_id)
            return self.admit(configured, str(configured))
        try:
            encoder = self._encoder(path)
        except ModelError as error:
            raise CheckpointMissing(f"{error} Register the file of checkpoint {checkpoint_id} again.") from error
        if encoder.checkpoint_id != checkpoint_id:
            raise CheckpointMissing(f"{path} holds {encoder.checkpoint_id}. Register {checkpoint_id} again.")
        return encoder

    def admit(self, path: Path, called: str) -> QueryEncoder:
        from model.checkpoint import write_atomically
        from model.errors import ModelError

        try:
            encoder = self._encoder(path)
        except ModelError as error:
            raise InvalidCheckpoint(str(error).replace(str(path), called)) from error
        kept = self.path(encoder.checkpoint_id)
        if not kept.exists() or kept.stat().st_size != path.stat().st_size:
            write_atomically(kept, path.read_bytes())
        return encoder

    def remove(self, checkpoint_id: str) -> None:
        self.path(checkpoint_id).unlink(missing_ok=True)

    @contextmanager
    def upload(self) -> Iterator[Path]:
        self._folder.mkdir(parents=True, exist_ok=True)
        for left in self._folder.glob(".upload-*"):  # by a process that was killed
            if time.time() - left.stat().st_mtime > LEFT_SECONDS:
                left.unlink(missing_ok=True)
        path = self._folder / f".upload-{os.getpid()}-{uuid.uuid4().hex}"
        try:
            yield path
        finally:
            path.unlink(missing_ok=True)

    def _configured(self, checkpoint_id: str) -> Path:
        """The file of the settings, where a gallery began before files were copied, or its copy was lost."""
        from model.checkpoint import describe
        from model.errors import ModelError

        path = checkpoint_path(self._settings)
        with suppress(ModelError):  # what is wrong with some other file does not matter here
            if describe(path)["id"] == checkpoint_id:
                return path
        raise CheckpointMissing(
            f"The file of checkpoint {checkpoint_id} is not in {self._folder}. All processes of a gallery share the "
            "data folder; register the file again if it was lost."
        )

    def _encoder(self, path: Path) -> QueryEncoder:
        from model.encoder import Encoder

        return Encoder(path, self._settings.device, self._settings.batch_size)


def checkpoint_path(settings: ServiceSettings) -> Path:
    """The checkpoint a new gallery begins with."""
    # Imported here, because torch takes seconds that whoever only wants the documentation need not wait for.
    from model.checkpoint import default_checkpoint

    return settings.checkpoint or default_checkpoint()
