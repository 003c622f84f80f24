"""What a site makes of a store that lies: a real HTTP server that answers whatever a test wants."""

from __future__ import annotations

import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from bahefl_flwr.errors import BaheflError, ObjectCorrupt, ObjectMissing, StoreRefused, StoreUnavailable
from bahefl_flwr.identity import Identity
from bahefl_flwr.store.channel import Channel, Patience
from bahefl_flwr.store.http import HttpStore
from served_store import an_object, site_identity

PART = bytes(range(256)) * 4
MANIFEST = an_object([PART])
IMPATIENT = Patience(timeout_s=1.0, total_s=1.5)
Answer = Callable[[BaseHTTPRequestHandler], None]


@pytest.fixture(scope="module")
def member() -> Identity:
    return site_identity()


@contextmanager
def lying(member: Identity, answer: Answer) -> Iterator[HttpStore]:
    """The client of a server that answers every request so."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self) -> None:
            self.rfile.read(int(self.headers.get("content-length", 0)))
            self.close_connection = True
            answer(self)

        do_GET = do_PUT = do_POST = answer  # noqa: N815  http.server's names

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}"
    channel = Channel(url, address=member.address, sign=member.sign_text, patience=IMPATIENT)
    yield HttpStore(channel)
    channel.close()
    server.shutdown()
    server.server_close()


def says(status: int, body: bytes, **headers: str) -> Answer:
    """An answer in good form."""

    def answer(request: BaseHTTPRequestHandler) -> None:
        request.send_response(status)
        for name, value in {"content-length": str(len(body)), **headers}.items():
            request.send_header(name.replace("_", "-"), value)
        request.end_headers()
        request.wfile.write(body)

    return answer


def without_end(request: BaseHTTPRequestHandler) -> None:
    """Bytes, as long as anybody listens."""
    request.send_response(200)
    request.end_headers()
    while True:
        request.wfile.write(bytes(1 << 16))


def trickling(request: BaseHTTPRequestHandler) -> None:
    """A byte now and then, never silent for long enough to be a broken connection."""
    request.send_response(200)
    request.send_header("content-length", "1000")
    request.end_headers()
    for _ in range(100):
        request.wfile.write(b"x")
        request.wfile.flush()
        time.sleep(0.2)


@pytest.mark.parametrize("body", [b"", b"x", PART[:-1], PART + b"x", PART[::-1]], ids=["empty", "short", "less", "more", "other"])
def test_other_bytes_are_refused(member: Identity, body: bytes) -> None:
    """Whatever it calls them."""
    with lying(member, says(200, body)) as store:
        with pytest.raises(ObjectCorrupt, match=MANIFEST.parts[0].cid):
            list(store.parts(MANIFEST))
        with pytest.raises(ObjectCorrupt, match=MANIFEST.cid):
            store.manifest(MANIFEST.digest)


def test_an_answer_without_end_is_cut(member: Identity) -> None:
    """At the length that was asked for: nothing grows with what it sends."""
    with lying(member, without_end) as store:
        tracemalloc.start()
        with pytest.raises(ObjectCorrupt):
            store.manifest(MANIFEST.digest)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < 8 << 20


def test_an_answer_that_trickles_is_given_up(member: Identity) -> None:
    """Patience is for the whole request, not for each byte."""
    begun = time.monotonic()
    with lying(member, trickling) as store, pytest.raises(StoreUnavailable, match="it trickles"):
        list(store.parts(MANIFEST))
    assert time.monotonic() - begun < 10


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (says(404, b"<html>not found</html>"), r"is no store of bahefl_flwr \(HTTP 404: <html>not found</html>\)"),
        (says(302, b"", location="http://127.0.0.1:1/"), r"is no store of bahefl_flwr \(HTTP 302"),
        (says(404, b"what?", bahefl_refusal="surprise"), r"refuses \(surprise\): what\?"),
        (says(403, b"\x1b[2Jred\nline" * 200, bahefl_refusal="no"), r"refuses \(no\): \[2Jred line"),
        (says(503, b"later", bahefl_refusal="busy"), r"no answer .* for 2 s \(HTTP 503: later\)"),
        (says(200, b"\xff\xfe"), "is not what its name says"),
    ],
    ids=["web page", "redirect", "unknown word", "control characters", "always busy", "no text"],
)
def test_any_other_answer_is_an_error_with_a_name(member: Identity, answer: Answer, message: str) -> None:
    """None is taken for a lost object, and nothing of it can play tricks with a terminal."""
    with lying(member, answer) as store, pytest.raises(BaheflError, match=message) as failed:
        store.manifest(MANIFEST.digest)
    assert not isinstance(failed.value, ObjectMissing)
    assert len(str(failed.value)) < 1000
    assert str(failed.value).isprintable()


def test_a_store_that_wants_everything_again_gets_it_once(member: Identity) -> None:
    """And one that says it has everything is sent the manifest only: readers will find out."""
    asked: list[str] = []

    def all_missing(request: BaseHTTPRequestHandler) -> None:
        asked.append(request.command)
        says(200, f"{MANIFEST.parts[0].cid}\n{'b' * 58}\n".encode() if request.command == "POST" else b"")(request)

    with lying(member, all_missing) as store:
        assert store.put(MANIFEST, [PART]) == MANIFEST.digest
    assert asked == ["POST", "PUT", "PUT"]


def test_a_store_that_loses_parts_during_a_put_is_told(member: Identity) -> None:
    """The put fails, and nothing counts as stored."""
    with lying(member, says(409, b"parts are gone", bahefl_refusal="incomplete")) as store:
        with pytest.raises(StoreUnavailable, match=r"did not serve .*\(incomplete\): parts are gone; ask again") as failed:
            store.put(MANIFEST, [PART])
        assert not isinstance(failed.value, StoreRefused)
