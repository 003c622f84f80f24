// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Bits} from "../Bits.sol";
import {BallotStage, Epoch, Outcome, Round, Snapshot} from "../Types.sol";
import {Federation} from "./Federation.sol";
import {Observer} from "./Observer.sol";
import {vm} from "./Vm.sol";

/// @title Random participants
/// @notice Each public function is one kind of behaviour, honest or not; the fuzzer calls them in any order with any seeds. What must
/// be true of everything they achieve is in Observer.
contract Handler is Observer {
    using Bits for uint256;

    constructor() Federation(7) {}

    /// @notice The call by which anybody ends the present phase once its deadline has passed.
    function due() external view returns (bytes memory) {
        return _due(readings.snapshot());
    }

    // ---- behaviours

    function goOn(uint256 seed) external { _goOn(seed); }

    function goFar(uint256 seed) external {
        for (uint256 k; k < 5 + seed % 16; ++k) _goOn(seed >> 8);
    }

    function letTimePass(uint256 seed) external {
        vm.warp(_now() + seed % (WINDOW * 3 / 2));
        vm.roll(vm.getBlockNumber() + 1);
    }

    function commit(uint256 seed, bytes32 digest) external {
        Round memory r = readings.snapshot().round;
        if (seed & 1 == 0) r.base = digest;
        _commit(_site(seed >> 8), r, digest);
    }

    /// @notice A second commitment must never take effect, whatever it says.
    function commitTwice(uint256 seed, bytes32 digest) external {
        Round memory r = readings.snapshot().round;
        uint256 i = _site(seed);
        bool before = r.committed.has(i);
        bool once = _commit(i, r, keccak256(abi.encode(digest, 1)));
        bool twice = _commit(i, r, keccak256(abi.encode(digest, 2)));
        require(!(before && once) && !(once && twice), "two commitments of one member in one round");
    }

    function decline(uint256 seed) external {
        _try(sites[_site(seed)], abi.encodeCall(ledger.decline, (readings.snapshot().round.number, "no data")));
    }

    function aggregate(uint256 seed, uint256 included) external {
        Round memory r = readings.snapshot().round;
        _aggregate(sites[seed & 1 == 0 ? _site(seed >> 8) : r.coordinator], r, included & r.committed, seed & 2 == 0 ? 0 : seed >> 128);
    }

    /// @notice No half may be too small to hide a single update.
    function splitBadly(uint256 split) external {
        Round memory r = readings.snapshot().round;
        uint256 least = readings.config().minCommits > 3 ? readings.config().minCommits : 3;
        split &= r.committed;
        bool hides = split.count() >= least && (r.committed & ~split).count() >= least;
        require(!_aggregate(sites[r.coordinator], r, r.committed, split) || split == 0 || hides, "a half that is too small");
    }

    function reveal(uint256 seed) external {
        _reveal(_site(seed), readings.snapshot().round);
    }

    function draw(uint256) external {
        _try(OUTSIDER, abi.encodeCall(contributions.drawSeed, (readings.snapshot().round.number)));
    }

    function sketch(uint256 seed, uint256 quorum) external {
        Snapshot memory s = readings.snapshot();
        _sketch(_site(seed), s.round, seed & 0x100 == 0 ? quorum : quorum & s.epoch.committee);
    }

    /// @notice Whatever was cast first is what can be shown, once.
    function vote(uint256 seed) external {
        Round memory r = readings.snapshot().round;
        uint256 i = _site(seed);
        if (r.ballotStage == BallotStage.CAST) {
            bool first = _cast(i, r, uint8(seed >> 8) % 4);
            require(!(_cast(i, readings.snapshot().round, 1) && first), "two ballots of one member");
        }
        bool shown;
        for (uint8 choice; choice < 4; ++choice) {
            bool done = _show(i, r, choice);
            require(!(done && (shown || choice == 3)), "a ballot that was shown twice, or for nothing there is");
            shown = shown || done;
        }
    }

    /// @notice A majority says that the opened sum is out of its range.
    function spoil(uint256 seed) external {
        Round memory r = readings.snapshot().round;
        for (uint256 x = r.committed & ~r.confirmed; x != 0; x &= x - 1) _confirm(x.lowest(), r, bytes32(seed & 3), Outcome.SPOILED);
    }

    function attest(uint256 seed) external {
        Round memory r = readings.snapshot().round;
        if (seed & 7 == 0) r.aggregate = bytes32(seed);
        _attest(_site(seed >> 8), r, seed & 0x80 == 0);
    }

    /// @notice A majority finds the sum wrong.
    function reject(uint256) external {
        Round memory r = readings.snapshot().round;
        for (uint256 x = r.committed & ~(r.votedOk | r.votedBad); x != 0; x &= x - 1) _attest(x.lowest(), readings.snapshot().round, false);
    }

    function release(uint256 seed, uint256 quorum) external {
        Snapshot memory s = readings.snapshot();
        _release(_site(seed), s.round, seed & 0x100 == 0 ? quorum : quorum & s.epoch.committee);
    }

    function confirm(uint256 seed) external {
        _confirm(_site(seed), readings.snapshot().round, seed & 0x300 == 0 ? bytes32("another model") : MODEL, uint8(seed >> 16) % 6);
    }

    function accuse(uint256 seed) external {
        Snapshot memory s = readings.snapshot();
        _accuse(_site(seed), s.epoch.number, _site(seed >> 8), seed & 0x30000 == 0 ? bytes32(seed) : bytes32(0));
    }

    /// @notice A committee member proves, or pretends to, that another cheated it in the ceremony.
    function dispute(uint256 seed) external {
        Epoch memory e = readings.snapshot().epoch;
        if (e.number != 0) _accuse(_nth(e.committee, seed), e.number, _nth(e.committee, seed >> 8), bytes32(seed | 1));
    }

    /// @notice A majority accuses the same member.
    function accuseTogether(uint256 seed) external {
        Epoch memory e = readings.snapshot().epoch;
        if (e.number == 0) return;
        uint256 culprit = _nth(e.committee, seed);
        for (uint256 x = e.committee & ~(1 << culprit); x != 0; x &= x - 1) _accuse(x.lowest(), e.number, culprit, 0);
    }

    /// @notice A member of the quorum that opened is accused, by one of the committee.
    function accuseOpener(uint256 seed) external {
        Snapshot memory s = readings.snapshot();
        if (s.round.openQuorum == 0) return;
        _accuse(_nth(s.epoch.committee, seed), s.epoch.number, _nth(s.round.openQuorum, seed >> 8), 0);
    }

    function actInCeremony(uint256 seed) external {
        Epoch memory e = readings.snapshot().epoch;
        if (seed & 1 == 0) e.phase = uint8(seed >> 1) % 8;
        _act(_site(seed >> 8), e, seed & 0x60000 == 0 ? bytes32(seed) : KEY);
    }

    function anybody(uint256 seed) external {
        Snapshot memory s = readings.snapshot();
        uint256 round = s.round.number;
        bytes[6] memory moves = [
            abi.encodeCall(ledger.closeCommits, (round)), abi.encodeCall(ledger.replaceCoordinator, (round)),
            abi.encodeCall(ledger.finalize, (round)), abi.encodeCall(ledger.expireEpoch, (s.epoch.number)),
            abi.encodeCall(ledger.abandon, (round, "impatient")), abi.encodeCall(contributions.closeBallots, (round))
        ];
        _try(OUTSIDER, moves[seed % 6]);
    }

    function resign(uint256 seed) external {
        Round memory r = readings.snapshot().round;
        _try(sites[seed & 1 == 0 ? r.coordinator : _site(seed >> 8)], abi.encodeCall(ledger.resign, (r.number, "tired")));
    }

    function administer(uint256 seed) external {
        Snapshot memory s = readings.snapshot();
        uint256 round = s.round.number;
        bytes[5] memory moves = [
            abi.encodeCall(ledger.selectSites, (round, seed >> 16)),
            abi.encodeCall(ledger.selectSites, (round, s.round.selected & ~(1 << _site(seed >> 16)))),
            abi.encodeCall(ledger.renewKeys, ()), abi.encodeCall(ledger.abandon, (round, "wrong settings")),
            abi.encodeCall(ledger.endTask, ("converged"))
        ];
        uint256 choice = seed % 5;
        if (choice > 2 && seed & 0x300 != 0) choice = 2;       // else few tasks would get far
        _try(address(this), moves[choice]);
    }

    function suspend(uint256 seed) external {
        uint256 left = readings.snapshot().active.count();
        if (left > 3 || seed & 0xf00 == 0) _try(address(this), abi.encodeCall(ledger.suspend, (sites[_site(seed)], "off line")));
    }

    function reinstate(uint256 seed) external {
        _try(address(this), abi.encodeCall(ledger.reinstate, (sites[_site(seed)])));
    }

    function join(uint256 seed) external {
        if (sites.length < SITES_MAX && seed & 7 == 0) _join();
    }

    /// @notice Whoever is no active member achieves nothing that is a member's; who is not the administrator, nothing of its.
    function intrude(uint256 seed) external {
        Snapshot memory s = readings.snapshot();
        uint256 away = ((1 << sites.length) - 1) & ~s.active;
        address intruder = away == 0 || seed & 1 == 0 ? OUTSIDER : sites[_nth(away, seed >> 8)];
        bytes[] memory moves = _membersMoves(s);
        for (uint256 k; k < moves.length; ++k) require(!_try(intruder, moves[k]), "somebody acted that is no active member");
        moves = _administratorsMoves(s);
        intruder = seed & 2 == 0 ? OUTSIDER : sites[_site(seed >> 16)];
        for (uint256 k; k < moves.length; ++k) require(!_try(intruder, moves[k]), "somebody acted that is not the administrator");
    }

    // ---- small things

    function _accuse(uint256 i, uint256 epoch, uint256 culprit, bytes32 evidence) private {
        _try(sites[i], abi.encodeCall(ledger.accuse, (epoch, sites[culprit], evidence, "bad share")));
    }

    function _site(uint256 seed) private view returns (uint256) {
        return seed % sites.length;
    }

    function _nth(uint256 mask, uint256 n) private pure returns (uint256) {
        for (n %= mask.count(); n != 0; --n) mask &= mask - 1;
        return mask.lowest();
    }

    /// @dev Everything only active members may do, as it would be right for the present state.
    function _membersMoves(Snapshot memory s) private view returns (bytes[] memory moves) {
        uint256 round = s.round.number;
        moves = new bytes[](13);
        moves[0] = abi.encodeCall(ledger.commitUpdate, (round, "digest", 1, 1, s.round.base));
        moves[1] = abi.encodeCall(ledger.decline, (round, "no data"));
        moves[2] = abi.encodeCall(ledger.submitAggregate, (round, "sum", 1, s.round.committed, 0, ""));
        moves[3] = abi.encodeCall(ledger.resign, (round, "tired"));
        moves[4] = abi.encodeCall(ledger.attest, (round, s.round.aggregate, true, 0));
        moves[5] = abi.encodeCall(contributions.releaseShare, (round, s.epoch.committee, "share", s.round.aggregate));
        moves[6] = abi.encodeCall(ledger.confirmOpening, (round, s.round.openQuorum, "model", 0));
        moves[7] = abi.encodeCall(ledger.act, (s.epoch.number, s.epoch.phase, "digest"));
        moves[8] = abi.encodeCall(ledger.accuse, (s.epoch.number, sites[0], "evidence", "bad share"));
        moves[9] = abi.encodeCall(contributions.reveal, (round, "layer"));
        moves[10] = abi.encodeCall(contributions.releaseSketch, (round, s.epoch.committee, "sketch"));
        moves[11] = abi.encodeCall(contributions.castBallot, (round, "ballot"));
        moves[12] = abi.encodeCall(contributions.revealBallot, (round, 1, SALT));
    }

    /// @dev Everything only the administrator and the registrar may do.
    function _administratorsMoves(Snapshot memory s) private view returns (bytes[] memory moves) {
        address[] memory who = new address[](1);
        uint32[] memory caps = new uint32[](1);
        (who[0], caps[0]) = (OUTSIDER, 1);
        moves = new bytes[](9);
        moves[0] = abi.encodeCall(ledger.whitelist, (who, caps));
        moves[1] = abi.encodeCall(ledger.suspend, (sites[0], "off line"));
        moves[2] = abi.encodeCall(ledger.reinstate, (sites[0]));
        moves[3] = abi.encodeCall(ledger.setConfig, (_config(2, 3, 0, 3, 2)));
        moves[4] = abi.encodeCall(ledger.startTask, ("run", "first model", "params", 0, 1, true));
        moves[5] = abi.encodeCall(ledger.endTask, ("converged"));
        moves[6] = abi.encodeCall(ledger.selectSites, (s.round.number, s.round.selected));
        moves[7] = abi.encodeCall(ledger.renewKeys, ());
        moves[8] = abi.encodeCall(ledger.grantRole, (ledger.REGISTRAR_ROLE(), OUTSIDER));
    }
}
