"""What every test shares: one torch thread, so that tests run beside each other without fighting for the cores."""

from __future__ import annotations

import sys

import hypothesis
import pytest

# Time is never asserted: a slow machine is not a bug.
hypothesis.settings.register_profile("suite", deadline=None)
hypothesis.settings.load_profile("suite")


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Only where a test file has imported torch already: tests without it stay free of its start-up time."""
    if item.get_closest_marker("requires_cuda") is not None:
        import torch as needed

        if not needed.cuda.is_available():
            pytest.skip("no CUDA device torch can use")
    torch = sys.modules.get("torch")
    if torch is not None and torch.get_num_threads() != 1:
        torch.set_num_threads(1)
