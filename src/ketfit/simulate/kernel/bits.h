// Scattering the bits of a number, as the instruction PDEP does.

#pragma once

#include <cstddef>
#include <cstdint>

namespace ketfit {

// Bit i of `value` goes to bit positions[i], for i < count.
inline size_t deposit_bits(size_t value, const int32_t* positions, size_t count) {
    size_t result = 0;
    for (size_t i = 0; i < count; ++i) result |= (value >> i & 1) << positions[i];
    return result;
}

// The bits of `value` go, in their order, to the bits where `mask` is 0.
inline size_t deposit_bits_outside(size_t value, size_t mask) {
    size_t result = 0;
    for (int bit = 0; value; ++bit)
        if (!(mask >> bit & 1)) {
            result |= (value & 1) << bit;
            value >>= 1;
        }
    return result;
}

}  // namespace ketfit
