// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Bits} from "./Bits.sol";
import {LedgerState} from "./LedgerState.sol";
import {BallotStage, Epoch, Round, RoundPhase} from "./Types.sol";
import "./Errors.sol";

/// @title Quorums of key holders: what they have released, and what they open with it
/// @notice An object is computed for one quorum of exactly `threshold` holders, and serves no other.
abstract contract Quorums is LedgerState {
    using Bits for uint256;

    /// @dev Whether `quorum` is one of the round's committee, `i` among it and none of it `barred`.
    function _checkQuorum(Round storage r, uint256 quorum, uint256 i, uint256 barred) internal view {
        Epoch storage e = _epochs[r.epoch];
        if (!e.committee.has(i)) revert NotInCommittee(e.number, msg.sender);
        bool fits = quorum & (~e.committee | barred) == 0 && quorum.count() == e.threshold && quorum.has(i);
        if (!fits) revert BadQuorum(quorum, e.committee, e.threshold);
    }

    /// @dev Puts a key holder's object on record, once for each quorum. Returns who of the quorum is there by now.
    function _release(uint256 key, uint256 quorum, uint256 i, bytes32 digest) internal returns (uint256 releases) {
        if (digest == 0) revert ZeroDigest();
        releases = _releases(key, quorum);
        if (releases.has(i)) revert AlreadyReleased(_currentRound, msg.sender, quorum);
        if (releases == 0) _quorums[key].push(quorum);
        _shares[key][quorum][i] = digest;
        releases |= 1 << i;
    }

    /// @dev Members a share of whom was found wrong in this round, or that were excluded.
    function _suspects(Round storage r) internal view returns (uint256) {
        return r.disputed | _task().excluded;
    }

    function _openWith(Round storage r, uint256 quorum) internal {
        r.openQuorum = quorum;
        emit QuorumOpened(r.number, quorum);
        if (r.phase != RoundPhase.VERIFIED) return;
        r.deadline = _in(_config.verifyWindow);
        _startBallots(r);
    }

    /// @dev A verified aggregate can be opened: if it has two halves, let the sites vote on them.
    function _startBallots(Round storage r) internal {
        if (r.split == 0) return;
        r.ballotStage = BallotStage.CAST;
        emit BallotStageBegun(r.number, BallotStage.CAST);
    }
}
