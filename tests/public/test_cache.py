"""A model of the hub is imported once, also after an interruption and by several processes at once."""

import pytest

from asr.errors import AsrError
from asr.public import cache
from asr.public.cache import cached_model
from asr.run_folder import CONFIG, WEIGHTS

NAME = "owner/model"


def write_model(folder, content):
    folder.mkdir(parents=True)  # an import refuses a folder that exists
    for name in (CONFIG, WEIGHTS):
        (folder / name).write_text(content)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The folder of the model in an empty cache."""
    monkeypatch.setenv("ASR_CACHE", str(tmp_path))
    monkeypatch.setattr(cache, "import_model", lambda name, own, on_found: write_model(own, name))
    return tmp_path / "models" / "owner--model"


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_it_is_imported_once(folder, monkeypatch):
    assert cached_model(NAME) == folder and names(folder) == sorted([CONFIG, WEIGHTS])
    monkeypatch.setattr(cache, "import_model", None)
    assert cached_model(NAME) == folder and names(folder.parent) == [folder.name]


def test_what_an_interrupted_import_left_is_replaced(folder):
    folder.mkdir(parents=True)
    (folder / CONFIG).write_text("old")
    assert (cached_model(NAME) / CONFIG).read_text() == NAME


def test_another_process_can_be_faster(folder, monkeypatch):
    def slow(name, own, on_found):
        write_model(own, "ours")
        write_model(folder, "theirs")

    monkeypatch.setattr(cache, "import_model", slow)
    assert (cached_model(NAME) / WEIGHTS).read_text() == "theirs" and names(folder.parent) == [folder.name]


def test_a_failed_import_leaves_nothing(folder, monkeypatch):
    def broken(name, own, on_found):
        write_model(own, "half")
        raise AsrError("no room")

    monkeypatch.setattr(cache, "import_model", broken)
    with pytest.raises(AsrError, match="no room"):
        cached_model(NAME)
    assert names(folder.parent) == []
