// What the parts of the Python module share. Python passes arrays as addresses, 0 for none: it checks shapes and types,
// and keeps the arrays alive during the call.

#pragma once

#include <nanobind/nanobind.h>

#include <cstdint>

#include "arrays.h"

namespace ketfit {

template <class T>
T* pointer(uintptr_t address) {
    return reinterpret_cast<T*>(address);
}

// CircuitBatch in Python, of either dtype.
struct BatchAddresses {
    int64_t size;
    uintptr_t weights, inputs, initial, signs;

    template <class T>
    CircuitBatch<T> as() const {
        return {size, pointer<const T>(weights), pointer<const T>(inputs), pointer<const T>(initial),
                pointer<const int8_t>(signs)};
    }
};

// Gradients in Python, of either dtype.
struct GradientAddresses {
    uintptr_t weights, inputs, initial;

    template <class T>
    Gradients<T> as() const {
        return {pointer<T>(weights), pointer<T>(inputs), pointer<T>(initial)};
    }
};

void bind_density_matrix(nanobind::module_& m);

}  // namespace ketfit
