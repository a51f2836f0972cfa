from __future__ import annotations

import socket
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from lichen.catalog.entries import HubSpec, Pin, WheelsSpec
from lichen.catalog.part import PartFile
from lichen.catalog.sources.hub import HubAccess, HubSource
from lichen.catalog.sources.web import CONNECT_S, WebSource, open_client
from lichen.catalog.sources.wheels import WheelsSource, pip_download
from lichen.core.errors import FetchError, IntegrityError

DATA = bytes(range(256)) * 40
URL = "https://host/dir/m.gguf"
Handler = Callable[[httpx.Request], httpx.Response]


def quiet(done: int) -> None:
    """Take progress and say nothing."""


def client_of(handler: Handler) -> Callable[[], httpx.Client]:
    return lambda: httpx.Client(transport=httpx.MockTransport(handler), follow_redirects=True)


class Body(httpx.SyncByteStream):
    """A body that arrives in pieces and may break off."""

    def __init__(self, data: bytes, *, breaks: bool = False) -> None:
        self._data, self._breaks = data, breaks

    def __iter__(self) -> Iterator[bytes]:
        for at in range(0, len(self._data), 1000):
            yield self._data[at : at + 1000]
        if self._breaks:
            msg = "reset"
            raise httpx.ReadError(msg)


def answer(
    status: int, data: bytes = b"", *, breaks: bool = False, **headers: str
) -> httpx.Response:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return httpx.Response(status, stream=Body(data, breaks=breaks), headers=named)


