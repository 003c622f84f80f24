"""Signed requests to a served store over HTTP: bounded in time and size, tried again where that may help.

The only module that knows the HTTP client. What objects are, and whether their bytes are right, is http.py's business.
"""

from __future__ import annotations

import hashlib
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from bahefl_flwr.errors import SettingsError, StoreRefused, StoreUnavailable
from bahefl_flwr.store.signing import Sign, authorization
from bahefl_flwr.store.wire import GREETING, HEALTH, WORD_HEADER, Word

_AGAIN = frozenset((408, 425, 429, 500, 502, 503, 504))
_MAX_MESSAGE_BYTES = 500
_ABOUT_OBJECTS = frozenset(word.word for word in (Word.MISSING, Word.CORRUPT, Word.INCOMPLETE))
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.1, 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """How long a store is waited for.

    Attributes:
      timeout_s: longest silence within one request. total_s: longest time for one request with all its repetitions.
    """

    timeout_s: float
    total_s: float


@dataclass(frozen=True, slots=True)
class Answer:
    """What the store answered: `word` is what it calls a refusal ("" if it did not refuse), `body` at most what was asked for."""

    status: int
    word: str
    body: bytes


class _Broken(Exception):
    """This try came to nothing; another one may not."""


class Channel:
    """One account's way to one store.

    Args:
      url: "http(s)://host[:port][/prefix]". address: of the account, sign: its signature. certificate: PEM file of the authority
        that vouches for the store, None for the system's. clock, sleep: for tests.

    Raises:
      SettingsError: the certificate cannot be read.
    """

    def __init__(
        self,
        url: str,
        *,
        address: str,
        sign: Sign,
        patience: Patience,
        certificate: Path | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.url = url.rstrip("/")
        self._address, self._sign, self._patience, self._clock, self._sleep = address, sign, patience, clock, sleep
        # No redirects: a request is signed for one path, and the store has no reason to send anybody elsewhere.
        self._client = httpx.Client(
            verify=_trusting(certificate), timeout=patience.timeout_s, follow_redirects=False,
            headers={"accept-encoding": "identity", "user-agent": "bahefl_flwr"},
        )  # fmt: skip

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def ask(self, method: str, path: str, *, body: bytes = b"", limit: int) -> Answer:
        """Carry out one request, which may be carried out twice.

        Args:
          path: from "/v1/" on. limit: most bytes of the answer that are read; one more shows that there are more.

        Raises:
          StoreUnavailable: no answer, or none of such a store, until patience ended. StoreRefused: it would refuse it again.
        """
        end, pause, got = self._clock() + self._patience.total_s, _FIRST_PAUSE_S, bytearray()
        while True:
            try:
                return self._once(method, path, body, limit, got, end)
            except _Broken as broken:
                if self._clock() + pause > end:
                    raise StoreUnavailable(
                        f"no answer from the store at {self.url} for {self._patience.total_s:.0f} s ({broken}): "
                        "is it running, and is store.url its address? What was to be stored is kept, and is put when asked again"
                    ) from broken
            self._sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE_S)

    def _once(self, method: str, path: str, body: bytes, limit: int, got: bytearray, end: float) -> Answer:
        with self._response(method, path, body, len(got)) as response:
            if response.status_code in _AGAIN:
                raise _Broken(f"HTTP {response.status_code}: {_message(response)}")
            word = response.headers.get(WORD_HEADER, "")
            if got and response.status_code == Word.NO_SUCH_RANGE.status:
                got.clear()
                raise _Broken("it does not go on where it broke off")
            if response.status_code >= 300:
                return self._refusal(response, word)
            if got and response.status_code != 206:
                got.clear()  # it sends the whole again
            self._receive(response, got, limit, end)
            return Answer(response.status_code, word, bytes(got[: limit + 1]))

    @contextmanager
    def _response(self, method: str, path: str, body: bytes, have: int) -> Iterator[httpx.Response]:
        digest, now = hashlib.sha256(body).digest(), int(time.time())
        headers = {"authorization": authorization(self._sign, self._address, method, path, digest, now)}
        if have:
            headers["range"] = f"bytes={have}-"  # go on where the last try broke off
        try:
            with self._client.stream(method, self.url + path, content=body or None, headers=headers) as response:
                yield response
        except httpx.InvalidURL as error:
            raise SettingsError(f"store.url={self.url} is no address: {error}") from error
        except httpx.HTTPError as error:
            raise _Broken(f"{type(error).__name__}: {error}") from error

    def _receive(self, response: httpx.Response, got: bytearray, limit: int, end: float) -> None:
        for chunk in response.iter_raw():
            got += chunk[: limit + 1 - len(got)]
            if len(got) > limit:
                return
            if self._clock() > end:
                raise _Broken("it trickles")

    def _refusal(self, response: httpx.Response, word: str) -> Answer:
        status, said = response.status_code, _message(response)
        if not word:
            raise StoreUnavailable(f"{self.url} is no store of bahefl_flwr (HTTP {status}: {said}): check store.url and proxies")
        if word in _ABOUT_OBJECTS:
            return Answer(status, word, said.encode())
        raise StoreRefused(f"the store at {self.url} refuses ({word}): {said}")


def greet(url: str, *, certificate: Path | None, timeout_s: float) -> None:
    """Make sure that a store of this protocol answers, once and unsigned.

    Raises:
      StoreUnavailable: nothing answers, or something else. SettingsError: the certificate or the address is none.
    """
    try:
        answer = httpx.get(url.rstrip("/") + HEALTH, verify=_trusting(certificate), timeout=timeout_s, follow_redirects=False)
    except httpx.InvalidURL as error:
        raise SettingsError(f"store.url={url} is no address: {error}") from error
    except httpx.HTTPError as error:
        raise StoreUnavailable(
            f"no answer from the store at {url} ({type(error).__name__}: {error}): start it with bahefl store serve, or mend "
            "store.url or store.certificate"
        ) from error
    if answer.status_code != 200 or answer.content != GREETING:
        raise StoreUnavailable(f"{url} is no store of bahefl_flwr (HTTP {answer.status_code}): check store.url and proxies")


def _message(response: httpx.Response) -> str:
    """The beginning of what was said, fit for a terminal and a log: the other side may be anybody."""
    said = bytearray()
    for chunk in response.iter_raw():
        said += chunk[:_MAX_MESSAGE_BYTES]
        if len(said) >= _MAX_MESSAGE_BYTES:
            break
    text = said[:_MAX_MESSAGE_BYTES].decode("utf-8", "replace")
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def _trusting(certificate: Path | None) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=certificate)
    except (OSError, ssl.SSLError) as error:
        raise SettingsError(f"store.certificate={certificate} cannot be used: {error}") from error
