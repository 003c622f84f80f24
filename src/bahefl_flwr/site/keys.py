"""The keys a site keeps for a key epoch: its seed entropy, from which its sealing key of the epoch derives, and its key share.

Each is a key file that opens for this site, this epoch and this ledger only, protected as the site's identity is; nothing here is
ever sent, but for a sealing key that proves a cheat (`dispute`).
"""

from __future__ import annotations

import hashlib
import shutil

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from bahefl_flwr.durable import fsync_folder
from bahefl_flwr.errors import KeysError
from bahefl_flwr.he.keys import KeyShare
from bahefl_flwr.he.sampling import SecretSeed
from bahefl_flwr.key_files import Binding, SecretKind, create_secret, read_secret, write_secret
from bahefl_flwr.records import EpochRecord, Task
from bahefl_flwr.site.state import Site, security_params

_ENTROPY_FILE = "entropy.key"
_SHARE_FILE = "share.key"


def epoch_id(site: Site, task: Task, epoch: EpochRecord) -> bytes:
    """32 bytes that name this key epoch of this run on this contract: no key material fits another one."""
    text = f"bahefl-epoch {task.run_digest.hex()} {site.ledger.address} {epoch.epoch} {epoch.committee:x} {epoch.threshold}"
    return hashlib.sha256(text.encode()).digest()


def draw_entropy(site: Site, epoch: EpochRecord) -> None:
    """Draw this site's entropy of an epoch, once, before it commits to anything made from it; repeated, keep what there is."""
    path = site.epoch_folder(epoch.epoch) / _ENTROPY_FILE
    binding = _binding(site, epoch, SecretKind.EPOCH_ENTROPY)
    create_secret(path, SecretSeed.random().secret_bytes(), site.identity.protection, binding)


def load_entropy(site: Site, epoch: EpochRecord) -> SecretSeed:
    """This site's entropy of an epoch: a repeated step makes the same contributions.

    Raises:
      KeysError: it was never drawn or is lost, or its file is readable by others, damaged, or of another site, epoch or ledger.
    """
    path = site.epoch_folder(epoch.epoch) / _ENTROPY_FILE
    if not path.exists():
        # Fresh entropy would contradict what this site has committed to, and make everybody else look like a cheat.
        raise KeysError(f"{path} is not there: this site takes no further part in the ceremony of epoch {epoch.epoch}")
    return SecretSeed(read_secret(path, site.identity.protection, _binding(site, epoch, SecretKind.EPOCH_ENTROPY)))


def epoch_sealing_key(site: Site, epoch: EpochRecord) -> X25519PrivateKey:
    """This site's X25519 key of an epoch, to which the others seal its seeds. It goes when the epoch's entropy goes.

    Its own for every epoch: what was sealed in a past ceremony stays closed to whoever gets a site's long-term keys later, and
    revealing it as evidence (`dispute`) gives away this epoch only.
    """
    return X25519PrivateKey.from_private_bytes(load_entropy(site, epoch).derive("sealing-key").secret_bytes())


def save_key_share(site: Site, epoch: EpochRecord, share: KeyShare) -> None:
    """Keep this site's share of an epoch's key."""
    path = site.epoch_folder(epoch.epoch) / _SHARE_FILE
    write_secret(path, share.secret_bytes(), site.identity.protection, _binding(site, epoch, SecretKind.KEY_SHARE))


def has_key_share(site: Site, epoch: EpochRecord) -> bool:
    """Whether this site keeps a share of an epoch's key."""
    return (site.epoch_folder(epoch.epoch) / _SHARE_FILE).exists()


def load_key_share(site: Site, epoch: EpochRecord) -> KeyShare:
    """This site's share of an epoch's key.

    Raises:
      KeysError: there is none, or its file is readable by others, damaged, or of another site, epoch or ledger.
    """
    path = site.epoch_folder(epoch.epoch) / _SHARE_FILE
    if not path.exists():
        raise KeysError(f"{path} is not there: this site cannot help to open in epoch {epoch.epoch}; it will in the next one")
    secret = read_secret(path, site.identity.protection, _binding(site, epoch, SecretKind.KEY_SHARE))
    return KeyShare.from_secret_bytes(secret, security_params(site.settings, epoch))


def forget_epochs_before(site: Site, epoch: int) -> tuple[int, ...]:
    """Delete this site's entropy and key share of every epoch before `epoch`, once their last aggregate has been opened.

    Deleting is all that is done. Overwriting first would be useless: journaling and copy-on-write file systems and flash memory
    write the new bytes elsewhere, and backups keep theirs. The leftover blocks of a deployment's files are encrypted under its
    passphrase. The seeds in the store were sealed to keys that go with the entropy, so nobody can derive the share again.

    Returns:
      The epochs deleted, in order; none when repeated.

    Raises:
      KeysError: the disk refused; repeat it, what was deleted stays deleted.
    """
    folder = site.folder / "epochs"
    old = {int(path.name): path for path in folder.glob("*") if path.name.isdecimal() and int(path.name) < epoch}
    try:
        for _, path in sorted(old.items()):
            shutil.rmtree(path)
        if old:
            fsync_folder(folder)
    except OSError as error:
        raise KeysError(f"cannot delete the keys of epochs before {epoch} in {folder}: {error}; mend the folder") from error
    return tuple(sorted(old))


def _binding(site: Site, epoch: EpochRecord, kind: SecretKind) -> Binding:
    return Binding(kind=kind, site=site.address, chain_id=site.ledger.chain_id, contract=site.ledger.address, epoch=epoch.epoch)
