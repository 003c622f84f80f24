// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Bits} from "./Bits.sol";
import {Succession} from "./Succession.sol";
import {Accusation, Epoch, EpochPhase, Round, RoundPhase, Task} from "./Types.sol";
import "./Errors.sol";

/// @title Key epochs: a committee makes the collective key in four steps
/// @notice COMMIT to seeds, REVEAL them (sealed to their holders, in the store), PUBLISH the public key parts, CONFIRM the
/// collective key. A step ends when every member of the committee has acted. If one does not, or cheats, the epoch fails and the
/// next starts: members that stayed silent sit out until one succeeds; members that a majority accuses, or that contradict one,
/// are excluded for the whole task. So every ceremony ends, with a key or with the task.
/// An ACTIVE epoch serves round after round, until its members changed, its keys are old enough, or somebody asked for new ones.
abstract contract KeyEpochs is Succession {
    using Bits for uint256;

    uint256 internal constant COMMITTEE_MIN = 2;

    /// @notice A committee member takes its turn in the present step and names what it made of it. COMMIT: the commitment to
    /// its seeds; REVEAL: the stored object with the seeds, sealed to their holders; PUBLISH: the stored object with its public
    /// key parts; CONFIRM: the collective key. The last member to act starts the next step, and in the end the first round.
    function act(uint256 epoch, uint8 step, bytes32 digest) external {
        Epoch storage e = _epochNow(epoch);
        if (e.phase != step || step < EpochPhase.COMMIT || step > EpochPhase.CONFIRM) revert WrongEpochPhase(epoch, e.phase, step);
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

    /// @notice Make new keys before the next round, whatever the age of the present ones.
    function renewKeys() external onlyRole(DEFAULT_ADMIN_ROLE) {
        if (!_task().open) revert NoTaskOpen();
        Epoch storage e = _epochs[_currentEpoch];
        if (e.phase != EpochPhase.ACTIVE) revert WrongEpochPhase(_currentEpoch, e.phase, EpochPhase.ACTIVE);
        e.renewal = true;
        emit RenewalRequested(_currentEpoch);
    }

    // ---- what ends an epoch before its time

    /// @notice Anyone, after the deadline of a step: go on without the members that did not act. After that of a dispute: start
    /// over, since its keys are compromised, with nobody named.
    function expireEpoch(uint256 epoch) external {
        Epoch storage e = _epochNow(epoch);
        if (!_ceremonyLive(e)) revert WrongEpochPhase(epoch, e.phase, EpochPhase.COMMIT);
        _onlyAfter(e.deadline);
        if (e.phase == EpochPhase.DISPUTE) {
            _repeat(e, 0, "disputed, and no majority named a culprit");
        } else {
            uint256 silent = e.committee & ~e.acted[e.phase - EpochPhase.COMMIT];
            _task().absent |= silent;
            _repeat(e, silent, "silent until the deadline");
        }
    }

    /// @notice A committee member accuses another. More than half of the committee against the same member exclude it.
    /// In a ceremony that ends the epoch. With `evidence` (the stored object in which the accuser gives up its own key of this
    /// epoch, so that everybody can judge) the ceremony stops for a DISPUTE: members judge by accusing, and there will be no key.
    /// Not before PUBLISH: only when all have revealed is there something to judge. It may follow an accusation without evidence.
    /// While the key is in use the open round goes on. If a share of the accused opened it, that quorum is struck, by anybody's
    /// first accusation or a repeated one; the others can form another. New keys follow at the end of the round.
    function accuse(uint256 epoch, address culprit, bytes32 evidence, string calldata reason) external {
        Epoch storage e = _epochNow(epoch);
        if (!_task().open) revert NoTaskOpen();
        _checkReason(reason);
        uint256 accuser = _seat(e, msg.sender);
        uint256 accused = _seatOf(e, culprit);
        bool inUse = e.phase == EpochPhase.ACTIVE;
        bool strikes = inUse && _helpedToOpen(accused);
        bool disputes = !inUse && evidence != 0 && e.phase != EpochPhase.DISPUTE;
        if (disputes && e.phase < EpochPhase.PUBLISH) revert WrongEpochPhase(epoch, e.phase, EpochPhase.PUBLISH);
        uint256 accusers = _accusers[epoch][accused];
        bool repeated = accusers.has(accuser) && !strikes && !disputes;
        if (accuser == accused || repeated) revert AlreadyActed(epoch, msg.sender);
        accusers |= 1 << accuser;
        _accusers[epoch][accused] = accusers;
        _accusations[epoch].push(Accusation(uint8(accuser), uint8(accused), inUse ? uint32(_currentRound) : 0, evidence));
        e.accused |= 1 << accused;
        emit Accused(epoch, culprit, msg.sender, evidence, reason);
        bool majority = 2 * accusers.count() > e.committee.count();
        if (majority) _task().excluded |= 1 << accused;
        if (strikes) _strikeQuorum(accused, accuser);
        else if (!inUse && majority) _restart(e, 1 << accused, "accused by a majority");
        else if (disputes) _enter(e, EpochPhase.DISPUTE);
    }

    // ---- what the rounds do for it

    /// @dev Opens the next round of the task, or a new key epoch where one is due.
    function _openRound() internal virtual;

    /// @dev Ends the open round, if there is one, without opening another.
    function _stopRound(string memory reason) internal virtual;

    /// @dev A share of `culprit` was found wrong: the open round has to be opened without it, or not at all.
    function _strikeQuorum(uint256 culprit, uint256 accuser) internal virtual;

    /// @dev Whether a share of this member helped to open the verified round that is not finalised yet.
    function _helpedToOpen(uint256 index) private view returns (bool) {
        Round storage r = _rounds[_currentRound];
        return r.phase == RoundPhase.VERIFIED && r.openQuorum.has(index);
    }

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

    /// @dev An excluded member keeps its seat until new keys are made, but has no say any more.
    function _seat(Epoch storage e, address who) private view returns (uint256 i) {
        _activeIndex(who);
        i = _seatOf(e, who);
        if (_task().excluded.has(i)) revert NotInCommittee(e.number, who);
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
            (_task().failedCeremonies, _task().absent) = (0, 0);
            emit EpochActive(e.number, keyDigest);
            _openRound();
        } else if (2 * agreed.count() > e.committee.count()) {
            _task().excluded |= e.committee & ~agreed;
            _restart(e, e.committee & ~agreed, "confirmed another key than the majority");
        } else {
            _repeat(e, 0, "no majority for one key");
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

    /// @dev The epoch failed, and nobody is excluded for it. This may happen a few times in a row only: the committee is drawn
    /// anew each time, and no members may have it drawn until it suits them.
    function _repeat(Epoch storage e, uint256 silent, string memory reason) private {
        ++_task().failedCeremonies;
        _restart(e, silent, reason);
    }

    function _restart(Epoch storage e, uint256 culprits, string memory reason) private {
        e.phase = EpochPhase.FAILED;
        emit EpochFailed(e.number, culprits, reason);
        if (_task().failedCeremonies >= _config.maxAttempts) _closeTask("too many key ceremonies failed in a row");
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
        Task storage task = _task();
        uint256 pool = _eligible();
        uint256 size = _committeeSize((pool & ~task.absent).count());
        if (size < COMMITTEE_MIN || size < task.threshold) {
            _closeTask("too few members left for a key committee");
            return;
        }
        Epoch storage e = _epochs[++_currentEpoch];
        (e.number, e.threshold, e.finalizedBefore) = (uint32(_currentEpoch), task.threshold, task.finalizedCount);
        (e.pool, e.committee) = (pool, _drawCommittee(pool & ~task.absent, size));
        _enter(e, EpochPhase.COMMIT);
        emit EpochOpened(e.number, e.committee);
    }

    /// @dev Whether new keys are to be made before the next round: other members may hold them than when they were made,
    /// somebody asked for it, or they are old.
    function _renewalDue(Epoch storage e) internal view returns (bool) {
        uint256 age = _task().finalizedCount - e.finalizedBefore;
        return e.pool != _eligible() || e.renewal || (_config.epochRounds != 0 && age >= _config.epochRounds);
    }

    /// @dev The present key holders did not open a round, or its sketches: let others hold the next key, if there are any.
    function _replaceHolders() internal {
        Epoch storage e = _epochs[_currentEpoch];
        if (e.pool & ~e.committee != 0) e.renewal = true;
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
