// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Bits} from "./Bits.sol";
import {
    Accusation, Ballot, BallotStage, Ceremony, Config, Epoch, EpochPhase, Member, MemberStatus, Round, RoundPhase, Task, Update
} from "./Types.sol";
import "./Errors.sol";

/// @title All storage and events of the ledger, and the questions every part asks of them
/// @notice The parts above (Membership, Succession, KeyEpochs, Rounds, Openings) change this state, LedgerReadings answers questions
/// about it, LedgerContributions changes a part of it; nothing here changes it.
/// @dev LedgerReadings and LedgerContributions work on the ledger's storage, so all of it is declared here, and this contract comes first.
abstract contract LedgerState {
    uint256 internal constant MAX_MEMBERS = 255;
    uint256 internal constant MAX_REASON_BYTES = 200;

    Config internal _config;
    mapping(address who => uint32 maxWeight) internal _allowance;   // 0 = not whitelisted
    uint256 internal _currentRound;                  // numbers of rounds and epochs go on from task to task
    uint256 internal _currentEpoch;
    uint256 internal _currentTask;
    uint256 internal _activeMask;
    mapping(uint256 task => Task) internal _tasks;
    Member[] internal _members;
    mapping(address who => uint256) internal _slot;              // index + 1, 0 = not registered
    mapping(uint256 epoch => Epoch) internal _epochs;
    mapping(uint256 epoch => mapping(uint256 index => Ceremony)) internal _ceremonies;
    mapping(uint256 epoch => mapping(uint256 culprit => uint256)) internal _accusers;
    mapping(uint256 epoch => Accusation[]) internal _accusations;
    mapping(uint256 round => Round) internal _rounds;
    mapping(uint256 round => mapping(uint256 index => Update)) internal _updates;
    // by _attemptKey, since shares of one aggregate never serve another, and by _sketchKey
    mapping(uint256 attempt => uint256[]) internal _quorums;     // those that shares were released for, in this order
    mapping(uint256 attempt => mapping(uint256 quorum => mapping(uint256 index => bytes32))) internal _shares;
    mapping(uint256 attempt => mapping(uint256 quorum => mapping(bytes32 result => uint256))) internal _confirmations;
    mapping(uint256 round => mapping(uint256 index => Ballot)) internal _ballots;    // of those in Round.cast

    event ConfigChanged();
    event Whitelisted(address indexed member, address indexed by, uint32 maxWeight);
    event Registered(address indexed member, uint256 indexed index, bytes32 sealingKey, bytes32 onionAnchor);
    event Suspended(address indexed member, address indexed by, string reason);
    event Reinstated(address indexed member, address indexed by);
    event OnionRotated(address indexed member, bytes32 onionAnchor);
    event TaskStarted(uint256 indexed task, bytes32 indexed runDigest);
    event TaskEnded(uint256 indexed task);
    event EpochOpened(uint256 indexed epoch, uint256 committee);
    event CeremonyStep(uint256 indexed epoch, address indexed member, uint8 indexed phase, bytes32 digest);
    event Accused(uint256 indexed epoch, address indexed culprit, address indexed accuser, bytes32 evidence, string reason);
    event RenewalRequested(uint256 indexed epoch);
    event EpochActive(uint256 indexed epoch, bytes32 keyDigest);
    event EpochFailed(uint256 indexed epoch, uint256 culprits, string reason);
    event RoundOpened(uint256 indexed round, address indexed coordinator, uint256 selected);
    event SitesSelected(uint256 indexed round, uint256 selected);
    event UpdateCommitted(uint256 indexed round, address indexed member, bytes32 digest);
    event Declined(uint256 indexed round, address indexed member, string reason);
    event CommitsClosed(uint256 indexed round, uint256 committed);
    event LayerRevealed(uint256 indexed round, address indexed member, bytes32 layer);
    event SeedDrawn(uint256 indexed round, uint256 revealed, bytes32 seed);
    event SketchReleased(uint256 indexed round, address indexed member, uint256 quorum, bytes32 digest);
    event AggregateSubmitted(
        uint256 indexed round, address indexed coordinator, uint8 attempt, bytes32 digest, uint256 included, uint256 split
    );
    event Attested(uint256 indexed round, address indexed member, uint8 attempt, bool ok, bytes32 layer);
    event AggregateVerified(uint256 indexed round, bytes32 digest);
    event AggregateRejected(uint256 indexed round, address indexed coordinator, uint8 attempt, bytes32 digest);
    event WrongVotes(uint256 indexed round, uint8 attempt, uint256 members);
    event Resigned(uint256 indexed round, address indexed coordinator, string reason);
    event CoordinatorReplaced(uint256 indexed round, address indexed former, address indexed next, uint8 attempt);
    event ShareReleased(uint256 indexed round, address indexed member, uint256 quorum, bytes32 digest);
    event QuorumOpened(uint256 indexed round, uint256 quorum);
    event QuorumStruck(uint256 indexed round, uint256 quorum, address indexed culprit, address indexed accuser);
    event BallotStageBegun(uint256 indexed round, uint8 stage);
    event BallotCast(uint256 indexed round, address indexed member, bytes32 commitment);
    event BallotRevealed(uint256 indexed round, address indexed member, uint8 choice);
    event Confirmed(uint256 indexed round, address indexed member, uint256 quorum, bytes32 model, uint8 outcome);
    event OpeningConfirmed(uint256 indexed round, uint256 quorum, bytes32 model, uint8 outcome);
    event RoundSpoiled(uint256 indexed round, uint8 attempt, bytes32 positions);
    event RoundFinalized(uint256 indexed round, bytes32 aggregate);
    event RoundAborted(uint256 indexed round);

    // ---- questions

    function _task() internal view returns (Task storage) {
        return _tasks[_currentTask];
    }

    function _indexOf(address who) internal view returns (uint256) {
        uint256 slot = _slot[who];
        if (slot == 0) revert NotMember(who);
        return slot - 1;
    }

    function _activeIndex(address who) internal view returns (uint256 i) {
        i = _indexOf(who);
        if (_members[i].status != MemberStatus.ACTIVE) revert NotMember(who);
    }

    /// @dev The sender's index, if it is active and has committed an update to the round.
    function _committedIndex(Round storage r) internal view returns (uint256 i) {
        i = _activeIndex(msg.sender);
        if (!Bits.has(r.committed, i)) revert NotCommitted(r.number, msg.sender);
    }

    function _roundIn(uint256 round, uint8 expected) internal view returns (Round storage r) {
        r = _roundNow(round);
        if (r.phase != expected) revert WrongPhase(round, r.phase, expected);
    }

    function _roundNow(uint256 round) internal view returns (Round storage) {
        if (round == 0 || round != _currentRound) revert NotCurrentRound(round, _currentRound);
        return _rounds[round];
    }

    function _attemptKey(Round storage r) internal view returns (uint256) {
        return uint256(r.number) << 8 | r.attempt;
    }

    /// @dev Sketches are asked for anew with every spoiled aggregate, and belong to the round else.
    function _sketchKey(Round storage r) internal view returns (uint256) {
        return 1 << 255 | uint256(r.number) << 8 | r.spoils;
    }

    /// @dev How many of the sites that committed settle a question: more than half of them.
    function _majority(Round storage r) internal view returns (uint256) {
        return (Bits.count(r.committed) * _config.quorumBps + 9999) / 10000;
    }

    /// @dev Whether the updates cannot be judged yet: layers and parts of the sketches are the others' to show, not the coordinator's.
    function _unsketched(Round storage r) internal view returns (bool) {
        return _task().screened && !r.sketched;
    }

    /// @dev Whether sites vote on the two halves right now. Then the round's deadline only ends this stage.
    function _ballotsOpen(Round storage r) internal view returns (bool) {
        return r.ballotStage == BallotStage.CAST || r.ballotStage == BallotStage.REVEAL;
    }

    /// @dev The members of a quorum whose shares for it are released.
    function _releases(uint256 attempt, uint256 quorum) internal view returns (uint256 released) {
        for (uint256 x = quorum; x != 0; x &= x - 1) {
            uint256 i = Bits.lowest(x);
            if (_shares[attempt][quorum][i] != 0) released |= 1 << i;
        }
    }

    function _roundLive(Round storage r) internal view returns (bool) {
        return r.phase >= RoundPhase.COMMIT && r.phase <= RoundPhase.VERIFIED;
    }

    function _ceremonyLive(Epoch storage e) internal view returns (bool) {
        return e.phase >= EpochPhase.COMMIT && e.phase <= EpochPhase.DISPUTE;
    }

    /// @dev Members that may sit in a new committee.
    function _eligible() internal view returns (uint256) {
        return _activeMask & ~_task().excluded;
    }

    function _notAfter(uint256 deadline) internal view {
        if (block.timestamp > deadline) revert DeadlinePassed(deadline);
    }

    function _onlyAfter(uint256 deadline) internal view {
        if (block.timestamp <= deadline) revert DeadlineNotReached(deadline);
    }

    function _in(uint256 window) internal view returns (uint64) {
        return uint64(block.timestamp + window);
    }

    function _checkReason(string calldata reason) internal pure {
        uint256 length = bytes(reason).length;
        if (length == 0 || length > MAX_REASON_BYTES) revert BadReason(length);
    }
}
