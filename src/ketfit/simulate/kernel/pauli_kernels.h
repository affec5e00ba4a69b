// Density matrices of RY and CNOT circuits under noise, as their Pauli coefficients.
//
// rho = 2^-Q sum_P r_P P over all strings P of I, X, Z and Y, with r_P = tr(P rho) real. Two bits of the index of a
// coefficient belong to each qubit, a digit: 0 is I, 1 X, 2 Z, 3 Y. In these terms
//     RY(t):  (x, z) -> (c x + s z, c z - s x),  c = cos t, s = sin t;
//     CNOT:   a permutation of the strings, with two signs;
//     depolarizing, flips and dephasing:  a factor for each string;
//     amplitude damping:  factors, and a share of I is added to Z.
// The elements of a density matrix would take as much memory, and noise would mix 16 of them where it scales one
// coefficient.
//
// An operation acts on two digits, a and b: an optional CNOT from a to b with its noise, and then an optional rotation
// of b, and of a, with its noise. A tile is the 16 strings on both digits, for fixed digits of all other qubits; one
// pass goes over all tiles, a vector of them at a time.
//
// Backward, a pass needs the coefficients v before the operation and the derivatives w behind it. The operation is not
// undone on v, because noise may have no inverse: density_matrix.cpp stores some of the states.

#pragma once

#include <cstddef>

#include "simd.h"

namespace ketfit {

// A rotation of one digit and its noise: (i, x, z, y) -> (i, xx x + xz z, zx x + zz z + shift i, yy y); and the
// derivatives of xx, xz, zx and zz by the angle.
template <class T>
struct NoisyRotation {
    bool on;
    T xx, xz, zx, zz, yy, shift;
    T dxx, dxz, dzx, dzz;
};

// After a CNOT: a factor for each of the 16 strings, and then amplitude damping's shift of a and of b.
template <class T>
struct CnotNoise {
    bool on;
    T factors[16], shift;
};

// Where coefficient `index` is stored. The vectors of a tile lie at distances that are powers of four, so without gaps
// they would fall on the same few sets of the cache. For numbers without a common bit it is linear:
// padded_index(i + j) = padded_index(i) + padded_index(j).
KETFIT_INLINE size_t padded_index(size_t index) {
    return index + 16 * ((index >> 8) + (index >> 12) + (index >> 16) + (index >> 20));
}

// One operation on the tiles from `first` on.
template <class T>
struct TilePass {
    const T* state;
    T *adjoint, *out;    // out: forward, where to write; it may be `state`
    size_t offsets[16];  // of the vectors of a tile, padded; number 4 a + b is string (a, b)
    int lane_bits[4];    // [bit of that number]: the lane bit that it lies in, or -1; see Simd::transpose
    bool in_lanes;       // one of them is not -1
    size_t mask;         // bits of an index that lanes and the vectors of a tile take; the others number tiles
    size_t first, n_tiles;
    bool cnot;
    const CnotNoise<T>* noise;
    NoisyRotation<T> a, b;
    double derivatives[2];  // by the angles of a and b: written by `backward`
};

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

template <class T>
struct PauliKernels {
    int lanes;
    void (*forward)(TilePass<T>&);
    void (*backward)(TilePass<T>&);        // of `adjoint`, and the derivatives by the angles
    void (*evolve_adjoint)(TilePass<T>&);  // of `adjoint` alone, which may be an observable
};

struct PauliKernelSet {
    KernelSet<PauliKernels> vectors, scalars;  // scalars: one lane, for states too small for vectors
};

}  // namespace ketfit
