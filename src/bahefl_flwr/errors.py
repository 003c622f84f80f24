"""Every error this package raises, in one tree, each with the exit code of the commands.

Messages say what was got, from whom, in which round, and what to do. Nothing but error types lives here.
"""


class BaheflError(Exception):
    """Root of the tree. `exit_code` is what a command returns when the error reaches its top."""

    exit_code = 1


class SettingsError(BaheflError):
    """A setting is misspelt, out of range, or contradicts another one."""

    exit_code = 2


class DataError(BaheflError):
    """A data folder is missing, unreadable, mispaired, or cannot be split as asked."""

    exit_code = 3


class LedgerError(BaheflError):
    """The ledger is unreachable, answers nonsense, or is not the contract we expect."""

    exit_code = 4


class LedgerUnreachable(LedgerError):
    """No answer from the JSON-RPC endpoint within the bounded retries."""


class TransactionReverted(LedgerError):
    """The contract refused a transaction.

    Attributes:
      reason: name of the contract's custom error, e.g. "AlreadyCommitted", or "" if unknown.
    """

    def __init__(self, message: str, *, reason: str = "") -> None:
        super().__init__(message)
        self.reason = reason


class StoreError(BaheflError):
    """The content-addressed store failed."""

    exit_code = 5


class ObjectMissing(StoreError):
    """No object of that digest is in the store."""


class ObjectCorrupt(StoreError):
    """The stored bytes are not the ones their digest names, or not of the expected form."""


class StoreUnavailable(BaheflError):
    """The store does not answer, or does not serve this account.

    Not a StoreError: those may be held against the author of the object, and this says nothing about any object.
    """

    exit_code = 5


class StoreRefused(StoreUnavailable):
    """The store refuses a request and will refuse it again: who asks, or how much is stored, must change first."""


class CiphertextError(BaheflError):
    """A ciphertext or plaintext update is unfit for the scheme."""

    exit_code = 6


class MalformedCiphertext(CiphertextError):
    """Ciphertext bytes are not of the exact form of the agreed parameters."""


class UnprovenUpdate(MalformedCiphertext):
    """An update lacks a valid proof that its sender drew the randomness it should have: opening it could show the key."""


class UpdateError(CiphertextError):
    """A model update cannot be encrypted: not finite, of the wrong shape or of the wrong type."""


class KeysError(BaheflError):
    """Keys, shares, or their files are wrong, missing, or badly protected."""

    exit_code = 7


class CeremonyError(KeysError):
    """A member of the key ceremony sent something that contradicts its commitment or its peers."""


class ShareError(KeysError):
    """A decryption share is malformed, of another epoch, or not the one its sender published."""


class SpoiledSum(ShareError):
    """A sum opened to values that no sum of updates has: a share was wrong, or an included update was out of range.

    Attributes:
      positions: the first eight (block, coefficient) out of range, in order; blocks count from the first one opened.
    """

    def __init__(self, message: str, *, positions: tuple[tuple[int, int], ...]) -> None:
        super().__init__(message)
        self.positions = positions


class WrongShare(ShareError):
    """A key holder released a decryption share that its keys do not give, or that not everybody can open.

    Attributes:
      member: index of the site that released it.
    """

    def __init__(self, message: str, *, member: int) -> None:
        super().__init__(message)
        self.member = member


class WrongEpoch(KeysError):
    """Key material of one key epoch was used with another."""


class SealError(KeysError):
    """A sealed object is not addressed to this site or was altered."""


class ProtocolError(BaheflError):
    """A message or an action does not belong to the ledger's present state."""

    exit_code = 8


class WrongRound(ProtocolError):
    """A message names another run, contract or round than the ledger's open one."""


class TooFewUpdates(ProtocolError):
    """Fewer updates were accepted than may be added up.

    Attributes:
      verdict: what screening saw and decided, as JSON text for people; empty where updates are not screened.
    """

    def __init__(self, message: str, verdict: str = "") -> None:
        super().__init__(message)
        self.verdict = verdict


class UnusableUpdate(ProtocolError):
    """A committed update cannot be added.

    Attributes:
      member: index of the site that committed it. reason: an `ExclusionReason` value.
    """

    def __init__(self, message: str, *, member: int, reason: int) -> None:
        super().__init__(message)
        self.member = member
        self.reason = reason


class SketchesClosed(ProtocolError):
    """Nobody can judge yet: there is no seed for the sketches, or no quorum of key holders opened those of all sound updates."""


class JournalError(ProtocolError):
    """A site's journal is damaged beyond its torn tail, or contradicts the ledger."""


class TrainingError(BaheflError):
    """Local training failed or produced an unusable model."""

    exit_code = 9


class AuditFailed(BaheflError):
    """A numbered audit check does not hold."""

    exit_code = 10


class ExecutorError(BaheflError):
    """The executor could not start a task: its process that forks is gone, or the machine has no room for another process."""


class DoctorFailed(BaheflError):
    """`bahefl doctor` found something with which no run can work, or be safe."""

    exit_code = 12


class RunFailed(BaheflError):
    """A run ended without one finalised round, or its set-up never completed."""

    exit_code = 11


class AlreadyDriven(RunFailed):
    """Another process drives this run."""
