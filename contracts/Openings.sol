// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Bits} from "./Bits.sol";
import {Rounds} from "./Rounds.sol";
import {Epoch, Round, RoundPhase} from "./Types.sol";
import "./Errors.sol";

/// @title Openings: from a verified aggregate to a model that a majority confirmed
/// @notice Key holders release shares for a quorum of exactly `threshold` of them. Once all shares of one quorum are there, the
/// sites open the aggregate with them and confirm which model they got. A majority for one model settles the round. A quorum
/// with a wrong share is struck (KeyEpochs.accuse), and the others form another.
abstract contract Openings is Rounds {
    using Bits for uint256;

    // ---- shares

    /// @notice A key holder names the stored object with its share of the decryption, computed for one quorum of exactly
    /// `threshold` committee members above suspicion. Holders that committed an update must have attested the aggregate in this
    /// attempt; the others (not selected, or declined) may only help once a majority has.
    /// @param aggregate what the share opens: a late one must not count for another attempt.
    function releaseShare(uint256 round, uint256 quorum, bytes32 digest, bytes32 aggregate) external {
        Round storage r = _roundNow(round);
        if (r.phase != RoundPhase.VERIFY && r.phase != RoundPhase.VERIFIED) revert WrongPhase(round, r.phase, RoundPhase.VERIFIED);
        if (r.phase == RoundPhase.VERIFY) _notAfter(r.deadline);    // once verified, a late share still saves the round
        uint256 i = _activeIndex(msg.sender);
        _checkQuorum(r, quorum, i);
        if (!r.votedOk.has(i) && (r.committed.has(i) || r.phase != RoundPhase.VERIFIED)) revert NotAttested(round, msg.sender);
        if (digest == 0) revert ZeroDigest();
        if (aggregate != r.aggregate) revert DigestMismatch(aggregate, r.aggregate);
        uint256 attempt = _attemptKey(r);
        uint256 releases = _releases(attempt, quorum);
        if (releases.has(i)) revert AlreadyReleased(round, msg.sender, quorum);
        if (releases == 0) _quorums[attempt].push(quorum);
        _shares[attempt][quorum][i] = digest;
        r.released = true;
        emit ShareReleased(round, msg.sender, quorum, digest);
        if (releases | 1 << i == quorum && r.openQuorum == 0) _openWith(r, quorum);
    }

    // ---- confirmation

    /// @notice A committed site opened the aggregate with the shares of `quorum`, and names the model after this round. Once a
    /// majority named the same, that is the model the next round starts from.
    /// @param digest SHA-256 of the model's canonical bytes.
    function confirmOpening(uint256 round, uint256 quorum, bytes32 digest) external {
        Round storage r = _roundIn(round, RoundPhase.VERIFIED);
        _notAfter(r.deadline);
        if (r.openQuorum == 0) revert NotOpened(round);
        if (quorum != r.openQuorum) revert QuorumMismatch(quorum, r.openQuorum);
        if (digest == 0) revert ZeroDigest();
        uint256 i = _activeIndex(msg.sender);
        if (!r.committed.has(i)) revert NotCommitted(round, msg.sender);
        if (r.confirmed.has(i)) revert AlreadyConfirmed(round, msg.sender);
        r.confirmed |= 1 << i;
        uint256 attempt = _attemptKey(r);
        uint256 agreed = _confirmations[attempt][quorum][digest] | 1 << i;
        _confirmations[attempt][quorum][digest] = agreed;
        emit Confirmed(round, msg.sender, quorum, digest);
        if (r.opened == 0 && agreed.count() >= _majority(r)) _settleOpening(r, digest);
    }

    /// @notice Anyone: settle a round whose model a majority confirmed, and open the next one or end the task. At once if every
    /// committed site has attested and confirmed, else after the deadline.
    function finalize(uint256 round) external {
        Round storage r = _roundIn(round, RoundPhase.VERIFIED);
        if (r.opened == 0) revert NotOpened(round);
        if ((r.votedOk | r.votedBad) & r.confirmed != r.committed) _onlyAfter(r.deadline);
        _settleScores(r);
        r.phase = RoundPhase.FINALIZED;
        _task().lastFinalized = uint32(round);
        ++_task().finalizedCount;
        emit RoundFinalized(round, r.aggregate);
        if (_task().finalizedCount == _task().rounds) _closeTask("");
        else _openRound();
    }

    /// @notice Give the round up: anyone, once it is verified and no model was confirmed in time; the administrator at any time
    /// before it is verified.
    function abandon(uint256 round, string calldata reason) external {
        Round storage r = _roundNow(round);
        _checkReason(reason);
        if (!_roundLive(r)) revert WrongPhase(round, r.phase, RoundPhase.VERIFIED);
        bool verified = r.phase == RoundPhase.VERIFIED;
        // What a majority opened must count (promise P1). Before, whoever read a quorum's shares must not choose to discard them.
        if (verified ? r.opened != 0 : r.openQuorum != 0) revert AlreadyOpened(round);
        if (verified) _onlyAfter(r.deadline);
        else _checkRole(DEFAULT_ADMIN_ROLE);
        if (verified && r.openQuorum == 0) _replaceHolders();
        _abortRound(reason);
    }

    // ---- internals

    function _checkQuorum(Round storage r, uint256 quorum, uint256 i) private view {
        Epoch storage e = _epochs[r.epoch];
        if (!e.committee.has(i)) revert NotInCommittee(e.number, msg.sender);
        bool fits = quorum & ~e.committee == 0 && quorum.count() == e.threshold && quorum.has(i);
        if (!fits || _suspected(r, quorum)) revert BadQuorum(quorum, e.committee, e.threshold);
    }

    /// @dev Whether a share of one of these was found wrong in this round, or one of them was excluded.
    function _suspected(Round storage r, uint256 quorum) private view returns (bool) {
        return quorum & (r.disputed | _task().excluded) != 0;
    }

    function _openWith(Round storage r, uint256 quorum) private {
        r.openQuorum = quorum;
        emit QuorumOpened(r.number, quorum);
        if (r.phase == RoundPhase.VERIFIED) r.deadline = _in(_config.verifyWindow);
    }

    function _settleOpening(Round storage r, bytes32 model) private {
        r.opened = model;
        emit OpeningConfirmed(r.number, r.openQuorum, model);
        uint64 grace = _in(_config.openGrace);
        if (grace < r.deadline) r.deadline = grace;
    }

    /// @dev The quorum's shares count no more, nor does what was confirmed of them. Every strike disputes one more key holder,
    /// so there are at most as many as the committee has members.
    function _strikeQuorum(uint256 culprit, uint256 accuser) internal override {
        Round storage r = _rounds[_currentRound];
        Epoch storage e = _epochs[r.epoch];
        emit QuorumStruck(r.number, r.openQuorum, _members[culprit].account, _members[accuser].account);
        r.disputed |= 1 << culprit;
        (r.openQuorum, r.confirmed, r.opened) = (0, 0, 0);
        r.deadline = _in(_config.verifyWindow);
        if ((e.committee & _eligible() & ~r.disputed).count() < e.threshold) {
            // Not the first time: with the same keys the slandered can accuse back, and exclude whoever struck them all.
            if (e.struckOut) _replaceHolders();
            e.struckOut = true;
            _abortRound("too few key holders above suspicion");
        } else {
            _openWithAnother(r);
        }
    }

    /// @dev If all shares of another quorum are there already, it takes the struck one's place.
    function _openWithAnother(Round storage r) private {
        uint256 attempt = _attemptKey(r);
        uint256[] storage quorums = _quorums[attempt];
        for (uint256 k; k < quorums.length; ++k) {
            uint256 quorum = quorums[k];
            if (_suspected(r, quorum) || _releases(attempt, quorum) != quorum) continue;
            _openWith(r, quorum);
            return;
        }
    }
}
