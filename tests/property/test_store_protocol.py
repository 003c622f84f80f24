"""Claims about the served store's protocol for arbitrary requests: every one has an answer, and only members' have effects."""

from __future__ import annotations

import asyncio
import hashlib
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bahefl_flwr.errors import ObjectCorrupt
from bahefl_flwr.store import LocalStore, Manifest
from bahefl_flwr.store.dag_cbor import DAG_CBOR, RAW, CborError, Link
from bahefl_flwr.store.service import StoreService
from bahefl_flwr.store.shelf import Shelf
from bahefl_flwr.store.signing import BadSignature, authorization, read_claim
from bahefl_flwr.store.usage import Quotas, Usage
from bahefl_flwr.store.wire import WORD_HEADER, Word
from served_store import site_identity

NOW = 1_800_000_000
MEMBER = site_identity()
WORDS = {word.word: word.status for word in Word}
ALLOWED = {200, 201, 206, *WORDS.values()}
QUOTAS = Quotas(total_bytes=1 << 20, account_bytes=1 << 20, account_files=1000)

names = st.builds(Link, st.sampled_from([RAW, DAG_CBOR]), st.binary(min_size=32, max_size=32)).map(str)
paths = st.one_of(
    st.just("/v1/missing"), st.just("/v1/health"), st.text(max_size=80).map("/".__add__),
    st.one_of(names, st.text(max_size=80)).map("/v1/objects/".__add__),
)  # fmt: skip
methods = st.sampled_from(["GET", "HEAD", "PUT", "POST", "DELETE", "PATCH", "OPTIONS", "x"])
ranges = st.one_of(st.none(), st.text(max_size=30), st.from_regex(r"bytes=[0-9]{0,15}-[0-9]{0,15}", fullmatch=True))


class Members:
    """One account."""

    def admits(self, address: str) -> bool:
        return address == MEMBER.address.lower()


@pytest.fixture(scope="module")
def service() -> Iterator[StoreService]:
    with tempfile.TemporaryDirectory() as folder:
        store = LocalStore(Path(folder))
        usage = Usage(store, QUOTAS)
        yield StoreService(Shelf(store, usage), Members(), window_s=60, most_requests=4, clock=lambda: NOW)
        usage.close()


def answer(
    service: StoreService, method: str, path: str, headers: dict[str, str], body: bytes
) -> tuple[int, dict[str, str], bytes]:
    """Status, headers and body of the answer to one request, without sockets."""
    return asyncio.run(_answer(service, method, path, headers, body))


async def _answer(
    service: StoreService, method: str, path: str, headers: dict[str, str], body: bytes
) -> tuple[int, dict[str, str], bytes]:
    raw, _, query = path.encode("utf-8", "surrogatepass").partition(b"?")
    scope: dict[str, Any] = {
        "type": "http", "method": method, "path": path, "raw_path": raw, "query_string": query,
        "headers": [(k.encode(), v.encode("latin-1", "replace")) for k, v in headers.items()], "http_version": "1.1",
    }  # fmt: skip
    said: list[Any] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: Any) -> None:
        said.append(message)

    await service(scope, receive, send)
    whole = b"".join(m.get("body", b"") for m in said[1:])
    return said[0]["status"], {k.decode(): v.decode("latin-1") for k, v in said[0]["headers"]}, whole


def signed(method: str, path: str, body: bytes) -> str:
    digest = hashlib.sha256(body).digest()
    return authorization(MEMBER.sign_text, MEMBER.address, method, path, digest, NOW)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(method=methods, path=paths, header=st.text(max_size=300), asked=ranges, body=st.binary(max_size=300))
def test_a_stranger_gets_nothing_but_refusals(
    service: StoreService, method: str, path: str, header: str, asked: str | None, body: bytes
) -> None:
    """Whatever is sent: one of the documented words with its status, or the greeting."""
    headers = {"authorization": header, **({} if asked is None else {"range": asked})}
    status, found, _ = answer(service, method, path, headers, body)
    assert (method, path, status) == ("GET", "/v1/health", 200) or WORDS[found[WORD_HEADER]] == status


@given(method=methods, path=paths.filter(str.isascii), asked=ranges, body=st.binary(max_size=300))
def test_every_request_of_a_member_has_an_answer(
    service: StoreService, method: str, path: str, asked: str | None, body: bytes
) -> None:
    """Never an exception, never a status that is not documented."""
    headers = {"authorization": signed(method, path, body), **({} if asked is None else {"range": asked})}
    assert answer(service, method, path, headers, body)[0] in ALLOWED


@given(data=st.binary(min_size=1, max_size=2000))
def test_every_part_comes_back_as_it_was_put(service: StoreService, data: bytes) -> None:
    """Whole, and in any range."""
    path = f"/v1/objects/{Link(RAW, hashlib.sha256(data).digest())}"
    assert answer(service, "PUT", path, {"authorization": signed("PUT", path, data)}, data)[0] in (200, 201)
    get = {"authorization": signed("GET", path, b"")}
    middle = len(data) // 2
    assert answer(service, "GET", path, get, b"")[2] == data
    assert answer(service, "GET", path, get | {"range": f"bytes={middle}-"}, b"")[2] == data[middle:]


@given(body=st.binary(max_size=500))
def test_bytes_that_are_no_manifest_are_never_stored_as_one(service: StoreService, body: bytes) -> None:
    """Every manifest in a store can be read."""
    path = f"/v1/objects/{Link(DAG_CBOR, hashlib.sha256(body).digest())}"
    status, _, _ = answer(service, "PUT", path, {"authorization": signed("PUT", path, body)}, body)
    with pytest.raises(ObjectCorrupt):
        Manifest.decode(body)
    assert status == 422


@given(lines=st.lists(st.one_of(names, st.text(max_size=70)), max_size=70))
def test_any_question_is_answered_with_a_part_of_it(service: StoreService, lines: list[str]) -> None:
    """Names that were asked for, each at most once; or a refusal."""
    body = "\n".join(lines).encode("utf-8", "surrogatepass")
    status, _, said = answer(service, "POST", "/v1/missing", {"authorization": signed("POST", "/v1/missing", body)}, body)
    found = said.decode().splitlines() if status == 200 else []
    assert status in (200, 404, 413, 422)
    assert set(found) <= set(lines)
    assert len(found) == len(set(found))


@given(header=st.text(max_size=400))
def test_any_header_is_a_claim_or_refused(header: str) -> None:
    """No other exception."""
    try:
        claim = read_claim(header)
    except BadSignature:
        return
    assert len(claim.body) == 32


@given(text=st.one_of(st.text(max_size=70), st.from_regex(r"b[a-z2-7]{58}", fullmatch=True)))
def test_any_text_is_a_name_or_refused(text: str) -> None:
    """And a name is written as it was read."""
    try:
        link = Link.parse(text)
    except CborError:
        return
    assert str(link) == text
