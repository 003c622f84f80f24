"""What protects the updates: the key mode that is really on, the level of security, and the files of keys."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

from bahefl_flwr.doctor.finding import Finding, attempted, failure, ok, warning
from bahefl_flwr.he.params import DATA_PRIMES, RING_DEGREE, SPECIAL_PRIME, security_bits
from bahefl_flwr.homes import protection
from bahefl_flwr.identity import FILE_NAME, Identity
from bahefl_flwr.key_files import THROW_AWAY, Protection, stated_site
from bahefl_flwr.records import EpochRecord
from bahefl_flwr.settings import no_holder_to_spare

_LEAST_BITS = 128


def key_mode(threshold: int, committee: int, source: str) -> Finding:
    """How many key holders open an aggregate.

    Args:
      source: who says so: the settings, or the ledger's key epoch.
    """
    if threshold == 1:
        return warning(
            "key mode",
            f"SINGLE KEY: each of {committee} key holders alone can open every update ({source})",
            "this is the paper's own experiment; for patients' data set he.threshold=0 (a majority must open together)",
        )
    return ok("key mode", f"threshold {threshold} of {committee} key holders open together, fewer learn nothing ({source})")


def key_mode_on_ledger(epoch: EpochRecord, wanted: int) -> Iterator[Finding]:
    """The key epoch that the ledger is in, against the threshold that these settings ask for."""
    if not epoch.epoch:
        return
    holders = epoch.committee.bit_count()
    source = f"the ledger, key epoch {epoch.epoch}, {epoch.phase.name.lower()}"
    if epoch.threshold < wanted:
        yield failure(
            "key mode",
            f"{source}: {epoch.threshold} of {holders} open, these settings ask for {wanted}",
            "agree on he.threshold with the administrator: this site encrypts nothing under that key",
        )
    else:
        yield key_mode(epoch.threshold, holders, source)
    if needed := no_holder_to_spare(epoch.threshold, holders):
        advice = "a task's threshold is fixed: let more members join, or those that left come back (docs/protocol.md)"
        yield warning("key mode", f"{source}: {needed}", advice)


def security_level() -> Finding:
    """Estimated bits of the ring that every run uses (docs/security.md, section 3)."""
    data = sum(math.log2(prime) for prime in DATA_PRIMES)
    bits, least = security_bits(RING_DEGREE, data), security_bits(RING_DEGREE, data + math.log2(SPECIAL_PRIME))
    got = f"{bits:.0f} bits for keys and ciphertexts, {least:.0f} with the special prime (degree {RING_DEGREE}, estimate)"
    if least < _LEAST_BITS:
        return failure("security", got, "this installation is altered: install it again")
    return ok("security", got)


def key_files(identity: Path, others: Path | None, passphrase_file: str) -> tuple[Finding, ...]:
    """Modes of a site's key files, and that the passphrase opens its identity.

    Args:
      identity: folder of the identity. others: folder below which the keys of epochs lie.
      passphrase_file: of a home; empty for keys that are not encrypted.
    """
    found = attempted("key files", lambda: [_opened(identity, protection(passphrase_file))])
    files = sorted(others.rglob("*.key")) if others and others.is_dir() else []
    rest = [f for f in files if f.name != FILE_NAME]
    problems = [finding for f in rest for finding in attempted("key files", lambda f=f: _private(f))]  # type: ignore[misc]
    if rest and not problems:
        problems = [ok("key files", f"{len(rest)} of key epochs, open to this user only")]
    return (*found, *problems)


def _opened(folder: Path, opens: Protection) -> Finding:
    address = Identity.load(folder, opens).address
    if opens is THROW_AWAY:
        return warning(
            "key files",
            f"{folder} holds throw-away keys of {address}, NOT ENCRYPTED",
            "right for a simulation only: a site makes its keys with a passphrase",
        )
    return ok("key files", f"{folder}, mode 600, opens with the passphrase: {address}")


def _private(file: Path) -> Iterator[Finding]:
    stated_site(file)
    yield from ()
