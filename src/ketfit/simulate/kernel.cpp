// Real statevectors of RY and CNOT circuits in batches: <Z> forward, gradients by the adjoint method.
//
// A unit is one array of 2^bits amplitudes, in which the lowest `sample_bits` bits of an index count samples and the
// others are qubits: with sample_bits = log2(lanes) every SIMD lane is a sample of its own, with 0 a unit is one
// sample and its lowest qubits lie across the lanes. A plan (plan.py) cuts the circuit into stages; a stage acts on
// few enough bits that a chunk of the unit, gathered into the first-level cache, takes all of its operations at once.
//
// An operation is a CNOT or none, and then a rotation: on the two halves (a, b) of the state along the target it is
// the turn (c a - s b, s a + c b) where the control is 0, and the flip (c b - s a, c a + s b) where it is 1. A turn by
// a shared angle is done as (a - t b, b + t a) with t = s / c; the product of the factors c left out, `scale`, goes
// into a later operation or into the result, so that an amplitude costs one fused multiply-add.
//
// Backward, with lambda the derivative with respect to psi behind the gate, d loss / d angle = 1/2 <lambda, J psi>,
// J psi = (-b, a); then the operation is undone on both (Jones and Gacon, arXiv 2009.02823).
//
// This file is compiled once for each instruction set (KETFIT_ISA) and once as the Python module. The former must not
// use inline functions of the standard library: the linker would keep one copy for all processors.

#include <cstddef>
#include <cstdint>

namespace ketfit {

struct Op {
    int32_t target, control;  // bits of the chunk; control -1: no CNOT
    int32_t error;            // column of the table of errors, -1: none
    int32_t fused;            // 1: runs in one pass with the next operation
    int32_t start;            // 1: a rotation of |0>, which the product state already holds
    int32_t per_sample;       // 1: its angle reads an input
};

// What an operation does to a unit: cosine and sine, one pair a lane; `plain` means c = 1 and s = t.
template <class T>
struct Turns {
    T* table;  // [op][2][lanes]
    uint8_t* plain;
    uint8_t* idle;  // an error that no lane has
};

template <class T>
struct Chunk {
    T *state, *adjoint;
    int bits;  // lanes included
    const Op* ops;
    int n_ops;
    Turns<T> turns;
    double* slopes;  // [op][lanes], added to
    bool product;  // the circuit starts from the product state
};

// <Z> of measured qubits: columns[bit] is the result's column for a bit of the chunk or -1; for the bits outside,
// outer[k] is +1 or -1, and 0 if column k lies inside.
struct Readout {
    const int32_t* columns;
    const int8_t* outer;
    int n_columns;
    int sample_bits;
};

template <class T>
struct Engine {
    int lanes;
    void (*start)(T* state, int bits, int sample_bits, const int32_t* positions, const T* halves, const T* outer);
    void (*forward)(const Chunk<T>&);
    void (*backward)(const Chunk<T>&);
    void (*measure)(const T* state, T* spare, int bits, const Readout&, double* sums);
    void (*observe)(const T* state, T* adjoint, int bits, const Readout&, const T* grads);
};

struct Engines {
    Engine<float> f32;
    Engine<double> f64;
};

}  // namespace ketfit

#ifdef KETFIT_ISA

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

template <int... I>
struct Indices {};
template <int N, int... I>
struct Count : Count<N - 1, N - 1, I...> {};
template <int... I>
struct Count<0, I...> {
    using type = Indices<I...>;
};

template <int BIT, class W, int... I>
INLINE W across(W v, Indices<I...>) {
    return __builtin_shufflevector(v, v, (I ^ (1 << BIT))...);
}

