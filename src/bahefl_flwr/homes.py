"""The folders that outlive runs: a site's home and the administrator's, each with a file that says where everything is.

What an operator decides stands there and nowhere else: nothing of it comes through the driver. The keys lie beside it.

    HOME/site.yaml | administrator.yaml     this file's subject
    HOME/identity/                          keys of the ledger account (`identity.py`)
    HOME/supernode.key, supernode.key.pub   a site's: what its SuperNode authenticates with
    HOME/runs/                              a site's: settings, journal, key shares and models of each task
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Self, TypeVar

from pydantic import ConfigDict, Field, ValidationError, model_validator

from bahefl_flwr.durable import atomic_write
from bahefl_flwr.errors import KeysError, SettingsError
from bahefl_flwr.key_files import THROW_AWAY, Passphrase, Protection
from bahefl_flwr.setting_groups import Group

if TYPE_CHECKING:
    from bahefl_flwr.settings import Settings

SITE_HOME = "site-home"
"""Key of a SuperNode's node-config: the folder of its site's home."""
DATA_ROOT = "data.root"
"""Key of a node-config: the folder of slices that its site reads as its own, before what the home says."""
SITE_FILE = "site.yaml"
ADMINISTRATOR_FILE = "administrator.yaml"
IDENTITY_FOLDER = "identity"
NODE_KEY_FILE = "supernode.key"


def _hyphens(name: str) -> str:
    return name.replace("_", "-")


class AdministratorHome(Group):
    """Where the ledger is, and how the keys beside this file are opened.

    Attributes:
      ledger_url: JSON-RPC endpoint, of a node that the owner of this home trusts.
      chain_id, contract: the only ledger that this home takes part in.
      confirmations: blocks on top of a block before it counts here; 0 where blocks are final at once.
      max_fee_gwei: most that this account pays for a unit of gas. priority_fee_gwei: tip within it.
      passphrase_file: absolute path of a file with the passphrase; empty leaves the keys unencrypted, for trials only.
    """

    model_config = ConfigDict(alias_generator=_hyphens, populate_by_name=True)

    ledger_url: str = Field(pattern=r"^https?://\S+$")
    chain_id: int = Field(ge=1)
    contract: str = Field(pattern=r"^0x[0-9a-fA-F]{40}$")
    confirmations: int = Field(ge=0, le=100, default=1)
    max_fee_gwei: float = Field(ge=0, le=1e6, default=0)
    priority_fee_gwei: float = Field(ge=0, le=1e6, default=0)
    passphrase_file: str = ""

    @model_validator(mode="after")
    def _absolute(self) -> Self:
        for name in ("passphrase_file", "store_certificate", "store_path", "data_root"):
            path = getattr(self, name, "")
            if path and not Path(path).is_absolute():
                raise ValueError(f"{_hyphens(name)} {path!r} is not absolute: processes start in different folders")
        return self

    @model_validator(mode="after")
    def _tip_within_the_cap(self) -> Self:
        if self.priority_fee_gwei > self.max_fee_gwei:
            raise ValueError(f"priority-fee-gwei {self.priority_fee_gwei:g} exceeds max-fee-gwei {self.max_fee_gwei:g}")
        return self


_Home = TypeVar("_Home", bound=AdministratorHome)


class SiteHome(AdministratorHome):
    """What a site decides for itself.

    Attributes:
      store_url, store_certificate, store_endpoint, store_path: where the store is, as in the settings of the same names; what
        the run says of it never counts.
      data_root: folder of the site's own data; empty where the NumPyClient finds them by itself.
      min_sites: the fewest updates in any sum that this site helps to open.
      max_share: the largest part of all weight that its update may have; the nearer to 1, the more of it a sum shows.
      sketch_parameters: fewest parameters in one number of a sketch; a small model's numbers would be single parameters.
      settings_digest: of the settings that all sites share, in hexadecimal: runs with others are refused; empty for any.
      single_key: take part even where one key holder can open everything. unscreened: even where updates are not screened.
    """

    store_url: str = ""
    store_certificate: str = ""
    store_endpoint: str = ""
    store_path: str = ""
    data_root: str = ""
    min_sites: int = Field(ge=2, default=3)
    max_share: float = Field(gt=0, le=1, default=0.5)
    sketch_parameters: int = Field(ge=1, default=16)
    settings_digest: str = Field(pattern=r"^([0-9a-f]{64})?$", default="")
    single_key: bool = False
    unscreened: bool = False


def load_site(folder: Path) -> SiteHome:
    """Read `folder/site.yaml`.

    Raises:
      SettingsError: it is missing, or names every key that is wrong.
    """
    return _load(SiteHome, folder / SITE_FILE, "bahefl site init")


def load_administrator(folder: Path) -> AdministratorHome | None:
    """Read `folder/administrator.yaml`; None where the folder has none, as a simulation's.

    Raises:
      SettingsError: it names every key that is wrong.
    """
    path = folder / ADMINISTRATOR_FILE
    return _load(AdministratorHome, path, "bahefl ledger deploy") if path.exists() else None


def own_data_root(node: Mapping[str, object], home: SiteHome | None) -> str:
    """The folder that a site reads as its own: its node-config's, or else its home's; "" where neither names one.

    Args:
      node: Flower's node-config. home: None in a simulation.
    """
    return str(node.get(DATA_ROOT, home.data_root if home else ""))


def with_own_data(settings: Settings, root: str, cache: str = "") -> Settings:
    """A run's settings as they are at a site whose data are its own; what is "" stays as the run says.

    Args:
      root: of `own_data_root`. cache: folder for generated slices.
    """
    own = {"kind": "folder", "root": root} if root else {}
    own |= {"cache": cache} if cache else {}
    return settings.model_copy(update={"data": settings.data.model_copy(update=own)})


def write_home(folder: Path, home: AdministratorHome) -> Path:
    """Write the file of a home; returns its path."""
    import yaml

    path = folder / (SITE_FILE if isinstance(home, SiteHome) else ADMINISTRATOR_FILE)
    atomic_write(path, yaml.safe_dump(home.model_dump(by_alias=True), sort_keys=False).encode(), mode=0o600)
    return path


def protection(passphrase_file: str) -> Protection:
    """What opens the keys of a home: the passphrase in its file (one line, its line break aside), or nothing if it names none.

    Raises:
      KeysError: the file cannot be read, others may read it, or what it holds is no passphrase.
    """
    if not passphrase_file:
        return THROW_AWAY
    path = Path(passphrase_file)
    try:
        mode = path.stat().st_mode
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise KeysError(f"cannot read the passphrase in {path}: {error}; name its file in passphrase-file") from None
    if stat.S_IMODE(mode) & (stat.S_IRWXG | stat.S_IRWXO) and not _is_credential(path):
        raise KeysError(f"{path} holds a passphrase and others may read it (mode {stat.S_IMODE(mode):o}): chmod 600 {path}")
    return Passphrase(text.removesuffix("\n").removesuffix("\r"))


def _is_credential(path: Path) -> bool:
    # systemd's credentials have mode 0440, in a folder that only the service's user may enter.
    folder = os.environ.get("CREDENTIALS_DIRECTORY", "")
    return bool(folder) and path.parent == Path(folder)


def _load(kind: type[_Home], path: Path, made_by: str) -> _Home:
    import yaml

    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise SettingsError(f"{path} is not there; `{made_by}` makes it") from None
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise SettingsError(f"cannot read {path}: {error}") from None
    return _parsed(kind, content, str(path))


def parsed_site(content: Mapping[str, object]) -> SiteHome:
    """A site's home from the keys and values of its file.

    Raises:
      SettingsError: it names every key that is wrong.
    """
    return _parsed(SiteHome, content, "the home")


def _parsed(kind: type[_Home], content: object, what: str) -> _Home:
    try:
        return kind.model_validate(content)
    except ValidationError as error:
        wrong = (
            f"{'.'.join(map(str, e['loc'])) or 'all of it'}: {e['msg'].removeprefix('Value error, ')}"
            for e in error.errors(include_url=False)
        )
        raise SettingsError(f"{what} is refused: {'; '.join(wrong)}") from None
