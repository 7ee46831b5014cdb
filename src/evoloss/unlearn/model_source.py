"""Where a model of a name is, a folder or the hub, and what to do where it cannot be loaded."""

from __future__ import annotations

from pathlib import Path

from evoloss.errors import UserError

_WAY_OUT = "give a folder, a .gguf file or a hub name"
_CONFIG = "config.json"
_ADAPTER = "adapter_config.json"  # such a folder names the model that it belongs to
_MEANINGS = (
    ("ignore_mismatched_sizes", "its weights have other sizes than its config.json says: fetch "
     "both from the same place"),
    ("deserializing header", "its weights are damaged or cut short: fetch its .safetensors files "
     "anew"),
    ("no file named", "it has no weights: add its model.safetensors, or fetch the model anew"),
    ("backend tokenizer", "its tokenizer's files are missing or incomplete: add its tokenizer.json "
     "(a tokenizer.model alone needs the package sentencepiece)"),
)  # fmt: skip
"""What is in a library's message, and what it means for who gave the model."""


def folder_of(name: str) -> Path | None:
    """The folder of a model; None for a name that is to be looked for on the hub.

    Raises: UserError for no name, and for a path where no folder is.
    """
    if not name:
        raise UserError(f"the model '' has no name: {_WAY_OUT}")
    if Path(name).is_dir():
        return Path(name)
    if name.startswith(("/", "./", "../", "~")) or name.count("/") > 1:
        raise UserError(f"no model folder '{name}': {_WAY_OUT}")
    return None


def only_kept(name: str) -> bool:
    """Whether a model of the hub can be had only from what was fetched of it earlier.

    Raises: UserError if nothing was, and the hub does not give it.
    """
    from huggingface_hub import hf_hub_url, try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        reason = _refusal(hf_hub_url(name, _CONFIG))
        if not reason:
            return False
        if isinstance(try_to_load_from_cache(name, _CONFIG), str):
            return True
    except HFValidationError:
        reason = "the hub has no such names"
    here = "it is a file, no folder" if Path(name).is_file() else "there is no such folder"
    raise UserError(f"no model '{name}': {here}, and {reason}: {_WAY_OUT}")


def _refusal(url: str) -> str:
    """Why the hub does not give a file of a model; empty if it does.

    It is asked once: a download that fails is tried again for half a minute.
    """
    from huggingface_hub import get_hf_file_metadata
    from huggingface_hub.errors import (
        EntryNotFoundError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
    )

    try:
        get_hf_file_metadata(url)
    except EntryNotFoundError:
        return f"what the hub has of that name has no {_CONFIG}"
    except RepositoryNotFoundError:
        return "the hub has none of that name that you may read"
    except OfflineModeIsEnabled:
        return "HF_HUB_OFFLINE forbids to ask the hub"
    except Exception:  # of whichever library speaks to the network
        return "the hub cannot be reached"
    return ""


def unloadable(name: str, folder: Path | None, error: Exception) -> UserError:
    """What to tell where the libraries that read a model gave up with an error."""
    where = f"cannot load the model '{name}'"
    if folder is not None and not any((folder / each).exists() for each in (_CONFIG, _ADAPTER)):
        return UserError(
            f"{where}: its folder has no {_CONFIG}: give the one with the model's files"
        )
    if isinstance(error, TypeError | AttributeError):
        # The library takes its files to be what they should be, and stumbles where they are not.
        return UserError(
            f"{where}: a file of it is of another form ({first_line(error)}): "
            f"see to its {_CONFIG} and its tokenizer's files, or fetch them anew"
        )
    if isinstance(error, ImportError):
        return UserError(f"{where}: it needs a package: {first_line(error)}")
    for part, meaning in _MEANINGS:
        if part in str(error):
            return UserError(f"{where}: {meaning}")
    told = first_line(error).rstrip(".: ")
    return UserError(f"{where}: {told}: see to its files, or fetch them anew")


def first_line(error: Exception) -> str:
    """Of an error's message; what kind of error it is where it has none."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
