// The arrays of one call. All are contiguous, in row-major order.

#pragma once

#include <cstdint>

namespace ketfit {

template <class T>
struct CircuitBatch {
    int64_t size;         // number of samples
    const T* weights;     // [weight]
    const T* inputs;      // [sample][input], or null
    const T* initial;     // [sample][amplitude], or null: |0...0>; a density matrix: its Pauli coefficients
    const int8_t* signs;  // [sample][rotation], +1 or -1 times the angle, or null: all +1
};

// Results; null where a gradient is not wanted.
template <class T>
struct Gradients {
    T* weights;  // [weight]
    T* inputs;   // [sample][input]
    T* initial;  // as the batch's
};

}  // namespace ketfit
