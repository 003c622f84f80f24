"""What a site writes down of the models it opened, so that its operator can tell later which they are, without anybody's help.

Notes are records of the journal, durable and checksummed. What rounds gave, this site has compared with the ledger; which
of their models is the chosen one is the driver's word.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bahefl_flwr.errors import StoreError
from bahefl_flwr.journal import Journal
from bahefl_flwr.records import LedgerView, RoundRecord, members_in, members_of
from bahefl_flwr.site.model import Model
from bahefl_flwr.site.state import JOURNAL_FILE, Site

_OPENED = "opened"
_CHOSEN = "chosen"
_TESTED = "tested"


@dataclass(frozen=True, slots=True, kw_only=True)
class Lineage:
    """The notes of one task, read.

    Attributes:
      run: digest of the run, hexadecimal; every manifest and the ledger's task name it. contract, chain_id: the ledger's.
      rounds: what was noted of every finalised round, by number.
      chosen: the round after which the model is that the run chose; 0 before it has.
      figures: of that model on the site's own test part; empty where it has not measured them.
    """

    run: str
    contract: str
    chain_id: int
    rounds: Mapping[int, Mapping[str, Any]]
    chosen: int
    figures: Mapping[str, Any]

    def chosen_digest(self) -> str:
        """SHA-256 (hexadecimal) of the chosen model; empty before one is chosen.

        Raises:
          StoreError: it is of a round that this site has never opened.
        """
        if not self.chosen:
            return ""
        if (noted := self.rounds.get(self.chosen)) is None:
            raise StoreError(
                f"the run chose the model after round {self.chosen}, which this site never opened; it is at every other site"
            )
        return str(noted["model"])

    def expect(self, model: Model, path: Path) -> None:
        """The model of a file is the one that this site opened in its round, and that the ledger named.

        Raises:
          StoreError: it is another one, or the site has noted none of that round.
        """
        noted = self.rounds.get(model.round)
        if noted is None:
            first = "the one it started from, which no round made" if not model.round else "not in the site's journal"
            raise StoreError(f"{path} is the model of round {model.round}, {first}: there is nothing to check it against")
        if noted["model"] != model.digest().hex():
            raise StoreError(
                f"{path} is model {model.digest().hex()[:16]}, this site opened {noted['model'][:16]} in round {model.round}: "
                "the file was exchanged; the same model is at every other site"
            )


def note_opened(site: Site, view: LedgerView, r: RoundRecord, model: Model) -> None:
    """Note a finalised round and the model after it, which is the one that the ledger names."""
    note = {
        "contract": site.ledger.address,
        "chain_id": site.ledger.chain_id,
        "model": model.digest().hex(),
        "aggregate": r.aggregate.hex(),
        "included": list(members_in(members_of(r, r.outcome))),
        "coordinator": site.addresses()[r.coordinator],
    }
    site.journal.put((view.task.run_digest.hex(), r.number, _OPENED), note)


def note_chosen(site: Site, run: bytes, number: int) -> None:
    """Note that the run has chosen the model after this round, whether this site keeps it or not."""
    if number:
        site.journal.put((run.hex(), number, _CHOSEN), {})


def note_tested(site: Site, run: bytes, number: int, figures: Mapping[str, float | int]) -> None:
    """Note what the chosen model is worth on this site's own test part, if it could be measured; the first figures stay."""
    key = (run.hex(), number, _TESTED)
    if figures and site.journal.get(key) is None:
        site.journal.put(key, {"figures": dict(figures)})


def read_lineage(folder: Path) -> Lineage:
    """The notes in a site's folder of a task.

    Raises:
      JournalError: the journal is damaged. StoreError: it has no notes of rounds.
    """
    journal = Journal(folder / JOURNAL_FILE)
    opened, chosen, tested = (journal.recorded(action) for action in (_OPENED, _CHOSEN, _TESTED))
    if not opened:
        raise StoreError(f"{folder}: the site has opened no round of this task yet, so it has no model but the first weights")
    (run, _, _), newest = next(reversed(opened.items()))
    last = max((number for _, number, _ in list(chosen)[-1:]), default=0)
    return Lineage(
        run=run,
        contract=newest["contract"],
        chain_id=newest["chain_id"],
        rounds={number: note for (_, number, _), note in sorted(opened.items())},
        chosen=last,
        figures=tested.get((run, last, _TESTED), {"figures": {}})["figures"],
    )
