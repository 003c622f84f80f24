// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Bits} from "./Bits.sol";
import {LedgerContributions} from "./LedgerContributions.sol";
import {LedgerReadings} from "./LedgerReadings.sol";
import {Openings} from "./Openings.sol";
import {Config, Round, Task} from "./Types.sol";
import "./Errors.sol";

/// @title FederationLedger: audit ledger and state machine of a permissioned federated-learning consortium
/// @notice Holds digests, roles, round state and reputation; never model data, keys or plaintext. Built from
/// LedgerState <- Membership <- Succession <- KeyEpochs <- Rounds <- Openings; here are tasks and settings. All questions are
/// answered by LedgerReadings, some transactions carried out by LedgerContributions, at this very address.
contract FederationLedger is Openings {
    using Bits for uint256;

    uint256 private constant COMMITTEE_LIMIT = 10;      // more would make the replicated shares too many
    uint256 private constant WINDOW_MAX = 365 days;

    /// @notice The code that answers all questions. Made here and fixed for ever, so whoever checks both codes knows everything.
    LedgerReadings public immutable readings;

    /// @notice The code of what members add to an open round, likewise.
    LedgerContributions public immutable contributions;

    constructor(address admin, Config memory c) {
        readings = new LedgerReadings();
        contributions = new LedgerContributions();
        _grantRole(DEFAULT_ADMIN_ROLE, admin);
        _grantRole(REGISTRAR_ROLE, admin);
        _config = c;
        _checkConfig();
    }

    /// @notice Every function that is not in this contract is one of LedgerContributions, or else of LedgerReadings, carried out on this
    /// contract's storage.
    /// @dev Together they would be larger than a contract may be. LedgerReadings has no instruction that writes.
    fallback() external {
        address code = _contributes(msg.sig) ? address(contributions) : address(readings);
        assembly ("memory-safe") {
            let question := mload(0x40)
            calldatacopy(question, 0, calldatasize())
            let answered := delegatecall(gas(), code, question, calldatasize(), 0, 0)
            let answer := mload(0x40)
            returndatacopy(answer, 0, returndatasize())
            if iszero(answered) { revert(answer, returndatasize()) }
            return(answer, returndatasize())
        }
    }

    // ---- administration

    /// @notice Change the settings, between tasks only.
    function setConfig(Config calldata c) external onlyRole(DEFAULT_ADMIN_ROLE) {
        if (_task().open) revert TaskOpen(_currentTask);
        _config = c;
        _checkConfig();
    }

    /// @notice Start a run of `rounds` finalised rounds; its first act is a key ceremony.
    /// @param threshold key holders needed to open an aggregate; 0 = majority of the committee, 1 = the single-key experiment.
    /// @param screened whether updates are judged by their sketches.
    function startTask(
        bytes32 runDigest, bytes32 initialModel, bytes32 securityParams, uint8 threshold, uint32 rounds, bool screened
    ) external onlyRole(DEFAULT_ADMIN_ROLE) {
        if (_task().open) revert TaskOpen(_currentTask);
        if (runDigest == 0 || initialModel == 0 || securityParams == 0) revert ZeroDigest();
        if (rounds == 0) revert BadLength(0, 1);
        uint256 active = _activeMask.count();
        if (active < _config.minCommits) revert TooFewMembers(active, _config.minCommits);
        Task storage task = _tasks[++_currentTask];
        uint256 seats = active < _config.committeeMax ? active : _config.committeeMax;
        // Settled once: members that drop out later must not lower what it takes to open an aggregate.
        if (threshold == 0) threshold = uint8(seats / 2 + 1);
        (task.number, task.open, task.threshold, task.rounds, task.screened) = (uint32(_currentTask), true, threshold, rounds, screened);
        (task.runDigest, task.initialModel, task.securityParams) = (runDigest, initialModel, securityParams);
        if (threshold > seats || _committeeSize(active) != seats) revert BadThreshold(threshold, seats);
        emit TaskStarted(_currentTask, runDigest);
        _openEpoch();
    }

    /// @notice Stop the run: the open round is aborted with the reason. Not while sites may be opening its aggregate (whoever
    /// reads it first must not choose to discard it), nor once a majority has confirmed its model: that round must count.
    function endTask(string calldata reason) external onlyRole(DEFAULT_ADMIN_ROLE) {
        if (!_task().open) revert NoTaskOpen();
        _checkReason(reason);
        Round storage r = _rounds[_currentRound];
        bool opening = r.opened != 0 || _ballotsOpen(r) || (r.openQuorum != 0 && block.timestamp <= r.deadline);
        if (_roundLive(r) && opening) revert AlreadyOpened(_currentRound);
        _stopCeremony(reason);
        _stopRound(reason);
        _closeTask(reason);
    }

    function _contributes(bytes4 name) private pure returns (bool) {
        return name == LedgerContributions.reveal.selector || name == LedgerContributions.drawSeed.selector
            || name == LedgerContributions.releaseSketch.selector || name == LedgerContributions.releaseShare.selector
            || name == LedgerContributions.castBallot.selector || name == LedgerContributions.revealBallot.selector
            || name == LedgerContributions.closeBallots.selector;
    }

    function _checkConfig() private {
        Config storage c = _config;
        bool windows = _isWindow(c.commitWindow) && _isWindow(c.aggregateWindow) && _isWindow(c.verifyWindow)
            && _isWindow(c.ceremonyWindow) && c.openGrace <= WINDOW_MAX;
        bool quorum = c.minCommits > 1 && c.minCommits <= MAX_MEMBERS && c.quorumBps > 5000 && c.quorumBps <= 10000;
        bool attempts = c.maxAttempts != 0 && c.maxAttempts <= 255 && c.cooldownRounds <= 255;
        bool seats = c.committeeMax >= COMMITTEE_MIN && c.committeeMax <= COMMITTEE_LIMIT;
        if (!windows || !quorum || !attempts || !seats) revert BadConfig();
        emit ConfigChanged();
    }

    function _isWindow(uint256 seconds_) private pure returns (bool) {
        return seconds_ != 0 && seconds_ <= WINDOW_MAX;
    }
}