def server(seen: list[httpx.Request], *, etag: str = '"v1"', data: bytes = DATA) -> Handler:
    """Serve ``data`` with ranges, as RFC 9110 says."""

    def handle(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        wanted = request.headers.get("Range")
        same = request.headers.get("If-Range", etag) == etag
        if wanted is None or not same:
            return answer(200, data, ETag=etag)
        start = int(wanted.removeprefix("bytes=").rstrip("-"))
        if start >= len(data):
            return answer(416)
        span = f"bytes {start}-{len(data) - 1}/{len(data)}"
        return answer(206, data[start:], Content_Range=span)

    return handle


@pytest.fixture
def part(tmp_path: Path) -> PartFile:
    return PartFile(tmp_path / "m.gguf", "source")


def begun(part: PartFile, data: bytes, validator: str = "") -> None:
    with part.append(0, limit=None, report=quiet) as write:
        write(data)
    part.save({"validator": validator})


def test_a_download_is_whole(part: PartFile) -> None:
    """Every byte arrives, uncompressed, and progress ends at the size."""
    seen: list[httpx.Request] = []
    done: list[int] = []
    WebSource(URL, client=client_of(server(seen))).deliver(part, Pin(), done.append)
    assert part.path.read_bytes() == DATA
    assert done[-1] == len(DATA)
    assert seen[0].headers["Accept-Encoding"] == "identity"


def test_a_download_resumes_the_same_version(part: PartFile) -> None:
    """With the server's ETag only the missing bytes are asked for."""
    begun(part, DATA[:1000], '"v1"')
    seen: list[httpx.Request] = []
    WebSource(URL, client=client_of(server(seen))).deliver(part, Pin(), quiet)
    assert part.path.read_bytes() == DATA
    assert seen[0].headers["Range"] == "bytes=1000-"


def test_a_new_version_starts_over(part: PartFile) -> None:
    """If the server has another version now, old bytes are dropped."""
    begun(part, b"old" * 100, '"v0"')
    WebSource(URL, client=client_of(server([]))).deliver(part, Pin(), quiet)
    assert part.path.read_bytes() == DATA


def test_unpinned_bytes_without_validator_start_over(part: PartFile) -> None:
    """Where nothing could tell versions apart, nothing is appended to."""
    begun(part, b"old" * 100)
    seen: list[httpx.Request] = []
    WebSource(URL, client=client_of(server(seen))).deliver(part, Pin(), quiet)
    assert part.path.read_bytes() == DATA
    assert "Range" not in seen[0].headers


def test_a_connection_that_breaks_goes_on(part: PartFile) -> None:
    """A read error after some bytes is followed by a range request for the rest."""
    seen: list[httpx.Request] = []
    whole = server(seen)

    def handle(request: httpx.Request) -> httpx.Response:
        if not seen:
            seen.append(request)
            return answer(200, DATA[:5000], breaks=True, ETag='"v1"')
        return whole(request)

    WebSource(URL, client=client_of(handle)).deliver(part, Pin(), quiet)
    assert part.path.read_bytes() == DATA
    assert [r.headers.get("Range") for r in seen] == [None, "bytes=5000-"]


@pytest.mark.parametrize(
    ("response", "error", "words"),
    [
        (answer(404), FetchError, "status 404"),
        (answer(500, b"<script>"), FetchError, "status 500"),
        (answer(200, DATA + b"x"), IntegrityError, "more than the 10,240 bytes"),
        (
            answer(200, Content_Encoding="br"),
            FetchError,
            "compresses",
        ),
        (answer(206, DATA), IntegrityError, "another range"),
        (answer(302, Location="http://host/x"), FetchError, "https to http"),
        (answer(200, Content_Length="9" * 17), FetchError, "disk has"),
    ],
)
def test_bad_answers_are_reasons(
    part: PartFile, response: httpx.Response, error: type[FetchError], words: str
) -> None:
    """Whatever a server answers, the source fails with a sentence about it."""

    def handle(request: httpx.Request) -> httpx.Response:
        return answer(200) if request.url.scheme == "http" else response

    with pytest.raises(error, match=words):
        WebSource(URL, client=client_of(handle)).deliver(part, Pin(size=len(DATA)), quiet)


def test_a_partial_file_longer_than_the_servers_is_dropped(part: PartFile) -> None:
    """A range the server cannot satisfy means that the old bytes were wrong."""
    begun(part, DATA + b"more", '"v1"')
    with pytest.raises(IntegrityError, match="fewer bytes"):
        WebSource(URL, client=client_of(server([]))).deliver(part, Pin(), quiet)
    assert part.size == 0


def test_a_refused_connection_is_a_reason(part: PartFile) -> None:
    """A port nobody listens on fails at once with the system's words."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    with pytest.raises(FetchError, match="connect error"):
        WebSource(f"http://127.0.0.1:{port}/m").deliver(part, Pin(), quiet)


def test_connecting_takes_seconds_at_most() -> None:
    """The client gives up connecting after a few seconds, so a closed network is no wait."""
    with open_client() as client:
        assert client.timeout.connect == CONNECT_S <= 5


def test_the_hub_is_asked_for_a_revision_with_the_users_token(part: PartFile) -> None:
    """The resolve address holds repository, revision and file; the token goes in a header."""
    seen: list[httpx.Request] = []
    source = HubSource(
        HubSpec(repo="o/r", file="a/b.gguf", revision="refs/pr/1"),
        access=lambda _: HubAccess(endpoint="https://hub/", token="t"),
        client=client_of(server(seen)),
    )
    source.deliver(part, Pin(), quiet)
    assert str(seen[0].url) == "https://hub/o/r/resolve/refs%2Fpr%2F1/a/b.gguf"
    assert seen[0].headers["Authorization"] == "Bearer t"


def test_the_users_own_hub_cache_saves_the_download(part: PartFile, tmp_path: Path) -> None:
    """A copy that huggingface_hub already has is used, and left as it is."""
    cached = tmp_path / "hub-copy"
    cached.write_bytes(DATA)
    seen: list[httpx.Request] = []
    source = HubSource(
        HubSpec(repo="o/r", file="f"),
        access=lambda _: HubAccess(cached=cached),
        client=client_of(server(seen)),
    )
    source.deliver(part, Pin(size=len(DATA)), quiet)
    assert part.path.read_bytes() == cached.read_bytes() == DATA
    assert seen == []


def test_a_closed_repository_asks_to_log_in(part: PartFile) -> None:
    """401 from the hub means missing or gated, and the message says what to do."""
    source = HubSource(
        HubSpec(repo="o/r", file="f"),
        access=lambda _: HubAccess(),
        client=client_of(lambda _: answer(401)),
    )
    with pytest.raises(FetchError, match="access token"):
        source.deliver(part, Pin(), quiet)


def wheel(directory: Path, name: str, members: dict[str, bytes]) -> Path:
    path = directory / f"{name}-1.0-py3-none-any.whl"
    info = f"{name}-1.0.dist-info"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for member, data in members.items():
            archive.writestr(member, data)
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        archive.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr(f"{info}/RECORD", "")
    return path


SPEC = WheelsSpec(requirement="p{n}==1.0", member="p{n}/part{nn}.bin", parts=3)
CHUNKS = {1: DATA[:4000], 2: DATA[4000:8000], 3: DATA[8000:]}


def downloader(asked: list[str], *, fail_at: str = "") -> Callable[[str, Path], Path]:
    def download(requirement: str, directory: Path) -> Path:
        asked.append(requirement)
        if requirement == fail_at:
            msg = "no network"
            raise FetchError(msg)
        n = int(requirement[1])
        return wheel(directory, f"p{n}", {f"p{n}/part{n:02}.bin": CHUNKS[n]})

    return download


def test_wheel_members_are_concatenated_in_order(part: PartFile, tmp_path: Path) -> None:
    """Three wheels give one file, and no wheel stays on disk."""
    asked: list[str] = []
    WheelsSource(SPEC, download=downloader(asked)).deliver(part, Pin(size=len(DATA)), quiet)
    assert part.path.read_bytes() == DATA
    assert asked == ["p1==1.0", "p2==1.0", "p3==1.0"]
    assert {p.suffix for p in tmp_path.iterdir()} == {".part", ".json"}


def test_wheels_resume_at_the_next_part(part: PartFile) -> None:
    """A download that failed at part 2 does not fetch part 1 again, nor keep a torn tail."""
    with pytest.raises(FetchError, match="no network"):
        WheelsSource(SPEC, download=downloader([], fail_at="p2==1.0")).deliver(part, Pin(), quiet)
    with part.path.open("ab") as file:
        file.write(b"half of part 2")
    asked: list[str] = []
    WheelsSource(SPEC, download=downloader(asked)).deliver(part, Pin(), quiet)
    assert part.path.read_bytes() == DATA
    assert asked == ["p2==1.0", "p3==1.0"]


def one_wheel(make: Callable[[Path], Path]) -> WheelsSource:
    spec = WheelsSpec(requirement="p==1.0", member="p/m")
    return WheelsSource(spec, download=lambda _, directory: make(directory))


def test_a_wheel_that_unpacks_to_too_much_is_stopped(part: PartFile) -> None:
    """A bomb of 50 MB in 50 kB is cut off at the pinned size and blamed on the source."""
    source = one_wheel(lambda d: wheel(d, "p", {"p/m": bytes(50_000_000)}))
    with pytest.raises(IntegrityError, match="more than the 100 bytes"):
        source.deliver(part, Pin(size=100), quiet)
    assert part.size <= 100


def test_only_the_named_member_is_read(part: PartFile, tmp_path: Path) -> None:
    """Members that try to escape the directory are not even looked at."""
    source = one_wheel(lambda d: wheel(d, "p", {"../../evil": b"x", "/abs": b"x", "p/m": DATA}))
    source.deliver(part, Pin(), quiet)
    assert part.path.read_bytes() == DATA
    assert not (tmp_path.parent / "evil").exists()


def torn(directory: Path) -> Path:
    path = wheel(directory, "p", {"p/m": DATA * 5})
    data = bytearray(path.read_bytes())
    data[60:90] = bytes(30)
    path.write_bytes(data)
    return path


def text_file(directory: Path) -> Path:
    path = directory / "p-1.0-py3-none-any.whl"
    path.write_bytes(b"<html>")
    return path


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda d: wheel(d, "p", {"p/other": DATA}), "no member 'p/m'"),
        (text_file, "not a readable wheel"),
        (torn, "not a readable wheel"),
    ],
)
def test_broken_wheels_are_the_sources_fault(
    part: PartFile, make: Callable[[Path], Path], words: str
) -> None:
    """A wheel without the member or with damaged bytes is an IntegrityError."""
    with pytest.raises(IntegrityError, match=words):
        one_wheel(make).deliver(part, Pin(), quiet)


def test_pip_downloads_with_its_own_configuration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pip reads its environment (here: a local directory) and installs nothing."""
    index = tmp_path / "index"
    index.mkdir()
    wheel(index, "lichen_fixture", {"lichen_fixture/__init__.py": b"raise SystemExit(9)"})
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(index))
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    found = pip_download("lichen-fixture==1.0", scratch)
    assert zipfile.is_zipfile(found)
    with pytest.raises(FetchError, match=r"pip cannot get lichen-fixture==2\.0: ERROR"):
        pip_download("lichen-fixture==2.0", scratch)
    tried = subprocess.run([sys.executable, "-c", "import lichen_fixture"], check=False)
    assert tried.returncode == 1  # not installed, so not 9


def test_without_pip_the_reason_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An environment without pip is a reason like any other."""
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(FetchError, match="pip is not installed"):
        pip_download("p==1.0", tmp_path)


def test_an_index_that_cannot_be_reached_is_told_from_a_missing_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pip's "no matching distribution" hides a refused connection; the reason does not."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_FIND_LINKS", "")
    monkeypatch.setenv("PIP_INDEX_URL", f"http://127.0.0.1:{port}/simple")
    with pytest.raises(FetchError, match="index cannot be reached"):
        pip_download("p==1.0", tmp_path)


def test_scratch_of_a_killed_download_is_cleared(part: PartFile) -> None:
    """A wheel that a killed process left behind is gone before the next one comes."""
    with part.scratch() as scratch:
        left = scratch / "old.whl"
        left.touch()
        with part.scratch() as again:
            assert list(again.iterdir()) == []
    assert not scratch.exists()
