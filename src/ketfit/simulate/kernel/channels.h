// Density matrices of RY and CNOT circuits under noise, as their Pauli coefficients.
//
// rho = 2^-Q sum_P r_P P over all strings P of I, X, Z and Y, with r_P = tr(P rho) real. Two bits of the index belong
// to each qubit, a digit: 0 is I, 1 X, 2 Z, 3 Y. There RY(t) turns X and Z, (x, z) -> (cx + sz, cz - sx) with c = cos t
// and s = sin t; a CNOT permutes strings up to a sign; depolarizing, flips and dephasing scale them; amplitude damping
// adds a share of I to Z. A density matrix of elements would take as much memory and mix 16 numbers where this scales
// one.
//
// An operation acts on two digits, a and b: perhaps a CNOT from a to b and its noise, and then perhaps a rotation of b,
// and of a, and its noise. The 16 strings on both digits are one tile, and a pass goes over all tiles once.
//
// Backward a pass has the coefficients in front of the operation and the derivatives w behind it. It does not undo the
// operation on the coefficients, as noise may have no inverse; density.cpp keeps some of them on the way.

#pragma once

#include <cstddef>

namespace ketfit {

// What happens to one digit: (i, x, z, y) -> (i, xx x + xz z, zx x + zz z + shift i, yy y); and the derivatives by the
// angle of xx, xz, zx and zz.
template <class T>
struct DigitMap {
    bool on;
    T xx, xz, zx, zz, yy, shift;
    T dxx, dxz, dzx, dzz;
};

// After a CNOT: a factor for each of the 16 strings, and then the shift on a and on b.
template <class T>
struct PairNoise {
    bool on;
    T factors[16], shift;
};

// Where coefficient `index` lies. Without the gaps the vectors of a tile, powers of four apart, would fall on the same
// few lines of the cache. Sums of numbers that share no bit are kept: skewed(i + j) = skewed(i) + skewed(j).
inline __attribute__((always_inline)) size_t skewed(size_t index) {
    return index + 16 * ((index >> 8) + (index >> 12) + (index >> 16) + (index >> 20));
}

template <class T>
struct TilePass {
    const T* state;
    T *adjoint, *out;       // out: forward, where to write; it may be `state`
    size_t offsets[16];     // of the vectors of a tile, skewed; number 4 a + b is string (a, b)
    int lane_bits[4];       // of each bit of that number: the lane bit that has to change places with it, or -1
    bool across;            // whether there is one
    size_t mask;            // bits that number vectors of a tile
    size_t first, n_tiles;  // where to start, and how many
    bool cnot;
    const PairNoise<T>* noise;
    DigitMap<T> a, b;
    double slopes[2];  // backward, the sums for a and b: written
};

template <class T>
struct TileEngine {
    int lanes;
    void (*forward)(TilePass<T>&);
    void (*backward)(TilePass<T>&);
    void (*pull)(TilePass<T>&);  // backward without coefficients and slopes: of an observable, say
};

struct TileEngines {
    TileEngine<float> f32;
    TileEngine<double> f64;
    TileEngine<float> narrow_f32;  // one lane, for states too small for vectors
    TileEngine<double> narrow_f64;

    template <class T>
    const TileEngine<T>& engine(bool narrow) const {
        if constexpr (sizeof(T) == 4)
            return narrow ? narrow_f32 : f32;
        else
            return narrow ? narrow_f64 : f64;
    }
};

}  // namespace ketfit
