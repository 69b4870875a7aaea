"""Download and unpack archives, with progress and checks. An interrupted download continues.

An archive is written to NAME.part, and gets its name when its length and its checksum (where one is known)
are right. It is unpacked into a folder of its own, whose contents then go to their places, and the file
.NAME.complete marks the end. A second call does only the remaining work.
"""

from __future__ import annotations

import hashlib
import lzma
import os
import shutil
import tarfile
import urllib.error
import urllib.request
import zipfile
import zlib
from http.client import HTTPException, HTTPResponse
from pathlib import Path

from asr.audio.archive import check_end
from asr.datasets.corpora.table import Archive, CorpusInfo
from asr.errors import AsrError

_BLOCK = 1 << 20  # bytes
_GROWTH = 1.3  # unpacked audio is at most about this many times as large as its archive (WAV in gzip)
_TIMEOUT = 60.0  # seconds without a byte
_DAMAGE = EOFError, tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError


def download_corpus(corpus: CorpusInfo, folder: Path, subsets: tuple[str, ...]) -> None:
    """Download and unpack the archives of the given subsets into `folder`.

    Without any subset these are all archives, except those that are parts of others. Raises AsrError when the
    corpus cannot be downloaded, or a subset is unknown or needed.
    """
    archives = corpus.archives
    one, each = archives.get(""), archives.get("*")
    known = corpus.splits if one else archives
    if not archives:
        raise AsrError(f"--download: {corpus.title}: {corpus.unavailable or 'a layout has no address'}")
    if each:
        if not subsets:
            raise AsrError(
                f"--download: {corpus.title} has one archive for each language; give --subset "
                f"({corpus.subsets})"
            )
        chosen = [Archive(each.url.format(subset=name), each.sha256) for name in subsets]
    elif unknown := [name for name in subsets if name not in known]:
        raise AsrError(f"--download: no subset {unknown[0]!r}; choose from {' '.join(known)}")
    elif one:
        chosen = [one]
    else:
        chosen = [archives[name] for name in subsets] or [a for a in archives.values() if not a.part]
    for archive in chosen:
        fetch(archive, folder)


def fetch(archive: Archive, folder: Path) -> None:
    """One archive, downloaded and unpacked into `folder`, unless its marker says that this was done.

    Raises AsrError for a server that refuses, a lost connection, too little room, a wrong checksum, an
    archive that is cut short, and one that would write outside of the folder. What was downloaded
    stays, except after a wrong checksum.
    """
    name = archive.url.rpartition("/")[2]
    marker = folder / f".{name}.complete"
    if marker.exists():
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / name
        if not path.exists():
            _download(archive, path)
        _check_sum(archive, path)
        unpack(path, folder)
        for inner in sorted(folder.glob(archive.inner)) if archive.inner else ():
            unpack(inner, inner.parent)
            inner.unlink()
        marker.write_text(archive.url + "\n", encoding="utf-8")
        path.unlink()
    except OSError as error:
        raise AsrError(
            f"{folder}: {error.strerror or error}; check the free space and the permissions"
        ) from error


def _download(archive: Archive, path: Path) -> None:
    """The archive at `path`, after a check of its length. Continues a .part from an earlier call."""
    part = path.with_name(path.name + ".part")
    have = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(archive.url, headers={"Range": f"bytes={have}-"} if have else {})
    try:
        with urllib.request.urlopen(request, timeout=_TIMEOUT) as response:
            if response.status != 206:
                have = 0  # the server cannot continue, so the file is sent from the beginning
            left = int(response.headers.get("Content-Length") or 0)
            _check_room(path, have, left)
            _copy(response, part, have, left)
    except urllib.error.HTTPError as error:
        if error.code != 416 or not have:  # 416: the server has no bytes after the downloaded ones
            answer = f"{error.code} {error.reason}"
            raise AsrError(f"{archive.url}: the server answered {answer}; try later") from None
    except (urllib.error.URLError, HTTPException, TimeoutError, ConnectionError) as error:
        reason = getattr(error, "reason", error)
        raise AsrError(f"{archive.url}: {reason}; run the command again to continue") from None
    part.replace(path)


def _check_sum(archive: Archive, path: Path) -> None:
    """Compare an archive with its checksum, where one is known, and delete it when it differs."""
    if not archive.sha256:
        return
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != archive.sha256:
        path.unlink()
        wrong = f"sha256 {found} instead of {archive.sha256}"
        raise AsrError(f"{path}: {wrong}; the file was deleted: run the command again")


def _check_room(path: Path, have: int, left: int) -> None:
    needed = left + round(_GROWTH * (have + left))
    free = shutil.disk_usage(path.parent).free
    if needed > free:
        raise AsrError(
            f"{path.parent}: {needed / 1e9:.1f} GB are needed to download and unpack {path.name}, "
            f"{free / 1e9:.1f} GB are free; make room, or choose another folder"
        )


def _copy(response: HTTPResponse, part: Path, have: int, left: int) -> None:
    """The rest of the archive to the end of `part`. Raises AsrError when the connection ends too early."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn
    from rich.progress import TransferSpeedColumn as Speed

    console = Console(stderr=True)
    columns = TextColumn("{task.description}"), BarColumn(), DownloadColumn(), Speed(), TimeRemainingColumn()
    received = 0
    with (
        Progress(*columns, console=console, disable=not console.is_terminal) as progress,
        part.open("r+b" if have else "wb") as out,
    ):
        task = progress.add_task(part.stem, total=have + left or None, completed=have)
        out.seek(have)
        while block := response.read(_BLOCK):
            out.write(block)
            received += len(block)
            progress.update(task, advance=len(block))
    if received < left:
        raise ConnectionError(f"the connection ended after {have + received} of {have + left} bytes")


def unpack(path: Path, folder: Path) -> None:
    """Unpack a tar or zip archive into `folder`. Files that are there already are replaced.

    Raises AsrError for an archive that is cut short or damaged, and for entries that would be written outside
    of the folder, or are devices. Then no file of the archive stays in the folder.
    """
    staging = folder / f".{path.name}.unpacking"
    shutil.rmtree(staging, ignore_errors=True)
    try:
        staging.mkdir()
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as zipped:
                zipped.extractall(staging)  # zipfile removes "..", drives and leading slashes
        else:
            _unpack_tar(path, staging)
        _move(staging, folder)
    except (tarfile.FilterError, ValueError) as error:
        raise AsrError(f"{path}: an entry is not safe to unpack ({error}); do not use this archive") from None
    except _DAMAGE as error:
        raise AsrError(f"{path}: cut short or damaged ({error}); delete it and download it again") from None
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _unpack_tar(path: Path, staging: Path) -> None:
    """Unpack a tar file. Raises one of _DAMAGE when it is damaged, also where tarfile does not see it."""
    with tarfile.open(path) as tar:
        tar.extractall(staging, filter="data")
        try:
            check_end(tar)
            assert tar.fileobj is not None, "it was opened by name"
            while tar.fileobj.read(_BLOCK):
                pass  # the checksum of a compressed file comes after the zeros at which tarfile stops
        except OSError as error:  # gzip and bz2 raise OSError for wrong data, without a number
            if error.errno is not None:
                raise
            raise tarfile.ReadError(str(error)) from None


def _move(source: Path, target: Path) -> None:
    """Move what is in `source` into `target`, folder into folder."""
    for path in source.iterdir():
        goal = target / path.name
        if path.is_dir() and not path.is_symlink() and goal.is_dir():
            _move(path, goal)
        else:
            os.replace(path, goal)  # noqa: PTH105  a link is moved as it is
