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
    uint8 internal constant DISPUTE = 5;             // somebody gave up its key to prove a fault: never ACTIVE any more
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

/// @notice Where the vote on an aggregate with two halves is; NONE where there is only one.
library BallotStage {
    uint8 internal constant CAST = 1;
    uint8 internal constant REVEAL = 2;
    uint8 internal constant COUNTED = 3;
}

/// @notice What the sites made of an opened aggregate.
library Outcome {
    uint8 internal constant WHOLE = 0;               // everything included
    uint8 internal constant FIRST = 1;               // only the half that is not in `split`
    uint8 internal constant SECOND = 2;              // only `split`
    uint8 internal constant NONE = 3;                // neither: the model stays as it was
    uint8 internal constant SPOILED = 4;             // a sum out of its range: never final
}

/// @notice What the administrator fixes before a task; windows are seconds of chain time.
struct Config {
    uint32 commitWindow;       // for training, encrypting and committing
    uint32 aggregateWindow;    // for one coordinator's aggregate
    uint32 verifyWindow;       // for a majority of attestations, again for decryption shares, again to confirm what they open
    uint32 openGrace;          // for late attestations and confirmations, once a majority confirmed one model
    uint32 ceremonyWindow;     // for each of the four steps of a key ceremony, and for a dispute
    uint16 minCommits;         // fewest updates in an aggregate: what hides a single one
    uint16 quorumBps;          // votes that settle a verification / committed sites, in basis points (> 5000)
    uint16 maxAttempts;        // coordinators tried before a round is aborted, and key ceremonies before the task ends
    uint16 cooldownRounds;     // rounds a coordinator sits out afterwards
    uint16 committeeMax;       // most members of a key committee
    uint16 epochRounds;        // finalised rounds after which new keys are made; 0 = only when members change
}

struct Task {
    uint32 number;            // 1 for the first task
    uint8 threshold;          // key holders needed to open an aggregate, settled when the task starts
    bool open;
    bool screened;            // updates are judged by their sketches, so no coordinator can add before these are opened
    uint32 rounds;            // finalised rounds after which the task ends
    uint32 finalizedCount;
    uint32 lastFinalized;     // round number, 0 while there is none in this task
    uint8 failedCeremonies;   // in a row, for which nobody was excluded
    bytes32 runDigest;
    bytes32 initialModel;
    bytes32 securityParams;
    uint256 excluded;         // proved or accused by a majority: in no later committee of this task
    uint256 absent;           // silent in a ceremony: left out of the next attempts, until one succeeds
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
    uint32 number;
    uint8 phase;
    uint8 threshold;
    bool renewal;             // new keys are to be made before the next round
    bool struckOut;           // strikes have ended a round of this epoch
    uint32 finalizedBefore;   // the task's finalised rounds when the epoch opened
    uint64 deadline;
    uint256 committee;
    uint256 pool;             // active and not excluded when the epoch opened
    uint256 accused;          // members that somebody accused in this epoch
    uint256[4] acted;         // who committed, revealed, published, confirmed
    bytes32 keyDigest;        // zero until ACTIVE
}

struct Ceremony {
    uint8 member;
    bytes32[4] digests;       // seed commitment, sealed seeds, key parts, key digest; zero where not yet
}

struct Accusation {
    uint8 accuser;
    uint8 culprit;
    uint32 round;             // whose shares it is about; 0 in a ceremony
    bytes32 evidence;         // stored object that gives up the accuser's own key of the epoch, 0 = none
}

struct Update {
    uint8 member;
    uint64 size;
    uint32 weight;
    bytes32 digest;
}

struct Share {
    uint8 member;
    uint256 quorum;
    bytes32 digest;
}

struct Ballot {
    uint8 member;
    uint8 choice;
    bytes32 commitment;
}

struct Round {
    uint32 number;
    uint8 phase;
    uint8 attempt;
    uint8 coordinator;        // member index
    bool released;            // whether honest holders may have released shares of the present aggregate
    uint32 epoch;
    uint32 parentRound;       // the finalised round this one builds on, 0 = the initial model
    uint64 deadline;
    uint8 outcome;            // what the model of `opened` takes up
    uint8 ballotStage;
    uint8 spoils;             // how often an opened aggregate of this round was out of its range
    bool sketched;            // whether one quorum has released all parts of the present sketches
    uint64 openedAt;
    uint64 weightTotal;
    uint64 aggregateSize;
    uint256 selected;
    uint256 committed;
    uint256 declined;
    uint256 included;
    uint256 split;            // the second half of an aggregate with two, 0 = it has one
    uint256 votedOk;
    uint256 votedBad;
    uint256 revealed;         // members whose onion layer of this round is public
    uint256 failed;           // members that failed to coordinate this round
    uint256 openQuorum;       // key holders whose shares for each other are all released, 0 = none
    uint256 confirmed;        // members that opened those shares and named the model they got
    uint256 disputed;         // key holders whose shares were found wrong: in no quorum of this round any more
    uint256 cast;             // members that cast a ballot on the two halves
    uint256 balloted;         // members that showed it
    bytes32 screenSeed;       // what every update is sketched with, 0 = not drawn
    bytes32 spoiled;          // digest of the places in which the last aggregate was out of its range, 0 = none was
    bytes32 base;             // digest of the model every update of this round starts from
    bytes32 opened;           // digest of the model after this round, once a majority named it
    bytes32 parent;           // aggregate of the parent round; never stored, LedgerReadings fills it in
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
