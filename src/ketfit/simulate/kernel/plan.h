// How the kernel simulates a circuit: the plan that the Python side makes (native.py).

#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "gate_kernels.h"

namespace ketfit {

// Operations that are applied to each chunk of a unit in turn, while the chunk is in the cache.
struct Stage {
    int first_operation, n_operations;
    std::vector<int32_t> positions;        // bits of the unit's index that a chunk spans, ascending
    std::vector<int32_t> outer_positions;  // the other bits, ascending: they number the chunks
    int run_bits;                          // a chunk is made of contiguous runs of 2^run_bits amplitudes
    std::vector<size_t> run_offsets;       // where in the unit each run starts
    std::vector<int32_t> columns;          // see Readout

    size_t n_chunks() const { return size_t(1) << outer_positions.size(); }
    size_t n_groups() const { return std::min<size_t>(n_chunks(), 32); }  // of chunks, with a partial sum each
};

// One of the angles that an operation adds up.
struct AngleTerm {
    int32_t angle;     // weight i as i, input k as ~k
    int32_t rotation;  // column of the signs
};

struct Plan {
    int bits, sample_bits;  // log2 of the numbers of amplitudes and of samples in a unit
    int64_t n_weights, n_inputs, n_rotations;
    bool joint;  // the result is the distribution of the measured qubits' outcomes, not <Z> of each
    std::vector<Operation> operations;
    std::vector<int32_t> term_offsets;  // terms of operation i: [term_offsets[i], term_offsets[i + 1])
    std::vector<AngleTerm> terms;
    std::vector<uint8_t> reads_input;  // [operation]: one of its terms is an input
    std::vector<Stage> stages;
    std::vector<int32_t> measured;         // positions of the measured qubits, an outcome's most significant bit first
    std::vector<int32_t> first_rotations;  // [position]: the operation with `first_on_qubit` there, or -1
    const GateKernelSet* kernels = nullptr;

    bool single_chunk() const { return stages[0].n_chunks() == 1; }  // then there is one stage
    size_t unit_size() const { return size_t(1) << bits; }
    int64_t n_units(int64_t batch) const { return (batch + (int64_t(1) << sample_bits) - 1) >> sample_bits; }
    size_t n_columns() const { return joint ? size_t(1) << measured.size() : measured.size(); }
    int32_t n_terms(size_t operation) const { return term_offsets[operation + 1] - term_offsets[operation]; }

    // The outcome of the measured qubits for the amplitude at an index of the unit.
    size_t outcome(size_t index) const {
        size_t bits = 0;
        for (const int32_t position : measured) bits = bits << 1 | (index >> position & 1);
        return bits;
    }
};

}  // namespace ketfit
