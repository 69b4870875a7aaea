"""The folder of a public model: a local one, or files of the hub in the cache of huggingface_hub."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path

from asr.errors import AsrError
from asr.public.names import is_hub_name

INDEX = ".index.json"
WEIGHTS = ("model.safetensors", "pytorch_model.bin")  # each whole or in shards, in order of preference
TEXT_FILES = (
    *("config.json", "generation_config.json", "preprocessor_config.json", "processor_config.json"),
    *("tokenizer.json", "tokenizer_config.json", "vocab.json", "merges.txt", "added_tokens.json"),
    *("special_tokens_map.json", "sentencepiece.bpe.model"),
)


def find_folder(
    name: str, revision: str | None = None, on_found: Callable[[], object] = lambda: None
) -> Path:
    """The folder with the files of a model.

    Missing files are downloaded from the hub, and interrupted downloads are continued.

    `revision` is a branch, tag or commit. `on_found` is called when the hub has the model, before a download.
    Without a network, files from an earlier download are used. Raises AsrError if no such model is found.
    """
    if os.path.isdir(name):  # noqa: PTH112
        if revision is not None:
            raise AsrError(f"{name}: a local folder has no revisions; leave out --revision")
        return Path(name)
    if not is_hub_name(name):
        raise AsrError(f"{name}: no such folder, and not a name of the hub such as openai/whisper-tiny")
    try:
        from huggingface_hub import HfApi, snapshot_download
        from huggingface_hub.errors import (
            GatedRepoError,
            HFValidationError,
            LocalEntryNotFoundError,
            RepositoryNotFoundError,
            RevisionNotFoundError,
        )
    except ImportError:
        raise AsrError(
            f"{name}: no such folder; models of the hub need huggingface_hub: pip install huggingface_hub"
        ) from None
    try:
        info = HfApi().model_info(name, revision=revision)
        on_found()
        files = needed_files([each.rfilename for each in info.siblings or ()])
        return Path(snapshot_download(name, revision=info.sha, allow_patterns=files))
    except HFValidationError:
        raise AsrError(f"{name}: no such folder, and not a valid name of the hub; check it") from None
    except GatedRepoError:
        raise AsrError(
            f"{name}: the hub asks you to accept its license first; log in with `hf auth login`"
        ) from None
    except RevisionNotFoundError:
        raise AsrError(
            f"{name}: the hub has no revision {revision!r} of this model; check its name"
        ) from None
    except RepositoryNotFoundError:
        raise AsrError(
            f"{name}: no such folder, and no such model on the hub; check the path or the name"
        ) from None
    except Exception as error:
        # The network library raises its own errors. Files from an earlier download can still be used.
        try:
            folder = Path(snapshot_download(name, revision=revision, local_files_only=True))
        except LocalEntryNotFoundError:
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise AsrError(
                f"{name}: no such folder, and the hub cannot be searched for a model of this name "
                f"({reason[:150]}); check the path, or the network"
            ) from None
        on_found()
        return folder


def needed_files(present: Sequence[str]) -> list[str]:
    """The files of a model that an import reads: one form of the weights, and the text files."""
    for weights in WEIGHTS:
        stem, suffix = weights.rsplit(".", 1)
        if weights in present:
            return [weights, *(name for name in TEXT_FILES if name in present)]
        if weights + INDEX in present:
            shards = [n for n in present if re.fullmatch(rf"{stem}-\d+-of-\d+\.{suffix}", n)]
            return [weights + INDEX, *shards, *(name for name in TEXT_FILES if name in present)]
    return [name for name in TEXT_FILES if name in present]
