// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Bits} from "./Bits.sol";
import {Succession} from "./Succession.sol";
import {Epoch, EpochPhase, Round} from "./Types.sol";
import "./Errors.sol";

/// @title Key epochs: a committee makes the collective key in four steps
/// @notice COMMIT to seeds, REVEAL them (sealed to their holders, in the store), PUBLISH the public key parts, CONFIRM the
/// collective key. A step ends when every member of the committee has acted. Members that stay silent, are accused by a
/// majority, or contradict one are left out, and a new epoch starts; so every ceremony ends, with a key or with the task.
abstract contract KeyEpochs is Succession {
    using Bits for uint256;

    uint256 internal constant COMMITTEE_MIN = 2;

    /// @notice A committee member takes its turn in the present step and names what it made of it. COMMIT: the commitment to
    /// its seeds; REVEAL: the stored object with the seeds, sealed to their holders; PUBLISH: the stored object with its public
    /// key parts; CONFIRM: the collective key. The last member to act starts the next step, and in the end the first round.
    function act(uint256 epoch, uint8 step, bytes32 digest) external {
        Epoch storage e = _epochNow(epoch);
        if (!_ceremonyLive(e) || e.phase != step) revert WrongEpochPhase(epoch, e.phase, step);
        _notAfter(e.deadline);
        if (digest == 0) revert ZeroDigest();
        uint256 i = _seat(e, msg.sender);
        uint256 k = step - EpochPhase.COMMIT;
        uint256 acted = e.acted[k];
        if (acted.has(i)) revert AlreadyActed(epoch, msg.sender);
        acted |= 1 << i;
        e.acted[k] = acted;
        _ceremonies[epoch][i].digests[k] = digest;
        emit CeremonyStep(epoch, msg.sender, step, digest);
        if (acted != e.committee) return;
        if (step == EpochPhase.CONFIRM) _concludeCeremony(e);
        else _enter(e, step + 1);
    }

    // ---- what ends an epoch before its time

    /// @notice Anyone, after a step's deadline: go on without the members that did not act.
    function expireEpoch(uint256 epoch) external {
        Epoch storage e = _epochNow(epoch);
        if (!_ceremonyLive(e)) revert WrongEpochPhase(epoch, e.phase, EpochPhase.COMMIT);
        _onlyAfter(e.deadline);
        _restart(e, e.committee & ~e.acted[e.phase - EpochPhase.COMMIT], "silent until the deadline");
    }

    /// @notice A committee member accuses another, during the ceremony or while its key is in use. Once more than half of
    /// the committee accuse the same member, the epoch fails, its open round with it, and the next goes on without the culprit.
    function accuse(uint256 epoch, address culprit, string calldata reason) external {
        Epoch storage e = _epochNow(epoch);
        if (!_task().open) revert NoTaskOpen();
        _checkReason(reason);
        uint256 bit = 1 << _seat(e, msg.sender);
        uint256 accused = _seatOf(e, culprit);
        uint256 accusers = _accusers[epoch][accused];
        if (accusers & bit != 0 || msg.sender == culprit) revert AlreadyActed(epoch, msg.sender);
        _accusers[epoch][accused] = accusers | bit;
        emit Accused(epoch, culprit, msg.sender, reason);
        if (2 * (accusers | bit).count() > e.committee.count()) {
            _stopRound("a key committee member was excluded");
            _restart(e, 1 << accused, "accused by a majority");
        }
    }

    // ---- what the rounds do for it

    /// @dev Opens the next round of the task, or a new key epoch where too few key holders are left.
    function _openRound() internal virtual;

    /// @dev Ends the open round, if there is one, without opening another.
    function _stopRound(string memory reason) internal virtual;

    // ---- internals

    /// @dev Closes the task; the caller has already ended its round and ceremony.
    function _closeTask(string memory reason) internal {
        _task().open = false;
        _task().endReason = reason;
        emit TaskEnded(_currentTask);
    }

    function _epochNow(uint256 epoch) private view returns (Epoch storage) {
        if (epoch == 0 || epoch != _currentEpoch) revert NotCurrentEpoch(epoch, _currentEpoch);
        return _epochs[epoch];
    }

    function _seat(Epoch storage e, address who) private view returns (uint256 i) {
        _activeIndex(who);
        return _seatOf(e, who);
    }

    function _seatOf(Epoch storage e, address who) private view returns (uint256 i) {
        i = _indexOf(who);
        if (!e.committee.has(i)) revert NotInCommittee(e.number, who);
    }

    function _enter(Epoch storage e, uint8 step) private {
        e.phase = step;
        e.deadline = _in(_config.ceremonyWindow);
    }

    function _concludeCeremony(Epoch storage e) private {
        (bytes32 keyDigest, uint256 agreed) = _commonKey(e);
        if (agreed == e.committee) {
            e.phase = EpochPhase.ACTIVE;
            e.keyDigest = keyDigest;
            _task().failedCeremonies = 0;
            emit EpochActive(e.number, keyDigest);
            _openRound();
        } else if (2 * agreed.count() > e.committee.count()) {
            _restart(e, e.committee & ~agreed, "confirmed another key than the majority");
        } else {
            ++_task().failedCeremonies;
            _restart(e, 0, "no majority for one key");
        }
    }

    /// @dev The key confirmed most often (the lowest index decides a tie), and who confirmed it.
    function _commonKey(Epoch storage e) private view returns (bytes32 keyDigest, uint256 agreed) {
        for (uint256 x = e.committee; x != 0; x &= x - 1) {
            bytes32 candidate = _ceremonies[e.number][x.lowest()].digests[3];
            uint256 same;
            for (uint256 y = e.committee; y != 0; y &= y - 1) {
                uint256 j = y.lowest();
                if (_ceremonies[e.number][j].digests[3] == candidate) same |= 1 << j;
            }
            if (same.count() > agreed.count()) (keyDigest, agreed) = (candidate, same);
        }
    }

    function _restart(Epoch storage e, uint256 culprits, string memory reason) private {
        e.phase = EpochPhase.FAILED;
        _task().excluded |= culprits;
        emit EpochFailed(e.number, culprits, reason);
        if (_task().failedCeremonies >= _config.maxAttempts) _closeTask("key ceremonies failed without a culprit");
        else _openEpoch();
    }

    /// @dev The task ends: its ceremony, if one is live, with it. A finished epoch stays on record as it was.
    function _stopCeremony(string memory reason) internal {
        Epoch storage e = _epochs[_currentEpoch];
        if (!_ceremonyLive(e)) return;
        e.phase = EpochPhase.FAILED;
        emit EpochFailed(e.number, 0, reason);
    }

    function _ceremonyLost(uint256 index) internal override {
        Epoch storage e = _epochs[_currentEpoch];
        if (_ceremonyLive(e) && e.committee.has(index)) _restart(e, 1 << index, "suspended");
    }

    /// @dev Opens a key epoch with a fresh committee, or ends the task if none can be formed.
    function _openEpoch() internal {
        uint256 pool = _activeMask & ~_task().excluded;
        uint256 size = _committeeSize(pool.count());
        if (size < COMMITTEE_MIN || size < _task().threshold) {
            _closeTask("too few members left for a key committee");
            return;
        }
        Epoch storage e = _epochs[++_currentEpoch];
        e.number = uint32(_currentEpoch);
        e.committee = _drawCommittee(pool, size);
        e.threshold = _task().threshold;
        _enter(e, EpochPhase.COMMIT);
        emit EpochOpened(e.number, e.committee);
    }

    /// @dev A fixed threshold t > 1 stays a majority however many members join: at most 2t - 1 seats.
    function _committeeSize(uint256 eligible) internal view returns (uint256 size) {
        uint256 t = _task().threshold;
        size = eligible < _config.committeeMax ? eligible : _config.committeeMax;
        if (t > 1 && size > 2 * t - 1) size = 2 * t - 1;
    }

    /// @dev Everybody where there are seats for all, else a draw weighted by reputation.
    function _drawCommittee(uint256 pool, uint256 size) private view returns (uint256 committee) {
        if (pool.count() == size) return pool;
        Round storage last = _rounds[_currentRound];
        bytes32 seed = keccak256(abi.encode(last.beacon, last.entropy, blockhash(block.number - 1), _currentEpoch));
        for (uint256 k; k < size; ++k) committee |= 1 << _draw(pool & ~committee, keccak256(abi.encode(seed, k)));
    }
}
