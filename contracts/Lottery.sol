// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Election} from "./Election.sol";
import {LedgerState} from "./LedgerState.sol";
import {Member, Round} from "./Types.sol";
import "./Errors.sol";

/// @title What becomes of a revealed onion layer
/// @notice A member reveals one layer a round, by itself once commits have closed or else with its vote. The layer counts for the
/// round's entropy and lets its owner compete for the next round's office; when it was revealed makes no difference.
abstract contract Lottery is LedgerState {
    /// @dev Checks that `layer` is the member's next one, and uses it up.
    function _reveal(Round storage r, Member storage m, bytes32 layer) internal {
        if (keccak256(abi.encode(layer)) != m.onionAnchor) revert BadReveal(m.account);
        m.onionAnchor = layer;
        r.entropy ^= layer;
        r.revealed |= 1 << m.index;
        _enterLottery(r, m, layer);
    }

    /// @dev Whether the member sits out `round` because it coordinated one of the `cooldown` rounds before.
    function _cooling(Member storage m, uint256 round) internal view returns (bool) {
        return m.lastCoordinated != 0 && m.lastCoordinated + _config.cooldownRounds >= round;
    }

    /// @dev A layer became public: let its owner's tickets compete for the next round.
    function _enterLottery(Round storage r, Member storage m, bytes32 layer) private {
        uint256 cooldown = _config.cooldownRounds;
        if (cooldown != 0 && (m.index == r.coordinator || _cooling(m, r.number + 1))) return;
        if (m.saltRound >= r.number) return;                                // the salt is not fixed yet
        bytes32 salt = _rounds[m.saltRound].entropy;
        if (salt == 0) { m.saltRound = r.number; return; }                  // nobody revealed in that round: salt again
        uint256 ticket = Election.lowestTicket(layer, salt, r.number, Election.tickets(m.score));
        r.ranking = Election.insert(r.ranking, ticket, m.index);
    }
}
