// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Bits} from "../Bits.sol";
import {Election} from "../Election.sol";

/// @notice Sets of members and the election's arithmetic, for any input (fuzzed). Each test's name is its claim.
contract ElectionTest {
    uint256 private constant MEMBERS = 255;

    // ---- Bits

    function testFuzz_countIsTheNumberOfBits(uint256 mask) external pure {
        mask &= type(uint256).max >> 1;                    // the roster's limit
        uint256 slow;
        for (uint256 x = mask; x != 0; x >>= 1) slow += x & 1;
        require(Bits.count(mask) == slow, "count");
    }

    function testFuzz_lowestIsTheFirstBit(uint256 mask, uint8 shift) external pure {
        mask = (mask | 1) << shift;
        require(Bits.lowest(mask) == shift && Bits.has(mask, shift), "lowest");
    }

    function testFuzz_preferNarrowsUnlessNothingIsLeft(uint256 mask, uint256 preferred) external pure {
        uint256 got = Bits.prefer(mask, preferred);
        require(got & ~mask == 0 && (got == 0) == (mask == 0), "prefer");
        require(mask & preferred == 0 ? got == mask : got & ~preferred == 0, "narrow");
    }

    // ---- tickets

    function testFuzz_ticketsAreOneToSixteenAndNeverFallWithTheScore(uint16 score, uint16 higher) external pure {
        (uint256 few, uint256 many) = (Election.tickets(score), Election.tickets(higher));
        require(few >= 1 && few <= Election.MAX_TICKETS, "range");
        require(higher < score || many >= few, "monotone");
        require(Election.tickets(0) == 1 && Election.tickets(Election.SCORE_MAX) == Election.MAX_TICKETS, "ends");
    }

    function testFuzz_aTicketFitsItsFieldAndMoreTicketsNeverHurt(bytes32 layer, bytes32 salt, uint32 round, uint8 count) external pure {
        uint256 held = 1 + uint256(count) % Election.MAX_TICKETS;
        uint256 ticket = Election.lowestTicket(layer, salt, round, held);
        require(ticket != 0 && ticket < 1 << 72, "field");
        require(Election.lowestTicket(layer, salt, round, held + 1) <= ticket, "more");
    }

    // ---- ranking

    /// @dev Whatever the order of insertion, the ranking is the three lowest: so the order of transactions cannot matter.
    function testFuzz_theRankingIsTheThreeLowestInAnyOrder(uint72[8] memory tickets, uint256 order) external pure {
        uint256 ranking;
        uint256 left = 0xff;
        for (uint256 k = 8; k != 0; --k) {
            uint256 i = _nth(left, order % k);
            (left, order) = (left & ~(1 << i), order / k);
            ranking = Election.insert(ranking, _ticket(tickets[i]), i);
        }
        uint256 pool = 0xff;
        for (uint256 place; place < 3; ++place) {
            uint256 best = _best(tickets, pool);
            require(Election.firstRanked(ranking, pool) == best, "place");
            pool &= ~(1 << best);
        }
        require(Election.firstRanked(ranking, pool) == Election.NOBODY, "only three");
    }

    function testFuzz_whoeverIsRankedBelongsToThePool(uint256 ranking, uint256 pool) external pure {
        uint256 found = Election.firstRanked(ranking, pool);
        require(found == Election.NOBODY || Bits.has(pool, found), "pool");
    }

    // ---- draw

    function testFuzz_aDrawIsFromThePool(uint256 pool, bytes32 seed, uint8[8] memory scores) external pure {
        pool &= type(uint256).max >> 1;
        if (pool == 0) return;
        uint256[] memory weights = new uint256[](MEMBERS);
        for (uint256 i; i < MEMBERS; ++i) weights[i] = 1 + scores[i % 8] % 16;
        require(Bits.has(pool, Election.draw(weights, pool, seed)), "pool");
    }

    /// @dev 16 against 1 ticket: over 340 draws the heavy one gets 320 on average, standard deviation 4.3.
    function testFuzz_aDrawFollowsTheWeights(bytes32 seed) external pure {
        uint256[] memory weights = new uint256[](MEMBERS);
        (weights[3], weights[9]) = (1, 16);
        uint256 heavy;
        for (uint256 k; k < 340; ++k) if (Election.draw(weights, 1 << 3 | 1 << 9, keccak256(abi.encode(seed, k))) == 9) ++heavy;
        require(heavy > 290 && heavy < 340, "weights");
    }

    // ---- the slow way

    function _ticket(uint72 drawn) private pure returns (uint256) {
        return drawn == 0 ? 1 : drawn;
    }

    function _best(uint72[8] memory tickets, uint256 pool) private pure returns (uint256 best) {
        best = Bits.lowest(pool);
        for (uint256 i; i < 8; ++i) if (Bits.has(pool, i) && _ticket(tickets[i]) < _ticket(tickets[best])) best = i;
    }

    function _nth(uint256 mask, uint256 n) private pure returns (uint256) {
        for (; n != 0; --n) mask &= mask - 1;
        return Bits.lowest(mask);
    }
}
