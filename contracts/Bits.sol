// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

/// @notice Sets of member indices as 256-bit masks.
library Bits {
    /// @notice Whether bit `i` is set.
    function has(uint256 mask, uint256 i) internal pure returns (bool) {
        return mask >> i & 1 == 1;
    }

    /// @notice Number of set bits, by adding neighbouring fields of growing width. At most 255 may be set (the roster's limit).
    function count(uint256 x) internal pure returns (uint256) {
        unchecked {
            uint256 m1 = type(uint256).max / 3;      // 0101...
            uint256 m2 = type(uint256).max / 5;      // 00110011...
            uint256 m4 = type(uint256).max / 17;     // 00001111...
            x -= (x >> 1) & m1;
            x = (x & m2) + ((x >> 2) & m2);
            x = (x + (x >> 4)) & m4;                 // 32 fields of 8 bits, each at most 8
            return (x * (type(uint256).max / 255)) >> 248;
        }
    }

    /// @notice Index of the lowest set bit; 0 for the empty set.
    function lowest(uint256 x) internal pure returns (uint256 i) {
        unchecked {
            x &= ~x + 1;
            if (x >> 128 != 0) { x >>= 128; i += 128; }
            if (x >> 64 != 0) { x >>= 64; i += 64; }
            if (x >> 32 != 0) { x >>= 32; i += 32; }
            if (x >> 16 != 0) { x >>= 16; i += 16; }
            if (x >> 8 != 0) { x >>= 8; i += 8; }
            if (x >> 4 != 0) { x >>= 4; i += 4; }
            if (x >> 2 != 0) { x >>= 2; i += 2; }
            if (x >> 1 != 0) i += 1;
        }
    }

    /// @notice `mask` narrowed to `preferred`, unless nothing would be left.
    function prefer(uint256 mask, uint256 preferred) internal pure returns (uint256) {
        return mask & preferred != 0 ? mask & preferred : mask;
    }
}
