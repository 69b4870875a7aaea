"""Downloads from a server of the test: continued, checked, unpacked safely."""

import bz2
import gzip
import hashlib
import io
import lzma
import tarfile
import threading
import zipfile
from collections import namedtuple
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

from asr.datasets import download
from asr.datasets.corpora.table import CORPORA, Archive
from asr.errors import AsrError


class Handler(BaseHTTPRequestHandler):
    """Serves `server.files`; the first `server.limit` bytes only, if that is set."""

    def do_GET(self):
        data = self.server.files.get(self.path)
        if data is None:
            return self.send_error(404)
        start = int((self.headers["Range"] or "bytes=0-")[6:-1])
        self.server.ranges.append(start)
        if start >= len(data):
            return self.send_error(416)
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(data) - start))
        self.end_headers()
        self.wfile.write(data[start : self.server.limit])

    def log_message(self, *arguments):
        pass


@pytest.fixture
def server():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.files, server.ranges, server.limit = {}, [], None
    server.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()


def tar(entries, mode="w:gz"):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as out:
        for name, data in entries.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            out.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def test_download_continues_and_leaves_a_marker(server, tmp_path):
    inner = tar({"S0002/a.wav": b"audio"})
    data = tar({"corpus/text": b"hello" * 999, "corpus/wav/S0002.tar.gz": inner})
    server.files["/c.tgz"] = data
    archive = Archive(f"{server.url}/c.tgz", hashlib.sha256(data).hexdigest(), "corpus/wav/*.tar.gz")
    server.limit = 100
    with pytest.raises(AsrError, match=r"ended after 100 of .* bytes; run the command again"):
        download.fetch(archive, tmp_path)
    assert (tmp_path / "c.tgz.part").stat().st_size == 100
    server.limit = None
    download.fetch(archive, tmp_path)
    assert server.ranges == [0, 100]
    assert (tmp_path / "corpus/text").read_bytes() == b"hello" * 999
    assert (tmp_path / "corpus/wav/S0002/a.wav").read_bytes() == b"audio"
    names = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file())
    assert names == [".c.tgz.complete", "corpus/text", "corpus/wav/S0002/a.wav"]
    download.fetch(archive, tmp_path)
    assert server.ranges == [0, 100]


def test_a_complete_part_is_not_downloaded_again(server, tmp_path):
    server.files["/c.tar"] = data = tar({"a": b"1"}, "w")
    (tmp_path / "c.tar.part").write_bytes(data)
    download.fetch(Archive(f"{server.url}/c.tar"), tmp_path)
    assert (tmp_path / "a").read_bytes() == b"1" and server.ranges == [len(data)]


