"""The key ceremony in a whole run: nobody reads a public key part before every member is bound to its own."""

from pathlib import Path

from flwr.app import Message

from bahefl_flwr.records import EpochPhase, RoundPhase
from federation_run import Run, federated_run
from in_process_grid import Deliver, Tamper


def test_no_key_part_is_readable_before_all_are_named_on_the_ledger(tmp_path: Path) -> None:
    """Else t-1 members of an even committee could choose the collective key (tests/tampered/test_he_attacks.py).

    Not even if the driver asks for the parts too early: the site looks at the ledger itself.
    """
    readable: list[bool] = []
    answers: list[str] = []

    def eager(run: Run) -> Tamper:
        def tamper(site: int, message: Message, deliver: Deliver) -> Message | None:
            if message.metadata.message_type != "query.publish_key_parts":
                return deliver(message)
            reply = deliver(message)
            message.metadata.message_type = "query.upload_key_parts"
            early = deliver(message).content["status"]
            named = [record.key_parts for record in run.ledger.ceremony(1) if any(record.key_parts)]
            found = [run.store.has(digest) for digest in named]
            # Sites act at the same time: what was read counts if the last of them had not acted even afterwards.
            if run.ledger.view().epoch.phase is EpochPhase.PUBLISH:
                answers.append(str(early["error"]))
                readable.extend(found)
            return reply

        return tamper

    run = federated_run(tmp_path, "federation.rounds=1", tamper=eager)
    assert answers and set(answers) == {"ProtocolError"}
    assert readable and not any(readable)
    assert run.rounds[1].phase is RoundPhase.FINALIZED
