"""The batching encoder: what goes together, that each caller gets its own, and who is told of an error."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from indexer.deadlines import deadline
from indexer.errors import DeadlinePassed
from model.encoder import Encoder
from service.batching import BatchingEncoder
from service.context import Vectors
from tests.fake_encoder import GridEncoder
from tests.helpers import make_tiny_checkpoint
from tests.service.conftest import wait_until

WORDS = ["red", "green", "blue", "yellow", "black", "white", "grey", "brown"]


class Gated(GridEncoder):
    """Embeds texts only while its gate is open; tells how many came at once. It cannot read `poison`."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = threading.Event()
        self.entered = threading.Event()
        self.batches: list[int] = []

    def embed_texts(self, texts: Sequence[str]) -> Vectors:
        self.batches.append(len(texts))
        self.entered.set()
        assert self.gate.wait(30)
        if "poison" in texts:
            raise ValueError("poison")
        return super().embed_texts(texts)


def waiting(encoder: BatchingEncoder) -> int:
    return len(encoder._waiting)


def behind_a_busy_encoder(
    encoder: Gated, batching: BatchingEncoder, pool: ThreadPoolExecutor, calls: Sequence[Sequence[str]]
) -> list[Future[Vectors]]:
    """One call that is in the encoder, and those that wait behind it, in their order."""
    futures = [pool.submit(batching.embed_texts, ["first"])]
    assert encoder.entered.wait(30)
    for number, texts in enumerate(calls, start=1):
        futures.append(pool.submit(batching.embed_texts, texts))
        wait_until(lambda number=number: waiting(batching) == number, "the call waits")  # type: ignore[misc]
    return futures


def test_what_comes_while_the_encoder_is_busy_goes_together_and_to_its_own_caller() -> None:
    encoder, seen = Gated(), list[int]()
    batching = BatchingEncoder(encoder, 100, seen.append)
    with ThreadPoolExecutor(16) as pool:
        futures = behind_a_busy_encoder(encoder, batching, pool, [[word] for word in WORDS])
        encoder.gate.set()
        rows = [future.result(30) for future in futures]
    assert encoder.batches == seen == [1, len(WORDS)]
    for text, row in zip(["first", *WORDS], rows, strict=True):
        np.testing.assert_array_equal(row, GridEncoder().embed_texts([text]))


def test_no_more_go_together_than_allowed_but_a_caller_is_never_split() -> None:
    encoder = Gated()
    batching = BatchingEncoder(encoder, 3)
    calls = [["red"], ["green", "blue"], ["yellow"], ["black", "white", "grey", "brown"], ["red"]]
    with ThreadPoolExecutor(16) as pool:
        futures = behind_a_busy_encoder(encoder, batching, pool, calls)
        encoder.gate.set()
        rows = [future.result(30) for future in futures]
    assert encoder.batches == [1, 3, 1, 4, 1]
    assert [len(row) for row in rows] == [1, 1, 2, 1, 4, 1]


def test_an_error_reaches_the_caller_of_that_text_alone() -> None:
    encoder = Gated()
    batching = BatchingEncoder(encoder, 100)
    with ThreadPoolExecutor(16) as pool:
        _, red, poison, blue = behind_a_busy_encoder(encoder, batching, pool, [["red"], ["poison"], ["blue"]])
        encoder.gate.set()
        with pytest.raises(ValueError, match="poison"):
            poison.result(30)
        np.testing.assert_array_equal(red.result(30), GridEncoder().embed_texts(["red"]))
        np.testing.assert_array_equal(blue.result(30), GridEncoder().embed_texts(["blue"]))
    np.testing.assert_array_equal(batching.embed_texts(["red"]), GridEncoder().embed_texts(["red"]))


def test_nobody_waits_beyond_the_deadline_and_who_gave_up_is_not_embedded() -> None:
    encoder = Gated()
    batching = BatchingEncoder(encoder, 100)

    def impatient() -> None:
        with deadline(0.05):
            batching.embed_texts(["impatient"])

    with ThreadPoolExecutor(4) as pool:
        (first,) = behind_a_busy_encoder(encoder, batching, pool, [])
        with pytest.raises(DeadlinePassed):
            pool.submit(impatient).result(30)
        assert waiting(batching) == 0
        encoder.gate.set()
        first.result(30)
    assert encoder.batches == [1]


def test_many_threads_many_times() -> None:
    encoder = Gated()
    encoder.gate.set()
    batching = BatchingEncoder(encoder, 4)
    texts = [f"{WORDS[n % 8]} {WORDS[n // 8 % 8]} {n}" for n in range(400)]
    expected = GridEncoder().embed_texts(texts)
    with ThreadPoolExecutor(16) as pool:
        rows = list(pool.map(lambda text: batching.embed_texts([text])[0], texts))
    np.testing.assert_array_equal(np.stack(rows), expected)
    assert sum(encoder.batches) == len(texts) and max(encoder.batches) <= 4


def test_together_a_network_reads_what_it_reads_alone(tmp_path: Path) -> None:
    make_tiny_checkpoint(tmp_path / "tiny.safetensors")
    encoder = Encoder(tmp_path / "tiny.safetensors", "cpu")
    texts = ["a man", "a woman in a red shirt and black pants with a bag", "red", "the person and the bag"]
    alone = np.concatenate([encoder.embed_texts([text]) for text in texts])
    blocked, entered = threading.Event(), threading.Event()

    class Slow(Encoder):
        def embed_texts(self, texts: Sequence[str], shifts: int = 0) -> Vectors:
            entered.set()
            assert blocked.wait(30)
            return super().embed_texts(texts, shifts)

    sizes: list[int] = []
    batching = BatchingEncoder(Slow(tmp_path / "tiny.safetensors", "cpu"), 32, sizes.append)
    with ThreadPoolExecutor(8) as pool:
        first = pool.submit(batching.embed_texts, ["blue"])
        assert entered.wait(30)
        futures = [pool.submit(batching.embed_texts, [text]) for text in texts]
        wait_until(lambda: waiting(batching) == len(texts), "all wait")
        blocked.set()
        first.result(30)
        together = np.concatenate([future.result(30) for future in futures])
    assert sizes == [1, len(texts)]
    np.testing.assert_allclose(together, alone, rtol=0, atol=1e-6)


def test_everything_else_is_the_encoders_own() -> None:
    encoder = GridEncoder()
    batching = BatchingEncoder(encoder, 8)
    assert (batching.checkpoint_id, batching.dim, batching.has_text) == (encoder.checkpoint_id, 48, True)
    assert batching.unknown_words("a zorblax") == ["zorblax"] and batching.is_truncated("a " * 60)
    assert batching.delay == 0.0  # what a QueryEncoder need not have
    assert not hasattr(batching, "explain")