def test_wrong_checksum_and_refusals(server, tmp_path, monkeypatch):
    server.files["/c.tar"] = tar({"a": b"1"}, "w")
    with pytest.raises(AsrError, match=r"sha256 .* instead of 00"):
        download.fetch(Archive(f"{server.url}/c.tar", "00"), tmp_path)
    assert not any(tmp_path.iterdir())
    with pytest.raises(AsrError, match="the server answered 404"):
        download.fetch(Archive(f"{server.url}/d.tar"), tmp_path)
    usage = namedtuple("usage", "free")(10)
    monkeypatch.setattr(download.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(AsrError, match=r"GB are needed to download and unpack c.tar, 0.0 GB are free"):
        download.fetch(Archive(f"{server.url}/c.tar"), tmp_path)
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("cut", [0.3, 0.9])
def test_an_archive_cut_short(tmp_path, cut):
    data = tar({f"c/{n}": bytes(range(256)) * 40 + str(n).encode() for n in range(50)})
    (tmp_path / "c.tgz").write_bytes(data[: round(cut * len(data))])
    with pytest.raises(AsrError, match=r"c.tgz: cut short or damaged"):
        download.unpack(tmp_path / "c.tgz", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["c.tgz"]


@pytest.mark.parametrize("kind", ["", "gz", "bz2", "xz"])
def test_a_damaged_header_is_not_the_end(tmp_path, kind):
    """tarfile would unpack a third of the entries, and take the damaged header for the end."""
    data = bytearray(tar({f"c/{n}": b"x" * 2000 for n in range(30)}, "w"))
    data[10 * 2560 + 100] ^= 255
    path = tmp_path / "c.tar"
    opener = {"": open, "gz": gzip.open, "bz2": bz2.open, "xz": lzma.open}[kind]
    with opener(path, "wb") as out:
        out.write(data)
    with pytest.raises(AsrError, match=r"c.tar: cut short or damaged \(.*; delete it and download it again"):
        download.fetch(Archive("http://localhost:1/c.tar"), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["c.tar"]


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress])
def test_a_wrong_sum_after_the_last_entry(tmp_path, pack):
    """The checksum of the compressed data comes after the zeros at which tarfile stops."""
    random = np.random.default_rng(0)
    packed = bytearray(pack(tar({"c/a": random.bytes(5000)}, "w") + random.bytes(300_000)))
    place = {gzip.compress: len(packed) - 8, bz2.compress: len(packed) - 4, lzma.compress: len(packed) - 40}
    packed[place[pack]] ^= 255
    (tmp_path / "c.tar").write_bytes(packed)
    with pytest.raises(AsrError, match="cut short or damaged"):
        download.unpack(tmp_path / "c.tar", tmp_path)


def test_an_archive_that_is_there_is_checked_too(tmp_path):
    (tmp_path / "c.tar").write_bytes(tar({"a": b"1"}, "w"))
    with pytest.raises(AsrError, match=r"c.tar: sha256 .* instead of 00; the file was deleted"):
        download.fetch(Archive("http://localhost:1/c.tar", "00"), tmp_path)
    assert not any(tmp_path.iterdir())


def test_entries_outside_of_the_folder(tmp_path):
    for name in ("../outside", "a/../../outside"):
        (tmp_path / "c.tar").write_bytes(tar({name: b"1"}, "w"))
        with pytest.raises(AsrError, match="not safe to unpack"):
            download.unpack(tmp_path / "c.tar", tmp_path / ".")
    with zipfile.ZipFile(tmp_path / "c.zip", "w") as out:
        out.writestr("d/../../evil", "1")
    download.unpack(tmp_path / "c.zip", tmp_path)
    assert (tmp_path / "d/evil").exists() and not (tmp_path.parent / "evil").exists()


def test_which_archives(monkeypatch, tmp_path):
    fetched = []
    monkeypatch.setattr(download, "fetch", lambda archive, folder: fetched.append(archive.url))
    download.download_corpus(CORPORA["librispeech"], tmp_path, ("dev-clean-2", "dev-clean"))
    download.download_corpus(CORPORA["fleurs"], tmp_path, ("de_de",))
    assert [url.rpartition("/")[2] for url in fetched] == [
        "dev-clean-2.tar.gz",
        "dev-clean.tar.gz",
        "de_de.tar.gz",
    ]
    fetched.clear()
    download.download_corpus(CORPORA["librispeech"], tmp_path, ())
    assert len(fetched) == 7 and not any("openslr.org/resources/31" in url for url in fetched)
    download.download_corpus(CORPORA["aishell"], tmp_path, ("test",))
    assert fetched[7].endswith("data_aishell.tgz")
    for name, subsets, message in (
        ("librispeech", ("dev",), "no subset 'dev'; choose from dev-clean"),
        ("aishell", ("tset",), "no subset 'tset'; choose from train dev test"),
        ("fleurs", (), "give --subset"),
        ("common_voice", (), "download at https"),
        ("kaldi", (), "no address"),
    ):
        with pytest.raises(AsrError, match=message):
            download.download_corpus(CORPORA[name], tmp_path, subsets)
