// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Bits} from "../Bits.sol";
import {FederationLedger} from "../FederationLedger.sol";
import {LedgerReadings} from "../LedgerReadings.sol";
import {BallotStage, Epoch, EpochPhase, Member, Outcome, Round, RoundPhase, Snapshot} from "../Types.sol";
import {Handler} from "./Handler.sol";
import {vm} from "./Vm.sol";

/// @notice What holds in every state that any sequence of calls can reach; the handler checks what holds of every step.
contract InvariantsTest {
    using Bits for uint256;

    Handler internal handler;
    FederationLedger internal ledger;
    LedgerReadings internal readings;

    function setUp() external {
        handler = new Handler();
        (ledger, readings) = (handler.ledger(), handler.readings());
    }

    function targetContracts() external view returns (address[] memory targets) {
        targets = new address[](1);
        targets[0] = address(handler);
    }

    /// @dev One function, so that the same sequences of calls serve every claim.
    function invariant_everyClaimHolds() external {
        _oneLiveRoundOrCeremony();
        _onlyThoseEntitledCount();
        _majoritiesStandBehindResults();
        _nothingIsAddedUnjudged();
        _halvesHideTheirUpdates();
        _thresholdsNeverFall();
        _everyRoundBuildsOnTheLastModel();
        _countersAddUp();
        _nothingEverWaitsForEver();
    }

    // ---- the claims

    /// @notice While a task is open: exactly one live round or one live ceremony, after few that failed; otherwise neither.
    function _oneLiveRoundOrCeremony() private view {
        Snapshot memory s = readings.snapshot();
        (bool round, bool ceremony) = (_roundLive(s.round), _ceremonyLive(s.epoch));
        require((round != ceremony) == s.task.open && !(round && ceremony), "one live round or ceremony");
        require(!round || (s.epoch.phase == EpochPhase.ACTIVE && s.round.epoch == s.epoch.number), "a round has the present key");
        require(!s.task.open || s.task.failedCeremonies < readings.config().maxAttempts, "ceremonies without end");
        require(s.task.absent == 0 || s.task.failedCeremonies != 0, "silence that does not count");
        require(s.task.open || bytes(s.task.endReason).length != 0 || s.task.finalizedCount == s.task.rounds, "an end has a reason");
    }

    /// @notice Only members that committed are included, vote, reveal and confirm; nobody both votes for and against.
    function _onlyThoseEntitledCount() private view {
        Round memory r = readings.snapshot().round;
        require(r.committed & ~r.selected == 0 && r.committed & r.declined == 0, "commits");
        require((r.included | r.votedOk | r.votedBad | r.revealed | r.confirmed) & ~r.committed == 0, "not committed");
        require(r.votedOk & r.votedBad == 0, "two votes");
        bool weighed = r.included == 0 || r.verdicts.length == r.committed.count();
        require(weighed, "one weight or reason for every commit");
        bool office = r.phase == RoundPhase.AGGREGATE || r.phase == RoundPhase.VERIFY;
        require(!office || (r.committed & ~r.failed).has(r.coordinator), "a coordinator that did not commit, or failed");
    }

    /// @notice A verified sum has a majority; an opened model a whole quorum above suspicion, and a majority of confirmations.
    function _majoritiesStandBehindResults() private view {
        Snapshot memory s = readings.snapshot();
        Round memory r = s.round;
        Epoch memory e = readings.getEpoch(r.epoch);
        bool verified = r.phase == RoundPhase.VERIFIED || r.phase == RoundPhase.FINALIZED;
        require(!verified || (r.aggregate != 0 && 2 * r.votedOk.count() > r.committed.count()), "verified");
        require(r.openQuorum == 0 || (r.openQuorum.count() == e.threshold && r.openQuorum & ~e.committee == 0), "quorum");
        require(r.openQuorum & r.disputed == 0, "a quorum with a disputed member");
        require(r.opened == 0 || (verified && r.openQuorum != 0), "opened without a quorum");
        require(r.opened == 0 || 2 * r.confirmed.count() > r.committed.count(), "opened without a majority");
        require(r.phase != RoundPhase.FINALIZED || r.opened != 0, "final without a model");
    }

    /// @notice Where updates are screened there is no sum before a quorum has opened their sketches.
    function _nothingIsAddedUnjudged() private view {
        Snapshot memory s = readings.snapshot();
        bool added = s.round.phase == RoundPhase.VERIFY || s.round.phase == RoundPhase.VERIFIED;
        require(!s.task.screened || !added || (s.round.sketched && s.round.screenSeed != 0), "a sum of what nobody could judge");
    }

    /// @notice An aggregate has no half of less than three updates, or than an aggregate may have; a part of it is final only once the
    /// sites' ballots are counted; a round that keeps the model names it.
    function _halvesHideTheirUpdates() private view {
        Round memory r = readings.snapshot().round;
        uint256 least = readings.config().minCommits > 3 ? readings.config().minCommits : 3;
        bool hidden = r.split & ~r.included == 0 && r.split.count() >= least && (r.included & ~r.split).count() >= least;
        // A round that has ended was judged by the settings of its own task, which the next one may have changed.
        require(r.split == 0 || hidden || r.phase > RoundPhase.VERIFIED, "a half that is too small");
        require(r.outcome <= (r.split == 0 ? Outcome.WHOLE : Outcome.NONE), "an outcome that the aggregate does not have");
        require(r.opened == 0 || r.split == 0 || r.ballotStage == BallotStage.COUNTED, "a half before the ballots were counted");
        require(r.outcome != Outcome.NONE || r.opened == r.base, "no half, but another model");
        require(r.ballotStage == 0 || r.openQuorum != 0, "ballots on what is not open");
    }

    /// @notice No epoch of a task has a lower threshold than the task, and a threshold above 1 is a majority of the seats.
    function _thresholdsNeverFall() private view {
        Snapshot memory s = readings.snapshot();
        if (s.epoch.number == 0 || !s.task.open) return;
        (uint256 t, uint256 seats) = (s.epoch.threshold, s.epoch.committee.count());
        require(t == s.task.threshold && t != 0 && t <= seats, "threshold");
        require(t == 1 || 2 * t > seats, "two quorums without a common member");
    }

    /// @notice A round starts from the model the last finalised round of its task opened, or from the task's first.
    function _everyRoundBuildsOnTheLastModel() private view {
        Snapshot memory s = readings.snapshot();
        if (!_roundLive(s.round)) return;
        require(s.round.parentRound == s.task.lastFinalized, "parent");
        bytes32 model = s.task.lastFinalized == 0 ? s.task.initialModel : readings.getRound(s.task.lastFinalized).opened;
        require(s.round.base == model && model != 0, "base");
    }

    /// @notice Terms of office are finalised rounds: the counters that scores rest on add up.
    function _countersAddUp() private view {
        Member[] memory members = readings.getMembers();
        uint256 terms;
        for (uint256 i; i < members.length; ++i) terms += members[i].coordinated;
        require(terms == handler.finalized(), "one term for every finalised round");
    }

    /// @notice Once the deadline of whatever is going on has passed, a stranger can end it, and something changes.
    function _nothingEverWaitsForEver() private {
        Snapshot memory s = readings.snapshot();
        if (!s.task.open) return;
        uint256 deadline = _roundLive(s.round) ? s.round.deadline : s.epoch.deadline;
        if (vm.getBlockTimestamp() <= deadline) vm.warp(deadline + 1);
        bytes memory due = handler.due();
        vm.prank(address(0xbeef));
        (bool ok,) = address(ledger).call(due);
        require(ok, "stuck: nobody can end this phase");
        Snapshot memory next = readings.snapshot();
        s.chainTime = next.chainTime;
        require(keccak256(abi.encode(s)) != keccak256(abi.encode(next)), "nothing changed");
    }

    // ---- and that they claim something

    /// @notice The claims above are not empty: fixed random calls reach every kind of outcome.
    function test_theHandlerReachesEverything() external {
        bytes4[18] memory crooked = [
            handler.accuse.selector, handler.accuseTogether.selector, handler.accuseOpener.selector, handler.reject.selector,
            handler.administer.selector, handler.suspend.selector, handler.anybody.selector, handler.letTimePass.selector,
            handler.attest.selector, handler.release.selector, handler.dispute.selector, handler.confirm.selector,
            handler.reveal.selector, handler.draw.selector, handler.sketch.selector, handler.vote.selector,
            handler.spoil.selector, handler.splitBadly.selector
        ];
        for (uint256 k; k < 2400; ++k) {
            uint256 seed = uint256(keccak256(abi.encode("reach", k)));
            if (seed % 3 != 0) handler.goFar(seed >> 8);
            else _call(crooked[(seed >> 8) % 18], seed >> 16);
        }
        require(handler.finalized() > 20 && handler.aborted() > 5, "rounds");
        require(handler.activated() > 20 && handler.disputes() > 0 && handler.renewals() > 2, "epochs");
        require(handler.drawn() > 5 && handler.halves() > 2 && handler.counted() > 5, "screening");
        require(handler.spoiled() > 2 && handler.kept() > 0, "results");
        require(handler.struck() > 0 && handler.excluded() > 2, "suspicion");
    }

    function _call(bytes4 name, uint256 seed) private {
        (bool ok, bytes memory answer) = address(handler).call(abi.encodePacked(name, seed, seed));
        if (!ok) assembly ("memory-safe") { revert(add(answer, 32), mload(answer)) }
    }

    function _roundLive(Round memory r) private pure returns (bool) {
        return r.phase >= RoundPhase.COMMIT && r.phase <= RoundPhase.VERIFIED;
    }

    function _ceremonyLive(Epoch memory e) private pure returns (bool) {
        return e.phase >= EpochPhase.COMMIT && e.phase <= EpochPhase.DISPUTE;
    }
}
