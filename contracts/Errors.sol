// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

// Every refusal of the ledger. The arguments say what was got and what was expected.

// who may act
error NotMember(address who);
error NotWhitelisted(address who);
error AlreadyRegistered(address who);
error RosterFull();
error NotSuspended(address who);
error NotSelected(uint256 round, address who);
error NotCommitted(uint256 round, address who);
error NotCoordinator(uint256 round, address who, address expected);
error NotInCommittee(uint256 epoch, address who);
error NotAttested(uint256 round, address who);
error NotCast(uint256 round, address who);

// when
error TaskOpen(uint256 task);
error NoTaskOpen();
error TooFewMembers(uint256 active, uint256 needed);
error WrongPhase(uint256 round, uint8 actual, uint8 expected);
error WrongEpochPhase(uint256 epoch, uint8 actual, uint8 expected);
error NotCurrentRound(uint256 round, uint256 current);
error NotCurrentEpoch(uint256 epoch, uint256 current);
error DeadlinePassed(uint256 deadline);
error DeadlineNotReached(uint256 deadline);
error SelectionFixed(uint256 round);
error NotOpened(uint256 round);
error NoSeed(uint256 round);
error NotSketched(uint256 round);
error TooFewRevealed(uint256 revealed, uint256 needed);
error WrongStage(uint256 round, uint8 actual, uint8 expected);

// once
error AlreadyCommitted(uint256 round, address who);
error AlreadyDeclined(uint256 round, address who);
error AlreadyAttested(uint256 round, address who);
error AlreadyRevealed(uint256 round, address who);
error AlreadyDrawn(uint256 round);
error AlreadyCast(uint256 round, address who);
error AlreadyReleased(uint256 round, address who, uint256 quorum);
error AlreadyActed(uint256 epoch, address who);
error AlreadyOpened(uint256 round);
error AlreadyConfirmed(uint256 round, address who);

// what
error BadConfig();
error BadThreshold(uint256 threshold, uint256 committee);
error BadLength(uint256 got, uint256 expected);
error BadWeight(uint256 weight, uint256 maxWeight);
error BadReason(uint256 length);
error BadSelection(uint256 selected, uint256 allowed);
error BadInclusion(uint256 included, uint256 committed);
error BadSplit(uint256 split, uint256 included);
error BadQuorum(uint256 quorum, uint256 committee, uint256 threshold);
error QuorumMismatch(uint256 got, uint256 expected);
error BadReveal(address who);
error BadBallot(uint256 round, address who);
error BadOutcome(uint8 outcome);
error DigestMismatch(bytes32 got, bytes32 expected);
error ZeroDigest();
