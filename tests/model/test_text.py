"""Texts to tokens: lengths, padding, cutting, the words of a vocabulary, and the refusal of foreign weights."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from model.text import MINILM_SHA256, TextInput, TextSpec, load_text, minilm_folder, normalise, words

CAPTION = "A man in a red t-shirt and blue jeans, carrying a backpack."


@pytest.fixture(scope="module")
def minilm() -> TextInput:
    return load_text(TextSpec.minilm())


@pytest.fixture(scope="module")
def learned() -> TextInput:
    return load_text(TextSpec("learned", dim=32))


def test_shapes_and_zeros_after_the_end(minilm: TextInput) -> None:
    tokens = minilm([CAPTION, "", "woman"])
    assert tokens.ids.shape == tokens.mask.shape == (3, 56)
    assert tokens.states is not None and tokens.states.shape == (3, 56, 768)
    assert tokens.states.dtype == torch.float32
    assert tokens.mask.sum(1).tolist() == [16, 0, 1]
    for row in range(3):
        length = int(tokens.mask[row].sum())
        assert tokens.mask[row, :length].all() and not tokens.mask[row, length:].any()
        assert (tokens.ids[row, :length] > 0).all() and not tokens.ids[row, length:].any()
        assert not tokens.states[row, length:].any()
        assert (tokens.states[row, :length].norm(dim=1) > 1).all()


def test_states_are_layers_2_and_6_in_the_context_of_the_whole_text(minilm: TextInput) -> None:
    """Against the library's own loading and tokenising, with [CLS] and [SEP] around and then taken off."""
    from transformers import AutoModel, AutoTokenizer

    folder = minilm_folder()
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    model = AutoModel.from_pretrained(folder, local_files_only=True).eval()
    with torch.no_grad():
        hidden = model(**tokenizer(CAPTION, return_tensors="pt"), output_hidden_states=True).hidden_states
    expected = torch.cat([hidden[2], hidden[6]], dim=2)[0, 1:-1]
    tokens = minilm(["a much longer neighbour of another kind " * 5, CAPTION])
    assert tokens.states is not None
    torch.testing.assert_close(tokens.states[1, : len(expected)], expected, atol=1e-4, rtol=1e-4)


def test_no_special_piece_is_among_the_tokens(minilm: TextInput) -> None:
    special = {100, 101, 102, 103}
    assert not special & set(minilm([CAPTION, "[CLS] red [SEP] coat [MASK]"]).ids.flatten().tolist())


def test_a_long_text_is_cut_at_56(minilm: TextInput) -> None:
    tokens = minilm(["coat " * 57, "coat " * 56, "x" * 10_000])
    assert tokens.mask.sum(1).tolist()[:2] == [56, 56]
    assert minilm.is_truncated("coat " * 57)
    assert not minilm.is_truncated("coat " * 56)
    assert not minilm.is_truncated("")


def test_rows_are_deterministic_and_independent_of_the_batch(minilm: TextInput) -> None:
    alone, again = minilm([CAPTION]).states, minilm([CAPTION]).states
    many = minilm(["an old woman with an umbrella"] * 70 + [CAPTION]).states
    assert alone is not None and again is not None and many is not None
    assert torch.equal(alone, again)
    torch.testing.assert_close(many[70], alone[0], atol=1e-4, rtol=1e-4)


def test_threads_share_one_input(minilm: TextInput) -> None:
    texts = [f"a person with {n} bags" for n in range(8)]
    alone = [minilm([text]).states for text in texts]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda text: minilm([text]).states, texts))
    for one, other in zip(alone, together, strict=True):
        assert one is not None and other is not None
        assert torch.equal(one, other)


def test_no_texts(minilm: TextInput) -> None:
    tokens = minilm([])
    assert tokens.ids.shape == (0, 56)
    assert tokens.states is not None and tokens.states.shape == (0, 56, 768)


def test_normalise() -> None:
    assert normalise("  A\tRed\u200b\x00 \uff23oat\r\n\ud800") == "a red coat"  # zero width, NUL, full width, surrogate


def test_normalisation_happens_before_tokenising(learned: TextInput) -> None:
    assert torch.equal(learned(["A RED\n\x07 \uff23oat"]).ids, learned(["a red coat"]).ids)


def test_words() -> None:
    assert words("The man\u2019s T-shirt.His trousers don't match (2 bags)!") == [
        *("the", "man", "t", "shirt", "his", "trousers", "dont", "match", "2", "bags")
    ]
    assert words("\U0001f600 ... _") == []


def test_learned_gives_the_same_word_pieces_without_states(minilm: TextInput, learned: TextInput) -> None:
    tokens = learned([CAPTION, ""])
    assert tokens.states is None
    assert torch.equal(tokens.ids, minilm([CAPTION, ""]).ids)


def test_bert_reads_a_local_folder_and_keeps_its_last_layer(minilm: TextInput) -> None:
    """MiniLM is a small BERT: its folder will do."""
    bert = load_text(TextSpec("bert", str(minilm_folder()), MINILM_SHA256, dim=384))
    ours, theirs = bert([CAPTION]).states, minilm([CAPTION]).states
    assert ours is not None and theirs is not None
    torch.testing.assert_close(ours, theirs[:, :, 384:], atol=1e-5, rtol=1e-5)


def test_tampered_weights_are_refused(tmp_path: Path) -> None:
    for file in ("config.json", "tokenizer.json"):
        (tmp_path / file).write_bytes((minilm_folder() / file).read_bytes())
    weights = bytearray((minilm_folder() / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (tmp_path / "model.safetensors").write_bytes(weights)
    with pytest.raises(ValueError, match=r"not the expected file.*Reinstall or restore"):
        load_text(TextSpec("minilm", str(tmp_path)))
    with pytest.raises(ValueError, match="not the expected file"):
        load_text(TextSpec("bert", str(tmp_path), MINILM_SHA256, dim=384))


def test_what_cannot_be_loaded_is_refused_with_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"There is no tokenizer\.json"):
        load_text(TextSpec("minilm", str(tmp_path)))
    with pytest.raises(ValueError, match="BERT cannot be loaded from"):
        load_text(TextSpec("bert", str(tmp_path)))
    with pytest.raises(ValueError, match="gives 384 channels, not 768"):
        load_text(TextSpec("bert", str(minilm_folder())))
    with pytest.raises(ValueError, match="MiniLM gives 768 channels"):
        load_text(TextSpec("minilm", dim=384))
    with pytest.raises(ValueError, match="another MiniLM"):
        load_text(TextSpec("minilm", sha256="0" * 64))
    with pytest.raises(ValueError, match="not the expected file"):
        load_text(TextSpec("learned", sha256="0" * 64))
    with pytest.raises(ValueError, match="no text input of kind 'word2vec'"):
        load_text(TextSpec("word2vec"))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="at least one word piece"):
        load_text(TextSpec("learned", length=0))
