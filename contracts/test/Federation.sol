// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Bits} from "../Bits.sol";
import {FederationLedger} from "../FederationLedger.sol";
import {LedgerContributions} from "../LedgerContributions.sol";
import {LedgerReadings} from "../LedgerReadings.sol";
import {BallotStage, Config, EpochPhase, Epoch, Member, MemberStatus, Outcome, Round, RoundPhase, Share, Snapshot} from "../Types.sol";
import {vm} from "./Vm.sol";

/// @title A federation of accounts on the real ledger
/// @notice Knows what an honest participant does next; this contract is administrator and registrar. Digests are made up.
abstract contract Federation {
    using Bits for uint256;

    uint256 public constant SITES_MAX = 8;
    uint256 internal constant WINDOW = 100;
    uint256 private constant LAYERS = 512;
    address internal constant OUTSIDER = address(0xdead);
    bytes32 internal constant KEY = "key";
    bytes32 internal constant MODEL = "model after the round";
    bytes32 internal constant SALT = "salt";

    FederationLedger public immutable ledger;
    LedgerReadings public immutable readings;             // the same address
    LedgerContributions public immutable contributions;   // likewise
    address[] public sites;
    uint256[SITES_MAX] private _revealed;

    constructor(uint256 founders) {
        ledger = new FederationLedger(address(this), _config(3, 5, 0, 3, 2));
        readings = LedgerReadings(address(ledger));
        contributions = LedgerContributions(address(ledger));
        for (uint256 i; i < founders; ++i) _join();
    }

    // ---- what honest participants do

    /// @dev The next transaction of a federation in which nobody is at fault; time passes only where nothing else can happen.
    function _goOn(uint256 seed) internal {
        Snapshot memory s = readings.snapshot();
        if (!s.task.open) return _startTask(seed);
        bool ceremony = _ceremonyLive(s.epoch);
        if (_now() > (ceremony ? s.epoch.deadline : s.round.deadline)) return _enforce(s);
        if (ceremony) _goOnCeremony(s);
        else _goOnRound(s);
    }

    function _goOnCeremony(Snapshot memory s) private {
        if (s.epoch.phase == EpochPhase.DISPUTE) return _pass(s.epoch.deadline);
        uint256 waiting = s.epoch.committee & ~s.epoch.acted[s.epoch.phase - EpochPhase.COMMIT];
        _act(waiting.lowest(), s.epoch, KEY);
    }

    function _goOnRound(Snapshot memory s) private {
        Round memory r = s.round;
        if (r.phase == RoundPhase.COMMIT) {
            uint256 waiting = r.selected & ~(r.committed | r.declined) & s.active;
            if (waiting == 0) _pass(r.deadline);
            else _commit(waiting.lowest(), r, keccak256(abi.encode("update", r.number, waiting.lowest())));
        } else if (r.phase == RoundPhase.AGGREGATE) {
            _goOnAggregating(s);
        } else if (r.committed & ~(r.votedOk | r.votedBad) & s.active != 0) {
            _attest((r.committed & ~(r.votedOk | r.votedBad) & s.active).lowest(), r, true);
        } else if (r.openQuorum == 0) {
            _goOnOpening(s);
        } else if (r.ballotStage == BallotStage.CAST || r.ballotStage == BallotStage.REVEAL) {
            _goOnBallots(s);
        } else if (r.committed & ~r.confirmed & s.active != 0 && r.phase == RoundPhase.VERIFIED) {
            _goOnConfirming((r.committed & ~r.confirmed & s.active).lowest(), r);
        } else if (r.opened != 0 && r.votedOk | r.votedBad == r.committed && r.confirmed & r.committed == r.committed) {
            _try(OUTSIDER, abi.encodeCall(ledger.finalize, (r.number)));
        } else {
            _pass(r.deadline);
        }
    }

    /// @dev Of rounds that need not be screened two in three are; what is large enough has two halves.
    function _goOnAggregating(Snapshot memory s) private {
        Round memory r = s.round;
        uint256 waiting = r.committed & ~r.revealed & s.active;
        bool screened = s.task.screened || r.number % 3 != 0;
        if (screened && r.screenSeed == 0 && waiting != 0) _reveal(waiting.lowest(), r);
        else if (screened && r.screenSeed == 0) _pass(r.deadline);          // too few are left that could reveal
        else if (screened && !r.sketched) _goOnSketching(s);
        else _aggregate(sites[r.coordinator], r, r.committed, r.number % 3 == 1 ? _half(r.committed) : 0);
    }

    /// @dev The upper half of six members or more.
    function _half(uint256 committed) private pure returns (uint256) {
        if (committed.count() < 6) return 0;
        for (uint256 k; k < 3; ++k) committed &= committed - 1;
        return committed;
    }

    function _goOnSketching(Snapshot memory s) private {
        uint256 able = s.epoch.committee & s.active & ~s.task.excluded;
        uint256 quorum;
        for (uint256 x = able; quorum.count() < s.epoch.threshold && x != 0; x &= x - 1) quorum |= 1 << x.lowest();
        uint256 waiting = quorum;
        Share[] memory parts = readings.getSketches(s.round.number);
        for (uint256 k; k < parts.length; ++k) if (parts[k].quorum == quorum) waiting &= ~(1 << parts[k].member);
        if (waiting == 0 || quorum.count() < s.epoch.threshold) _pass(s.round.deadline);
        else _sketch(waiting.lowest(), s.round, quorum);
    }

    function _goOnBallots(Snapshot memory s) private {
        Round memory r = s.round;
        bool casting = r.ballotStage == BallotStage.CAST;
        uint256 waiting = s.active & (casting ? r.committed & ~r.cast : r.cast & ~r.balloted);
        if (waiting == 0) _pass(r.deadline);
        else if (casting) _cast(waiting.lowest(), r, 1);
        else _show(waiting.lowest(), r, 1);
    }

    /// @dev What a sum turns out to be depends on its digest: one in eight is out of its range.
    function _goOnConfirming(uint256 i, Round memory r) private {
        uint256 chance = uint256(keccak256(abi.encode(r.aggregate)));
        if (chance % 8 == 0) _confirm(i, r, bytes32(chance), Outcome.SPOILED);
        else if (r.split == 0) _confirm(i, r, MODEL, Outcome.WHOLE);
        else _confirm(i, r, MODEL, uint8(chance / 8 % 4));
    }

    function _goOnOpening(Snapshot memory s) private {
        Round memory r = s.round;
        uint256 able = s.epoch.committee & s.active & ~r.disputed & ~s.task.excluded & ~(r.committed & ~r.votedOk);
        if (r.phase != RoundPhase.VERIFIED || able.count() < s.epoch.threshold) return _pass(r.deadline);
        uint256 quorum;
        for (uint256 x = able; quorum.count() < s.epoch.threshold; x &= x - 1) quorum |= 1 << x.lowest();
        uint256 waiting = quorum;
        Share[] memory shares = readings.getShares(r.number);
        for (uint256 k; k < shares.length; ++k) if (shares[k].quorum == quorum) waiting &= ~(1 << shares[k].member);
        if (waiting == 0) _pass(r.deadline);        // complete, but struck
        else _release(waiting.lowest(), r, quorum);
    }

    /// @dev What a deadline that has passed allows anybody to do.
    function _enforce(Snapshot memory s) internal {
        _try(OUTSIDER, _due(s));
    }

    /// @dev The call by which anybody ends the present phase once its deadline has passed.
    function _due(Snapshot memory s) internal view returns (bytes memory) {
        uint256 round = s.round.number;
        if (_ceremonyLive(s.epoch)) return abi.encodeCall(ledger.expireEpoch, (s.epoch.number));
        if (s.round.phase == RoundPhase.COMMIT) return abi.encodeCall(ledger.closeCommits, (round));
        if (s.round.phase != RoundPhase.VERIFIED) return abi.encodeCall(ledger.replaceCoordinator, (round));
        if (s.round.ballotStage == BallotStage.CAST || s.round.ballotStage == BallotStage.REVEAL) {
            return abi.encodeCall(contributions.closeBallots, (round));
        }
        if (s.round.opened != 0) return abi.encodeCall(ledger.finalize, (round));
        return abi.encodeCall(ledger.abandon, (round, "nobody opened it"));
    }

    // ---- single transactions

    /// @dev Everybody back in, settings of all kinds, and a task of one to four rounds.
    function _startTask(uint256 seed) internal {
        for (uint256 i; i < sites.length; ++i) {
            if (readings.getMembers()[i].status == MemberStatus.SUSPENDED) _try(address(this), abi.encodeCall(ledger.reinstate, (sites[i])));
        }
        Config memory c = _config(2 + seed % 3, 2 + seed / 3 % 6, seed / 18 % 3, 1 + seed / 54 % 3, seed / 162 % 4);
        _try(address(this), abi.encodeCall(ledger.setConfig, (c)));
        uint8 threshold = uint8(seed / 648 % 5);
        uint32 rounds = uint32(1 + seed / 3240 % 4);
        _try(address(this), abi.encodeCall(ledger.startTask, ("run", "first model", "params", threshold, rounds, seed / 12960 % 4 != 0)));
    }

    function _join() internal {
        uint256 i = sites.length;
        sites.push(address(uint160(0x1000 + i)));
        address[] memory who = new address[](1);
        uint32[] memory caps = new uint32[](1);
        (who[0], caps[0]) = (sites[i], uint32(100 + i));
        _try(address(this), abi.encodeCall(ledger.whitelist, (who, caps)));
        _try(sites[i], abi.encodeCall(ledger.register, (bytes32(i + 1), _layer(i, 0))));
    }

    function _act(uint256 i, Epoch memory e, bytes32 key) internal {
        bytes32 digest = e.phase == EpochPhase.CONFIRM ? key : keccak256(abi.encode(e.number, e.phase, i));
        _try(sites[i], abi.encodeCall(ledger.act, (e.number, e.phase, digest)));
    }

    function _commit(uint256 i, Round memory r, bytes32 digest) internal returns (bool) {
        return _try(sites[i], abi.encodeCall(ledger.commitUpdate, (r.number, digest, 1, 1 + uint32(i), r.base)));
    }

    function _aggregate(address sender, Round memory r, uint256 included, uint256 split) internal returns (bool) {
        bytes memory verdicts = _filled(r.committed.count(), uint8(1 + r.number % 8));
        bytes32 digest = keccak256(abi.encode("sum", r.number, r.attempt, included, split));
        return _try(sender, abi.encodeCall(ledger.submitAggregate, (r.number, digest, 1, included, split, verdicts)));
    }

    function _reveal(uint256 i, Round memory r) internal returns (bool done) {
        done = _try(sites[i], abi.encodeCall(contributions.reveal, (r.number, _layer(i, _revealed[i] + 1))));
        if (done) ++_revealed[i];
    }

    function _sketch(uint256 i, Round memory r, uint256 quorum) internal {
        bytes32 digest = keccak256(abi.encode("sketch", i, quorum));
        _try(sites[i], abi.encodeCall(contributions.releaseSketch, (r.number, quorum, digest)));
    }

    function _cast(uint256 i, Round memory r, uint8 choice) internal returns (bool) {
        bytes32 commitment = keccak256(abi.encode(r.number, sites[i], choice, SALT));
        return _try(sites[i], abi.encodeCall(contributions.castBallot, (r.number, commitment)));
    }

    function _show(uint256 i, Round memory r, uint8 choice) internal returns (bool) {
        return _try(sites[i], abi.encodeCall(contributions.revealBallot, (r.number, choice, SALT)));
    }

    function _attest(uint256 i, Round memory r, bool ok) internal {
        bytes32 layer = r.revealed.has(i) ? bytes32(0) : _layer(i, _revealed[i] + 1);
        bool done = _try(sites[i], abi.encodeCall(ledger.attest, (r.number, r.aggregate, ok, layer)));
        if (done && layer != 0) ++_revealed[i];
    }

    function _release(uint256 i, Round memory r, uint256 quorum) internal {
        bytes32 digest = keccak256(abi.encode("share", i, quorum));
        _try(sites[i], abi.encodeCall(contributions.releaseShare, (r.number, quorum, digest, r.aggregate)));
    }

    function _confirm(uint256 i, Round memory r, bytes32 model, uint8 outcome) internal {
        bytes32 digest = outcome == Outcome.NONE ? r.base : keccak256(abi.encode(model, r.number));
        _try(sites[i], abi.encodeCall(ledger.confirmOpening, (r.number, r.openQuorum, digest, outcome)));
    }

    /// @dev Send a transaction; whether it took effect.
    function _try(address sender, bytes memory data) internal virtual returns (bool);

    // ---- small things

    function _pass(uint256 deadline) internal {
        if (_now() <= deadline) vm.warp(deadline + 1);
    }

    function _now() internal view returns (uint256) {
        return vm.getBlockTimestamp();
    }

    function _ceremonyLive(Epoch memory e) internal pure returns (bool) {
        return e.phase >= EpochPhase.COMMIT && e.phase <= EpochPhase.DISPUTE;
    }

    function _config(uint256 minCommits, uint256 seats, uint256 cooldown, uint256 attempts, uint256 epochRounds)
        internal pure returns (Config memory)
    {
        uint256[3] memory limits = [uint256(5001), attempts, cooldown];
        uint256[5] memory windows = [WINDOW, WINDOW, WINDOW, WINDOW / 2, WINDOW];
        return abi.decode(abi.encode(windows, minCommits, limits, seats, epochRounds), (Config));     // in the struct's order
    }

    /// @dev Member i's onion after k layers have come off.
    function _layer(uint256 i, uint256 k) private pure returns (bytes32 layer) {
        layer = keccak256(abi.encode("onion", i));
        for (; k < LAYERS; ++k) layer = keccak256(abi.encode(layer));
    }

    function _filled(uint256 length, uint8 value) private pure returns (bytes memory data) {
        data = new bytes(length);
        for (uint256 k; k < length; ++k) data[k] = bytes1(value);
    }
}
