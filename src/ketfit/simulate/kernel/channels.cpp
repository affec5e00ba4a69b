// The passes of channels.h, on vectors of KETFIT_VECTOR_BYTES: compiled once for each instruction set (KETFIT_ISA).
// No functions of the standard library here: of an inline one the linker would keep one copy for all processors.

#include "channels.h"

#include <utility>

#define INLINE inline __attribute__((always_inline))

namespace ketfit {
namespace {

template <class T>
struct Wide {
    typedef T V __attribute__((vector_size(KETFIT_VECTOR_BYTES)));
    static constexpr int lanes = KETFIT_VECTOR_BYTES / sizeof(T);

    // a keeps the lanes where BIT is 0 and takes those of b, moved to where BIT is 1; b the other way round.
    template <int BIT, int... I>
    static INLINE void exchange(V& a, V& b, std::integer_sequence<int, I...>) {
        const V low = __builtin_shufflevector(a, b, (I >> BIT & 1 ? lanes + (I ^ (1 << BIT)) : I)...);
        const V high = __builtin_shufflevector(a, b, (I >> BIT & 1 ? lanes + I : (I ^ (1 << BIT)))...);
        a = low, b = high;
    }

    template <int BIT>
    static INLINE void exchange_all(V* v, int number_bit) {
        if constexpr ((1 << BIT) < lanes)
            for (int k = 0; k < 16; ++k)
                if (!(k >> number_bit & 1))
                    exchange<BIT>(v[k], v[k | 1 << number_bit], std::make_integer_sequence<int, lanes>());
    }

    // Digits that lie across the lanes change places with the bits that number a tile's vectors, and back.
    static INLINE void transpose(V* v, const int* lane_bits) {
        for (int bit = 0; bit < 4; ++bit) {
            if (lane_bits[bit] == 0) exchange_all<0>(v, bit);
            if (lane_bits[bit] == 1) exchange_all<1>(v, bit);
            if (lane_bits[bit] == 2) exchange_all<2>(v, bit);
            if (lane_bits[bit] == 3) exchange_all<3>(v, bit);
        }
    }

    static INLINE V zero() { return V{}; }

