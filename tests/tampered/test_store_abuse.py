"""A served store under abuse, as a real process: slow and many clients, garbage, and no growth."""

from __future__ import annotations

import contextlib
import datetime as dt
import hashlib
import ipaddress
import os
import random
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from bahefl_flwr.errors import SettingsError, StoreUnavailable
from bahefl_flwr.identity import Identity
from bahefl_flwr.store import manifest_cid, part_cid
from bahefl_flwr.store.channel import Channel
from bahefl_flwr.store.http import HttpStore
from bahefl_flwr.store.serving import IDLE_S, Listening
from bahefl_flwr.store.signing import authorization
from served_store import ENDS_AT_ONCE, QUICK, ServedStore, an_object, signed, site_identity

FUZZ_CASES = 3000
SIGNED_CASES = 1000


@pytest.fixture(scope="module")
def member() -> Identity:
    return site_identity()


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, member: Identity) -> Iterator[ServedStore]:
    """A store that answers two requests at a time, on at most eight connections."""
    with ServedStore(tmp_path_factory.mktemp("served"), "--requests", "2", members=(member,)) as served:
        yield served


def connected(served: ServedStore) -> socket.socket:
    """A connection that says nothing yet."""
    connection = socket.create_connection(("127.0.0.1", int(served.url.rpartition(":")[2])), timeout=20)
    connection.settimeout(0.2)
    return connection


def is_closed(connection: socket.socket) -> bool:
    """Whether the server has closed a connection."""
    try:
        return connection.recv(1) == b""
    except TimeoutError:
        return False
    except OSError:
        return True


def closed_within(connection: socket.socket, seconds: float, *, trickling: bytes = b"") -> bool:
    """Whether the server closes a connection in time, while this side sends `trickling` again and again."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if is_closed(connection):
            return True
        with contextlib.suppress(OSError):
            connection.sendall(trickling)
        time.sleep(0.3)
    return False


def test_more_connections_than_allowed_are_closed(served: ServedStore, member: Identity) -> None:
    """Strangers cannot use up the process's file descriptors; and members are served afterwards."""
    with contextlib.ExitStack() as stack:
        connections = [stack.enter_context(connected(served)) for _ in range(20)]
        time.sleep(1)
        assert sum(is_closed(c) for c in connections) >= 12
    served.client(member).put(an_object([b"x"]), [b"x"])


def test_who_comes_while_it_is_busy_is_asked_to_come_again(served: ServedStore, member: Identity) -> None:
    """HTTP 503 with Retry-After, which our client heeds."""
    head = b"PUT /v1/objects/x HTTP/1.1\r\nhost: x\r\ncontent-length: 1000\r\n\r\n"
    with connected(served) as one, connected(served) as other:
        for connection in (one, other):
            connection.sendall(head)
        time.sleep(0.5)
        answer = signed(member, "POST", served.url, "/v1/missing", time=int(time.time()))
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
        # The two are given up after a few seconds, since nobody signed for them.
        served.client(member).put(an_object([b"y"]), [b"y"])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("sent", "trickling"),
    [(b"", b""), (b"GET /v1/health HTTP/1.1\r\n", b"x: y\r\n"), (b"GET /v1/health HTTP/1.1\r\nhost: x\r\n\r\n", b"")],
)
def test_a_connection_that_asks_nothing_is_closed(served: ServedStore, sent: bytes, trickling: bytes) -> None:
    """Silent from the start, a header line every now and then, or idle after an answer."""
    with connected(served) as connection:
        connection.sendall(sent)
        time.sleep(0.5)
        with contextlib.suppress(TimeoutError):
            connection.recv(10_000)
        assert closed_within(connection, 3 * IDLE_S + 10, trickling=trickling)


@pytest.mark.slow
def test_memory_does_not_grow_with_what_passes_through(served: ServedStore, member: Identity) -> None:
    """300 MB in and 300 MB out, in parts of 1 MB."""
    store = served.client(member)

    def pass_through(count: int) -> None:
        for _ in range(count):
            parts = [os.urandom(1_000_000)]
            manifest = an_object(parts)
            store.put(manifest, parts)
            assert list(store.parts(manifest)) == parts
            served.disk.remove(next(f.link for f in served.disk.files() if f.link.digest == manifest.parts[0].digest))

    pass_through(20)
    before = served.memory_kib()
    pass_through(300)
    assert served.memory_kib() - before < 20_000


def garbage(rng: random.Random, request: bytes) -> bytes:
    """A request with something wrong in it."""
    data = bytearray(request)
    for _ in range(rng.choice((1, 1, 2, 5, 20))):
        at = rng.randrange(len(data))
        match rng.randrange(6):
            case 0:
                data[at] = rng.randrange(256)
            case 1:
                del data[at : at + rng.choice((1, 3, 40))]
            case 2:
                data[at:at] = rng.randbytes(rng.choice((1, 4, 300)))
            case 3:
                data[at:at] = rng.choice((b"\r\n", b"\r\n\r\n", b"\0", b" ", b"content-length: 99999999999999\r\n"))
            case 4:
                data[at:at] = b"a" * rng.choice((100, 20_000))
            case _:
                data[at:at] = data[at : at + rng.choice((10, 200))]
        data = data or bytearray(b"x")
    return bytes(data)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_garbage_neither_kills_nor_bloats_it(tmp_path: Path, member: Identity) -> None:
    """Thousands of mutated requests, signed ones among them: the process answers on, and logs no traceback."""
    rng = random.Random(7)
    with ServedStore(tmp_path, members=(member,)) as served:
        manifest = an_object([b"data"])
        served.client(member).put(manifest, [b"data"])
        requests = list(signed_requests(served, member, manifest.parts[0].cid))
        before = served.memory_kib()
        for _ in range(FUZZ_CASES):
            with connected(served) as connection, contextlib.suppress(OSError):
                connection.sendall(garbage(rng, rng.choice(requests)))
                connection.shutdown(socket.SHUT_WR)
                connection.recv(1000)
        assert served.client(member).has(manifest.digest)
        assert served.memory_kib() - before < 30_000
        assert "Traceback" not in served.log.read_text()


