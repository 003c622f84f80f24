// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

// The ledger's records. Field meanings are those of src/bahefl_flwr/records.py; masks have one bit per member index.
// Only data lives here, never rules.

// Plain numbers instead of enums: the compiler's range checks on enums cost this contract more than 1 kB of its 24 kB.

library MemberStatus {
    uint8 internal constant ACTIVE = 2;              // 0 and 1 (none, whitelisted) never reach the roster
    uint8 internal constant SUSPENDED = 3;
}

library EpochPhase {
    uint8 internal constant COMMIT = 1;
    uint8 internal constant REVEAL = 2;
    uint8 internal constant PUBLISH = 3;
    uint8 internal constant CONFIRM = 4;
    uint8 internal constant DISPUTE = 5;
    uint8 internal constant ACTIVE = 6;
    uint8 internal constant FAILED = 7;
}

library RoundPhase {
    uint8 internal constant COMMIT = 1;
    uint8 internal constant AGGREGATE = 2;
    uint8 internal constant VERIFY = 3;
    uint8 internal constant VERIFIED = 4;
    uint8 internal constant FINALIZED = 5;
    uint8 internal constant ABORTED = 6;
}

/// @notice What the administrator fixes before a task; windows are seconds of chain time.
struct Config {
    uint256 commitWindow;      // for training, encrypting and committing
    uint256 aggregateWindow;   // for one coordinator's aggregate
    uint256 verifyWindow;      // for a majority of attestations, then again for the decryption shares
    uint256 openGrace;         // for late attestations, once a quorum's shares are all released
    uint256 ceremonyWindow;    // for each of the four steps of a key ceremony
    uint256 minCommits;        // fewest updates in an aggregate: what hides a single one
    uint256 quorumBps;         // votes that settle a verification / committed sites, in basis points (> 5000)
    uint256 maxAttempts;       // coordinators tried before a round is aborted
    uint256 cooldown;          // rounds a coordinator sits out afterwards
    uint256 committeeMax;      // most members of a key committee
}

struct Task {
    uint32 number;            // 1 for the first task
    uint8 threshold;          // key holders needed to open an aggregate, settled when the task starts
    bool open;
    uint32 rounds;            // finalised rounds after which the task ends
    uint32 finalizedCount;
    uint32 lastFinalized;     // round number, 0 while there is none in this task
    uint8 failedCeremonies;   // in a row, without a culprit the contract could name
    bytes32 runDigest;
    bytes32 initialModel;
    bytes32 securityParams;
    uint256 excluded;         // members that may no longer sit in a committee of this task
    string endReason;         // empty while open, and after the planned number of rounds
}

struct Member {
    address account;
    uint8 index;
    uint8 status;
    uint16 score;             // 0..65535
    uint32 maxWeight;
    uint32 saltRound;         // round whose entropy salts this member's tickets
    uint32 lastCoordinated;   // round number, 0 = never
    uint32 included;
    uint32 missed;
    uint32 rejected;
    uint32 coordinated;
    uint32 coordinatorFaults;
    bytes32 sealingKey;       // X25519 public key
    bytes32 onionAnchor;      // tip of the hash onion: keccak256 of the layer to be revealed next
}

struct Epoch {
    uint256 number;
    uint8 phase;
    uint8 threshold;
    uint256 deadline;
    uint256 committee;
    uint256[4] acted;         // who committed, revealed, published, confirmed
    bytes32 keyDigest;        // zero until ACTIVE
}

struct Ceremony {
    uint8 member;
    bytes32[4] digests;       // seed commitment, sealed seeds, key parts, key digest; zero where not yet
}

struct Update {
    uint8 member;
    uint64 size;
    uint32 weight;
    bytes32 digest;
    bytes32 base;
}

struct Share {
    uint8 member;
    uint256 quorum;
    bytes32 digest;
}

struct Round {
    uint32 number;
    uint8 phase;
    uint8 attempt;
    uint8 coordinator;        // member index
    uint32 epoch;
    uint256 deadline;
    uint256 openedAt;
    uint256 weightTotal;
    uint256 aggregateSize;
    uint32 parentRound;       // the finalised round this one builds on, 0 = the initial model
    uint256 selected;
    uint256 committed;
    uint256 declined;
    uint256 included;
    uint256 votedOk;
    uint256 votedBad;
    uint256 revealed;         // members whose onion layer of this round is public
    uint256 released;         // members that released a share of the present aggregate
    uint256 failed;           // members that failed to coordinate this round
    uint256 openQuorum;
    bytes32 parent;
    bytes32 aggregate;
    bytes32 entropy;          // XOR of the revealed layers: independent of transaction order
    bytes32 beacon;
    uint256 ranking;          // best three tickets drawn in this round, see Election
    bytes verdicts;           // integer weights of the included, then reasons for the others, one byte each, ascending index
    string abortReason;
}

/// @notice Everything a driver or a site needs to decide what to do next, read in one call.
struct Snapshot {
    uint64 chainTime;
    uint64 blockNumber;
    Task task;
    Epoch epoch;
    Round round;
    uint256 active;
}
