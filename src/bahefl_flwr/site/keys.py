"""The encryption keys a site keeps for a key epoch: its seed entropy and its key share.

Secret files are 0600 in a 0700 folder and belong to one epoch; nothing here is ever sent.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from bahefl_flwr.durable import atomic_write, create_once
from bahefl_flwr.errors import KeysError
from bahefl_flwr.he.keys import KeyShare
from bahefl_flwr.he.sampling import SecretSeed
from bahefl_flwr.records import EpochRecord, Task
from bahefl_flwr.site.state import Site, security_params

_ENTROPY_FILE = "entropy.key"
_SHARE_FILE = "share.key"


def epoch_id(site: Site, task: Task, epoch: EpochRecord) -> bytes:
    """32 bytes that name this key epoch of this run on this contract: no key material fits another one."""
    text = f"bahefl-epoch {task.run_digest.hex()} {site.ledger.address} {epoch.epoch} {epoch.committee:x} {epoch.threshold}"
    return hashlib.sha256(text.encode()).digest()


def load_entropy(site: Site, epoch: EpochRecord) -> SecretSeed:
    """This site's entropy of an epoch, drawn once: a repeated step makes the same contributions."""
    path = site.epoch_folder(epoch.epoch) / _ENTROPY_FILE
    create_once(path, SecretSeed.random().secret_bytes())
    return SecretSeed(_read_secret(path))


def save_key_share(site: Site, epoch: EpochRecord, share: KeyShare) -> None:
    """Keep this site's share of an epoch's key."""
    atomic_write(site.epoch_folder(epoch.epoch) / _SHARE_FILE, share.secret_bytes())


def load_key_share(site: Site, epoch: EpochRecord) -> KeyShare:
    """This site's share of an epoch's key.

    Raises:
      KeysError: there is none, or its file is readable by others or damaged.
    """
    path = site.epoch_folder(epoch.epoch) / _SHARE_FILE
    if not path.exists():
        raise KeysError(f"{path} is not there: this site cannot help to open in epoch {epoch.epoch}; it will in the next one")
    return KeyShare.from_secret_bytes(_read_secret(path), security_params(site.settings, epoch))


def _read_secret(path: Path) -> bytes:
    if path.stat().st_mode & 0o077:
        raise KeysError(f"{path} can be read by others; run: chmod 600 {path}")
    return path.read_bytes()
