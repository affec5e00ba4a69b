// Complex statevectors of any circuit in batches: products of Pauli rotations on pairs of amplitudes.
//
// A unit is one array of 2^bits complex amplitudes, in which the lowest `sample_bits` bits of an index number samples,
// as in gate_kernels.h. A row is a vector of real parts and then one of imaginary parts; the lowest bits of an index
// number lanes, the others rows. A state that stays real has rows of real parts alone, and kernels of its own.
//
// A group is a product of rotations exp(-i angle / 2 P) whose Pauli words P flip the same bits x of an index, or none.
// It therefore acts on pairs of amplitudes i and i ^ x alone:
//     psi_i -> D[s] psi_i + O[s] psi_(i ^ x),
// where bit k of s is the parity of i & z[k]. Two parity masks z are enough for every rotation on one qubit, which
// needs one, and for controlled ones. So all rotations in a row on one qubit are one group, and a gate that permutes
// amplitudes (CNOT, SWAP, X) or gives them signs (CZ, Z) is none: it changes the masks of the groups behind it.
//
// Backward, with lambda the derivative of the loss by the state psi behind a group: the derivatives of all its angles
// follow from the overlaps
//     A[s] = sum of conj(lambda_i) psi_i,  B[s] = sum of conj(lambda_i) psi_(i ^ x)
// over the indices with parities s; then the group is undone on lambda and on psi (Jones and Gacon, arXiv 2009.02823).

#pragma once

#include <cstddef>
#include <cstdint>

#include "simd.h"

namespace ketfit {

// A mask over the indices of a chunk.
struct IndexMask {
    size_t row = 0;
    int lane = 0;
};

// Orbits of the rows of a chunk under what one or two groups flip. In a tile, the first rows of the orbits differ in
// their lowest bits alone. The orbits of a tile are divided into classes, by the parities of their first rows.
struct RowOrbits {
    size_t pivots = 0;         // bits of the row that are 0 in the first row of an orbit
    size_t masks[2] = {0, 0};  // over rows, of the parities
    size_t tile_bits = 0;      // bits of the row that vary within a tile, from the lowest on
    int ends[4] = {};          // of each class: its rows have the parities s in the first tile
    uint8_t rows[64] = {};     // first rows of the orbits of the first tile, class by class
};

// A group on a chunk.
struct PairGroup {
    IndexMask x;
    int partner_parities = 0;  // parities of x.row & z[k].row as bits: how s differs between two rows
    int n_sets = 1;
    RowOrbits orbits;
};

// One or two groups of one word each, which flips the row, in one pass over a chunk: D of a group is the same for all s
// and O has the sign of a parity. The rows of an orbit are partners: bit k of a row's number in it says that group k
// flips it.
struct WordPass {
    int n_groups = 1;
    IndexMask x[2];
    size_t rows[4];      // added without carry to the orbit's first row
    int parities[2][4];  // by which the row's parities differ from those of the first one
    RowOrbits orbits;
};

// Numbers of a table: D and O, or A and B, real and imaginary parts, for each s.
constexpr int table_columns = 4;

// A Pauli word, whose value is the mean of i^power psi_(i ^ x) with a sign, that of the parity of (i ^ x) & z.
struct PauliWord {
    IndexMask x, z;
    int power = 0;  // number of Ys, and 2 more for a negative sign
};

// What a pass takes of each of its groups.
template <class T>
struct WordOperands {
    const T* tables[2] = {};
    int parities[2] = {};                // of the chunk's first index
    bool is_tangent = false;             // all numbers are divided by D, which saves a product
    double* overlaps[2] = {};            // laid out as the table
    double overlap_factors[2] = {1, 1};  // of what is added to the overlaps
};

template <class T>
struct PairKernels {
    int lanes;
    // `table` is [s ^ parity of the lane][column][lane], and `parities` are those of the chunk's first index.
    void (*forward)(const PairGroup&, T* state, size_t n_rows, const T* table, int parities);
    // The table is that of the inverse, or null: the group is not undone. To the overlaps, laid out as the table, those
    // times a factor are added.
    void (*backward)(const PairGroup&, T* state, T* adjoint, size_t n_rows, const T* table, int parities,
                     double* overlaps, double factor);
    // The same for groups of one word. What is added to B[s] of one s is the sum over all, with the signs of O; nothing
    // is added to A.
    void (*forward_words)(const WordPass&, T* state, size_t n_rows, const WordOperands<T>&);
    void (*backward_words)(const WordPass&, T* state, T* adjoint, size_t n_rows, const WordOperands<T>&);
    // to[i] = factor * from[i] for a whole number of vectors, which need not be aligned.
    void (*copy_times)(const T* from, size_t size, T factor, T* to);
    // state[i] = product over bits from `sample_bits` on of factors[bit][bit of i]; factors: [bit][2][re, im][lane].
    void (*prepare_product_state)(T* state, int bits, int sample_bits, const T* factors);
    // Adds the value of a word on rows [begin, end), lane by lane, to sums[lane].
    void (*add_word_value)(const T* state, size_t begin, size_t end, const PauliWord&, double* sums);
    // Adds factors[lane] times the word times the state to the adjoint.
    void (*add_word)(const T* state, T* adjoint, size_t begin, size_t end, const PauliWord&, const T* factors);
};

using PairKernelSet = KernelSet<PairKernels>;

}  // namespace ketfit
