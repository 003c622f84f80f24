// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Bits} from "./Bits.sol";
import {Election} from "./Election.sol";
import {Lottery} from "./Lottery.sol";
import {Membership} from "./Membership.sol";
import {Member, Outcome, Round, RoundPhase} from "./Types.sol";

/// @title Who coordinates, and how conduct changes the odds
/// @notice Scores are moving averages in 0..65535 that set the number of lottery tickets. Only conduct the ledger can see
/// counts: commits, votes, coordination, and exclusions for a fault that everybody can prove. What screening finds costs nothing.
abstract contract Succession is Membership, Lottery {
    using Bits for uint256;

    /// @dev Lose 1/2: silent or out-voted as coordinator, or voted against the outcome of a (deterministic) verification.
    uint256 private constant FAULT = 2;
    /// @dev Lose 1/4: the committed update was missing, corrupt, malformed, or proved to lie outside the agreed range.
    uint256 private constant EXCLUDED = 4;
    /// @dev The reasons (records.ExclusionReason) that everybody can prove: missing, corrupt, malformed; and garbage.
    uint8 private constant PROVED_MAX = 3;
    uint8 private constant PROVED_GARBAGE = 10;
    /// @dev Lose 1/8: part of the model, but no vote on its aggregate; or gave up the office of coordinator.
    uint256 private constant SILENT = 8;
    uint256 internal constant RESIGNED = 8;
    /// @dev Lose 1/16: selected, but neither committed nor declined.
    uint256 private constant ABSENT = 16;
    /// @dev Gain 1/8 of what is missing to the maximum: part of the model, and voted.
    uint256 private constant SERVED = 8;

    // ---- lottery

    /// @dev The coordinator a new round starts with; `last` is the round before it (empty before the first).
    function _firstCoordinator(Round storage last, bytes32 beacon) internal view returns (uint8) {
        uint256 pool = _activeMask.prefer(~last.failed);
        uint256 ranked = Election.firstRanked(last.ranking, pool);
        if (ranked != Election.NOBODY) return uint8(ranked);
        return _draw(_rested(pool.prefer(last.revealed)), beacon);
    }

    /// @dev History-weighted draw from a pool that is not empty.
    function _draw(uint256 pool, bytes32 seed) internal view returns (uint8) {
        uint256[] memory weights = new uint256[](MAX_MEMBERS);
        for (uint256 x = pool; x != 0; x &= x - 1) {
            uint256 i = x.lowest();
            weights[i] = Election.tickets(_members[i].score);
        }
        return uint8(Election.draw(weights, pool, seed));
    }

    /// @dev `pool` without those that coordinated recently, unless nobody would be left.
    function _rested(uint256 pool) private view returns (uint256 rested) {
        for (uint256 x = pool; x != 0; x &= x - 1) {
            uint256 i = x.lowest();
            if (!_cooling(_members[i], _currentRound)) rested |= 1 << i;
        }
        return pool.prefer(rested);
    }

    // ---- fail-over

    /// @dev The coordinator failed or gave up: the next candidate takes over. Once commits have closed, its successor starts
    /// a new attempt at the aggregate.
    function _replaceCoordinator(Round storage r) internal {
        r.failed |= 1 << r.coordinator;
        if (r.phase == RoundPhase.COMMIT) _handOver(r, r.selected & ~r.declined);
        else if (_newAttempt(r) && !_handOver(r, r.committed)) _abortRound("no site is left that could coordinate");
    }

    /// @dev Elects a coordinator among the fit members of `pool`; false if there is none.
    function _handOver(Round storage r, uint256 pool) internal returns (bool) {
        pool &= _activeMask & ~r.failed;
        if (pool == 0) return false;
        uint8 former = r.coordinator;
        uint256 ranked = Election.firstRanked(_rounds[r.number - 1].ranking, pool);
        if (ranked != Election.NOBODY) r.coordinator = uint8(ranked);
        else r.coordinator = _draw(_rested(pool), keccak256(abi.encode(r.beacon, r.failed)));
        emit CoordinatorReplaced(r.number, _members[former].account, _members[r.coordinator].account, r.attempt);
        return true;
    }

    /// @dev Returns false, with the round aborted, if there can be no further attempt. An attempt that honest holders may
    /// have released shares of must be the last: a second aggregate of the same updates would give away their difference
    /// (protocol rule 4).
    function _newAttempt(Round storage r) internal returns (bool) {
        if (r.released) { _abortRound("aggregate failed after shares of it were released"); return false; }
        // A spoiled sum uses up none: it convicts somebody, so there are no more of them than hostile sites.
        if (r.attempt + 1 >= _config.maxAttempts + r.spoils) {
            _abortRound("no coordinator produced a verified aggregate");
            return false;
        }
        ++r.attempt;
        (r.votedOk, r.votedBad, r.included, r.split, r.aggregate, r.aggregateSize) = (0, 0, 0, 0, 0, 0);
        delete r.verdicts;
        r.phase = RoundPhase.AGGREGATE;
        r.deadline = _in(_config.aggregateWindow);
        return true;
    }

    // ---- scores

    function _coordinatorFault(Round storage r) internal {
        Member storage m = _members[r.coordinator];
        ++m.coordinatorFaults;
        _lose(m, FAULT);
    }

    function _lose(Member storage m, uint256 part) internal {
        m.score -= uint16(m.score / part);
    }

    /// @dev Adding residues is deterministic, so a vote against the settled outcome is a fault of the voter.
    function _punishVotes(Round storage r, uint256 voters) internal {
        if (voters == 0) return;
        for (uint256 x = voters; x != 0; x &= x - 1) _lose(_members[x.lowest()], FAULT);
        emit WrongVotes(r.number, r.attempt, voters);
    }

    function _settleScores(Round storage r) internal {
        _punishVotes(r, r.votedBad);
        for (uint256 x = r.selected & ~(r.declined | r.committed); x != 0; x &= x - 1) _settleAbsent(_members[x.lowest()]);
        for (uint256 x = _takenUp(r); x != 0; x &= x - 1) _settleServed(r, _members[x.lowest()]);
        bytes memory verdicts = r.verdicts;
        uint256 k = r.included.count();
        for (uint256 x = r.committed & ~r.included; x != 0; x &= x - 1) _settleLeftOut(_members[x.lowest()], uint8(verdicts[k++]));
        Member storage coordinator = _members[r.coordinator];
        ++coordinator.coordinated;
        coordinator.lastCoordinated = r.number;
    }

    /// @dev Whose updates the new model takes up.
    function _takenUp(Round storage r) private view returns (uint256) {
        if (r.outcome == Outcome.WHOLE) return r.included;
        if (r.outcome == Outcome.FIRST) return r.included & ~r.split;
        return r.outcome == Outcome.SECOND ? r.split : 0;
    }

    function _settleAbsent(Member storage m) private {
        ++m.missed;
        _lose(m, ABSENT);
    }

    function _settleServed(Round storage r, Member storage m) private {
        ++m.included;
        if (!(r.votedOk | r.votedBad).has(m.index)) _lose(m, SILENT);
        else m.score += uint16((Election.SCORE_MAX - m.score) / SERVED);
    }

    function _settleLeftOut(Member storage m, uint8 reason) private {
        ++m.rejected;
        if (reason <= PROVED_MAX || reason == PROVED_GARBAGE) _lose(m, EXCLUDED);
    }

    /// @dev Ends the open round with a reason and opens the next one.
    function _abortRound(string memory reason) internal virtual;
}
