"""`person-search serve` whose GPU fails as soon as a file is there: python -m tests.flows.gpu_lost_process FILE"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from model.encoder import Encoder
from service.cli import main

if __name__ == "__main__":
    broken = Path(sys.argv[1])
    real = Encoder._text_input

    def text_input(self: Encoder) -> Any:
        reader = real(self)

        def read(texts: Sequence[str]) -> Any:
            if broken.exists():
                raise torch.AcceleratorError("CUDA error: unspecified launch failure")
            return reader(texts)

        return read

    Encoder._text_input = text_input  # type: ignore[method-assign]
    Encoder.is_truncated = Encoder.unknown_words = lambda self, text: []  # type: ignore[method-assign, assignment]
    sys.argv = ["person-search", "serve"]
    main()
