// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Bits} from "./Bits.sol";
import {Election} from "./Election.sol";
import {Membership} from "./Membership.sol";
import {Member, Round, RoundPhase} from "./Types.sol";

/// @title Who coordinates, and how conduct changes the odds
/// @notice Scores are moving averages in 0..65535 that set the number of lottery tickets. Only conduct the ledger can see
/// counts: commits, votes, layers, coordination, and exclusions a majority of sites attested.
abstract contract Succession is Membership {
    using Bits for uint256;

    /// @dev Lose 1/2: silent or out-voted as coordinator, or voted against the outcome of a (deterministic) verification.
    uint256 private constant FAULT = 2;
    /// @dev Lose 1/4: the committed update was missing, corrupt or malformed.
    uint256 private constant EXCLUDED = 4;
    /// @dev Lose 1/8: committed, but never attested; or gave up the office of coordinator.
    uint256 private constant SILENT = 8;
    uint256 internal constant RESIGNED = 8;
    /// @dev Lose 1/16: selected, but neither committed nor declined.
    uint256 private constant ABSENT = 16;
    /// @dev Gain 1/8 of what is missing to the maximum: included, and attested.
    uint256 private constant SERVED = 8;

    // ---- lottery

    /// @dev A layer became public: let its owner's tickets compete for the next round.
    function _enterLottery(Round storage r, Member storage m, bytes32 layer) internal {
        uint256 cooldown = _config.cooldownRounds;
        if (cooldown != 0 && (m.index == r.coordinator || _cooling(m, r.number + 1))) return;
        if (m.saltRound >= r.number) return;                                // the salt is not fixed yet
        bytes32 salt = _rounds[m.saltRound].entropy;
        if (salt == 0) { m.saltRound = r.number; return; }                  // nobody revealed in that round: salt again
        uint256 ticket = Election.lowestTicket(layer, salt, r.number, Election.tickets(m.score));
        r.ranking = Election.insert(r.ranking, ticket, m.index);
    }

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

    /// @dev Whether the member sits out `round` because it coordinated one of the `cooldown` rounds before.
    function _cooling(Member storage m, uint256 round) private view returns (bool) {
        return m.lastCoordinated != 0 && m.lastCoordinated + _config.cooldownRounds >= round;
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
    /// (DESIGN rule 4).
    function _newAttempt(Round storage r) private returns (bool) {
        if (r.released) { _abortRound("aggregate failed after shares of it were released"); return false; }
        if (r.attempt + 1 >= _config.maxAttempts) { _abortRound("no coordinator produced a verified aggregate"); return false; }
        ++r.attempt;
        (r.votedOk, r.votedBad, r.included, r.aggregate, r.aggregateSize) = (0, 0, 0, 0, 0);
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
        for (uint256 x = r.selected & ~r.declined; x != 0; x &= x - 1) _settleScore(r, x.lowest());
        Member storage coordinator = _members[r.coordinator];
        ++coordinator.coordinated;
        coordinator.lastCoordinated = r.number;
    }

    function _settleScore(Round storage r, uint256 i) private {
        Member storage m = _members[i];
        if (!r.committed.has(i)) { ++m.missed; _lose(m, ABSENT); return; }
        if (!r.included.has(i)) { ++m.rejected; _lose(m, EXCLUDED); return; }
        ++m.included;
        if (!r.revealed.has(i)) _lose(m, SILENT);
        else m.score += uint16((Election.SCORE_MAX - m.score) / SERVED);
    }

    /// @dev Ends the open round with a reason and opens the next one.
    function _abortRound(string memory reason) internal virtual;
}
