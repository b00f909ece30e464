"""Vectors that lie in a file and are read where they are needed: what an index in memory is too small for.

The file has no name. The disk gets its space back when nothing refers to the vectors any more, also after a crash, and
nobody else can open it. Nothing here knows what the vectors are for.
"""

from __future__ import annotations

import errno
import mmap
import tempfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from indexer.errors import StorageFull

_NO_SPACE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def mapped(vectors: NDArray[np.float32], folder: Path | None = None) -> NDArray[np.float32]:
    """A copy of vectors (N, dim), N > 0, in a file in the folder, or where temporary files are; it cannot be changed.

    Raises `StorageFull`, OSError.
    """
    try:
        # Written, not assigned through the mapping: there, a full disk would kill the process.
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(np.ascontiguousarray(vectors, "<f4").data)
            file.flush()
            pages = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
    except OSError as error:
        if error.errno in _NO_SPACE:
            raise StorageFull("The disk is full: the index has no room for its vectors. Free some space.") from error
        raise
    pages.madvise(mmap.MADV_RANDOM)  # a search reads some rows here and there; what lies beside them is of no use
    return np.frombuffer(pages, "<f4").reshape(vectors.shape).astype(np.float32, copy=False)
