// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Bits} from "./Bits.sol";
import {LedgerState} from "./LedgerState.sol";
import {Accusation, Ballot, Ceremony, Config, Epoch, Member, Round, Share, Snapshot, Task, Update} from "./Types.sol";

/// @title LedgerReadings: every question FederationLedger answers
/// @notice FederationLedger runs this code on its own storage (delegatecall), so ask there: at its own address this contract
/// knows nothing. Only `view` functions; its code has no instruction that writes.
contract LedgerReadings is LedgerState {
    using Bits for uint256;

    function config() external view returns (Config memory) { return _config; }

    /// @notice Cap on the weight of a whitelisted account; 0 if it is not.
    function allowance(address who) external view returns (uint32) { return _allowance[who]; }

    /// @notice One consistent reading of everything that decides what comes next.
    function snapshot() external view returns (Snapshot memory) {
        return Snapshot({
            chainTime: uint64(block.timestamp),
            blockNumber: uint64(block.number),
            task: _task(),
            epoch: _epochs[_currentEpoch],
            round: getRound(_currentRound),
            active: _activeMask
        });
    }

    function getTask(uint256 number) external view returns (Task memory) { return _tasks[number]; }

    function getRound(uint256 round) public view returns (Round memory r) {
        r = _rounds[round];
        r.parent = _rounds[r.parentRound].aggregate;
    }

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

    /// @notice Who accused whom in an epoch, in order.
    function getAccusations(uint256 epoch) external view returns (Accusation[] memory) { return _accusations[epoch]; }

    /// @notice The committed updates of a round, by ascending member index.
    function getUpdates(uint256 round) external view returns (Update[] memory updates) {
        uint256 x = _rounds[round].committed;
        updates = new Update[](x.count());
        for (uint256 k; x != 0; x &= x - 1) updates[k++] = _updates[round][x.lowest()];
    }

    /// @notice The decryption shares released of a round's present (or last) aggregate, quorum by quorum in the order of its
    /// first share, those of one quorum by ascending member index.
    function getShares(uint256 round) external view returns (Share[] memory) { return _released(_attemptKey(_rounds[round])); }

    /// @notice The parts of the openings of a round's (present) sketches, likewise.
    function getSketches(uint256 round) external view returns (Share[] memory) { return _released(_sketchKey(_rounds[round])); }

    /// @notice The ballots cast on the two halves of a round's aggregate, by ascending member index; choice 255 until it is shown.
    function getBallots(uint256 round) external view returns (Ballot[] memory ballots) {
        uint256 x = _rounds[round].cast;
        ballots = new Ballot[](x.count());
        for (uint256 k; x != 0; x &= x - 1) ballots[k++] = _ballots[round][x.lowest()];
    }

    function _released(uint256 attempt) private view returns (Share[] memory shares) {
        uint256[] storage quorums = _quorums[attempt];
        uint256 n;
        for (uint256 q; q < quorums.length; ++q) n += _releases(attempt, quorums[q]).count();
        shares = new Share[](n);
        n = 0;
        for (uint256 q; q < quorums.length; ++q) {
            for (uint256 x = _releases(attempt, quorums[q]); x != 0; x &= x - 1) {
                uint256 i = x.lowest();
                shares[n++] = Share({member: uint8(i), quorum: quorums[q], digest: _shares[attempt][quorums[q]][i]});
            }
        }
    }
}
