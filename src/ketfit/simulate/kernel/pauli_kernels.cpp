// The loops over tiles that pauli_kernels.h describes, compiled for the instruction set KETFIT_ISA (see simd.h).

#include "pauli_kernels.h"

namespace ketfit {
namespace {

enum Pauli { I, X, Z, Y };

KETFIT_INLINE constexpr int string_of(int a, int b) { return 4 * a + b; }

template <class V>
KETFIT_INLINE void swap(V& a, V& b) {
    const V old = a;
    a = b, b = old;
}

// P -> CNOT P CNOT, its own inverse: X of the control spreads to the target, Z of the target to the control.
template <class V>
KETFIT_INLINE void apply_cnot(V* v) {
    swap(v[string_of(I, Z)], v[string_of(Z, Z)]);
    swap(v[string_of(I, Y)], v[string_of(Z, Y)]);
    swap(v[string_of(X, I)], v[string_of(X, X)]);
    swap(v[string_of(Y, I)], v[string_of(Y, X)]);
    swap(v[string_of(X, Y)], v[string_of(Y, Z)]);
    const V old = v[string_of(X, Z)];
    v[string_of(X, Z)] = -v[string_of(Y, Y)], v[string_of(Y, Y)] = -old;
}

template <class V, class T>
KETFIT_INLINE void apply_noise(V* v, const CnotNoise<T>& noise) {
    for (int k = 1; k < 16; ++k) v[k] *= noise.factors[k];
    if (noise.shift == 0) return;
    for (int d = 0; d < 4; ++d) v[string_of(Z, d)] += noise.shift * v[string_of(I, d)];
    for (int d = 0; d < 4; ++d) v[string_of(d, Z)] += noise.shift * v[string_of(d, I)];
}

template <class V, class T>
KETFIT_INLINE void apply_noise_adjoint(V* w, const CnotNoise<T>& noise) {
    if (noise.shift != 0) {
        for (int d = 0; d < 4; ++d) w[string_of(d, I)] += noise.shift * w[string_of(d, Z)];
        for (int d = 0; d < 4; ++d) w[string_of(I, d)] += noise.shift * w[string_of(Z, d)];
    }
    for (int k = 1; k < 16; ++k) w[k] *= noise.factors[k];
}

// Of the digit whose values are STRIDE apart in a tile (4: a, 1: b), for every value of the other digit.
template <int STRIDE, class V, class T>
KETFIT_INLINE void apply_rotation(V* v, const NoisyRotation<T>& m) {
    for (int d = 0; d < 4; ++d) {
        V* u = v + d * (STRIDE == 4 ? 1 : 4);
        const V x = u[X * STRIDE], z = u[Z * STRIDE];
        u[X * STRIDE] = m.xx * x + m.xz * z;
        u[Z * STRIDE] = m.zx * x + m.zz * z + m.shift * u[I * STRIDE];
        u[Y * STRIDE] *= m.yy;
    }
}

// Takes the derivatives w from behind the rotation to before it. With the coefficients v before it, the derivative by
// the angle is added to `derivative`.
template <int STRIDE, bool DERIVATIVES, class V, class T>
KETFIT_INLINE void apply_rotation_adjoint(const V* v, V* w, const NoisyRotation<T>& m, V& derivative) {
    for (int d = 0; d < 4; ++d) {
        const V* u = v + d * (STRIDE == 4 ? 1 : 4);
        V* g = w + d * (STRIDE == 4 ? 1 : 4);
        const V x = g[X * STRIDE], z = g[Z * STRIDE];
        if (DERIVATIVES)
            derivative += x * (m.dxx * u[X * STRIDE] + m.dxz * u[Z * STRIDE]) +
                          z * (m.dzx * u[X * STRIDE] + m.dzz * u[Z * STRIDE]);
        g[X * STRIDE] = m.xx * x + m.zx * z;
        g[Z * STRIDE] = m.xz * x + m.zz * z;
        g[I * STRIDE] += m.shift * z;
        g[Y * STRIDE] *= m.yy;
    }
}

template <class S, class V, class T>
KETFIT_INLINE void load_tile(V* v, const T* from, const TilePass<T>& pass) {
    for (int k = 0; k < 16; ++k) __builtin_memcpy(&v[k], from + pass.offsets[k], sizeof(V));
    if (pass.in_lanes) S::transpose(v, pass.lane_bits);
}

template <class S, class V, class T>
KETFIT_INLINE void store_tile(V* v, T* to, const TilePass<T>& pass) {
    if (pass.in_lanes) S::transpose(v, pass.lane_bits);
    for (int k = 0; k < 16; ++k) __builtin_memcpy(to + pass.offsets[k], &v[k], sizeof(V));
}

template <class S, class T>
void forward(TilePass<T>& pass) {
    using V = typename S::Vector;
    size_t index = pass.first;
    for (size_t tile = 0; tile < pass.n_tiles; ++tile, index = next_index(index, pass.mask)) {
        V v[16];
        load_tile<S>(v, pass.state + padded_index(index), pass);
        if (pass.cnot) {
            apply_cnot(v);
            if (pass.noise->on) apply_noise(v, *pass.noise);
        }
        if (pass.b.on) apply_rotation<1>(v, pass.b);
        if (pass.a.on) apply_rotation<4>(v, pass.a);
        store_tile<S>(v, pass.out + padded_index(index), pass);
    }
}

template <class S, class T, bool DERIVATIVES>
void backward(TilePass<T>& pass) {
    using V = typename S::Vector;
    double derivatives[2] = {};
    size_t index = pass.first;
    for (size_t tile = 0; tile < pass.n_tiles;) {
        V derivative_a = S::zero(), derivative_b = S::zero();  // a long sum in single precision would lose digits
        for (const size_t end = tile + 64 < pass.n_tiles ? tile + 64 : pass.n_tiles; tile < end;
             ++tile, index = next_index(index, pass.mask)) {
            V v[16], w[16];
            load_tile<S>(w, pass.adjoint + padded_index(index), pass);
            if (DERIVATIVES) {
                load_tile<S>(v, pass.state + padded_index(index), pass);
                if (pass.cnot) {
                    apply_cnot(v);
                    if (pass.noise->on) apply_noise(v, *pass.noise);
                }
            }
            if (pass.a.on) {
                V u[16];  // v behind the rotation of b
                if (DERIVATIVES) {
                    for (int k = 0; k < 16; ++k) u[k] = v[k];
                    if (pass.b.on) apply_rotation<1>(u, pass.b);
                }
                apply_rotation_adjoint<4, DERIVATIVES>(u, w, pass.a, derivative_a);
            }
            if (pass.b.on) apply_rotation_adjoint<1, DERIVATIVES>(v, w, pass.b, derivative_b);
            if (pass.cnot) {
                if (pass.noise->on) apply_noise_adjoint(w, *pass.noise);
                apply_cnot(w);
            }
            store_tile<S>(w, pass.adjoint + padded_index(index), pass);
        }
        derivatives[0] += S::sum(derivative_a);
        derivatives[1] += S::sum(derivative_b);
    }
    pass.derivatives[0] = derivatives[0];
    pass.derivatives[1] = derivatives[1];
}

template <class S, class T>
constexpr PauliKernels<T> kernels() {
    return {S::lanes, forward<S, T>, backward<S, T, true>, backward<S, T, false>};
}

template <class T>
using Lanes = Simd<T, KETFIT_VECTOR_BYTES>;

}  // namespace

extern const PauliKernelSet KETFIT_FOR_ISA(pauli_kernels_);
const PauliKernelSet KETFIT_FOR_ISA(pauli_kernels_) = {
    {kernels<Lanes<float>, float>(), kernels<Lanes<double>, double>()},
    {kernels<Scalar<float>, float>(), kernels<Scalar<double>, double>()}};

}  // namespace ketfit
