// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Bits} from "./Bits.sol";
import {Lottery} from "./Lottery.sol";
import {Quorums} from "./Quorums.sol";
import {Ballot, BallotStage, Round, RoundPhase} from "./Types.sol";
import "./Errors.sol";

/// @title LedgerContributions: what members add to an open round besides commits, votes and confirmations
/// @notice FederationLedger runs this code on its own storage (delegatecall), so send transactions there: at its own address this
/// contract knows no round. Layers, the seed of screening, key holders' parts of sketches and their shares, ballots. Nothing here
/// ends a round, a key epoch or a task, or changes a score: what does is in FederationLedger.
contract LedgerContributions is Lottery, Quorums {
    using Bits for uint256;

    uint8 private constant CHOICE_MAX = 2;           // 0 both halves are good, 1 rather the first, 2 rather the second
    uint8 private constant SEALED = 255;             // the choice of a ballot that was not shown yet

    // ---- AGGREGATE: screening (rounds that are not screened use none of it)

    /// @notice A committed site reveals its onion layer of this round before its vote. Once all active ones have, the seed is fixed.
    function reveal(uint256 round, bytes32 layer) external {
        Round storage r = _aggregating(round);
        uint256 i = _committedIndex(r);
        if (r.revealed.has(i)) revert AlreadyRevealed(round, msg.sender);
        _reveal(r, _members[i], layer);
        emit LayerRevealed(round, msg.sender, layer);
        if (r.screenSeed == 0 && r.committed & _activeMask & ~r.revealed == 0) _fixSeed(r);
    }

    /// @notice Anyone, once a majority has revealed: go on without the other layers.
    function drawSeed(uint256 round) external {
        Round storage r = _aggregating(round);
        if (r.screenSeed != 0) revert AlreadyDrawn(round);
        if (r.revealed.count() < _majority(r)) revert TooFewRevealed(r.revealed.count(), _majority(r));
        _fixSeed(r);
    }

    /// @notice A key holder names the stored object with its part of the openings of all sketches, computed for one quorum of exactly
    /// `threshold` committee members. It stays good when the coordinator is replaced; a spoiled aggregate asks another question.
    /// From the moment one quorum's parts are all there, the coordinator has a whole window to judge by them.
    function releaseSketch(uint256 round, uint256 quorum, bytes32 digest) external {
        Round storage r = _aggregating(round);
        if (r.screenSeed == 0) revert NoSeed(round);
        uint256 i = _activeIndex(msg.sender);
        _checkQuorum(r, quorum, i, _task().excluded);
        uint256 releases = _release(_sketchKey(r), quorum, i, digest);
        if (releases == quorum) {
            _restartWindow(r);
            r.sketched = true;
        }
        emit SketchReleased(round, msg.sender, quorum, digest);
    }

    // ---- VERIFY and VERIFIED: shares

    /// @notice A key holder names the stored object with its share of the decryption, computed for one quorum of exactly
    /// `threshold` committee members above suspicion. Holders that committed an update must have attested the aggregate in this
    /// attempt; the others (not selected, or declined) may only help once a majority has.
    /// @param aggregate what the share opens: a late one must not count for another attempt.
    function releaseShare(uint256 round, uint256 quorum, bytes32 digest, bytes32 aggregate) external {
        Round storage r = _roundNow(round);
        if (r.phase != RoundPhase.VERIFY && r.phase != RoundPhase.VERIFIED) revert WrongPhase(round, r.phase, RoundPhase.VERIFIED);
        if (r.phase == RoundPhase.VERIFY) _notAfter(r.deadline);    // once verified, a late share still saves the round
        uint256 i = _activeIndex(msg.sender);
        _checkQuorum(r, quorum, i, _suspects(r));
        if (!r.votedOk.has(i) && (r.committed.has(i) || r.phase != RoundPhase.VERIFIED)) revert NotAttested(round, msg.sender);
        if (aggregate != r.aggregate) revert DigestMismatch(aggregate, r.aggregate);
        uint256 releases = _release(_attemptKey(r), quorum, i, digest);
        r.released = true;
        emit ShareReleased(round, msg.sender, quorum, digest);
        if (releases == quorum && r.openQuorum == 0) _openWith(r, quorum);
    }

    // ---- VERIFIED: ballots on an aggregate with two halves

    /// @notice A committed site casts its ballot on the two halves, hidden until casting is over.
    /// @param commitment keccak256(abi.encode(round, the site's account, choice, salt)): nobody can copy another's.
    function castBallot(uint256 round, bytes32 commitment) external {
        Round storage r = _balloting(round, BallotStage.CAST);
        uint256 i = _committedIndex(r);
        if (commitment == 0) revert ZeroDigest();
        if (r.cast.has(i)) revert AlreadyCast(round, msg.sender);
        r.cast |= 1 << i;
        _ballots[round][i] = Ballot({member: uint8(i), choice: SEALED, commitment: commitment});
        emit BallotCast(round, msg.sender, commitment);
        if (r.committed & _activeMask & ~r.cast == 0) _nextStage(r);
    }

    /// @notice Casting is over: a site shows the ballot it cast.
    function revealBallot(uint256 round, uint8 choice, bytes32 salt) external {
        Round storage r = _balloting(round, BallotStage.REVEAL);
        uint256 i = _activeIndex(msg.sender);
        if (!r.cast.has(i)) revert NotCast(round, msg.sender);
        if (r.balloted.has(i)) revert AlreadyRevealed(round, msg.sender);
        Ballot storage ballot = _ballots[round][i];
        bool matches = keccak256(abi.encode(round, msg.sender, choice, salt)) == ballot.commitment;
        if (choice > CHOICE_MAX || !matches) revert BadBallot(round, msg.sender);
        r.balloted |= 1 << i;
        ballot.choice = choice;
        emit BallotRevealed(round, msg.sender, choice);
        if (r.cast & _activeMask & ~r.balloted == 0) _nextStage(r);
    }

    /// @notice Anyone, after the deadline of either stage: go on without the ballots that are missing. (A stage ends by itself once all
    /// active sites that may act in it have acted.)
    function closeBallots(uint256 round) external {
        Round storage r = _roundIn(round, RoundPhase.VERIFIED);
        if (!_ballotsOpen(r)) revert WrongStage(round, r.ballotStage, BallotStage.CAST);
        _onlyAfter(r.deadline);
        _nextStage(r);
    }

    // ---- internals

    function _aggregating(uint256 round) private view returns (Round storage r) {
        r = _roundIn(round, RoundPhase.AGGREGATE);
        _notAfter(r.deadline);
    }

    function _balloting(uint256 round, uint8 stage) private view returns (Round storage r) {
        r = _roundIn(round, RoundPhase.VERIFIED);
        if (r.ballotStage != stage) revert WrongStage(round, r.ballotStage, stage);
        _notAfter(r.deadline);
    }

    /// @dev Every ciphertext was fixed before the first of these layers was public, and nobody foresees another's layer.
    function _fixSeed(Round storage r) private {
        bytes32[] memory digests = new bytes32[](r.committed.count());
        uint256 k;
        for (uint256 x = r.committed; x != 0; x &= x - 1) digests[k++] = _updates[r.number][x.lowest()].digest;
        r.screenSeed = keccak256(abi.encode(r.number, r.entropy, digests));
        emit SeedDrawn(r.number, r.revealed, r.screenSeed);
        _restartWindow(r);
    }

    /// @dev Who has to act next has a whole window: key holders from the seed on, the coordinator from the first quorum's parts on.
    /// Once to each question, so the last to act can hold a round up by one window, as it could by silence.
    function _restartWindow(Round storage r) private {
        if (_unsketched(r)) r.deadline = _in(_config.aggregateWindow);
    }

    /// @dev Where nobody cast a ballot there is nothing to show.
    function _nextStage(Round storage r) private {
        r.ballotStage = r.ballotStage == BallotStage.CAST && r.cast != 0 ? BallotStage.REVEAL : BallotStage.COUNTED;
        r.deadline = _in(_config.verifyWindow);
        emit BallotStageBegun(r.number, r.ballotStage);
    }
}
