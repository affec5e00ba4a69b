// The arrays of one call, contiguous and in row-major order. Python passes them as addresses, 0 for none: it checks
// shapes and types, and keeps the arrays alive during the call.

#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>

namespace ketfit {

template <class T>
struct CircuitBatch {
    using Number = T;
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

template <class T>
bool are_finite(const T* numbers, int64_t count) {
    return std::all_of(numbers, numbers + count, [](T number) { return std::isfinite(number); });
}

template <class T>
T* pointer(uintptr_t address) {
    return reinterpret_cast<T*>(address);
}

// CircuitBatch in Python.
struct BatchAddresses {
    int itemsize;  // 4 or 8: numbers are float or double
    int64_t size;
    uintptr_t weights, inputs, initial, signs;

    // Calls function(batch) for the batch of the right type.
    template <class F>
    auto visit(F function) const {
        return itemsize == 4 ? function(as<float>()) : function(as<double>());
    }

    template <class T>
    CircuitBatch<T> as() const {
        return {size, pointer<T>(weights), pointer<T>(inputs), pointer<T>(initial), pointer<int8_t>(signs)};
    }
};

// Gradients in Python, of the batch's type.
struct GradientAddresses {
    uintptr_t weights, inputs, initial;

    template <class T>
    Gradients<T> as() const {
        return {pointer<T>(weights), pointer<T>(inputs), pointer<T>(initial)};
    }
};

}  // namespace ketfit