    static double sum(V v) {
        double total = 0;
        for (int lane = 0; lane < lanes; ++lane) total += v[lane];
        return total;
    }
};

template <class T>
struct Narrow {
    typedef T V;
    static constexpr int lanes = 1;
    static INLINE void transpose(V*, const int*) {}
    static INLINE V zero() { return 0; }
    static double sum(V v) { return v; }
};

enum { I, X, Z, Y };

INLINE constexpr int at(int a, int b) { return 4 * a + b; }

template <class V>
INLINE void swap(V& a, V& b) {
    const V old = a;
    a = b, b = old;
}

// P -> CNOT P CNOT, its own inverse: X of the control spreads to the target, Z of the target to the control.
template <class V>
INLINE void cnot(V* v) {
    swap(v[at(I, Z)], v[at(Z, Z)]);
    swap(v[at(I, Y)], v[at(Z, Y)]);
    swap(v[at(X, I)], v[at(X, X)]);
    swap(v[at(Y, I)], v[at(Y, X)]);
    swap(v[at(X, Y)], v[at(Y, Z)]);
    const V old = v[at(X, Z)];
    v[at(X, Z)] = -v[at(Y, Y)], v[at(Y, Y)] = -old;
}

template <class V, class T>
INLINE void add_noise(V* v, const PairNoise<T>& noise) {
    for (int k = 1; k < 16; ++k) v[k] *= noise.factors[k];
    if (noise.shift == 0) return;
    for (int d = 0; d < 4; ++d) v[at(Z, d)] += noise.shift * v[at(I, d)];
    for (int d = 0; d < 4; ++d) v[at(d, Z)] += noise.shift * v[at(d, I)];
}

template <class V, class T>
INLINE void add_noise_adjoint(V* w, const PairNoise<T>& noise) {
    if (noise.shift != 0) {
        for (int d = 0; d < 4; ++d) w[at(d, I)] += noise.shift * w[at(d, Z)];
        for (int d = 0; d < 4; ++d) w[at(I, d)] += noise.shift * w[at(Z, d)];
    }
    for (int k = 1; k < 16; ++k) w[k] *= noise.factors[k];
}

// On the digit whose values are `step` apart in the tile, for every value of the other.
template <int STEP, class V, class T>
INLINE void map_digit(V* v, const DigitMap<T>& m) {
    for (int d = 0; d < 4; ++d) {
        V* u = v + d * (STEP == 4 ? 1 : 4);
        const V x = u[X * STEP], z = u[Z * STEP];
        u[X * STEP] = m.xx * x + m.xz * z;
        u[Z * STEP] = m.zx * x + m.zz * z + m.shift * u[I * STEP];
        u[Y * STEP] *= m.yy;
    }
}

// From the coefficients in front: the slope by the angle is added; and the derivatives go in front.
template <int STEP, bool SLOPES, class V, class T>
INLINE void map_digit_adjoint(const V* v, V* w, const DigitMap<T>& m, V& slope) {
    for (int d = 0; d < 4; ++d) {
        const V* u = v + d * (STEP == 4 ? 1 : 4);
        V* g = w + d * (STEP == 4 ? 1 : 4);
        const V x = g[X * STEP], z = g[Z * STEP];
        if (SLOPES)
            slope += x * (m.dxx * u[X * STEP] + m.dxz * u[Z * STEP]) + z * (m.dzx * u[X * STEP] + m.dzz * u[Z * STEP]);
        g[X * STEP] = m.xx * x + m.zx * z;
        g[Z * STEP] = m.xz * x + m.zz * z;
        g[I * STEP] += m.shift * z;
        g[Y * STEP] *= m.yy;
    }
}

// The next number with zeros at the bits of `mask`.
INLINE size_t next(size_t i, size_t mask) { return ((i | mask) + 1) & ~mask; }

template <class S, class V, class T>
INLINE void load(V* v, const T* from, const TilePass<T>& p) {
    for (int k = 0; k < 16; ++k) __builtin_memcpy(&v[k], from + p.offsets[k], sizeof(V));
    if (p.across) S::transpose(v, p.lane_bits);
}

template <class S, class V, class T>
INLINE void store(V* v, T* to, const TilePass<T>& p) {
    if (p.across) S::transpose(v, p.lane_bits);
    for (int k = 0; k < 16; ++k) __builtin_memcpy(to + p.offsets[k], &v[k], sizeof(V));
}

template <class S, class T>
void forward(TilePass<T>& p) {
    using V = typename S::V;
    size_t i = p.first;
    for (size_t tile = 0; tile < p.n_tiles; ++tile, i = next(i, p.mask)) {
        V v[16];
        load<S>(v, p.state + skewed(i), p);
        if (p.cnot) {
            cnot(v);
            if (p.noise->on) add_noise(v, *p.noise);
        }
        if (p.b.on) map_digit<1>(v, p.b);
        if (p.a.on) map_digit<4>(v, p.a);
        store<S>(v, p.out + skewed(i), p);
    }
}

template <class S, class T, bool SLOPES>
void backward(TilePass<T>& p) {
    using V = typename S::V;
    double slopes[2] = {};
    size_t i = p.first;
    for (size_t tile = 0; tile < p.n_tiles;) {
        V slope_a = S::zero(), slope_b = S::zero();  // long sums in single precision lose digits
        for (const size_t end = tile + 64 < p.n_tiles ? tile + 64 : p.n_tiles; tile < end;
             ++tile, i = next(i, p.mask)) {
            V v[16], w[16];
            load<S>(w, p.adjoint + skewed(i), p);
            if (SLOPES) {
                load<S>(v, p.state + skewed(i), p);
                if (p.cnot) {
                    cnot(v);
                    if (p.noise->on) add_noise(v, *p.noise);
                }
            }
            if (p.a.on) {
                V u[16];
                if (SLOPES) {
                    for (int k = 0; k < 16; ++k) u[k] = v[k];
                    if (p.b.on) map_digit<1>(u, p.b);
                }
                map_digit_adjoint<4, SLOPES>(u, w, p.a, slope_a);
            }
            if (p.b.on) map_digit_adjoint<1, SLOPES>(v, w, p.b, slope_b);
            if (p.cnot) {
                if (p.noise->on) add_noise_adjoint(w, *p.noise);
                cnot(w);
            }
            store<S>(w, p.adjoint + skewed(i), p);
        }
        slopes[0] += S::sum(slope_a);
        slopes[1] += S::sum(slope_b);
    }
    p.slopes[0] = slopes[0];
    p.slopes[1] = slopes[1];
}

template <class S, class T>
constexpr TileEngine<T> engine() {
    return {S::lanes, forward<S, T>, backward<S, T, true>, backward<S, T, false>};
}

#define JOIN2(a, b) a##b
#define JOIN(a, b) JOIN2(a, b)

}  // namespace

extern const TileEngines JOIN(tiles_, KETFIT_ISA);
const TileEngines JOIN(tiles_, KETFIT_ISA) = {engine<Wide<float>, float>(), engine<Wide<double>, double>(),
                                              engine<Narrow<float>, float>(), engine<Narrow<double>, double>()};

}  // namespace ketfit
