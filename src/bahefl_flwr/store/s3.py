"""The store in a bucket of Amazon S3, or of any service that speaks its protocol. The only module that knows the S3 client.

Credentials never come through settings: the client finds them where every S3 client does (environment, or the machine's role).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from itertools import zip_longest
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from bahefl_flwr.errors import ObjectMissing, SettingsError, StoreError, StoreRefused, StoreUnavailable
from bahefl_flwr.store.dag_cbor import CborError, Link
from bahefl_flwr.store.manifest import Manifest, part_ref
from bahefl_flwr.store.reading import StoredFile, VerifiedReads

if TYPE_CHECKING:
    from obstore.store import S3Store as Bucket

_FOLDER = "objects/"
_NO_SUCH_KEY = "NoSuchKey"
_MOST_RETRIES = 100  # time ends them
_MAX_MESSAGE = 300


@dataclass(frozen=True, slots=True, kw_only=True)
class BucketAddress:
    """Where the objects lie.

    Attributes:
      url: "s3://bucket[/prefix]". endpoint: "http(s)://..." of a service other than Amazon's, "" for Amazon's.
      region: as the service calls it.
    """

    url: str
    endpoint: str
    region: str


class S3Store(VerifiedReads):
    """A bucket.

    Promises: those of a folder, as far as the service keeps its own (every object that it has acknowledged is durable). It is
    not trusted to: all bytes read are verified, and what it lost or altered is put again by its owner.

    Args:
      timeout_s: longest wait for one answer. patience_s: for one request with all its repetitions.

    Raises:
      SettingsError: obstore is not installed, or the address is none.
    """

    def __init__(self, where: BucketAddress, *, timeout_s: float, patience_s: float) -> None:
        self.url = where.url.rstrip("/")
        self._bucket = _bucket(where, timeout_s, patience_s)

    def __repr__(self) -> str:
        return f"S3Store({self.url!r})"

    def put(self, manifest: Manifest, parts: Iterable[bytes]) -> bytes:
        """Store an object; calling it again is harmless, and repairs a part or manifest that is lost or was altered.

        Returns:
          The manifest's digest, 32 bytes.

        Raises:
          StoreError: the parts are not the manifest's. StoreUnavailable: the service does not answer, or does not take them.
        """
        for i, (ref, data) in enumerate(zip_longest(manifest.parts, parts)):
            if ref is None or data is None or part_ref(data) != ref:
                raise StoreError(f"part {i} handed to put is not the one that manifest {manifest.cid} ({manifest.label}) names")
            self._ensure(ref.cid, data)
        # Last, so that no object can be read in half.
        self._ensure(manifest.cid, manifest.encode())
        return manifest.digest

    def raw(self, cid: str, limit: int, label: str = "") -> bytes:
        """The bytes that the bucket has under a CID, not verified; of a longer object nothing but that it is longer."""
        with self._asking(f"{cid}{label}"):
            found = self._bucket.get(_FOLDER + cid)
            if found.meta["size"] > limit:
                return bytes(limit + 1)  # the wrong length is all that a reader needs to refuse it
            return bytes(found.bytes())

    def lost(self, manifest: Manifest) -> bool:
        """Whether a part is not there, or has another length."""
        return any(self._size_of(ref.cid) != ref.size_bytes for ref in manifest.parts)

    def files(self) -> Iterator[StoredFile]:
        """Every part and manifest in the bucket, in no order; what else lies there is passed over."""
        with self._asking("the list of objects"):
            for page in self._bucket.list(_FOLDER):
                for found in page:
                    try:
                        link = Link.parse(found["path"].removeprefix(_FOLDER))
                    except CborError:
                        continue
                    changed_at = found["last_modified"].timestamp()
                    yield StoredFile(link=link, size_bytes=found["size"], changed_at=changed_at)

    def remove(self, link: Link) -> None:
        """Delete one part or manifest, if it is there."""
        with self._asking(f"the deletion of {link}"):
            self._bucket.delete(_FOLDER + str(link))

    def _ensure(self, cid: str, data: bytes) -> None:
        """Make the object of `cid` hold `data`. Whoever else writes it at the same time writes the same bytes."""
        try:
            if self.raw(cid, len(data)) == data:
                return
        except ObjectMissing:
            pass
        with self._asking(cid):
            # In one request: a part has at most 1 MiB, and what breaks off leaves nothing.
            self._bucket.put(_FOLDER + cid, data, use_multipart=False)

    def _size_of(self, cid: str) -> int:
        with self._asking(cid):
            try:
                return int(self._bucket.head(_FOLDER + cid)["size"])
            except FileNotFoundError:  # or the bucket is not there, which the next put tells
                return -1

    @contextmanager
    def _asking(self, what: str) -> Iterator[None]:
        from obstore.exceptions import BaseError, PermissionDeniedError, UnauthenticatedError

        try:
            yield
        except FileNotFoundError as error:
            if _NO_SUCH_KEY in str(error):
                raise ObjectMissing(f"{what} is not in {self.url}; its author must put it (again)") from error
            raise StoreUnavailable(
                f"{self.url} is not there ({_first_line(error)}): make the bucket, or mend store.url"
            ) from error
        except (PermissionDeniedError, UnauthenticatedError) as error:
            raise StoreRefused(
                f"{self.url} refuses {what} ({_first_line(error)}): check the credentials, and that they may get, put and list"
            ) from error
        except (BaseError, OSError) as error:
            raise StoreUnavailable(
                f"{self.url} did not serve {what} ({_first_line(error)}): is store.endpoint its address? It is asked again"
            ) from error


def _bucket(where: BucketAddress, timeout_s: float, patience_s: float) -> Bucket:
    try:
        from obstore.store import S3Store as Bucket
    except ImportError as error:
        raise SettingsError("store.kind=s3 needs obstore: pip install 'bahefl-flwr[s3]'") from error
    parts = urlsplit(where.url)
    return Bucket(
        parts.netloc,
        prefix=parts.path.strip("/") or None,
        region=where.region,
        endpoint=where.endpoint or None,
        client_options={"allow_http": where.endpoint.startswith("http://"), "timeout": timedelta(seconds=timeout_s)},
        retry_config={"max_retries": _MOST_RETRIES, "retry_timeout": timedelta(seconds=patience_s)},
    )


def _first_line(error: Exception) -> str:
    """The client's errors go on for pages; the rest is in the traceback."""
    return str(error).split("\n", 1)[0][:_MAX_MESSAGE]
