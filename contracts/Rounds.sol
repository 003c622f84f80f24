// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Bits} from "./Bits.sol";
import {KeyEpochs} from "./KeyEpochs.sol";
import {Quorums} from "./Quorums.sol";
import {Epoch, Member, MemberStatus, Round, RoundPhase, Update} from "./Types.sol";
import "./Errors.sol";

/// @title Rounds: commit, aggregate, verify
/// @notice COMMIT -> AGGREGATE -> VERIFY -> VERIFIED -> FINALIZED, or ABORTED with a reason from any of them. While a task is
/// open there is exactly one live round or one live key ceremony, and every phase has a deadline after which anyone may act.
/// What happens from VERIFIED on is in Openings.
abstract contract Rounds is KeyEpochs, Quorums {
    using Bits for uint256;

    uint8 private constant COEFFICIENT_MAX = 8;
    uint256 private constant HALF_MIN = 3;           // fewest updates in one half of an aggregate, whatever minCommits says

    // ---- COMMIT

    /// @notice Narrow the open round to some of the active members, before anybody has answered.
    /// @dev weightTotal stays what it was when the round opened: a site may already have packed its update with it.
    function selectSites(uint256 round, uint256 mask) external onlyRole(DEFAULT_ADMIN_ROLE) {
        Round storage r = _roundIn(round, RoundPhase.COMMIT);
        if (r.committed | r.declined != 0) revert SelectionFixed(round);
        if (mask & ~(r.selected & _activeMask) != 0 || mask.count() < _config.minCommits) revert BadSelection(mask, r.selected & _activeMask);
        r.selected = mask;
        emit SitesSelected(round, mask);
        if (!mask.has(r.coordinator)) _handOver(r, mask);
    }

    /// @notice Commit to an encrypted update before anybody can read it. `weight` is the site's own, up to its cap; `base`
    /// the digest of the model it started from, which has to be the model everybody starts from.
    /// @dev The digest covers run, round and site, so one that was copied or replayed fits no update (protocol rule 3).
    function commitUpdate(uint256 round, bytes32 digest, uint64 size, uint32 weight, bytes32 base) external {
        (Round storage r, uint256 i) = _answer(round);
        if (digest == 0) revert ZeroDigest();
        if (base != r.base) revert DigestMismatch(base, r.base);
        uint32 maxWeight = _members[i].maxWeight;
        if (weight == 0 || weight > maxWeight) revert BadWeight(weight, maxWeight);
        r.committed |= 1 << i;
        _updates[round][i] = Update({member: uint8(i), size: size, weight: weight, digest: digest});
        emit UpdateCommitted(round, msg.sender, digest);
        _closeIfAnswered(r);
    }

    /// @notice A selected site says that it cannot take part in this round, so that nobody waits for it. Costs no score.
    function decline(uint256 round, string calldata reason) external {
        (Round storage r, uint256 i) = _answer(round);
        _checkReason(reason);
        r.declined |= 1 << i;
        emit Declined(round, msg.sender, reason);
        _closeIfAnswered(r);
    }

    /// @notice Anyone, after the deadline. (Commits close by themselves once every selected site has answered.)
    function closeCommits(uint256 round) external {
        Round storage r = _roundIn(round, RoundPhase.COMMIT);
        _onlyAfter(r.deadline);
        _closeCommits(r);
    }

    // ---- AGGREGATE

    /// @notice The coordinator names the aggregate and whose updates are in it. Where screening found two camps the aggregate is two
    /// sums: that of `split`, and that of the other included. Each must hide its updates, so the halves have a least size.
    /// @param verdicts the integer weight of each included update (one byte, 1..8, in ascending order), then why each other
    /// committed one is not included (one nonzero byte, likewise).
    function submitAggregate(
        uint256 round, bytes32 digest, uint64 size, uint256 included, uint256 split, bytes calldata verdicts
    ) external {
        Round storage r = _roundIn(round, RoundPhase.AGGREGATE);
        _onlyCoordinator(r);
        _notAfter(r.deadline);
        if (_unsketched(r)) revert NotSketched(round);
        if (digest == 0) revert ZeroDigest();
        if (included & ~r.committed != 0 || included.count() < _config.minCommits) revert BadInclusion(included, r.committed);
        if (split != 0 && !_hides(included, split)) revert BadSplit(split, included);
        _checkVerdicts(verdicts, included.count(), r.committed.count());
        (r.phase, r.aggregate, r.aggregateSize, r.included) = (RoundPhase.VERIFY, digest, size, included);
        (r.split, r.verdicts) = (split, verdicts);
        r.deadline = _in(_config.verifyWindow);
        emit AggregateSubmitted(round, msg.sender, r.attempt, digest, included, split);
    }

    /// @notice The coordinator gives up its office for this round; cheaper for it than silence once it could have acted.
    /// @dev Not for nothing before, when silence is: else whoever is elected could use up the round's attempts at once.
    function resign(uint256 round, string calldata reason) external {
        Round storage r = _roundNow(round);
        if (r.phase != RoundPhase.COMMIT && r.phase != RoundPhase.AGGREGATE) revert WrongPhase(round, r.phase, RoundPhase.AGGREGATE);
        _onlyCoordinator(r);
        _checkReason(reason);
        if (r.failed.has(r.coordinator)) revert NotCoordinator(round, msg.sender, address(0));
        _lose(_members[r.coordinator], RESIGNED);
        emit Resigned(round, msg.sender, reason);
        _replaceCoordinator(r);
    }

    /// @notice Anyone, after the deadline of AGGREGATE, or of VERIFY without a majority.
    function replaceCoordinator(uint256 round) external {
        Round storage r = _roundNow(round);
        if (r.phase != RoundPhase.AGGREGATE && r.phase != RoundPhase.VERIFY) revert WrongPhase(round, r.phase, RoundPhase.AGGREGATE);
        _onlyAfter(r.deadline);
        // Until the others have shown what is needed, it is not the coordinator that was late.
        bool waited = _unsketched(r);
        if (!waited) _coordinatorFault(r);
        if (r.screenSeed != 0 && (waited || _lateAgain(r))) _replaceHolders();
        _replaceCoordinator(r);
    }

    // ---- VERIFY

    /// @notice A committed site says whether it recomputed the aggregate to this digest, and reveals its next onion layer
    /// if it has not yet (checked and used once per round, whatever the attempt).
    function attest(uint256 round, bytes32 digest, bool ok, bytes32 reveal) external {
        Round storage r = _roundNow(round);
        if (r.phase != RoundPhase.VERIFY && r.phase != RoundPhase.VERIFIED) revert WrongPhase(round, r.phase, RoundPhase.VERIFY);
        _notAfter(r.deadline);
        if (digest != r.aggregate) revert DigestMismatch(digest, r.aggregate);
        uint256 i = _committedIndex(r);
        if ((r.votedOk | r.votedBad).has(i)) revert AlreadyAttested(round, msg.sender);
        if (ok) r.votedOk |= 1 << i;
        else r.votedBad |= 1 << i;
        if (!r.revealed.has(i)) _reveal(r, _members[i], reveal);
        emit Attested(round, msg.sender, r.attempt, ok, reveal);
        if (r.phase == RoundPhase.VERIFY) _settleVerification(r);
    }

    // ---- internals: COMMIT

    /// @dev The checks commitUpdate and decline share.
    function _answer(uint256 round) private view returns (Round storage r, uint256 i) {
        r = _roundIn(round, RoundPhase.COMMIT);
        i = _activeIndex(msg.sender);
        if (!r.selected.has(i)) revert NotSelected(round, msg.sender);
        if (r.committed.has(i)) revert AlreadyCommitted(round, msg.sender);
        if (r.declined.has(i)) revert AlreadyDeclined(round, msg.sender);
        _notAfter(r.deadline);
    }

    function _closeIfAnswered(Round storage r) private {
        if (r.committed | r.declined == r.selected) _closeCommits(r);
    }

    function _closeCommits(Round storage r) private {
        uint256 commits = r.committed.count();
        if (commits < _config.minCommits) {
            _abortRound(string.concat("too few updates (", _decimal(commits), " of ", _decimal(_config.minCommits), ")"));
            return;
        }
        if (!(r.committed & ~r.failed).has(r.coordinator) && !_replaceAbsent(r)) {
            _abortRound("no site is left that could coordinate");
            return;
        }
        r.phase = RoundPhase.AGGREGATE;
        r.deadline = _in(_config.aggregateWindow);
        emit CommitsClosed(r.number, r.committed);
    }

    /// @dev The coordinator must be a site that committed and has not given up. One that stayed silent is at fault; one that
    /// declined, resigned or was suspended is not.
    function _replaceAbsent(Round storage r) private returns (bool) {
        if (!(r.declined | r.failed).has(r.coordinator)) _coordinatorFault(r);
        r.failed |= 1 << r.coordinator;
        return _handOver(r, r.committed);
    }

    // ---- internals: VERIFY

    /// @dev Half of the sites prevent a majority, but prove nothing: where shares are out, an honest holder may have released them,
    /// and the votes are counted to the end. Only if a majority found the aggregate wrong, so did an honest site: then no honest
    /// holder released a share of it, and a new attempt gives nothing away.
    function _settleVerification(Round storage r) private {
        uint256 needed = _majority(r);
        uint256 spare = r.committed.count() - needed;
        uint256 ok = r.votedOk.count();
        uint256 bad = r.votedBad.count();
        if (ok >= needed) {
            r.phase = RoundPhase.VERIFIED;
            r.deadline = _in(_config.verifyWindow);
            emit AggregateVerified(r.number, r.aggregate);
            if (r.openQuorum != 0) _startBallots(r);
        } else if (bad >= needed || (bad > spare && (ok > spare || !r.released))) {
            emit AggregateRejected(r.number, _members[r.coordinator].account, r.attempt, r.aggregate);
            _punishVotes(r, r.votedOk);
            if (bad >= needed && r.openQuorum == 0) r.released = false;
            _coordinatorFault(r);
            _replaceCoordinator(r);
        }
    }

    // ---- internals: opening and ending rounds

    function _openRound() internal override {
        if (_activeMask.count() < _config.minCommits) {
            _closeTask("too few active members for a round");
            return;
        }
        Epoch storage e = _epochs[_currentEpoch];
        if (_renewalDue(e)) {
            _openEpoch();
            return;
        }
        Round storage last = _rounds[_currentRound];
        Round storage r = _rounds[++_currentRound];
        r.number = uint32(_currentRound);
        r.phase = RoundPhase.COMMIT;
        r.epoch = uint32(e.number);
        (r.openedAt, r.deadline) = (uint64(block.timestamp), _in(_config.commitWindow));
        r.selected = _activeMask;
        r.weightTotal = _totalWeight(_activeMask);
        r.parentRound = _task().lastFinalized;
        r.base = r.parentRound == 0 ? _task().initialModel : _rounds[r.parentRound].opened;
        r.beacon = keccak256(abi.encode(last.beacon, last.entropy, e.keyDigest, _currentRound));
        r.coordinator = _firstCoordinator(last, r.beacon);
        emit RoundOpened(_currentRound, _members[r.coordinator].account, r.selected);
    }

    function _totalWeight(uint256 mask) private view returns (uint64 total) {
        for (uint256 x = mask; x != 0; x &= x - 1) total += _members[x.lowest()].maxWeight;
    }

    function _abortRound(string memory reason) internal override {
        _stopRound(reason);
        _openRound();
    }

    function _stopRound(string memory reason) internal override {
        Round storage r = _rounds[_currentRound];
        if (!_roundLive(r)) return;
        r.phase = RoundPhase.ABORTED;
        r.abortReason = reason;
        emit RoundAborted(r.number);
    }

    /// @dev A suspended member is not waited for, and does not coordinate.
    function _roundLost(uint256 index) internal override {
        Round storage r = _rounds[_currentRound];
        if (!_roundLive(r) || r.phase == RoundPhase.VERIFIED) return;
        if (r.coordinator == index && !r.failed.has(index)) {
            if (r.phase != RoundPhase.COMMIT && !_unsketched(r)) _coordinatorFault(r);
            _replaceCoordinator(r);
        }
        if (r.phase == RoundPhase.COMMIT && (r.selected & ~r.committed & ~r.declined).has(index)) {
            r.selected &= ~(1 << index);
            _closeIfAnswered(r);
        }
    }

    /// @dev Whether in a screened round a second coordinator was late. What a key holder names may stand for nothing, which the ledger
    /// cannot see and no coordinator can judge by.
    function _lateAgain(Round storage r) private view returns (bool) {
        return _task().screened && r.phase == RoundPhase.AGGREGATE && r.attempt > r.spoils;
    }

    function _onlyCoordinator(Round storage r) private view {
        Member storage m = _members[r.coordinator];
        if (m.account != msg.sender || m.status != MemberStatus.ACTIVE) revert NotCoordinator(r.number, msg.sender, m.account);
    }

    /// @dev Whether both halves of `included` are large enough to hide a single update.
    function _hides(uint256 included, uint256 split) private view returns (bool) {
        uint256 least = _config.minCommits > HALF_MIN ? _config.minCommits : HALF_MIN;
        return split & ~included == 0 && split.count() >= least && (included & ~split).count() >= least;
    }

    function _checkVerdicts(bytes calldata verdicts, uint256 weights, uint256 length) private pure {
        if (verdicts.length != length) revert BadLength(verdicts.length, length);
        for (uint256 k; k < length; ++k) {
            uint8 verdict = uint8(verdicts[k]);
            uint8 highest = k < weights ? COEFFICIENT_MAX : type(uint8).max;
            if (verdict == 0 || verdict > highest) revert BadWeight(verdict, highest);
        }
    }

    /// @dev Decimal text of 0..255.
    function _decimal(uint256 value) private pure returns (string memory) {
        bytes memory digits = bytes(value > 99 ? "000" : value > 9 ? "00" : "0");
        for (uint256 k = digits.length; k != 0; value /= 10) digits[--k] = bytes1(uint8(48 + value % 10));
        return string(digits);
    }
}
