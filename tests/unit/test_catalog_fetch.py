from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from lichen.catalog.entries import Pin
from lichen.catalog.fetching import Fetcher, Source
from lichen.catalog.part import PartFile, Report
from lichen.catalog.sources.mirror import MirrorSource
from lichen.catalog.verified import VerifiedHashes
from lichen.core.errors import FetchError, IntegrityError

GOOD = b"the right bytes" * 1000
PIN = Pin(size=len(GOOD), sha256=hashlib.sha256(GOOD).hexdigest())


class FakeSource:
    """Delivers ``data``; goes on from what is there; stops after ``stop`` bytes if given."""

    online = True

    def __init__(self, label: str, data: bytes, *, stop: int | None = None) -> None:
        self.label = self.identity = label
        self.data, self.stop, self.calls = data, stop, 0

    def deliver(self, part: PartFile, pin: Pin, report: Report) -> None:
        """Append what is missing, up to the stop."""
        self.calls += 1
        start = part.size
        end = len(self.data) if self.stop is None else self.stop
        with part.append(start, limit=None, report=report) as write:
            write(self.data[start:end])
        if self.stop is not None:
            self.stop = None
            msg = "the line broke"
            raise FetchError(msg)


class Deaf(FakeSource):
    """Cannot be reached."""

    def deliver(self, part: PartFile, pin: Pin, report: Report) -> None:
        """Fail."""
        self.calls += 1
        msg = "connection refused"
        raise FetchError(msg)


Fetch = Callable[..., str]


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "models" / "m" / "m.gguf"


@pytest.fixture
def fetch(tmp_path: Path, target: Path) -> Fetch:
    def run(*sources: Source, pin: Pin = PIN, offline: bool = False) -> str:
        cache = tmp_path / "cache"
        fetcher = Fetcher(
            locks=cache / "locks", verified=VerifiedHashes(cache / "hashes.json"), offline=offline
        )
        return fetcher.fetch("m", target, pin, sources)

    return run


def test_a_good_source_fills_the_cache_and_is_asked_once(fetch: Fetch, target: Path) -> None:
    """The file arrives whole, nothing partial stays, and a second fetch asks nobody."""
    source = FakeSource("a", GOOD)
    assert fetch(source) == fetch(source) == PIN.sha256
    assert target.read_bytes() == GOOD
    assert [p.name for p in target.parent.iterdir()] == ["m.gguf"]
    assert source.calls == 1


def test_a_lying_source_is_named_and_the_next_one_used(fetch: Fetch, target: Path) -> None:
    """Wrong bytes of the right length are caught; another source still delivers."""
    liar = FakeSource("liar", GOOD[:-1] + b"!")
    assert fetch(liar, FakeSource("honest", GOOD)) == PIN.sha256
    assert target.read_bytes() == GOOD
    assert liar.calls == 1


@pytest.mark.parametrize("data", [GOOD[:-1] + b"!", GOOD[:-1], b""])
def test_only_liars_is_an_integrity_error_that_names_them(
    fetch: Fetch, target: Path, data: bytes
) -> None:
    """If nobody has the right bytes, the message says who gave wrong ones, and no part stays."""
    with pytest.raises(IntegrityError, match="liar: it gave"):
        fetch(FakeSource("liar", data), Deaf("deaf", b""))
    assert list(target.parent.glob("*")) == []


def test_all_failures_are_listed(fetch: Fetch) -> None:
    """When nothing can be reached the error lists every source with its own reason."""
    with pytest.raises(FetchError, match=r"a: connection refused; b: connection refused") as info:
        fetch(Deaf("a", b""), Deaf("b", b""))
    assert not isinstance(info.value, IntegrityError)
    assert "LICHEN_MIRROR" in str(info.value)


def test_offline_uses_no_network(fetch: Fetch) -> None:
    """Offline, an online source is not even tried, and the refusal says so."""
    source = FakeSource("net", GOOD)
    with pytest.raises(FetchError, match="net: not tried: offline"):
        fetch(source, offline=True)
    assert source.calls == 0


def test_offline_uses_the_cache(fetch: Fetch) -> None:
    """What was fetched before is there offline."""
    fetch(FakeSource("a", GOOD))
    assert fetch(offline=True) == PIN.sha256


def test_a_broken_download_goes_on_where_it_stopped(fetch: Fetch, target: Path) -> None:
    """The next attempt appends to the same source's partial file."""
    source = FakeSource("a", GOOD, stop=100)
    with pytest.raises(FetchError, match="the line broke"):
        fetch(source)
    (part,) = target.parent.glob("*.part")
    assert part.read_bytes() == GOOD[:100]
    assert fetch(source) == PIN.sha256


def test_sources_never_share_partial_bytes(fetch: Fetch) -> None:
    """A liar's partial file cannot spoil an honest source's download."""
    with pytest.raises(FetchError):
        fetch(FakeSource("liar", b"x" * 500, stop=200))
    assert fetch(FakeSource("honest", GOOD)) == PIN.sha256