def signed_requests(served: ServedStore, member: Identity, cid: str) -> Iterator[bytes]:
    """Good requests, as bytes on the wire."""
    for method, path, body in (
        ("GET", f"/v1/objects/{cid}", b""), ("PUT", f"/v1/objects/{cid}", b"data"), ("POST", "/v1/missing", f"{cid}\n".encode()),
    ):  # fmt: skip
        digest = hashlib.sha256(body).digest()
        header = authorization(member.sign_text, member.address, method, path, digest, int(time.time()))
        head = f"{method} {path} HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}\r\nauthorization: {header}\r\n\r\n"
        yield head.encode() + body


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_member_that_signs_garbage_neither_kills_nor_bloats_it(tmp_path: Path, member: Identity) -> None:
    """Rightly signed requests of any size, cut anywhere, with lengths that lie: what is no object is never stored as one."""
    rng = random.Random(11)
    with ServedStore(tmp_path, members=(member,)) as served:
        for _ in range(100):
            send_cut(served, hostile(member, rng), rng)
        before = served.memory_kib()
        for _ in range(SIGNED_CASES):
            send_cut(served, hostile(member, rng), rng)
        served.client(member).put(an_object([b"still here"]), [b"still here"])
        assert served.memory_kib() - before < 30_000
        assert "Traceback" not in served.log.read_text()
        assert all(
            hashlib.sha256(served.file_of(str(f.link)).read_bytes()).digest() == f.link.digest for f in served.disk.files()
        )


def hostile(member: Identity, rng: random.Random) -> bytes:
    """A request that its member signed, about bytes that are nothing, or of a length that it does not have."""
    body = rng.randbytes(rng.choice((0, 1, 100, 10_000, 1 << 20, (1 << 20) + 1, 3 << 20)))
    name = rng.choice((part_cid(hashlib.sha256(body).digest()), manifest_cid(hashlib.sha256(body).digest()), "x" * 59))
    method, path = rng.choice((("PUT", f"/v1/objects/{name}"), ("POST", "/v1/missing"), ("GET", f"/v1/objects/{name}")))
    length = rng.choice((len(body), len(body), len(body) // 2, len(body) + 5, 1 << 40))
    header = authorization(member.sign_text, member.address, method, path, hashlib.sha256(body).digest(), int(time.time()))
    framing = rng.choice(
        (f"content-length: {length}", "transfer-encoding: chunked", f"content-length: {length}\r\nrange: bytes=5-1")
    )
    return f"{method} {path} HTTP/1.1\r\nhost: x\r\n{framing}\r\nauthorization: {header}\r\n\r\n".encode() + body


def send_cut(served: ServedStore, request: bytes, rng: random.Random) -> None:
    """Send a request, or only its beginning, and go away."""
    whole = rng.random() < 0.5
    with connected(served) as connection, contextlib.suppress(OSError):
        connection.sendall(request if whole else request[: rng.randrange(len(request))])
        if rng.random() < 0.7:
            connection.shutdown(socket.SHUT_WR)
            connection.recv(1000)


def certificate(folder: Path) -> tuple[Path, Path]:
    """A self-signed certificate for 127.0.0.1, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "store")])
    now = dt.datetime.now(dt.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + dt.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    paths = folder / "store.crt", folder / "store.key"
    paths[0].write_bytes(made.public_bytes(serialization.Encoding.PEM))
    paths[1].write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return paths


def test_tls_is_checked(tmp_path: Path, member: Identity) -> None:
    """With the certificate the store is used; without it nobody talks to whoever is there."""
    crt, key = certificate(tmp_path)
    with ServedStore(tmp_path, "--certificate", str(crt), "--key", str(key), members=(member,)) as served:
        assert served.url.startswith("https://")
        trusting = Channel(served.url, address=member.address, sign=member.sign_text, patience=QUICK, certificate=crt)
        HttpStore(trusting).put(an_object([b"x"]), [b"x"])
        with pytest.raises(StoreUnavailable, match="certificate verify failed"):
            served.client(member, ENDS_AT_ONCE).has(bytes(32))


def test_only_the_loopback_interface_is_served_in_the_clear() -> None:
    """Anything else needs TLS, or the word that a proxy adds it."""
    common = {"port": 0, "certificate": None, "key": None, "connections": 8}
    assert Listening(host="127.0.0.1", behind_proxy=False, **common)  # type: ignore[arg-type]
    assert Listening(host="0.0.0.0", behind_proxy=True, **common)  # type: ignore[arg-type]
    with pytest.raises(SettingsError, match="give --certificate and --key, or --behind-proxy"):
        Listening(host="0.0.0.0", behind_proxy=False, **common)  # type: ignore[arg-type]
