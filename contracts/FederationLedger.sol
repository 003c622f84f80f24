// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Bits} from "./Bits.sol";
import {Rounds} from "./Rounds.sol";
import {Ceremony, Config, Epoch, Member, Round, Share, Snapshot, Task, Update} from "./Types.sol";
import "./Errors.sol";

/// @title FederationLedger: audit ledger and state machine of a permissioned federated-learning consortium
/// @notice Holds digests, roles, round state and reputation; never model data, keys or plaintext. Built from
/// LedgerState <- Membership <- Succession <- KeyEpochs <- Rounds; here are tasks, settings and the views.
contract FederationLedger is Rounds {
    using Bits for uint256;

    uint256 private constant COMMITTEE_LIMIT = 10;      // more would make the replicated shares too many

    uint256 private constant WINDOW_MAX = 365 days;

    constructor(address admin, Config memory c) {
        _grantRole(DEFAULT_ADMIN_ROLE, admin);
        _grantRole(REGISTRAR_ROLE, admin);
        config = c;
        _checkConfig();
    }

    // ---- administration

    /// @notice Change the settings, between tasks only.
    function setConfig(Config calldata c) external onlyRole(DEFAULT_ADMIN_ROLE) {
        if (_task().open) revert TaskOpen(_currentTask);
        config = c;
        _checkConfig();
    }

    /// @notice Start a run of `rounds` finalised rounds; its first act is a key ceremony.
    /// @param threshold key holders needed to open an aggregate; 0 = majority of the committee, 1 = the single-key experiment.
    function startTask(
        bytes32 runDigest, bytes32 initialModel, bytes32 securityParams, uint8 threshold, uint32 rounds
    ) external onlyRole(DEFAULT_ADMIN_ROLE) {
        if (_task().open) revert TaskOpen(_currentTask);
        if (runDigest == 0 || initialModel == 0 || securityParams == 0) revert ZeroDigest();
        if (rounds == 0) revert BadLength(0, 1);
        uint256 active = _activeMask.count();
        if (active < config.minCommits) revert TooFewMembers(active, config.minCommits);
        Task storage task = _tasks[++_currentTask];
        uint256 seats = active < config.committeeMax ? active : config.committeeMax;
        // Settled once: members that drop out later must not lower what it takes to open an aggregate.
        if (threshold == 0) threshold = uint8(seats / 2 + 1);
        (task.number, task.open, task.threshold, task.rounds) = (uint32(_currentTask), true, threshold, rounds);
        (task.runDigest, task.initialModel, task.securityParams) = (runDigest, initialModel, securityParams);
        if (threshold > seats || _committeeSize(active) != seats) revert BadThreshold(threshold, seats);
        emit TaskStarted(_currentTask, runDigest);
        _openEpoch();
    }

    /// @notice Stop the run: the open round is aborted with the reason.
    function endTask(string calldata reason) external onlyRole(DEFAULT_ADMIN_ROLE) {
        if (!_task().open) revert NoTaskOpen();
        _checkReason(reason);
        _stopCeremony(reason);
        _stopRound(reason);
        _closeTask(reason);
    }

    function _checkConfig() private {
        Config storage c = config;
        bool windows = _isWindow(c.commitWindow) && _isWindow(c.aggregateWindow) && _isWindow(c.verifyWindow)
            && _isWindow(c.ceremonyWindow) && c.openGrace <= WINDOW_MAX;
        bool quorum = c.minCommits > 1 && c.minCommits <= MAX_MEMBERS && c.quorumBps > 5000 && c.quorumBps <= 10000;
        bool attempts = c.maxAttempts != 0 && c.maxAttempts <= 255 && c.cooldown <= 255;
        bool seats = c.committeeMax >= COMMITTEE_MIN && c.committeeMax <= COMMITTEE_LIMIT;
        if (!windows || !quorum || !attempts || !seats) revert BadConfig();
        emit ConfigChanged();
    }

    function _isWindow(uint256 seconds_) private pure returns (bool) {
        return seconds_ != 0 && seconds_ <= WINDOW_MAX;
    }

    // ---- views

    /// @notice One consistent reading of everything that decides what comes next.
    function snapshot() external view returns (Snapshot memory) {
        return Snapshot({
            chainTime: uint64(block.timestamp),
            blockNumber: uint64(block.number),
            task: _task(),
            epoch: _epochs[_currentEpoch],
            round: _rounds[_currentRound],
            active: _activeMask
        });
    }

    function getTask(uint256 number) external view returns (Task memory) { return _tasks[number]; }

    function getRound(uint256 round) external view returns (Round memory) { return _rounds[round]; }

    function getEpoch(uint256 epoch) external view returns (Epoch memory) { return _epochs[epoch]; }

    /// @notice Every registered member, by index.
    function getMembers() external view returns (Member[] memory) { return _members; }

    /// @notice What each committee member of an epoch put on the ledger, by ascending index.
    function getCeremony(uint256 epoch) external view returns (Ceremony[] memory records) {
        uint256 x = _epochs[epoch].committee;
        records = new Ceremony[](x.count());
        for (uint256 k; x != 0; x &= x - 1) {
            records[k] = _ceremonies[epoch][x.lowest()];
            records[k++].member = uint8(x.lowest());
        }
    }

    /// @notice The committed updates of a round, by ascending member index.
    function getUpdates(uint256 round) external view returns (Update[] memory updates) {
        uint256 x = _rounds[round].committed;
        updates = new Update[](x.count());
        for (uint256 k; x != 0; x &= x - 1) updates[k++] = _updates[round][x.lowest()];
    }

    /// @notice The decryption shares released of a round's present (or last) aggregate, in order of release.
    function getShares(uint256 round) external view returns (Share[] memory) { return _shares[_attemptKey(_rounds[round])]; }
}