def test_spoiled_partial_bytes_are_fetched_again_before_blaming(fetch: Fetch, target: Path) -> None:
    """A partial file damaged on disk costs one fresh download from the same source, no more."""
    source = FakeSource("a", GOOD, stop=100)
    with pytest.raises(FetchError):
        fetch(source)
    (part,) = target.parent.glob("*.part")
    part.write_bytes(b"?" * 100)
    assert fetch(source) == PIN.sha256
    assert source.calls == 3


def test_a_changed_cached_file_is_noticed_and_replaced(fetch: Fetch, target: Path) -> None:
    """A cached file that was altered is hashed again and fetched again."""
    fetch(FakeSource("a", GOOD))
    target.write_bytes(b"altered")
    assert fetch(FakeSource("a", GOOD)) == PIN.sha256
    assert target.read_bytes() == GOOD


def test_a_damaged_cached_file_is_not_used_offline(fetch: Fetch, target: Path) -> None:
    """Offline, a damaged file is reported, not used and not deleted."""
    fetch(FakeSource("a", GOOD))
    target.write_bytes(b"altered")
    with pytest.raises(FetchError, match="is damaged"):
        fetch(offline=True)
    assert target.read_bytes() == b"altered"


def test_unpinned_files_report_their_hash(fetch: Fetch) -> None:
    """Without a pin the hash is computed, returned, and the cached file taken as it is."""
    source = FakeSource("a", b"anything")
    expected = hashlib.sha256(b"anything").hexdigest()
    assert fetch(source, pin=Pin()) == fetch(source, pin=Pin()) == expected
    assert source.calls == 1


def test_two_fetches_at_once_download_once(fetch: Fetch) -> None:
    """A second fetch of the same file waits for the first and finds it in the cache."""
    second = FakeSource("a", GOOD)
    rival = threading.Thread(target=fetch, args=(second,))

    class Slow(FakeSource):
        def deliver(self, part: PartFile, pin: Pin, report: Report) -> None:
            """Let the rival run as far as it can before the first byte is written."""
            rival.start()
            rival.join(0.2)
            assert rival.is_alive()
            super().deliver(part, pin, report)

    first = Slow("a", GOOD)
    fetch(first)
    rival.join(10)
    assert (first.calls, second.calls) == (1, 0)


def test_a_cache_that_cannot_be_written_is_a_sentence(fetch: Fetch, tmp_path: Path) -> None:
    """A file where the cache directory should be gives advice, not a trace."""
    (tmp_path / "cache").write_text("not a directory")
    with pytest.raises(FetchError, match="LICHEN_CACHE"):
        fetch(FakeSource("a", GOOD))


def test_progress_reaches_the_end(tmp_path: Path, target: Path) -> None:
    """The callback is told the source, the bytes so far and the bytes in all."""
    calls: list[tuple[str, int, int | None]] = []
    fetcher = Fetcher(
        locks=tmp_path / "locks",
        verified=VerifiedHashes(tmp_path / "h.json"),
        progress=lambda *call: calls.append(call),
    )
    fetcher.fetch("m", target, PIN, [FakeSource("a", GOOD)])
    assert calls[-1] == ("m from a", len(GOOD), len(GOOD))


def test_a_mirror_is_matched_by_content(fetch: Fetch, tmp_path: Path, target: Path) -> None:
    """Any name in any folder will do; a file of the same size with other bytes will not."""
    mirror = tmp_path / "mirror"
    (mirror / "deep").mkdir(parents=True)
    (mirror / "m.gguf").write_bytes(b"x" * len(GOOD))
    source = MirrorSource(mirror, VerifiedHashes(tmp_path / "h.json"))
    with pytest.raises(FetchError, match="no file in it"):
        fetch(source, offline=True)
    (mirror / "deep" / "other name").write_bytes(GOOD)
    assert fetch(source, offline=True) == PIN.sha256
    assert sorted(p.name for p in mirror.rglob("*")) == ["deep", "m.gguf", "other name"]
    assert not target.samefile(mirror / "deep" / "other name")


def test_a_missing_mirror_is_said(fetch: Fetch, tmp_path: Path) -> None:
    """A mirror directory that is not there is one reason among the others."""
    source = MirrorSource(tmp_path / "gone", VerifiedHashes(tmp_path / "h.json"))
    with pytest.raises(FetchError, match="no such directory"):
        fetch(source)


def test_hashes_are_remembered_until_the_file_changes(tmp_path: Path) -> None:
    """An unchanged file is not read again; another size or time makes it be."""
    path = tmp_path / "f"
    path.write_bytes(b"one")
    verified = VerifiedHashes(tmp_path / "h.json")
    first = verified.sha256(path)
    stat = path.stat()
    path.write_bytes(b"two")
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert VerifiedHashes(tmp_path / "h.json").sha256(path) == first  # remembered, on disk
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))
    assert verified.sha256(path) == hashlib.sha256(b"two").hexdigest()


@pytest.mark.parametrize("text", ["", "[]", "{", '{"x": 3}', '{"x": [1]}'])
def test_a_damaged_index_of_hashes_costs_only_time(tmp_path: Path, text: str) -> None:
    """Whatever the index holds, hashes come out right."""
    (tmp_path / "h.json").write_text(text)
    (tmp_path / "f").write_bytes(b"one")
    found = VerifiedHashes(tmp_path / "h.json").sha256(tmp_path / "f")
    assert found == hashlib.sha256(b"one").hexdigest()
