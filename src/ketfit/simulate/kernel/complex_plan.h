// How the kernel simulates a circuit on complex amplitudes: the plan that the Python side makes
// (pauli_scheduling.py).

#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <utility>
#include <vector>

#include "bits.h"
#include "clifford_frame.h"
#include "complex_kernels.h"

namespace ketfit {

constexpr size_t max_lanes = 16;

inline int parity_of(uint64_t bits) { return __builtin_parityll(bits); }

// A rotation exp(-i angle / 2 P) of a group: R = cos(angle / 2) + sin(angle / 2) W, where W takes from amplitude i, or
// from i ^ x, the factor (-i)^power times the sign of the parity of s & subset.
struct ComplexRotation {
    bool flips;  // P flips the group's bits x
    int subset, power;
    double offset;     // of the angle
    bool reads_input;  // one of its terms is an input
    int column;        // of the signs
};

// One of the angles that a rotation adds up, times a factor.
struct ComplexTerm {
    int32_t angle;  // weight i as i, input k as ~k
    double factor;
};

struct ComplexGroup {
    uint64_t x, z[2];  // masks over the indices of a unit
    int n_parities;
    int partner_parities;  // parities of x & z[k] as bits
    int first_rotation, n_rotations;
    int product_bit;   // the group prepares this bit from |0>, which no earlier group acts on; -1: no such bit
    bool reads_input;  // one of its rotations does
    bool is_one_word;  // all rotations have the same word, whose parity is that of z[0] if there is one
    uint8_t lane_sets[max_lanes];  // parities that a lane adds to those of its row

    int n_sets() const { return 1 << n_parities; }
    // Numbers of a table with `width` lanes.
    size_t table_size(size_t width) const { return size_t(n_sets()) * table_columns * width; }
    // Parities of an index as bits.
    int parities(uint64_t index) const { return parity_of(index & z[0]) | parity_of(index & z[1]) << 1; }
};

// From a row of the groups that pauli_scheduling.py makes.
inline ComplexGroup make_group(const int64_t* row, const std::vector<ComplexRotation>& rotations) {
    ComplexGroup group{};
    group.x = uint64_t(row[0]), group.z[0] = uint64_t(row[1]), group.z[1] = uint64_t(row[2]);
    group.n_parities = int(row[3]), group.first_rotation = int(row[4]), group.n_rotations = int(row[5]);
    group.product_bit = int(row[6]);
    for (size_t lane = 0; lane < max_lanes; ++lane) group.lane_sets[lane] = uint8_t(group.parities(lane));
    group.partner_parities = group.parities(group.x);
    group.is_one_word = group.n_parities < 2;
    for (int i = 0; i < group.n_rotations; ++i) {
        const ComplexRotation &rotation = rotations[size_t(group.first_rotation + i)],
                              &first = rotations[size_t(group.first_rotation)];
        group.reads_input |= rotation.reads_input;
        group.is_one_word &= rotation.flips == first.flips && rotation.subset == group.n_parities;
    }
    return group;
}

// A pass over a chunk of a group, or of this and the next one.
struct ChunkPass {
    int group;         // its number in the stage
    bool is_of_words;  // the groups have one word each
    WordPass words;
};

// Groups that are applied to each chunk of a unit in turn, while the chunk is in the cache. A chunk has the indices
// base ^ (sum of some basis vectors); its own index says which.
struct ComplexStage {
    int first_group, n_groups;
    std::vector<uint64_t> basis;           // its lowest bits are the unit's; each vector alone has its lowest bit
    std::vector<int32_t> outer_positions;  // the bits that are not the lowest of a vector: they number the chunks
    int run_bits;                          // a chunk is made of contiguous runs of 2^run_bits amplitudes
    std::vector<size_t> run_offsets;       // where each run starts, added without carry to the base
    std::vector<PairGroup> groups;         // on a chunk
    std::vector<ChunkPass> passes;         // over a chunk, in turn

    ComplexStage(int first_group, int n_groups, std::vector<uint64_t> basis_vectors, int bits)
        : first_group(first_group), n_groups(n_groups), basis(std::move(basis_vectors)) {
        uint64_t lowest = 0;
        for (const uint64_t vector : basis) lowest |= vector & -vector;
        for (int32_t position = 0; position < bits; ++position)
            if (!(lowest >> position & 1)) outer_positions.push_back(position);
        run_bits = 0;
        while (run_bits < int(basis.size()) && basis[size_t(run_bits)] == uint64_t(1) << run_bits) ++run_bits;
        run_offsets.push_back(0);
        for (size_t bit = size_t(run_bits); bit < basis.size(); ++bit) {
            const size_t n = run_offsets.size();
            for (size_t r = 0; r < n; ++r) run_offsets.push_back(run_offsets[r] ^ basis[bit]);
        }
    }

