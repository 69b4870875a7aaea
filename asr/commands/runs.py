"""`asr runs`: the runs of a folder side by side."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Annotated

import typer


def runs(
    folders: Annotated[
        list[Path] | None,
        typer.Argument(metavar="FOLDER", help="Runs, or folders of runs.  [default: runs]"),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON list, with all settings and validations.")
    ] = False,
) -> None:
    """List runs: how far they are, their best scores on the dev set, and the settings in which they differ.

    A terminal gets a table, anything else tab-separated values. A run that cannot be read is listed as
    broken. Whether a run is still going on its files do not tell: look at when it was saved last.
    """
    from asr.training import runs as found

    read = [found.read_run(folder) for folder in found.find_runs(folders or [Path("runs")])]
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    typer.echo(found.as_json(read) if as_json else found.report(read, width))
