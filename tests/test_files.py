"""Atomic writing, and folders of one process."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from contextlib import suppress

import pytest

from asr.errors import AsrError
from asr.files import atomic_write, claimed, files_below, printable, remove_temporaries


def test_an_error_leaves_the_old_file_and_nothing_else(tmp_path):
    target = tmp_path / "a.txt"
    target.write_text("old")
    with pytest.raises(ValueError), atomic_write(target) as out:
        out.write("half of the new")
        raise ValueError
    assert target.read_text() == "old" and list(tmp_path.iterdir()) == [target]


def test_missing_folders_are_made(tmp_path):
    with atomic_write(tmp_path / "a" / "b" / "c.bin", "wb") as out:
        out.write(b"x")
    assert (tmp_path / "a" / "b" / "c.bin").read_bytes() == b"x"


def test_links_and_devices_are_written_to(tmp_path):
    """The link stays, and so does /dev/null: it must not become a file."""
    link, real = tmp_path / "link", tmp_path / "real"
    real.write_text("old")
    link.symlink_to(real)
    with atomic_write(link) as out:
        out.write("new")
    assert link.is_symlink() and real.read_text() == "new"
    os.mkfifo(tmp_path / "pipe")
    reader = threading.Thread(target=lambda: received.append((tmp_path / "pipe").read_text()), daemon=True)
    received: list[str] = []
    reader.start()
    with atomic_write(tmp_path / "pipe") as out:
        out.write("text")
    reader.join(10)
    assert received == ["text"] and (tmp_path / "pipe").is_fifo()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["link", "pipe", "real"]


def test_printable_names():
    assert printable("a b/学\n\t\x1b[1m\x9b\u202e.wav") == "a b/学\\n\\t\\x1b[1m\\x9b\\u202e.wav"


def test_a_path_below_a_file_is_one_clear_line(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(AsrError, match="cannot be written"), atomic_write(tmp_path / "file" / "x") as out:
        out.write("x")


def test_a_folder_is_claimed_by_one_process_at_a_time(tmp_path):
    claim = (
        f"from asr.files import claimed\nfrom pathlib import Path\nwith claimed(Path({str(tmp_path)!r})): "
    )

    def another(work):
        return subprocess.run([sys.executable, "-c", claim + work], capture_output=True, text=True)

    with claimed(tmp_path):
        assert "another process is using this folder" in another("pass").stderr
    assert another("pass").returncode == 0
    assert another("import os; os.kill(os.getpid(), 9)").returncode == -9
    with claimed(tmp_path):  # also of one that was killed
        pass
    with pytest.raises(AsrError, match="nothing"), claimed(tmp_path / "new"):
        raise AsrError("nothing came of it")
    assert list(tmp_path.iterdir()) == []


def test_only_temporary_files_of_dead_processes_of_this_machine_are_removed(tmp_path, monkeypatch):
    def temporary(machine, process):
        monkeypatch.setattr("platform.node", lambda: machine)
        monkeypatch.setattr("os.getpid", lambda: process)
        with suppress(ZeroDivisionError), atomic_write(tmp_path / ("я" * 127)) as out:
            (found,) = set(tmp_path.iterdir()) - set(kept)
            kept.append(tmp_path / f"copy{found.name}")
            out.flush()
            os.link(found, kept[-1])
            raise ZeroDivisionError
        name = tmp_path / kept[-1].name.removeprefix("copy")
        kept[-1].rename(name)
        kept[-1] = name
        return name

    kept, alive = [], os.getpid()
    other, living, dead = (
        temporary("other", 2**22 + 1),
        temporary("here", alive),
        temporary("here", 2**22 + 1),
    )
    remove_temporaries(tmp_path)
    assert other.exists() and living.exists() and not dead.exists()


def test_a_name_that_is_too_long_is_not_a_matter_of_free_space(tmp_path):
    with pytest.raises(AsrError, match="rename the input"), atomic_write(tmp_path / ("x" * 256)) as out:
        out.write("x")


def test_folders_that_cannot_be_listed_are_named(tmp_path, monkeypatch):
    for name in ("a/1", "b/2", "c"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x")
    original = os.scandir

    def scandir(path):
        if str(path).endswith("/a"):
            raise PermissionError(13, "Permission denied", str(path))
        return original(path)

    monkeypatch.setattr(os, "scandir", scandir)
    problems = []
    assert files_below(tmp_path, problems) == [tmp_path / "b" / "2", tmp_path / "c"]
    assert [str(problem) for problem in problems] == [
        f"{tmp_path / 'a'}: cannot be listed (Permission denied); check its permissions"
    ]
