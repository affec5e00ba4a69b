// For the tests: random numbers, and the kernels of every instruction set that this processor supports.

#pragma once

#include <doctest/doctest.h>

#include <cmath>
#include <cstddef>
#include <initializer_list>
#include <random>
#include <vector>

#include "buffer_pool.h"
#include "instruction_sets.h"

namespace ketfit {

template <class T>
constexpr double tolerance = sizeof(T) == 4 ? 2e-6 : 1e-14;

template <class T>
Buffer<T> random_buffer(size_t size, std::mt19937& rng) {
    Buffer<T> buffer(size);
    std::uniform_real_distribution<T> uniform(-1, 1);
    for (size_t i = 0; i < size; ++i) buffer.data[i] = uniform(rng);
    return buffer;
}

// The largest difference of the first numbers.
template <class A, class B>
double max_difference(const A* a, const B* b, size_t size) {
    double largest = 0;
    for (size_t i = 0; i < size; ++i) {
        const double difference = std::abs(double(a[i]) - double(b[i]));
        if (!(difference <= largest)) largest = difference;  // NaN too
    }
    return largest;
}

// Calls visit(set) for every supported instruction set, and names it if a check fails.
template <class F>
void for_each_instruction_set(F visit) {
    for (const InstructionSet& set : instruction_sets())
        if (set.is_supported) {
            INFO("instruction set ", set.name);
            visit(set);
        }
}

}  // namespace ketfit
