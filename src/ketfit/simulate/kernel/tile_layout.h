// Where the tiles of an operation lie in the array of Pauli coefficients.

#pragma once

#include <cstddef>

#include "pauli_kernels.h"

namespace ketfit {

// A pass for digits a and b, counted from the lowest bits of the index, with `lanes` lanes; only its layout is set.
template <class T>
TilePass<T> make_tile_layout(int a, int b, size_t lanes) {
    TilePass<T> pass{};
    const int bits[4] = {2 * b, 2 * b + 1, 2 * a, 2 * a + 1};
    pass.mask = lanes - 1;
    for (const int bit : bits) pass.mask |= size_t(1) << bit;
    size_t strides[4];
    for (int k = 0; k < 4; ++k) {
        const bool in_lanes = size_t(1) << bits[k] < lanes;
        pass.lane_bits[k] = in_lanes ? bits[k] : -1;
        pass.in_lanes |= in_lanes;
        size_t stride = size_t(1) << bits[k];
        if (in_lanes)  // the lowest bit that is free changes places with it while the tile is worked on
            for (stride = 1; pass.mask & stride;) stride <<= 1;
        pass.mask |= stride;
        strides[k] = stride;
    }
    for (size_t number = 0; number < 16; ++number)
        for (int k = 0; k < 4; ++k)
            if (number >> k & 1) pass.offsets[number] += padded_index(strides[k]);
    return pass;
}

}  // namespace ketfit
