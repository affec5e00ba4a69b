// The passes over a chunk, on vectors of KETFIT_VECTOR_BYTES: compiled once for each instruction set (KETFIT_ISA).
// No functions of the standard library here: of an inline one the linker would keep one copy for all processors.

#include "passes.h"

#include <utility>

#define INLINE inline __attribute__((always_inline))

namespace ketfit {
namespace {

template <class T>
struct Simd {
    typedef T V __attribute__((vector_size(KETFIT_VECTOR_BYTES)));
    static constexpr int lanes = KETFIT_VECTOR_BYTES / sizeof(T);
    static constexpr int bits = lanes == 2 ? 1 : lanes == 4 ? 2 : lanes == 8 ? 3 : 4;
};

template <class T>
using V = typename Simd<T>::V;

template <class T>
INLINE V<T> load(const T* from) {
    V<T> v;
    __builtin_memcpy(&v, from, sizeof v);
    return v;
}

template <int BIT, class W, int... I>
INLINE W across(W v, std::integer_sequence<int, I...>) {
    return __builtin_shufflevector(v, v, (I ^ (1 << BIT))...);
}

// Every lane's partner along a lane bit.
template <class T, int BIT>
INLINE V<T> across(V<T> v) {
    return across<BIT>(v, std::make_integer_sequence<int, Simd<T>::lanes>());
}

// The next number with zeros at the bits of `mask`.
INLINE size_t next(size_t i, size_t mask) { return ((i | mask) + 1) & ~mask; }

template <bool PLAIN, bool FLIP, class W>
INLINE void turn(W& a, W& b, W c, W s) {
    const W old = a;
    if (FLIP) {
        a = (PLAIN ? b : c * b) - s * old;
        b = (PLAIN ? old : c * old) + s * b;
    } else {
        a = (PLAIN ? old : c * old) - s * b;
        b = (PLAIN ? b : c * b) + s * old;
    }
}

// The inverse: a flip is its own.
template <bool PLAIN, bool FLIP, class W>
INLINE void unturn(W& a, W& b, W c, W s) {
    turn<PLAIN, FLIP>(a, b, c, FLIP ? s : -s);
}

// Two operations in one pass: on y, a turn or (FIRST) a flip, and then on z, with y as its control or (not SECOND)
// without one; on the rows that have the bits `base` and zeros elsewhere in `mask`. Slopes are added to.
template <class T, bool ADJOINT, bool PLAIN, bool FIRST, bool SECOND>
void quads(const Chunk<T>& k, size_t base, size_t sy, size_t sz, size_t mask, const T* g, const T* h, V<T>& slope_g,
           V<T>& slope_h) {
    using W = V<T>;
    const size_t rows = (size_t(1) << k.bits) / Simd<T>::lanes;
    W* const state = reinterpret_cast<W*>(k.state) + base;
    W* const adjoint = reinterpret_cast<W*>(k.adjoint) + base;
    const W cg = load(g), sg = load(g + Simd<T>::lanes), ch = load(h), sh = load(h + Simd<T>::lanes);
    W total_g = {}, total_h = {};
    for (size_t i = 0; i < rows; i = next(i, mask)) {
        W *x = state + i, *y = x + sy;
        W a = x[0], b = x[sz], c = y[0], d = y[sz];
        if (!ADJOINT) {
            turn<PLAIN, FIRST>(a, c, cg, sg);
            turn<PLAIN, FIRST>(b, d, cg, sg);
            turn<PLAIN, false>(a, b, ch, sh);
            turn<PLAIN, SECOND>(c, d, ch, sh);
        } else {
            W *u = adjoint + i, *v = u + sy;
            W p = u[0], q = u[sz], r = v[0], t = v[sz];
            total_h += q * a - p * b + (t * c - r * d);
            unturn<PLAIN, false>(a, b, ch, sh);
            unturn<PLAIN, false>(p, q, ch, sh);
            unturn<PLAIN, SECOND>(c, d, ch, sh);
            unturn<PLAIN, SECOND>(r, t, ch, sh);
            total_g += r * a - p * c + (t * b - q * d);
            unturn<PLAIN, FIRST>(a, c, cg, sg);
            unturn<PLAIN, FIRST>(p, r, cg, sg);
            unturn<PLAIN, FIRST>(b, d, cg, sg);
            unturn<PLAIN, FIRST>(q, t, cg, sg);
            u[0] = p, u[sz] = q, v[0] = r, v[sz] = t;
        }
        x[0] = a, x[sz] = b, y[0] = c, y[sz] = d;
    }
    slope_g += total_g;
    slope_h += total_h;
}

// Row target, control none or a row: the pairs whose rows have the bits `base` and zeros elsewhere in `mask`.
template <class T, bool ADJOINT, bool PLAIN, bool FLIP>
V<T> pairs(const Chunk<T>& k, size_t base, size_t step, size_t mask, V<T> c, V<T> s) {
    using W = V<T>;
    const size_t rows = (size_t(1) << k.bits) / Simd<T>::lanes;
    W* state = reinterpret_cast<W*>(k.state) + base;
    W* adjoint = reinterpret_cast<W*>(k.adjoint) + base;
    W even = {}, odd = {};
    for (size_t i = 0; i < rows; i = next(i, mask)) {
        W a = state[i], b = state[i + step];
        if (!ADJOINT) {
            turn<PLAIN, FLIP>(a, b, c, s);
        } else {
            W p = adjoint[i], q = adjoint[i + step];
            even += q * a;
            odd += p * b;
            unturn<PLAIN, FLIP>(a, b, c, s);
            unturn<PLAIN, FLIP>(p, q, c, s);
            adjoint[i] = p;
            adjoint[i + step] = q;
        }
        state[i] = a;
        state[i + step] = b;
    }
    return even - odd;
}

template <class T>
struct Matrix {
    V<T> aa, ab, ba, bb;  // a' = aa a + ab b, b' = ba a + bb b, each lane with numbers of its own
};

// Row target, whatever each lane does to it.
template <class T, bool ADJOINT>
V<T> mixed(const Chunk<T>& k, size_t step, const Matrix<T>& m) {
    using W = V<T>;
    const size_t rows = (size_t(1) << k.bits) / Simd<T>::lanes;
    W* state = reinterpret_cast<W*>(k.state);
    W* adjoint = reinterpret_cast<W*>(k.adjoint);
    W even = {}, odd = {};
    for (size_t i = 0; i < rows; i = next(i, step)) {
        const W a = state[i], b = state[i + step];
        if (ADJOINT) {
            const W p = adjoint[i], q = adjoint[i + step];
            even += q * a;
            odd += p * b;
            adjoint[i] = m.aa * p + m.ab * q;
            adjoint[i + step] = m.ba * p + m.bb * q;
        }
        state[i] = m.aa * a + m.ab * b;
        state[i + step] = m.ba * a + m.bb * b;
    }
    return even - odd;
}

// Lane target: v' = own v + other (v across the target), on rows that have the bits `base` and zeros in `mask`.
template <class T, bool ADJOINT, int BIT>
V<T> lanes(const Chunk<T>& k, size_t base, size_t mask, V<T> own, V<T> other) {
    using W = V<T>;
    const size_t rows = (size_t(1) << k.bits) / Simd<T>::lanes;
    W* state = reinterpret_cast<W*>(k.state) + base;
    W* adjoint = reinterpret_cast<W*>(k.adjoint) + base;
    W slope = {};
    for (size_t i = 0; i < rows; i = next(i, mask)) {
        const W a = state[i], partner = across<T, BIT>(a);
        if (ADJOINT) {
            const W b = adjoint[i];
            slope += b * partner;
            adjoint[i] = own * b + other * across<T, BIT>(b);
        }
        state[i] = own * a + other * partner;
    }
    return slope;
}

template <class T, bool ADJOINT>
V<T> lanes(const Chunk<T>& k, int bit, size_t base, size_t mask, V<T> own, V<T> other) {
    switch (bit) {
        case 0:
            return lanes<T, ADJOINT, 0>(k, base, mask, own, other);
        case 1:
            if constexpr (Simd<T>::bits > 1) return lanes<T, ADJOINT, 1>(k, base, mask, own, other);
            [[fallthrough]];
        case 2:
            if constexpr (Simd<T>::bits > 2) return lanes<T, ADJOINT, 2>(k, base, mask, own, other);
            [[fallthrough]];
        default:
            if constexpr (Simd<T>::bits > 3) return lanes<T, ADJOINT, 3>(k, base, mask, own, other);
            __builtin_unreachable();
    }
}

// The slope of a rotation that nothing comes before: it need not be undone, as what is left acts on other qubits.
template <class T>
V<T> slope_of(const Chunk<T>& k, size_t step) {
    using W = V<T>;
    const size_t rows = (size_t(1) << k.bits) / Simd<T>::lanes;
    const W* state = reinterpret_cast<const W*>(k.state);
    const W* adjoint = reinterpret_cast<const W*>(k.adjoint);
    W even = {}, odd = {};
    for (size_t i = 0; i < rows; i = next(i, step)) {
        even += adjoint[i + step] * state[i];
        odd += adjoint[i] * state[i + step];
    }
    return even - odd;
}

// -1 in the lanes where `bit` is 0, +1 where it is 1.
template <class T>
INLINE V<T> signs(int bit) {
    V<T> v = {};
    for (int lane = 0; lane < Simd<T>::lanes; ++lane) v[lane] = lane >> bit & 1 ? 1 : -1;
    return v;
}

template <class T>
INLINE V<T> choose(V<T> pick, V<T> one, V<T> zero) {
    return pick > 0 ? one : zero;
}

// One operation in a pass of its own. The slope comes lane by lane.
template <class T, bool ADJOINT>
V<T> single(const Chunk<T>& k, const Op& op, bool plain, const T* table) {
    using W = V<T>;
    constexpr int B = Simd<T>::bits;
    const W c = load(table), s = load(table + Simd<T>::lanes);
    const bool row_control = op.control >= B;
    const size_t ctl = row_control ? size_t(1) << (op.control - B) : 0;
    if (op.target >= B) {
        const size_t step = size_t(1) << (op.target - B);
        if (ADJOINT && op.start && k.product) return slope_of<T>(k, step);
        if (op.control >= 0 && !row_control) {
            const W on = signs<T>(op.control), u = ADJOINT ? -s : s;
            return mixed<T, ADJOINT>(
                k, step, {choose<T>(on, -s, c), choose<T>(on, c, -u), choose<T>(on, c, u), choose<T>(on, s, c)});
        }
        const size_t mask = step | ctl;
        W slope = plain ? pairs<T, ADJOINT, true, false>(k, 0, step, mask, c, s)
                        : pairs<T, ADJOINT, false, false>(k, 0, step, mask, c, s);
        if (row_control)
            slope += plain ? pairs<T, ADJOINT, true, true>(k, ctl, step, mask, c, s)
                           : pairs<T, ADJOINT, false, true>(k, ctl, step, mask, c, s);
        return slope;
    }
    const W sign = signs<T>(op.target);
    if (ADJOINT && op.start && k.product) return sign * lanes<T, true>(k, op.target, 0, 0, W{} + 1, W{});
    const W turned = sign * s, back = ADJOINT ? -turned : turned;
    W slope;
    if (op.control >= 0 && !row_control) {
        const W on = signs<T>(op.control);
        slope = lanes<T, ADJOINT>(k, op.target, 0, 0, choose<T>(on, turned, c), choose<T>(on, c, back));
    } else {
        slope = lanes<T, ADJOINT>(k, op.target, 0, ctl, c, back);
        if (row_control) slope += lanes<T, ADJOINT>(k, op.target, ctl, ctl, turned, c);
    }
    return sign * slope;
}

// Two operations that the plan fused: (x ->) y and then (y ->) z.
template <class T, bool ADJOINT, bool PLAIN, bool SECOND>
void fused(const Chunk<T>& k, const Op& first, const Op& second, const T* table, V<T>& g, V<T>& h) {
    constexpr int B = Simd<T>::bits;
    const size_t sx = first.control < 0 ? 0 : size_t(1) << (first.control - B);
    const size_t sy = size_t(1) << (first.target - B), sz = size_t(1) << (second.target - B), mask = sx | sy | sz;
    const T* other = table + 2 * Simd<T>::lanes;
    quads<T, ADJOINT, PLAIN, false, SECOND>(k, 0, sy, sz, mask, table, other, g, h);
    if (sx) quads<T, ADJOINT, PLAIN, true, SECOND>(k, sx, sy, sz, mask, table, other, g, h);
}

template <class T, bool ADJOINT>
void pass(const Chunk<T>& k, int first, int count) {
    constexpr int L = Simd<T>::lanes;
    const T* table = k.turns.table + size_t(first) * 2 * L;
    V<T> slopes[2] = {};
    const Op &op = k.ops[first], &then = k.ops[first + count - 1];
    const bool plain = k.turns.plain[first] && k.turns.plain[first + count - 1], second = then.control >= 0;
    if (count == 1)
        slopes[0] = single<T, ADJOINT>(k, op, plain, table);
    else
        (plain    ? second ? fused<T, ADJOINT, true, true> : fused<T, ADJOINT, true, false>
         : second ? fused<T, ADJOINT, false, true>
                  : fused<T, ADJOINT, false, false>)(k, op, then, table, slopes[0], slopes[1]);
    if (ADJOINT)
        for (int i = 0; i < count; ++i)
            for (int lane = 0; lane < L; ++lane) k.slopes[size_t(first + i) * L + lane] += slopes[i][lane];
}

template <class T>
void forward(const Chunk<T>& k) {
    for (int i = 0; i < k.n_ops;) {
        const int count = 1 + k.ops[i].fused;
        if (!(k.product && k.ops[i].start)) pass<T, false>(k, i, count);
        i += count;
    }
}

template <class T>
void backward(const Chunk<T>& k) {
    for (int i = k.n_ops; i > 0;) {
        const int count = i > 1 && k.ops[i - 2].fused ? 2 : 1;
        i -= count;
        pass<T, true>(k, i, count);
    }
}

// The product state: at each bit of the chunk, amplitudes halves[position][0] where it is 0 and [1] where it is 1.
template <class T>
void start(T* state, int bits, int sample_bits, const int32_t* positions, const T* halves, const T* outer) {
    constexpr int L = Simd<T>::lanes, B = Simd<T>::bits;
    V<T>* x = reinterpret_cast<V<T>*>(state);
    V<T> v = load(outer);
    for (int bit = sample_bits; bit < B; ++bit) {
        const T* half = halves + size_t(positions[bit]) * 2 * L;
        v *= choose<T>(signs<T>(bit), load(half + L), load(half));
    }
    x[0] = v;
    for (int bit = B; bit < bits; ++bit) {
        const T* half = halves + size_t(positions[bit]) * 2 * L;
        const V<T> zero = load(half), one = load(half + L);
        const size_t size = size_t(1) << (bit - B);
        for (size_t i = 0; i < size; ++i) {
            x[i + size] = x[i] * one;
            x[i] *= zero;
        }
    }
}

// Adds sum psi^2 Z_k, lane by lane, to sums[k].
template <class T>
void measure(const T* state, T* spare, int bits, const Readout& read, double* sums) {
    constexpr int L = Simd<T>::lanes, B = Simd<T>::bits;
    const V<T>* x = reinterpret_cast<const V<T>*>(state);
    V<T>* p = reinterpret_cast<V<T>*>(spare);
    const size_t rows = size_t(1) << (bits - B);
    const auto add = [&](int column, V<T> v) {
        for (int lane = 0; lane < L; ++lane) sums[size_t(column) * L + lane] += v[lane];
    };
    for (size_t i = 0; i < rows; ++i) p[i] = x[i] * x[i];
    for (int bit = bits - 1; bit >= B; --bit) {
        const size_t half = size_t(1) << (bit - B);
        V<T> difference = {};
        for (size_t i = 0; i < half;) {
            V<T> part = {};  // long sums in single precision lose digits
            for (const size_t end = i + (half < 32 ? half : 32); i < end; ++i) {
                part += p[i] - p[i + half];
                p[i] += p[i + half];
            }
            difference += part;
        }
        if (read.columns[bit] >= 0) add(read.columns[bit], difference);
    }
    for (int bit = read.sample_bits; bit < B; ++bit)
        if (read.columns[bit] >= 0) add(read.columns[bit], -signs<T>(bit) * p[0]);
    for (int k = 0; k < read.n_columns; ++k)
        if (read.outer[k]) add(k, p[0] * T(read.outer[k]));
}

// The adjoint behind the last gate: 2 sum_k grads[k] Z_k psi.
template <class T>
void observe(const T* state, T* adjoint, int bits, const Readout& read, const T* grads) {
    constexpr int L = Simd<T>::lanes, B = Simd<T>::bits;
    const auto* x = reinterpret_cast<const V<T>*>(state);
    auto* y = reinterpret_cast<V<T>*>(adjoint);
    V<T> sum = {};
    for (int k = 0; k < read.n_columns; ++k) sum += load(grads + size_t(k) * L) * T(read.outer[k]);
    for (int bit = read.sample_bits; bit < B; ++bit)
        if (read.columns[bit] >= 0) sum -= signs<T>(bit) * load(grads + size_t(read.columns[bit]) * L);
    for (int bit = B; bit < bits; ++bit)
        if (read.columns[bit] >= 0) sum += load(grads + size_t(read.columns[bit]) * L);
    y[0] = 2 * sum;
    for (int bit = B; bit < bits; ++bit) {
        const size_t size = size_t(1) << (bit - B);
        V<T> step = {};
        if (read.columns[bit] >= 0) step = 4 * load(grads + size_t(read.columns[bit]) * L);
        for (size_t i = 0; i < size; ++i) y[i + size] = y[i] - step;
    }
    const size_t rows = size_t(1) << (bits - B);
    for (size_t i = 0; i < rows; ++i) y[i] *= x[i];
}

}  // namespace

extern const Engines KETFIT_ISA;
const Engines KETFIT_ISA = {
    {Simd<float>::lanes, start<float>, forward<float>, backward<float>, measure<float>, observe<float>},
    {Simd<double>::lanes, start<double>, forward<double>, backward<double>, measure<double>, observe<double>},
};

}  // namespace ketfit