    size_t n_chunks() const { return size_t(1) << outer_positions.size(); }
    size_t chunk_size() const { return size_t(1) << basis.size(); }
    int row_bits(int lane_bits) const { return int(basis.size()) - lane_bits; }
};

// The mask that a mask over the unit's indices is for those of a chunk. `parity` masks are met by sums of basis
// vectors; others are one.
inline IndexMask chunk_mask(const ComplexStage& stage, uint64_t mask, bool is_parity, int lane_bits) {
    size_t local = 0;
    for (size_t bit = 0; bit < stage.basis.size(); ++bit) {
        const uint64_t vector = stage.basis[bit];
        const bool set = is_parity ? parity_of(vector & mask) : (mask & (vector & -vector)) != 0;
        local |= size_t(set) << bit;
    }
    return {local >> lane_bits, int(local & ((size_t(1) << lane_bits) - 1))};
}

inline size_t highest_bit(size_t mask) { return mask ? size_t(1) << (63 - __builtin_clzll(mask)) : 0; }

// Of a chunk of 2^row_bits rows; a tile has as many orbits as there is room for.
inline RowOrbits make_orbits(size_t pivots, const size_t* masks, int row_bits) {
    RowOrbits orbits{pivots, {masks[0], masks[1]}};
    size_t n_rows = 1;
    for (int bit = 0; bit < row_bits; ++bit) {
        const size_t position = size_t(1) << bit;
        if (!(pivots & position) && n_rows == std::size(orbits.rows)) break;
        orbits.tile_bits |= position;
        if (!(pivots & position)) n_rows *= 2;
    }
    uint8_t* next = orbits.rows;
    for (int s = 0; s < 4; ++s) {
        for (size_t row = 0; row <= orbits.tile_bits; ++row)
            if (!(row & pivots) && (parity_of(row & masks[0]) | parity_of(row & masks[1]) << 1) == s)
                *next++ = uint8_t(row);
        orbits.ends[s] = int(next - orbits.rows);
    }
    return orbits;
}

inline PairGroup chunk_group(const ComplexStage& stage, const ComplexGroup& group, int lane_bits) {
    PairGroup local;
    local.x = chunk_mask(stage, group.x, false, lane_bits);
    local.n_sets = group.n_sets();
    size_t masks[2] = {0, 0};
    for (int k = 0; k < group.n_parities; ++k) {
        masks[k] = chunk_mask(stage, group.z[k], true, lane_bits).row;
        local.partner_parities |= parity_of(local.x.row & masks[k]) << k;
    }
    local.orbits = make_orbits(highest_bit(local.x.row), masks, stage.row_bits(lane_bits));
    return local;
}

// One or two groups of one word each as a pass over a chunk. The rows that they flip have to be independent.
inline WordPass make_word_pass(const ComplexStage& stage, const ComplexGroup* groups, int n_groups, int lane_bits) {
    WordPass pass;
    pass.n_groups = n_groups;
    size_t masks[2] = {0, 0};
    for (int k = 0; k < n_groups; ++k) {
        pass.x[k] = chunk_mask(stage, groups[k].x, false, lane_bits);
        masks[k] = chunk_mask(stage, groups[k].z[0], true, lane_bits).row;
    }
    for (int p = 0; p < 4; ++p) {
        pass.rows[p] = (p & 1 ? pass.x[0].row : 0) ^ (p & 2 ? pass.x[1].row : 0);
        for (int k = 0; k < 2; ++k) pass.parities[k][p] = parity_of(pass.rows[p] & masks[k]);
    }
    size_t pivots = highest_bit(pass.x[0].row);
    pivots |= highest_bit(pass.x[1].row & pivots ? pass.x[0].row ^ pass.x[1].row : pass.x[1].row);
    pass.orbits = make_orbits(pivots, masks, stage.row_bits(lane_bits));
    return pass;
}

struct ComplexPlan {
    int bits, sample_bits;  // log2 of the numbers of amplitudes and of samples in a unit
    int lane_bits;          // of the number type that the plan is for
    int64_t n_weights, n_inputs, n_signs;
    std::vector<ComplexGroup> groups;
    std::vector<ComplexRotation> rotations;
    std::vector<int32_t> term_offsets;  // terms of rotation r: [term_offsets[r], term_offsets[r + 1])
    std::vector<ComplexTerm> terms;
    std::vector<ComplexStage> stages;
    std::vector<PauliWord> words;  // of the unit
    CliffordFrame frame;           // what is left to do for the circuit's state; words are images under it
    bool is_real;                  // states have no imaginary parts
    const PairKernelSet* kernels = nullptr;

    bool single_chunk() const { return stages[0].n_chunks() == 1; }  // then there is one stage
    size_t unit_size() const { return size_t(1) << bits; }
    size_t parts() const { return is_real ? 1 : 2; }  // real numbers of an amplitude
    size_t unit_numbers() const { return parts() * unit_size(); }
    size_t n_words() const { return words.size(); }
    int64_t n_units(int64_t batch) const { return (batch + (int64_t(1) << sample_bits) - 1) >> sample_bits; }

    IndexMask unit_mask(uint64_t mask) const {
        return {size_t(mask >> lane_bits), int(mask & ((uint64_t(1) << lane_bits) - 1))};
    }

    void add_stage(int first_group, int n_groups, std::vector<uint64_t> basis) {
        ComplexStage stage(first_group, n_groups, std::move(basis), bits);
        for (int i = 0; i < n_groups; ++i)
            stage.groups.push_back(chunk_group(stage, groups[size_t(first_group + i)], lane_bits));
        for (int i = 0; i < n_groups; ++i) {
            ChunkPass pass{i, is_word_in_rows(stage, i), {}};
            if (pass.is_of_words) {
                const bool two = i + 1 < n_groups && is_word_in_rows(stage, i + 1) &&
                                 stage.groups[size_t(i)].x.row != stage.groups[size_t(i + 1)].x.row;
                pass.words = make_word_pass(stage, groups.data() + first_group + i, 1 + two, lane_bits);
                i += two;
            }
            stage.passes.push_back(pass);
        }
        stages.push_back(std::move(stage));
    }

    // Group i of a stage has one word, which flips the row.
    bool is_word_in_rows(const ComplexStage& stage, int i) const {
        const ComplexGroup& group = groups[size_t(stage.first_group + i)];
        return group.is_one_word && group.product_bit < 0 && stage.groups[size_t(i)].x.row;
    }

    void add_word(uint64_t x, uint64_t z, int64_t sign = 1) {
        words.push_back({unit_mask(x), unit_mask(z), __builtin_popcountll(x & z) + int(1 - sign)});
    }
};

}  // namespace ketfit
