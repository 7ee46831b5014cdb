"""A causal language model of the Hugging Face hub, of a folder or of a GGUF file, ready for use."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from evoloss.errors import UserError
from evoloss.unlearn import kept
from evoloss.unlearn.log_probs import Sequences, reference
from evoloss.unlearn.model_source import first_line, folder_of, only_kept, unloadable
from evoloss.unlearn.tokens import Encoder

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


_NUMBERS = {"float32": torch.float32, "bf16": torch.bfloat16}
REFERENCE_BATCH = 8
"""Rows at a time, whatever a training takes: the last bits of the numbers depend on it."""


@dataclass(frozen=True)
class Language:
    """A model and its tokenizer. name: where it came from; key: changes with its weights."""

    name: str
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    key: str

    @cached_property
    def encoder(self) -> Encoder:
        """From examples to tokens."""
        return Encoder(self.tokenizer, self.context)

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return self.model.device

    @property
    def precision(self) -> str | None:
        """Of the model's weights, as the settings call it; None for any other."""
        return next((name for name, each in _NUMBERS.items() if each == self.model.dtype), None)

    @property
    def context(self) -> int:
        """The most tokens that the model takes."""
        return int(getattr(self.model.config, "max_position_embeddings", 0) or 1 << 20)

    def reference(self, data: Sequences, batch: int = REFERENCE_BATCH) -> Tensor:
        """(N, T) token log-probabilities under the model as it is, kept on disk.

        batch: rows at a time. They depend on the weights and the tokens, and in their last bits on
        how they are computed. All of it is in the name of the file.
        """
        how = (tuple(data.tokens.shape), self.device.type, torch.__version__, batch)
        digest = hashlib.sha256(f"{self.key} {how}".encode())
        for each in (data.tokens, data.attention, data.answer):
            digest.update(each.contiguous().numpy().tobytes())
        return kept.tensor(
            f"reference-{digest.hexdigest()[:24]}",
            lambda: reference(self.model, data.to(self.device), batch),
        )


def load_language(name: str, device: str | None = None, precision: str | None = None) -> Language:
    """The model of a folder, of a GGUF file, or of that name on the hub, in evaluation mode.

    device: None takes a GPU if there is one. precision: of its weights, float32 or bf16; None takes
    bf16 on a GPU, where it is half the memory and what the hardware is made for, and float32 on the
    CPU. Adapters are in float32 anywhere. Raises: UserError with the reason if it cannot be loaded.
    """
    try:
        from transformers import AutoModelForCausalLM, AutoTokenizer
    except ImportError as error:
        raise UserError("unlearning needs transformers: pip install 'evoloss[unlearn]'") from error
    place = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    number = _NUMBERS[precision or ("bf16" if place.type == "cuda" else "float32")]
    folder = _converted(Path(name)) if name.endswith(".gguf") else folder_of(name)
    source = name if folder is None else str(folder)
    kept_only = folder is None and only_kept(name)
    try:
        with quiet():
            tokenizer = AutoTokenizer.from_pretrained(source, local_files_only=kept_only)
            model = AutoModelForCausalLM.from_pretrained(
                source, dtype=number, local_files_only=kept_only
            )
    except Exception as error:  # each of the libraries that read has errors of its own
        raise unloadable(name, folder, error) from error
    torch.nn.Module.to(model, place).train(False)
    return Language(name, model, tokenizer, _key(model, folder, source))


def _converted(file: Path) -> Path:
    """The folder of a GGUF model in the format that loads in a second, made once."""
    if not file.is_file():
        raise UserError(f"no model file '{file}'")
    return kept.folder(f"gguf-{_stamp([file])}", partial(_convert, file))


def _convert(file: Path, folder: Path) -> None:
    from transformers import AutoModelForCausalLM

    model, tokenizer = _read(file)
    config = copy.deepcopy(model.config)
    config.__dict__.pop("quantization_config", None)
    with quiet():
        # What was read is plain numbers, but a model that calls itself quantised is not saved.
        made: Any = AutoModelForCausalLM
        plain = made.from_config(config, dtype=torch.float32)
        plain.load_state_dict(model.state_dict())
        plain.save_pretrained(folder)
        tokenizer.save_pretrained(folder)


def _read(file: Path) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """What is in a GGUF file. Raises: UserError with the reason if it cannot be read."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    given: dict[str, Any] = {"gguf_file": file.name}
    try:
        with quiet():
            tokenizer = AutoTokenizer.from_pretrained(str(file.parent), **given)
            model = AutoModelForCausalLM.from_pretrained(
                str(file.parent), dtype=torch.float32, **given
            )
    except ImportError as error:
        raise UserError(f"reading '{file}' needs a package: {first_line(error)}") from error
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"cannot read the model '{file}': {first_line(error)}") from error
    return model, tokenizer


@contextmanager
def quiet() -> Iterator[None]:
    """Without the progress bars and advice of the libraries, which are about other uses."""
    from huggingface_hub.utils import logging as hub
    from transformers.utils import logging

    level, hub_level = logging.get_verbosity(), hub.get_verbosity()
    bars = logging.is_progress_bar_enabled()
    logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    hub.set_verbosity_error()  # type: ignore[no-untyped-call]
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        logging.set_verbosity(level)
        hub.set_verbosity(hub_level)
        if bars:
            logging.enable_progress_bar()  # type: ignore[no-untyped-call]


def _key(model: PreTrainedModel, folder: Path | None, source: str) -> str:
    """Changes when the weights do: the commit on the hub, or the files' names, sizes and times."""
    if folder is None:
        version = getattr(model.config, "_commit_hash", None)
    else:
        source = str(folder.resolve())
        version = _stamp(sorted(each for each in folder.iterdir() if each.is_file()))
    return f"{source}:{version}:{model.dtype}"


def _stamp(files: list[Path]) -> str:
    facts = [(each.name, each.stat().st_size, each.stat().st_mtime_ns) for each in files]
    return hashlib.sha256(repr(facts).encode()).hexdigest()[:16]
