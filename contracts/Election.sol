// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Bits} from "./Bits.sol";

/// @title How a coordinator and a key committee are chosen
/// @notice Pure arithmetic. The normal election is a private lottery: a member's tickets depend only on its own onion layer
/// and on entropy that was fixed after its onion was anchored, so withholding a layer can only forfeit one's own tickets, and
/// the order of transactions does not matter (prior art: Caucus, Azouvi, McCorry, Meiklejohn 2018).
/// @dev A ranking holds the three lowest tickets, best first: three fields of 80 bits, each (72-bit ticket | 8-bit index).
library Election {
    uint256 internal constant NOBODY = 255;
    uint256 internal constant MAX_TICKETS = 16;
    uint256 internal constant SCORE_MAX = 65535;
    uint256 private constant FIELD = 80;
    uint256 private constant FIELD_MASK = (1 << FIELD) - 1;

    /// @notice 1..16 tickets, linear in the score: the lowest of n uniform draws wins with probability n / all tickets.
    function tickets(uint256 score) internal pure returns (uint256) {
        return 1 + score * (MAX_TICKETS - 1) / SCORE_MAX;
    }

    /// @notice The lowest of a member's `count` tickets in a round: 72 bits, never 0.
    function lowestTicket(bytes32 layer, bytes32 salt, uint256 round, uint256 count) internal pure returns (uint256) {
        bytes32 base = keccak256(abi.encode(layer, salt, round));
        uint256 best = type(uint256).max;
        for (uint256 k; k < count; ++k) {
            uint256 ticket = uint256(keccak256(abi.encode(base, k)));
            if (ticket < best) best = ticket;
        }
        best >>= 184;
        return best == 0 ? 1 : best;
    }

    /// @notice `ranking` with one more ticket, if it is among the best three.
    function insert(uint256 ranking, uint256 ticket, uint256 index) internal pure returns (uint256) {
        uint256 entry = ticket << 8 | index;
        uint256 first = ranking >> 2 * FIELD;
        uint256 second = ranking >> FIELD & FIELD_MASK;
        uint256 third = ranking & FIELD_MASK;
        if (first == 0 || entry < first) (first, second, third) = (entry, first, second);
        else if (second == 0 || entry < second) (second, third) = (entry, second);
        else if (third == 0 || entry < third) third = entry;
        return first << 2 * FIELD | second << FIELD | third;
    }

    /// @notice The best ranked member of `pool`, or NOBODY.
    function firstRanked(uint256 ranking, uint256 pool) internal pure returns (uint256) {
        for (uint256 k = 3; k != 0; --k) {
            uint256 entry = ranking >> FIELD * (k - 1) & FIELD_MASK;
            if (entry != 0 && Bits.has(pool, entry & 255)) return entry & 255;
        }
        return NOBODY;
    }

    /// @notice One member of a non-empty `pool`, with probability weights[i] / sum of weights.
    function draw(uint256[] memory weights, uint256 pool, bytes32 seed) internal pure returns (uint256 pick) {
        uint256 total;
        for (uint256 x = pool; x != 0; x &= x - 1) total += weights[Bits.lowest(x)];
        uint256 point = uint256(keccak256(abi.encode(seed, "draw"))) % total;
        pick = Bits.lowest(pool);
        while (point >= weights[pick]) {
            point -= weights[pick];
            pool &= pool - 1;
            pick = Bits.lowest(pool);
        }
    }
}
