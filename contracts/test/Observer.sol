// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Bits} from "../Bits.sol";
import {Accusation, Ballot, BallotStage, Epoch, EpochPhase, Member, Outcome, Round, RoundPhase, Snapshot, Update} from "../Types.sol";
import {Federation} from "./Federation.sol";
import {vm} from "./Vm.sol";

/// @title What must be true of every transaction
/// @notice After each that took effect, `_observe` compares the ledger with what it was: a violation reverts, and fails the run.
abstract contract Observer is Federation {
    using Bits for uint256;

    // What was reached, so that a test can tell that these claims are not empty.
    uint256 public finalized;
    uint256 public aborted;
    uint256 public disputes;
    uint256 public struck;
    uint256 public activated;
    uint256 public excluded;
    uint256 public renewals;
    uint256 public drawn;
    uint256 public halves;
    uint256 public counted;
    uint256 public spoiled;
    uint256 public kept;

    uint8 private constant NONE = 0;
    mapping(uint256 round => mapping(uint256 member => bytes32)) private _digestOf;
    mapping(uint256 round => mapping(uint256 spoils => bytes32)) private _verified;
    mapping(uint256 round => bytes32) private _seed;
    mapping(uint256 round => Round) private _was;                 // as it was after the last transaction
    mapping(uint256 round => mapping(uint256 member => Ballot)) private _ballot;
    mapping(uint256 member => uint16) private _score;
    mapping(uint256 round => uint8) private _phaseOf;
    mapping(uint256 round => bytes32) private _record;            // hash of a round that is over
    mapping(uint256 epoch => bool) private _disputed;
    mapping(uint256 epoch => uint8) private _epochPhaseOf;
    mapping(uint256 task => uint256) private _excludedOf;
    uint256 private _lastQuorum;

    function _try(address sender, bytes memory data) internal override returns (bool ok) {
        bytes memory answer;
        vm.prank(sender);
        (ok, answer) = address(ledger).call(data);
        if (ok) _observe();
        else require(_isNamed(answer), "a refusal without a name: panic, lack of gas, or a wrong call");
    }

    /// @dev A custom error: not empty (lack of gas, no such function), not Panic, not a bare string.
    function _isNamed(bytes memory answer) private pure returns (bool) {
        if (answer.length < 4) return false;
        bytes4 name = bytes4(answer);
        return name != 0x4e487b71 && name != 0x08c379a0;
    }

    function _observe() private {
        Snapshot memory s = readings.snapshot();
        if (s.round.number != 0) _observeRound(s.round, s.epoch);
        if (s.round.number > 1) _observeRecord(s.round.number - 1);
        if (s.epoch.number != 0) _observeEpoch(s);
        if (s.epoch.number > 1) _observeEpochOver(readings.getEpoch(s.epoch.number - 1));
        require(_excludedOf[s.task.number] & ~s.task.excluded == 0, "an exclusion was taken back");
        Member[] memory members = readings.getMembers();
        for (uint256 i; i < members.length; ++i) _score[i] = members[i].score;
        if (s.task.excluded != _excludedOf[s.task.number]) ++excluded;
        _excludedOf[s.task.number] = s.task.excluded;
    }

    function _observeRound(Round memory r, Epoch memory e) private {
        Update[] memory updates = readings.getUpdates(r.number);
        for (uint256 k; k < updates.length; ++k) {
            bytes32 known = _digestOf[r.number][updates[k].member];
            require(known == 0 || known == updates[k].digest, "a commitment changed");
            _digestOf[r.number][updates[k].member] = updates[k].digest;
        }
        uint8 was = _phaseOf[r.number];
        Round memory before = _was[r.number];
        if (r.spoils != before.spoils) _observeSpoiled(before, r);
        else require(was != RoundPhase.VERIFIED || r.phase >= RoundPhase.VERIFIED, "a verified round went back");
        _observeSeed(r);
        _observeBallots(before, r);
        _was[r.number] = r;
        if (r.phase == RoundPhase.VERIFIED || r.phase == RoundPhase.FINALIZED) {
            _onlyOneVerified(r);
            require(r.epoch != e.number || e.phase == EpochPhase.ACTIVE, "a round without a key");
        }
        if (_lastQuorum != 0 && r.openQuorum == 0 && r.phase == RoundPhase.VERIFIED) ++struck;
        _lastQuorum = r.openQuorum;
        _phaseOf[r.number] = r.phase;
        if (was != r.phase) _count(r.phase);
        if (r.phase >= RoundPhase.FINALIZED) _observeRecord(r.number);
    }

    /// @dev A round that is over stays as it is.
    function _observeRecord(uint256 number) private {
        Round memory r = readings.getRound(number);
        require(r.phase >= RoundPhase.FINALIZED, "an earlier round is still open");
        if (r.phase == RoundPhase.FINALIZED) _onlyOneVerified(r);
        if (_phaseOf[number] != r.phase) _count(r.phase);
        if (_phaseOf[number] != r.phase && r.phase == RoundPhase.FINALIZED && r.split != 0) ++halves;
        if (_phaseOf[number] != r.phase && r.outcome == Outcome.NONE) ++kept;
        _phaseOf[number] = r.phase;
        bytes32 record = keccak256(abi.encode(r, readings.getUpdates(number), readings.getShares(number)));
        require(_record[number] == 0 || _record[number] == record, "a round that was over changed");
        _record[number] = record;
    }

    function _count(uint8 phase) private {
        if (phase == RoundPhase.FINALIZED) ++finalized;
        if (phase == RoundPhase.ABORTED) ++aborted;
    }

    /// @dev protocol rule 4: one aggregate of a round is opened, and another only after a majority found it out of its range.
    function _onlyOneVerified(Round memory r) private {
        bytes32 known = _verified[r.number][r.spoils];
        require(known == 0 || known == r.aggregate, "two verified aggregates in one round");
        _verified[r.number][r.spoils] = r.aggregate;
    }

    /// @dev Nobody knows the seed while a ciphertext may still be chosen, and it is never drawn again.
    function _observeSeed(Round memory r) private {
        require(r.screenSeed == 0 || r.phase != RoundPhase.COMMIT, "a seed before commits closed");
        require(_seed[r.number] == 0 || _seed[r.number] == r.screenSeed, "a seed changed");
        require(r.screenSeed == 0 || r.revealed != 0, "a seed without a layer");
        if (r.screenSeed != 0 && _seed[r.number] == 0) ++drawn;
        _seed[r.number] = r.screenSeed;
    }

    /// @dev The same coordinator, nobody's fault, and nothing left of what was opened.
    function _observeSpoiled(Round memory before, Round memory r) private {
        require(r.spoils == before.spoils + 1 && r.attempt == before.attempt + 1, "spoiled twice at once");
        require(r.phase == RoundPhase.AGGREGATE && before.phase == RoundPhase.VERIFIED, "spoiled without having been opened");
        require(r.coordinator == before.coordinator && r.failed == before.failed, "a spoiled round changed its coordinator");
        require(r.openQuorum | r.confirmed | r.votedOk | r.votedBad | r.included | r.split | r.cast | r.balloted == 0, "left over");
        require(r.aggregate == 0 && r.opened == 0 && r.outcome == 0 && r.ballotStage == 0 && !r.released, "left over");
        require(r.spoiled != 0 && r.spoiled != before.spoiled, "spoiled again in the same places");
        require(readings.getShares(r.number).length == 0 && readings.getSketches(r.number).length == 0, "shares left over");
        require(r.revealed == before.revealed && r.committed == before.committed, "what was committed changed");
        _sameScores();
        ++spoiled;
    }

    function _sameScores() private view {
        Member[] memory members = readings.getMembers();
        for (uint256 i; i < members.length; ++i) require(_score[i] == members[i].score, "a spoiled aggregate cost score");
    }

    /// @dev A ballot stays as it was cast, nobody sees its choice before casting is over, and only what was cast is shown.
    function _observeBallots(Round memory before, Round memory r) private {
        require(r.balloted & ~r.cast == 0 && r.cast & ~r.committed == 0, "a ballot of nobody's");
        require(r.ballotStage == 0 || r.split != 0, "ballots on one sum");
        require(r.ballotStage != BallotStage.CAST || r.balloted == 0, "a ballot was shown before casting was over");
        bool anew = r.ballotStage < before.ballotStage || r.openQuorum != before.openQuorum;
        require(anew || (before.cast & ~r.cast == 0 && before.balloted & ~r.balloted == 0), "a ballot was taken back");
        if (before.ballotStage != r.ballotStage && r.ballotStage == BallotStage.COUNTED) ++counted;
        Ballot[] memory ballots = readings.getBallots(r.number);
        for (uint256 k; k < ballots.length; ++k) _observeBallot(before, r, ballots[k], anew);
    }

    function _observeBallot(Round memory before, Round memory r, Ballot memory ballot, bool anew) private {
        require(r.balloted.has(ballot.member) ? ballot.choice < 3 : ballot.choice == 255, "a choice that can be read too early");
        Ballot memory known = _ballot[r.number][ballot.member];
        bool fresh = anew || !before.cast.has(ballot.member);
        require(fresh || known.commitment == ballot.commitment, "a ballot changed");
        require(fresh || !before.balloted.has(ballot.member) || known.choice == ballot.choice, "a choice changed");
        _ballot[r.number][ballot.member] = ballot;
    }

    function _observeEpoch(Snapshot memory s) private {
        Epoch memory e = s.epoch;
        if (_epochPhaseOf[e.number] == NONE) {
            require(e.committee & ~s.active == 0 && e.committee & s.task.excluded == 0, "a new committee with members that may not act");
            require(e.committee & ~e.pool == 0, "a committee beyond its pool");
            if (e.finalizedBefore != 0) ++renewals;
        }
        _observeEpochOver(e);
    }

    function _observeEpochOver(Epoch memory e) private {
        uint8 was = _epochPhaseOf[e.number];
        if (!_disputed[e.number] && (e.phase == EpochPhase.DISPUTE || _hasEvidence(e.number))) {
            require(was == EpochPhase.PUBLISH || was == EpochPhase.CONFIRM, "evidence before there was anything to judge");
            ++disputes;
            _disputed[e.number] = true;
        }
        require(!_disputed[e.number] || e.phase != EpochPhase.ACTIVE, "a disputed epoch became active");
        require(was != EpochPhase.FAILED || e.phase == EpochPhase.FAILED, "a failed epoch came back");
        require(was != EpochPhase.ACTIVE || e.phase >= EpochPhase.ACTIVE, "a ceremony ran twice");
        if (was != e.phase && e.phase == EpochPhase.ACTIVE) ++activated;
        _epochPhaseOf[e.number] = e.phase;
    }

    function _hasEvidence(uint256 epoch) private view returns (bool) {
        Accusation[] memory accusations = readings.getAccusations(epoch);
        for (uint256 k; k < accusations.length; ++k) if (accusations[k].round == 0 && accusations[k].evidence != 0) return true;
        return false;
    }
}
