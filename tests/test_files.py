"""Atomic writing."""

from __future__ import annotations

import pytest

from asr.errors import AsrError
from asr.files import atomic_write


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


def test_a_place_below_a_file_is_one_clear_line(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(AsrError, match="cannot be written"), atomic_write(tmp_path / "file" / "x") as out:
        out.write("x")
