// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Bits} from "./Bits.sol";
import {Rounds} from "./Rounds.sol";
import {BallotStage, Epoch, Outcome, Round, RoundPhase} from "./Types.sol";
import "./Errors.sol";

/// @title Openings: from a verified aggregate to a model that a majority confirmed
/// @notice Key holders release shares for a quorum of exactly `threshold` of them (LedgerContributions). Once all shares of one quorum are there, the
/// sites open the aggregate with them and confirm which model they got. A majority for one model settles the round. A quorum
/// with a wrong share is struck (KeyEpochs.accuse), and the others form another.
abstract contract Openings is Rounds {
    using Bits for uint256;

    // ---- confirmation

    /// @notice A committed site opened the aggregate with the shares of `quorum`, and names the model after this round and which of
    /// the updates it takes up. Once a majority named the same, that is the model the next round starts from; or the aggregate is
    /// out of its range, and made again.
    /// @param digest SHA-256 of the model's canonical bytes; of the list of places out of range, with Outcome.SPOILED.
    function confirmOpening(uint256 round, uint256 quorum, bytes32 digest, uint8 outcome) external {
        Round storage r = _roundIn(round, RoundPhase.VERIFIED);
        _notAfter(r.deadline);
        if (r.openQuorum == 0) revert NotOpened(round);
        if (quorum != r.openQuorum) revert QuorumMismatch(quorum, r.openQuorum);
        if (digest == 0) revert ZeroDigest();
        _checkOutcome(r, digest, outcome);
        uint256 i = _committedIndex(r);
        if (r.confirmed.has(i)) revert AlreadyConfirmed(round, msg.sender);
        r.confirmed |= 1 << i;
        mapping(bytes32 => uint256) storage confirmations = _confirmations[_attemptKey(r)][quorum];
        bytes32 result = keccak256(abi.encode(digest, outcome));
        uint256 agreed = confirmations[result] | 1 << i;
        confirmations[result] = agreed;
        emit Confirmed(round, msg.sender, quorum, digest, outcome);
        if (r.opened != 0 || agreed.count() < _majority(r)) return;
        if (outcome == Outcome.SPOILED) _spoil(r, digest);
        else _settleOpening(r, digest, outcome);
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
        if (_ballotsOpen(r)) revert WrongStage(round, r.ballotStage, BallotStage.COUNTED);
        if (verified) _onlyAfter(r.deadline);
        else _checkRole(DEFAULT_ADMIN_ROLE);
        if (verified && r.openQuorum == 0) _replaceHolders();
        _abortRound(reason);
    }

    // ---- internals

    /// @dev An aggregate with one half is taken up whole or not at all; of one with two, the ballots decide.
    function _checkOutcome(Round storage r, bytes32 digest, uint8 outcome) private view {
        if (outcome == Outcome.SPOILED) return;
        if (outcome > (r.split == 0 ? Outcome.WHOLE : Outcome.NONE)) revert BadOutcome(outcome);
        if (r.split != 0 && r.ballotStage != BallotStage.COUNTED) revert WrongStage(r.number, r.ballotStage, BallotStage.COUNTED);
        if (outcome == Outcome.NONE && digest != r.base) revert DigestMismatch(digest, r.base);
    }

    function _settleOpening(Round storage r, bytes32 model, uint8 outcome) private {
        (r.opened, r.outcome) = (model, outcome);
        emit OpeningConfirmed(r.number, r.openQuorum, model, outcome);
        uint64 grace = _in(_config.openGrace);
        if (grace < r.deadline) r.deadline = grace;
    }

    /// @dev A majority found the same places of the opened sum out of range. The same coordinator makes another one, once screening
    /// has proved whose updates are to blame. The sites take the second decision as the first one without the convicted, all other
    /// weights and sides unchanged: so the difference of the two sums shows only the convicted sites' updates. Twice the same places
    /// would prove nobody.
    function _spoil(Round storage r, bytes32 positions) private {
        emit RoundSpoiled(r.number, r.attempt, positions);
        if (positions == r.spoiled) { _abortRound("the aggregate was out of range in the same places again"); return; }
        r.released = false;
        ++r.spoils;
        if (!_newAttempt(r)) return;
        _unopen(r);
        (r.spoiled, r.sketched) = (positions, false);
    }

    /// @dev What was opened counts no more, nor do the ballots on it.
    function _unopen(Round storage r) private {
        (r.openQuorum, r.confirmed, r.opened, r.outcome) = (0, 0, 0, 0);
        (r.ballotStage, r.cast, r.balloted) = (0, 0, 0);
    }

    /// @dev The quorum's shares count no more, nor does what was confirmed of them. Every strike disputes one more key holder,
    /// so there are at most as many as the committee has members.
    function _strikeQuorum(uint256 culprit, uint256 accuser) internal override {
        Round storage r = _rounds[_currentRound];
        Epoch storage e = _epochs[r.epoch];
        emit QuorumStruck(r.number, r.openQuorum, _members[culprit].account, _members[accuser].account);
        r.disputed |= 1 << culprit;
        _unopen(r);
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
            if (quorum & _suspects(r) != 0 || _releases(attempt, quorum) != quorum) continue;
            _openWith(r, quorum);
            return;
        }
    }
}
