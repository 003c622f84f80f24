// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {AccessControl} from "@openzeppelin/contracts/access/AccessControl.sol";
import {LedgerState} from "./LedgerState.sol";
import {Member, MemberStatus, RoundPhase} from "./Types.sol";
import "./Errors.sol";

/// @title Who belongs to the federation
/// @notice A registrar whitelists an account with a cap on its weight; the account then registers its own keys.
abstract contract Membership is LedgerState, AccessControl {
    bytes32 public constant REGISTRAR_ROLE = keccak256("REGISTRAR_ROLE");
    uint16 internal constant SCORE_INITIAL = 32768;
    /// @dev Rounds without tickets after an onion was replaced, so that anchoring anew until the tickets are good does not pay
    /// (docs/election.md).
    uint256 private constant ROTATION_REST = 64;

    /// @notice Allow accounts to register. Whitelisting again before registration changes the cap; afterwards it is fixed,
    /// because the weights of an open round are measured against the sum of the caps.
    function whitelist(address[] calldata who, uint32[] calldata maxWeight) external onlyRole(REGISTRAR_ROLE) {
        if (who.length != maxWeight.length) revert BadLength(maxWeight.length, who.length);
        for (uint256 k; k < who.length; ++k) {
            if (_slot[who[k]] != 0) revert AlreadyRegistered(who[k]);
            if (maxWeight[k] == 0) revert BadWeight(0, type(uint32).max);
            _allowance[who[k]] = maxWeight[k];
            emit Whitelisted(who[k], msg.sender, maxWeight[k]);
        }
    }

    /// @notice Become a member. `sealingKey` is the X25519 key others seal to; `onionAnchor` the tip of the hash onion.
    function register(bytes32 sealingKey, bytes32 onionAnchor) external {
        uint32 maxWeight = _allowance[msg.sender];
        if (maxWeight == 0) revert NotWhitelisted(msg.sender);
        if (_slot[msg.sender] != 0) revert AlreadyRegistered(msg.sender);
        if (sealingKey == 0 || onionAnchor == 0) revert ZeroDigest();
        uint256 index = _members.length;
        if (index >= MAX_MEMBERS) revert RosterFull();
        Member storage m = _members.push();
        m.account = msg.sender;
        m.index = uint8(index);
        m.status = MemberStatus.ACTIVE;
        m.score = SCORE_INITIAL;
        m.maxWeight = maxWeight;
        m.sealingKey = sealingKey;
        _anchor(m, onionAnchor, 0);
        _slot[msg.sender] = index + 1;
        _activeMask |= 1 << index;
        emit Registered(msg.sender, index, sealingKey, onionAnchor);
    }

    /// @notice Take a member out of everything to come. Its committed updates stay part of the open round.
    function suspend(address who, string calldata reason) external onlyRole(REGISTRAR_ROLE) {
        _checkReason(reason);
        uint256 index = _activeIndex(who);
        _members[index].status = MemberStatus.SUSPENDED;
        _activeMask &= ~(1 << index);
        emit Suspended(who, msg.sender, reason);
        _ceremonyLost(index);
        _roundLost(index);
    }

    /// @notice Let a suspended member back in, with the score it had; it takes part from the next round on.
    function reinstate(address who) external onlyRole(REGISTRAR_ROLE) {
        uint256 index = _indexOf(who);
        if (_members[index].status != MemberStatus.SUSPENDED) revert NotSuspended(who);
        _members[index].status = MemberStatus.ACTIVE;
        _activeMask |= 1 << index;
        emit Reinstated(who, msg.sender);
    }

    /// @notice Anchor a fresh hash onion, when the old one is used up. The member draws no tickets for the next 64 rounds.
    /// @dev Never while layers of the open round may be public: a layer chosen after seeing others would steer the entropy.
    function rotateOnion(bytes32 anchor) external {
        uint256 index = _activeIndex(msg.sender);
        uint8 phase = _rounds[_currentRound].phase;
        bool revealing = phase == RoundPhase.AGGREGATE || phase == RoundPhase.VERIFY || phase == RoundPhase.VERIFIED;
        if (revealing) revert WrongPhase(_currentRound, phase, RoundPhase.COMMIT);
        if (anchor == 0) revert ZeroDigest();
        _anchor(_members[index], anchor, ROTATION_REST);
        emit OnionRotated(msg.sender, anchor);
    }

    /// @dev Tickets are salted with the entropy of a LATER round: no part of it can be known when the onion is chosen.
    function _anchor(Member storage m, bytes32 onionAnchor, uint256 rest) private {
        m.onionAnchor = onionAnchor;
        m.saltRound = uint32(_currentRound + 1 + rest);
    }

    /// @dev A member was suspended: what becomes of the ceremony it sits in.
    function _ceremonyLost(uint256 index) internal virtual;

    /// @dev A member was suspended: what becomes of the open round.
    function _roundLost(uint256 index) internal virtual;
}
