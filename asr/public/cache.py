"""Public models that were imported once, in a folder of the user."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

from asr.public.importing import import_model
from asr.run_folder import WEIGHTS


def cached_model(name: str) -> Path:
    """The model folder of a model of the hub, imported at the first use. A line on stderr says so.

    It is below $ASR_CACHE, or else below ~/.cache/asr. Raises AsrError as `import_model` does.
    """
    root = os.environ.get("ASR_CACHE") or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "asr"
    folder = Path(root).expanduser() / "models" / name.replace("/", "--")
    if not (folder / WEIGHTS).is_file():

        def announce() -> None:
            print(f"asr: importing {name} to {folder}, once", file=sys.stderr)

        # Other processes may import it at the same time, and this one may be killed.
        own = folder.with_name(f".{folder.name}.{os.getpid()}")
        try:
            import_model(name, own, on_found=announce)
            _rename(own, folder)
        finally:
            shutil.rmtree(own, ignore_errors=True)
    return folder


def _rename(own: Path, folder: Path) -> None:
    """Give the folder of a complete model its name, unless another process was faster."""
    try:
        own.rename(folder)
    except OSError:  # it has content
        if not (folder / WEIGHTS).is_file():
            shutil.rmtree(folder)  # what an interrupted import left
            own.rename(folder)
