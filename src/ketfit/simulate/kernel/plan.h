// What plan.py worked out for a circuit.

#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "passes.h"

namespace ketfit {

// Bit i of `value` goes to bit positions[i].
size_t deposit(size_t value, const int32_t* positions, size_t count) {
    size_t result = 0;
    for (size_t i = 0; i < count; ++i) result |= (value >> i & 1) << positions[i];
    return result;
}

struct Stage {
    int first_op, n_ops, run_bits;
    std::vector<int32_t> positions, others;  // bits of the unit inside and outside a chunk, ascending
    std::vector<size_t> runs;                // where each contiguous run of a chunk lies in the unit
    std::vector<int32_t> columns;            // of each bit of the chunk, see Readout

    size_t chunks() const { return size_t(1) << others.size(); }
    size_t groups() const { return std::min<size_t>(chunks(), 32); }  // partial sums are kept by group
};

// One of the angles that an operation adds up.
struct Term {
    int32_t angle;     // weight i as i, input k as ~k
    int32_t rotation;  // its column in the table of signs
};

struct Plan {
    int bits, sample_bits;
    int64_t n_weights, n_inputs, n_rotations;
    bool joint;  // the result is how the outcomes of the measured qubits are distributed, not <Z> of each
    std::vector<Op> ops;
    std::vector<int32_t> term_offsets;  // of each operation's terms
    std::vector<Term> terms;
    std::vector<uint8_t> reads_input;  // of each operation: whether one of its terms is an input
    std::vector<Stage> stages;
    std::vector<int32_t> measured;  // position of each measured qubit, the most significant bit of an outcome first
    std::vector<int32_t> starts;    // of each position: the operation that starts it, or -1
    const Engines* engines = nullptr;

    template <class T>
    const Engine<T>& engine() const {
        if constexpr (sizeof(T) == 4)
            return engines->f32;
        else
            return engines->f64;
    }
    bool whole() const { return stages[0].chunks() == 1; }  // one chunk is all of a unit, and takes every operation
    size_t size() const { return size_t(1) << bits; }
    size_t n_columns() const { return joint ? size_t(1) << measured.size() : measured.size(); }
    int32_t n_terms(size_t op) const { return term_offsets[op + 1] - term_offsets[op]; }

    // What the measured qubits read at an index of the unit.
    size_t outcome(size_t index) const {
        size_t bits = 0;
        for (const int32_t position : measured) bits = bits << 1 | (index >> position & 1);
        return bits;
    }
    int64_t units(int64_t batch) const { return (batch + (int64_t(1) << sample_bits) - 1) >> sample_bits; }
};

}  // namespace ketfit