// Every lane's partner along a lane bit.
template <class T, int BIT>
INLINE V<T> across(V<T> v) {
    return across<BIT>(v, typename Count<Simd<T>::lanes>::type());
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
        if (op.error >= 0) {  // (c, s) = (1, 1) keeps a lane, (-1, 1) X, (1, -1) Z, (-1, -1) Y, up to a phase
            const W x = c < 0 ? W{} + 1 : W{}, z = s < 0 ? W{} - 1 : W{} + 1;
            // Y is the turn by pi and has an inverse of its own; X and Z are theirs.
            return mixed<T, ADJOINT>(k, step, ADJOINT ? Matrix<T>{1 - x, x, x * z, (1 - x) * z}
                                                      : Matrix<T>{1 - x, x * z, x, (1 - x) * z});
        }
        if (op.control >= 0 && !row_control) {
            const W on = signs<T>(op.control), u = ADJOINT ? -s : s;
            return mixed<T, ADJOINT>(k, step, {choose<T>(on, -s, c), choose<T>(on, c, -u), choose<T>(on, c, u),
                                               choose<T>(on, s, c)});
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
    if (op.error >= 0) {
        const W x = c < 0 ? W{} + 1 : W{}, z = s < 0 ? -sign : W{} + 1, z_across = s < 0 ? sign : W{} + 1;
        return lanes<T, ADJOINT>(k, op.target, 0, 0, (1 - x) * z, x * (ADJOINT ? z : z_across));
    }
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

template <class T, bool ADJOINT, bool PLAIN>
void fused(const Chunk<T>& k, const Op& first, const Op& second, const T* table, V<T>& g, V<T>& h) {
    if (second.control < 0)
        fused<T, ADJOINT, PLAIN, false>(k, first, second, table, g, h);
    else
        fused<T, ADJOINT, PLAIN, true>(k, first, second, table, g, h);
}

template <class T, bool ADJOINT>
void pass(const Chunk<T>& k, int first, int count) {
    constexpr int L = Simd<T>::lanes;
    const T* table = k.turns.table + size_t(first) * 2 * L;
    V<T> slopes[2] = {};
    if (count == 1)
        slopes[0] = single<T, ADJOINT>(k, k.ops[first], k.turns.plain[first], table);
    else if (k.turns.plain[first] && k.turns.plain[first + 1])
        fused<T, ADJOINT, true>(k, k.ops[first], k.ops[first + 1], table, slopes[0], slopes[1]);
    else
        fused<T, ADJOINT, false>(k, k.ops[first], k.ops[first + 1], table, slopes[0], slopes[1]);
    if (ADJOINT)
        for (int i = 0; i < count; ++i)
            for (int lane = 0; lane < L; ++lane) k.slopes[size_t(first + i) * L + lane] += slopes[i][lane];
}

template <class T>
void forward(const Chunk<T>& k) {
    for (int i = 0; i < k.n_ops;) {
        const int count = 1 + k.ops[i].fused;
        if (!(k.product && k.ops[i].start) && !k.turns.idle[i]) pass<T, false>(k, i, count);
        i += count;
    }
}

template <class T>
void backward(const Chunk<T>& k) {
    for (int i = k.n_ops; i > 0;) {
        const int count = i > 1 && k.ops[i - 2].fused ? 2 : 1;
        i -= count;
        if (!k.turns.idle[i]) pass<T, true>(k, i, count);
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
        for (size_t i = 0; i < half; ++i) {
            difference += p[i] - p[i + half];
            p[i] += p[i + half];
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
    const V<T>* x = reinterpret_cast<const V<T>*>(state);
    V<T>* y = reinterpret_cast<V<T>*>(adjoint);
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

#else  // The Python module: plans, threads and memory.

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/pair.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <condition_variable>
#include <cstring>
#include <functional>
#include <memory>
#include <mutex>
#include <new>
#include <numeric>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>
#ifndef _WIN32
#include <pthread.h>
#endif

namespace nb = nanobind;

namespace ketfit {

extern const Engines baseline;
#ifdef KETFIT_X86
extern const Engines avx2, avx512;
#endif

struct Isa {
    const char* name;
    const Engines* engines;
    bool runs;
};

// From the widest to the narrowest.
std::vector<Isa> isas() {
    std::vector<Isa> all;
#ifdef KETFIT_X86
    __builtin_cpu_init();
    all.push_back({"avx512", &avx512,
                   __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
                       __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl")});
    all.push_back({"avx2", &avx2, __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")});
#endif
    all.push_back({"baseline", &baseline, true});
    return all;
}

inline void relax() {
#ifdef KETFIT_X86
    __builtin_ia32_pause();
#endif
}

// Whether `done` came true within a tenth of a millisecond: putting a thread to sleep and waking it costs as much.
template <class F>
bool spin(F done) {
    const auto end = std::chrono::steady_clock::now() + std::chrono::microseconds(100);
    do {
        for (int i = 0; i < 64; ++i) {
            if (done()) return true;
            relax();
        }
    } while (std::chrono::steady_clock::now() < end);
    return false;
}

// Threads that sleep between calls. One call has them at a time; another call meanwhile, from another Python thread,
// runs on its own thread alone, so that callers who are parallel already do not share the processor twice.
class Team {
   public:
    static Team& get() {
        static Team* team = [] {
#ifndef _WIN32
            pthread_atfork(nullptr, nullptr, [] { new (storage()) Team; });  // a forked child has no workers
#endif
            return new (storage()) Team;
        }();
        return *team;
    }

    // task(i, slot) for every i < count, slot < threads being the thread it runs on.
    void run(int64_t count, int threads, const std::function<void(int64_t, int)>& task) {
        threads = int(std::min<int64_t>(threads, count));
        std::unique_lock<std::mutex> mine(busy_, std::defer_lock);
        if (threads < 2 || !mine.try_lock()) {
            for (int64_t i = 0; i < count; ++i) task(i, 0);
            return;
        }
        while (workers_ < threads - 1) {
            const int slot = ++workers_;
            std::thread([this, slot] { work(slot); }).detach();
        }
        task_ = &task;
        count_ = count;
        next_ = 0;
        call_ = (call_ | 0xffff) + 1 + uint64_t(threads);
        if (sleepers_ > 0) {
            std::lock_guard<std::mutex> lock(mutex_);
            wake_.notify_all();
        }
        claim(0);
        call_ = (call_ | 0xffff) + 1;  // closed: whoever did not get the processor in time is not waited for
        if (spin([this] { return inside_ == 0; })) return;
        std::unique_lock<std::mutex> lock(mutex_);
        waits_ = true;
        done_.wait(lock, [this] { return inside_ == 0; });
        waits_ = false;
    }

   private:
    static void* storage() {
        alignas(64) static unsigned char bytes[1024];
        static_assert(sizeof(Team) <= sizeof bytes);
        return bytes;
    }

    void claim(int slot) {
        for (int64_t i = next_++; i < count_; i = next_++) (*task_)(i, slot);
    }

    void work(int slot) {
        for (uint64_t seen = 0;;) {
            const auto called = [&] { return call_ != seen && slot < int(call_ & 0xffff); };
            if (!spin(called)) {
                std::unique_lock<std::mutex> lock(mutex_);
                ++sleepers_;
                wake_.wait(lock, called);
                --sleepers_;
            }
            seen = call_;
            ++inside_;
            if (call_ == seen && slot < int(seen & 0xffff)) claim(slot);
            if (--inside_ == 0 && waits_) {
                std::lock_guard<std::mutex> lock(mutex_);
                done_.notify_one();
            }
        }
    }

    std::mutex busy_, mutex_;
    std::condition_variable wake_, done_;
    const std::function<void(int64_t, int)>* task_ = nullptr;
    std::atomic<int64_t> next_{0};
    int64_t count_ = 0;
    int workers_ = 0;
    std::atomic<uint64_t> call_{0};  // counts openings and closings; the last 16 bits are an open call's threads
    std::atomic<int> inside_{0}, sleepers_{0};
    std::atomic<bool> waits_{false};
};

template <class T>
struct Buffer {
    explicit Buffer(size_t size) : size(size), data(static_cast<T*>(::operator new(size * sizeof(T), align))) {}
    Buffer(const Buffer& other) : Buffer(other.size) { std::copy_n(other.data, size, data); }
    Buffer& operator=(const Buffer&) = delete;
    ~Buffer() { ::operator delete(data, align); }
    static constexpr std::align_val_t align{64};
    const size_t size;
    T* const data;
};

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

using Table = nb::ndarray<const int32_t, nb::c_contig, nb::device::cpu>;

struct Plan {
    int bits = 0, sample_bits = 0;
    int64_t n_weights = 0, n_inputs = 0, n_errors = 0;
    std::vector<Op> ops;
    std::vector<int32_t> term_offsets, terms;  // of each operation's angle: weight i as i, input k as ~k
    std::vector<Stage> stages;
    std::vector<int32_t> measured;  // position of each column's qubit
    std::vector<int32_t> starts;    // of each position: the operation that starts it, or -1
    const Engines* engines = nullptr;

    template <class T>
    const Engine<T>& engine() const {
        if constexpr (sizeof(T) == 4)
            return engines->f32;
        else
            return engines->f64;
    }
    size_t size() const { return size_t(1) << bits; }
    int64_t units(int64_t batch) const { return (batch + (int64_t(1) << sample_bits) - 1) >> sample_bits; }
};

// One call: the arrays, and what follows from the weights alone.
template <class T>
struct Call {
    const Plan& plan;
    const T *weights, *inputs, *initial;
    const int8_t* errors;
    int64_t batch;
    bool backward, product;
    const Engine<T>& engine;
    const size_t L;
    Buffer<T> table, halves;
    std::vector<uint8_t> plain, idle;
    std::vector<double> scales;  // backward: what a slope is multiplied by; per sample: what went into cos and sin
    double scale;                // of the state behind the last operation done

    Call(const Plan& plan, const T* weights, const T* inputs, const T* initial, const int8_t* errors, int64_t batch,
         double scale, bool backward, bool product)
        : plan(plan), weights(weights), inputs(inputs), initial(initial), errors(errors), batch(batch),
          backward(backward), product(product), engine(plan.engine<T>()), L(size_t(engine.lanes)), table(plan.ops.size() * 2 * L),
          halves(size_t(plan.bits) * 2 * L), plain(plan.ops.size()), idle(plan.ops.size()), scales(plan.ops.size()),
          scale(scale) {
        for (size_t k = 0; k < plan.ops.size(); ++k) share(backward ? plan.ops.size() - 1 - k : k);
    }

    bool skips(const Op& op) const { return op.start && product; }  // see start() and slope_of()

    struct HalfAngle {
        double c = 1, s = 0;
        // The sum with another: adding a small angle to a huge one would round it away.
        template <class Number>
        void add(Number angle) {
            const double x = std::cos(angle / 2), y = std::sin(angle / 2), old = c;
            c = old * x - s * y;
            s = s * x + old * y;
        }
    };

    // Of operation `i`: the weights' part, and to that the inputs' part of a sample.
    HalfAngle half_angle(size_t i) const {
        HalfAngle half;
        for (int32_t t = plan.term_offsets[i]; t < plan.term_offsets[i + 1]; ++t)
            if (const int32_t term = plan.terms[size_t(t)]; term >= 0) half.add(double(weights[term]));
        return half;
    }

    HalfAngle half_angle(size_t i, HalfAngle half, int64_t sample) const {
        for (int32_t t = plan.term_offsets[i]; t < plan.term_offsets[i + 1]; ++t)
            if (const int32_t term = plan.terms[size_t(t)]; term < 0)
                half.add(inputs[sample * plan.n_inputs + ~term]);
        return half;
    }

    void put(size_t i, size_t lane, double c, double s) {
        table.data[(2 * i) * L + lane] = T(c);
        table.data[(2 * i + 1) * L + lane] = T(s);
    }

    // Cosine and sine of an operation whose angle all samples share, with the scale that is due.
    void share(size_t i) {
        const Op& op = plan.ops[i];
        if (backward) scales[i] = scale * scale / 2;
        if (op.error >= 0 || skips(op)) return;
        if (op.per_sample) {
            // Folded into the cosines and sines of every sample; a slope is taken before its gate is undone.
            folds_.resize(plan.ops.size());
            folds_[i] = scale;
            scale = 1;
            return;
        }
        const auto [c, s] = half_angle(i);
        constexpr double least = 1.0 / (1 << 20);
        plain[i] = std::abs(scale * c) > least;
        for (size_t lane = 0; lane < L; ++lane) put(i, lane, plain[i] ? 1 : c * scale, plain[i] ? s / c : s * scale);
        scale = plain[i] ? scale * c : 1;
    }

    size_t samples() const { return size_t(1) << plan.sample_bits; }

    int64_t sample(int64_t unit, size_t lane) const {
        const int64_t b = (unit << plan.sample_bits) + int64_t(lane & (samples() - 1));
        return b < batch ? b : -1;
    }

    // What differs from sample to sample, for the samples of `unit`.
    void prepare(int64_t unit) {
        for (size_t i = 0; i < plan.ops.size(); ++i) {
            const Op& op = plan.ops[i];
            if (op.error >= 0) {
                idle[i] = 1;
                for (size_t lane = 0; lane < L; ++lane) {
                    const int64_t b = sample(unit, lane);
                    const int code = b < 0 ? 0 : errors[b * plan.n_errors + op.error];  // I, X, Y, Z
                    put(i, lane, code == 1 || code == 2 ? -1 : 1, code >= 2 ? -1 : 1);
                    idle[i] &= code == 0;
                }
            } else if (op.per_sample && !skips(op)) {
                each(unit, i, [&](size_t lane, double c, double s) { put(i, lane, c * folds_[i], s * folds_[i]); });
            }
        }
        if (!product || backward) return;
        for (size_t position = size_t(plan.sample_bits); position < size_t(plan.bits); ++position) {
            T* half = halves.data + position * 2 * L;
            std::fill_n(half, L, T(1));
            std::fill_n(half + L, L, T(0));
            if (plan.starts[position] >= 0)
                each(unit, size_t(plan.starts[position]), [&](size_t lane, double c, double s) {
                    half[lane] = T(c);
                    half[L + lane] = T(s);
                });
        }
    }

    template <class F>
    void each(int64_t unit, size_t i, F put_lane) const {
        const HalfAngle shared = half_angle(i);
        const size_t distinct = plan.ops[i].per_sample ? samples() : 1;
        for (size_t first = 0; first < distinct; ++first) {
            const int64_t b = plan.ops[i].per_sample ? sample(unit, first) : -1;
            const HalfAngle half = b < 0 ? shared : half_angle(i, shared, b);
            for (size_t lane = first; lane < L; lane += distinct) put_lane(lane, half.c, half.s);
        }
    }

   private:
    std::vector<double> folds_;
};

template <class T>
class Run {
   public:
    Run(const Plan& plan, Call<T> call, int threads)
        : plan_(plan), call_(std::move(call)), units_(plan.units(call_.batch)), bundles_(std::min<int64_t>(units_, 64)),
          per_bundle_(bundles_ ? (units_ + bundles_ - 1) / bundles_ : 0) {
        const double work = double(units_) * double(plan.size()) * double(plan.ops.size() + 1);
        threads_ = work < 2e5 ? 1 : threads;
        split_ = plan.stages[0].chunks() > 1 && (plan.bits >= 17 || units_ < threads_);
    }

    void forward(T* out, T* saved) {
        const bool whole = plan_.stages.size() == 1 && plan_.stages[0].chunks() == 1;
        over_units(saved || whole ? 0 : plan_.size(), 0, [&](int64_t unit, Room& room, int slot) {
            T* state = saved ? saved + size_t(unit) * plan_.size() : whole ? nullptr : room.state.data;
            forward_unit(unit, room, slot, state, saved != nullptr, out);
        });
    }

    void backward(T* state, const T* grads, T* grad_weights, T* grad_inputs, T* grad_initial) {
        std::fill_n(grad_inputs, grad_inputs ? call_.batch * plan_.n_inputs : 0, T(0));
        std::vector<double> bundles(size_t(bundles_ * plan_.n_weights));
        const bool whole = plan_.stages.size() == 1 && plan_.stages[0].chunks() == 1;
        over_units(0, whole ? 0 : plan_.size(), [&](int64_t unit, Room& room, int slot) {
            backward_unit(unit, room, slot, state + size_t(unit) * plan_.size(), grads,
                          bundles.data() + (unit / per_bundle_) * plan_.n_weights, grad_inputs, grad_initial);
        });
        for (int64_t w = 0; grad_weights && w < plan_.n_weights; ++w) {
            double sum = 0;
            for (int64_t b = 0; b < bundles_; ++b) sum += bundles[size_t(b * plan_.n_weights + w)];
            grad_weights[w] = T(sum);
        }
    }

   private:
    struct Room {  // for the work on one unit
        Call<T> call;
        Buffer<T> state, adjoint;
        std::vector<double> sums;
    };
    struct Desk {  // for the work on one chunk
        Buffer<T> state, adjoint;
    };

    // Threads take units, or, if a unit is large, share each one.
    template <class F>
    void over_units(size_t state, size_t adjoint, F work) {
        const size_t chunk = size_t(1) << plan_.stages[0].positions.size();
        const int teams = split_ ? 1 : int(std::clamp<int64_t>(bundles_, 1, threads_));
        for (int slot = 0; slot < (split_ ? threads_ : teams); ++slot)
            desks_.push_back(std::make_unique<Desk>(Desk{Buffer<T>(chunk), Buffer<T>(chunk)}));
        std::vector<std::unique_ptr<Room>> rooms;
        for (int slot = 0; slot < teams; ++slot)
            rooms.push_back(std::make_unique<Room>(Room{call_, Buffer<T>(state), Buffer<T>(adjoint), {}}));
        const auto bundle = [&](int64_t b, int slot) {
            for (int64_t unit = b * per_bundle_; unit < std::min((b + 1) * per_bundle_, units_); ++unit)
                work(unit, *rooms[size_t(slot)], slot);
        };
        Team::get().run(bundles_, teams, bundle);
    }

    // Every chunk of a stage, on this thread or on all; the partial sums of its groups are added up in order.
    template <class F>
    void over_chunks(const Stage& stage, Room& room, int slot, size_t n_sums, F work) {
        const size_t groups = stage.groups(), per_group = stage.chunks() / groups;
        room.sums.assign(groups * n_sums, 0);
        const auto group = [&](int64_t g, int on) {
            for (size_t c = size_t(g) * per_group; c < size_t(g + 1) * per_group; ++c)
                work(c, *desks_[size_t(on)], room.sums.data() + size_t(g) * n_sums);
        };
        if (split_)
            Team::get().run(int64_t(groups), threads_, group);
        else
            for (size_t g = 0; g < groups; ++g) group(int64_t(g), slot);
        for (size_t g = 1; g < groups; ++g)
            for (size_t i = 0; i < n_sums; ++i) room.sums[i] += room.sums[g * n_sums + i];
    }

    void forward_unit(int64_t unit, Room& room, int slot, T* state, bool keep, T* out) {
        room.call.prepare(unit);
        const size_t n_columns = plan_.measured.size(), n_sums = n_columns * room.call.L;
        for (const Stage& stage : plan_.stages) {
            const bool first = &stage == &plan_.stages.front(), last = &stage == &plan_.stages.back();
            over_chunks(stage, room, slot, last ? n_sums : 0, [&](size_t c, Desk& desk, double* sums) {
                const size_t base = deposit(c, stage.others.data(), stage.others.size());
                const bool whole = stage.others.empty() && state;
                T* x = whole ? state : desk.state.data;
                if (!first)
                    gather(stage, state + base, x);
                else if (call_.product)
                    start(stage, room.call, base, x);
                else
                    load_initial(stage, unit, base, x);
                call_.engine.forward(chunk(stage, room.call, x, nullptr, nullptr));
                if (last) {
                    std::vector<int8_t> outer(n_columns);
                    call_.engine.measure(x, desk.adjoint.data, int(stage.positions.size()), readout(stage, base, outer),
                                         sums);
                }
                if (!whole && (keep || !last)) scatter(stage, x, state + base);
            });
        }
        const double square = room.call.scale * room.call.scale;
        for (size_t k = 0; k < n_columns; ++k)
            spread(unit, room, k, [&](int64_t b, double sum) { out[b * int64_t(n_columns) + int64_t(k)] = T(square * sum); });
    }

    void backward_unit(int64_t unit, Room& room, int slot, T* state, const T* grads, double* grad_weights,
                       T* grad_inputs, T* grad_initial) {
        room.call.prepare(unit);
        const size_t L = room.call.L, n_columns = plan_.measured.size();
        Buffer<T> lane_grads(n_columns * L);
        for (size_t k = 0; k < n_columns; ++k)
            for (size_t lane = 0; lane < L; ++lane) {
                const int64_t b = room.call.sample(unit, lane);
                lane_grads.data[k * L + lane] = b < 0 ? T(0) : grads[b * int64_t(n_columns) + int64_t(k)];
            }
        for (size_t s = plan_.stages.size(); s-- > 0;) {
            const Stage& stage = plan_.stages[s];
            const bool last = s + 1 == plan_.stages.size();
            over_chunks(stage, room, slot, size_t(stage.n_ops) * L, [&](size_t c, Desk& desk, double* slopes) {
                const size_t base = deposit(c, stage.others.data(), stage.others.size());
                const bool whole = stage.others.empty();
                T *x = whole ? state : desk.state.data, *y = desk.adjoint.data;
                if (!whole) gather(stage, state + base, x);
                if (last) {
                    std::vector<int8_t> outer(n_columns);
                    call_.engine.observe(x, y, int(stage.positions.size()), readout(stage, base, outer), lane_grads.data);
                } else {
                    gather(stage, room.adjoint.data + base, y);
                }
                call_.engine.backward(chunk(stage, room.call, x, y, slopes));
                if (s > 0) {
                    if (!whole) scatter(stage, x, state + base);
                    scatter(stage, y, room.adjoint.data + base);
                } else if (grad_initial) {
                    store_initial(stage, unit, base, y, T(room.call.scale), grad_initial);
                }
            });
            for (int i = 0; i < stage.n_ops; ++i) {
                const size_t op = size_t(stage.first_op + i);
                const double* slopes = room.sums.data() + size_t(i) * L;
                const double sum = room.call.scales[op] * std::accumulate(slopes, slopes + L, 0.0);
                for (int32_t t = plan_.term_offsets[op]; t < plan_.term_offsets[op + 1]; ++t) {
                    const int32_t term = plan_.terms[size_t(t)];
                    if (term >= 0)
                        grad_weights[term] += sum;
                    else if (grad_inputs)
                        spread(unit, room, size_t(i), [&](int64_t b, double part) {
                            grad_inputs[b * plan_.n_inputs + ~term] += T(room.call.scales[op] * part);
                        });
                }
            }
        }
    }

    // Sum `i` of the unit, sample by sample.
    template <class F>
    void spread(int64_t unit, const Room& room, size_t i, F give) {
        const double* sums = room.sums.data() + i * room.call.L;
        for (size_t first = 0; first < room.call.samples(); ++first) {
            double sum = 0;
            for (size_t lane = first; lane < room.call.L; lane += room.call.samples()) sum += sums[lane];
            if (const int64_t b = room.call.sample(unit, first); b >= 0) give(b, sum);
        }
    }

    Chunk<T> chunk(const Stage& stage, Call<T>& call, T* x, T* y, double* slopes) {
        const size_t first = size_t(stage.first_op);
        const Turns<T> turns{call.table.data + first * 2 * call.L, call.plain.data() + first, call.idle.data() + first};
        return {x, y, int(stage.positions.size()), plan_.ops.data() + first, stage.n_ops, turns, slopes, call.product};
    }

    Readout readout(const Stage& stage, size_t base, std::vector<int8_t>& outer) const {
        for (size_t k = 0; k < outer.size(); ++k) {
            const bool inside = std::binary_search(stage.positions.begin(), stage.positions.end(), plan_.measured[k]);
            outer[k] = inside ? 0 : base >> plan_.measured[k] & 1 ? -1 : 1;
        }
        return {stage.columns.data(), outer.data(), int(outer.size()), plan_.sample_bits};
    }

    void start(const Stage& stage, const Call<T>& call, size_t base, T* x) {
        Buffer<T> outer(call.L);
        std::fill_n(outer.data, call.L, T(1));
        for (const int32_t position : stage.others)
            for (size_t lane = 0; lane < call.L; ++lane)
                outer.data[lane] *= call.halves.data[(size_t(position) * 2 + (base >> position & 1)) * call.L + lane];
        call_.engine.start(x, int(stage.positions.size()), plan_.sample_bits, stage.positions.data(), call.halves.data,
                           outer.data);
    }

    void gather(const Stage& stage, const T* unit, T* chunk) const {
        const size_t length = size_t(1) << stage.run_bits;
        for (size_t r = 0; r < stage.runs.size(); ++r) std::memcpy(chunk + r * length, unit + stage.runs[r], length * sizeof(T));
    }

    void scatter(const Stage& stage, const T* chunk, T* unit) const {
        const size_t length = size_t(1) << stage.run_bits;
        for (size_t r = 0; r < stage.runs.size(); ++r) std::memcpy(unit + stage.runs[r], chunk + r * length, length * sizeof(T));
    }

    // visit(place in the chunk, place in an array of shape (batch, 2^n_qubits)) for every amplitude of every sample.
    template <class F>
    void transposed(const Stage& stage, int64_t unit, size_t base, F visit) const {
        const int p = plan_.sample_bits;
        const size_t length = size_t(1) << stage.run_bits;
        for (size_t r = 0; r < stage.runs.size(); ++r)
            for (size_t i = 0; i < length; i += size_t(1) << p)
                for (size_t lane = 0; lane < size_t(1) << p; ++lane)
                    if (const int64_t b = call_.sample(unit, lane); b >= 0)
                        visit(r * length + i + lane, (size_t(b) << (plan_.bits - p)) + ((base + stage.runs[r] + i) >> p));
    }

    void load_initial(const Stage& stage, int64_t unit, size_t base, T* chunk) const {
        std::fill_n(chunk, size_t(1) << stage.positions.size(), T(0));
        transposed(stage, unit, base, [&](size_t to, size_t from) { chunk[to] = call_.initial[from]; });
    }

    void store_initial(const Stage& stage, int64_t unit, size_t base, const T* chunk, T scale, T* grad) const {
        transposed(stage, unit, base, [&](size_t from, size_t to) { grad[to] = scale * chunk[from]; });
    }

    const Plan& plan_;
    const Call<T> call_;
    const int64_t units_, bundles_, per_bundle_;
    int threads_;
    bool split_;
    std::vector<std::unique_ptr<Desk>> desks_;
};

void make_plan(Plan* plan, const std::string& isa, int bits, int sample_bits, int64_t n_weights, int64_t n_inputs,
               int64_t n_errors, Table ops, Table term_offsets, Table terms, Table stages, Table positions,
               Table measured) {
    new (plan) Plan;
    for (const Isa& known : isas())
        if (known.name == isa && known.runs) plan->engines = known.engines;
    if (!plan->engines) throw std::invalid_argument("this processor has no " + isa);
    plan->bits = bits;
    plan->sample_bits = sample_bits;
    plan->n_weights = n_weights;
    plan->n_inputs = n_inputs;
    plan->n_errors = n_errors;
    plan->term_offsets.assign(term_offsets.data(), term_offsets.data() + term_offsets.size());
    plan->terms.assign(terms.data(), terms.data() + terms.size());
    plan->measured.assign(measured.data(), measured.data() + measured.size());
    plan->starts.assign(size_t(bits), -1);
    for (size_t i = 0; i < ops.shape(0); ++i) {
        const int32_t* row = ops.data() + 5 * i;
        const int32_t *first = plan->terms.data() + plan->term_offsets[i], *end = plan->terms.data() + plan->term_offsets[i + 1];
        plan->ops.push_back({row[0], row[1], row[2], row[3], row[4],
                             std::any_of(first, end, [](int32_t term) { return term < 0; })});
    }
    for (size_t s = 0; s < stages.shape(0); ++s) {
        Stage stage{};
        stage.first_op = stages.data()[2 * s];
        stage.n_ops = stages.data()[2 * s + 1];
        const size_t width = positions.shape(1);
        stage.positions.assign(positions.data() + s * width, positions.data() + (s + 1) * width);
        for (int32_t position = 0; position < bits; ++position)
            if (!std::binary_search(stage.positions.begin(), stage.positions.end(), position))
                stage.others.push_back(position);
        while (stage.run_bits < int(width) && stage.positions[size_t(stage.run_bits)] == stage.run_bits) ++stage.run_bits;
        for (size_t r = 0; r < size_t(1) << (int(width) - stage.run_bits); ++r)
            stage.runs.push_back(deposit(r, stage.positions.data() + stage.run_bits, width - size_t(stage.run_bits)));
        stage.columns.assign(width, -1);
        for (size_t bit = 0; bit < width; ++bit)
            for (size_t k = 0; k < plan->measured.size(); ++k)
                if (plan->measured[k] == stage.positions[bit]) stage.columns[bit] = int32_t(k);
        for (int i = stage.first_op; i < stage.first_op + stage.n_ops; ++i)
            if (plan->ops[size_t(i)].start) plan->starts[size_t(stage.positions[size_t(plan->ops[size_t(i)].target)])] = i;
        plan->stages.push_back(std::move(stage));
    }
}

template <class T>
T* at(uintptr_t address) {
    return reinterpret_cast<T*>(address);
}

template <class T>
bool all_finite(const T* numbers, int64_t count) {
    return std::all_of(numbers, numbers + count, [](T number) { return std::isfinite(number); });
}

template <class T>
std::pair<double, bool> forward(const Plan& plan, int64_t batch, uintptr_t weights, uintptr_t inputs, uintptr_t initial,
               uintptr_t errors, uintptr_t out, uintptr_t saved, int threads) {
    nb::gil_scoped_release release;
    Call<T> call(plan, at<const T>(weights), at<const T>(inputs), at<const T>(initial), at<const int8_t>(errors), batch, 1,
                 false, !initial);
    const double scale = call.scale;
    Run<T>(plan, std::move(call), threads).forward(at<T>(out), at<T>(saved));
    const bool finite = all_finite(at<const T>(weights), plan.n_weights) &&
                        (!inputs || all_finite(at<const T>(inputs), batch * plan.n_inputs)) &&
                        all_finite(at<const T>(out), batch * int64_t(plan.measured.size()));
    return {scale, finite};
}

template <class T>
void backward(const Plan& plan, int64_t batch, uintptr_t weights, uintptr_t inputs, uintptr_t errors, bool product,
              double scale, uintptr_t state, uintptr_t grads, uintptr_t grad_weights, uintptr_t grad_inputs, uintptr_t grad_initial,
              int threads) {
    nb::gil_scoped_release release;
    Call<T> call(plan, at<const T>(weights), at<const T>(inputs), nullptr, at<const int8_t>(errors), batch, scale, true,
                 product);
    Run<T>(plan, std::move(call), threads)
        .backward(at<T>(state), at<const T>(grads), at<T>(grad_weights), at<T>(grad_inputs), at<T>(grad_initial));
}

}  // namespace ketfit

NB_MODULE(_kernel, m) {
    using namespace ketfit;
    nb::set_leak_warnings(false);  // plans live in a cache until the interpreter ends
    m.def("instruction_sets", [] {
        nb::list names;
        for (const Isa& isa : isas())
            if (isa.runs) names.append(isa.name);
        return names;
    });
    m.def("lanes", [](const std::string& name, int itemsize) {
        for (const Isa& isa : isas())
            if (isa.name == name) return itemsize == 4 ? isa.engines->f32.lanes : isa.engines->f64.lanes;
        throw std::invalid_argument("unknown instruction set " + name);
    });
    nb::class_<Plan>(m, "Plan")
        .def("__init__", &make_plan)
        .def("units", &Plan::units)
        .def_prop_ro("size", &Plan::size)
        .def_prop_ro("n_columns", [](const Plan& plan) { return plan.measured.size(); })
        .def("forward_f32", &forward<float>)
        .def("forward_f64", &forward<double>)
        .def("backward_f32", &backward<float>)
        .def("backward_f64", &backward<double>);
}

#endif
