// The loops over a chunk that complex_kernels.h describes, compiled for the instruction set KETFIT_ISA (see simd.h).

#include "complex_kernels.h"

namespace ketfit {
namespace {

template <class T>
using Lanes = Simd<T, KETFIT_VECTOR_BYTES>;

template <class T>
using Vector = typename Lanes<T>::Vector;

// Amplitudes of a row, and numbers of a table beside them.
template <class T>
struct Complex {
    using Number = T;
    static constexpr bool is_real = false;
    static constexpr size_t parts = 2;  // vectors of a row
    Vector<T> re, im;

    static KETFIT_INLINE Complex load(const Vector<T>* row) { return {row[0], row[1]}; }
    static KETFIT_INLINE Complex load(const T* from) {
        return {Lanes<T>::load(from), Lanes<T>::load(from + Lanes<T>::lanes)};
    }
    KETFIT_INLINE void store(Vector<T>* row) const { row[0] = re, row[1] = im; }

    KETFIT_INLINE void add_product(Complex a, Complex b) {
        re += a.re * b.re - a.im * b.im;
        im += a.re * b.im + a.im * b.re;
    }
    KETFIT_INLINE void add_overlap(Complex a, Complex b) {  // conj(a) b
        re += a.re * b.re + a.im * b.im;
        im += a.re * b.im - a.im * b.re;
    }
};

template <class T>
KETFIT_INLINE Complex<T> product(Complex<T> a, Complex<T> b) {
    return {a.re * b.re - a.im * b.im, a.re * b.im + a.im * b.re};
}

// The same of states whose imaginary parts are 0 and left out. Tables have them nevertheless.
template <class T>
struct Real {
    using Number = T;
    static constexpr bool is_real = true;
    static constexpr size_t parts = 1;
    Vector<T> re;

    static KETFIT_INLINE Real load(const Vector<T>* row) { return {row[0]}; }
    static KETFIT_INLINE Real load(const T* from) { return {Lanes<T>::load(from)}; }
    KETFIT_INLINE void store(Vector<T>* row) const { row[0] = re; }

    KETFIT_INLINE void add_product(Real a, Real b) { re += a.re * b.re; }
    KETFIT_INLINE void add_overlap(Real a, Real b) { re += a.re * b.re; }
};

template <class T>
KETFIT_INLINE Real<T> product(Real<T> a, Real<T> b) {
    return {a.re * b.re};
}

template <class T>
using LaneFlip = typename Lanes<T>::LaneFlip;

template <class T>
KETFIT_INLINE Complex<T> flip_lanes(Complex<T> v, const LaneFlip<T>& flip) {
    return {flip(v.re), flip(v.im)};
}

template <class T>
KETFIT_INLINE Real<T> flip_lanes(Real<T> v, const LaneFlip<T>& flip) {
    return {flip(v.re)};
}

KETFIT_INLINE int parity(size_t bits) { return __builtin_parityll(bits); }

// Calls visit(row, partner) for the partners of a class; none if the masks exclude it.
template <class F>
KETFIT_INLINE void for_each_row(const PairGroup& group, int in_class, size_t n_rows, F visit) {
    const RowSweep& sweep = group.sweep;
    const size_t x = group.x.row;
    const int first = parity(size_t(in_class & sweep.combine[0])), second = parity(size_t(in_class & sweep.combine[1]));
    if ((!sweep.solved[0] && first) || (!sweep.solved[1] && second)) return;
    const size_t mask = sweep.pivot | sweep.solved[0] | sweep.solved[1];
    if (!sweep.solved[0] && !sweep.solved[1] && !sweep.order_mask) {
        for (size_t row = 0; row < n_rows; row = next_index(row, mask)) visit(row, row ^ x);
        return;
    }
    if (!sweep.solved[0] && !sweep.solved[1]) {
        for (size_t row = 0; row < n_rows; row = next_index(row, mask)) {
            const size_t ordered = parity(row & sweep.order_mask) ? row ^ x : row;
            visit(ordered, ordered ^ x);
        }
        return;
    }
    for (size_t row = 0; row < n_rows; row = next_index(row, mask)) {
        size_t solved = row;
        if (parity(row & sweep.masks[0]) != first) solved |= sweep.solved[0];
        if (parity(row & sweep.masks[1]) != second) solved |= sweep.solved[1];
        if (parity(solved & sweep.order_mask)) solved ^= x;
        visit(solved, solved ^ x);
    }
}

// D and O of one s, for a lane.
template <class C, class T = typename C::Number>
struct Coefficients {
    C diagonal, off_diagonal;

    KETFIT_INLINE Coefficients(const T* table, int s) {
        const T* entry = table + s * table_columns * Lanes<T>::lanes;
        diagonal = C::load(entry), off_diagonal = C::load(entry + 2 * Lanes<T>::lanes);
    }

    KETFIT_INLINE C apply(C own, C partner) const {
        C sum = product(diagonal, own);
        sum.add_product(off_diagonal, partner);
        return sum;
    }
};

template <class T>
void add_lanes(Complex<T> sum, double factor, double* to) {
    for (int lane = 0; lane < Lanes<T>::lanes; ++lane) {
        to[lane] += factor * double(sum.re[lane]);
        to[Lanes<T>::lanes + lane] += factor * double(sum.im[lane]);
    }
}

template <class T>
void add_lanes(Real<T> sum, double factor, double* to) {
    for (int lane = 0; lane < Lanes<T>::lanes; ++lane) to[lane] += factor * double(sum.re[lane]);
}

// The part of the overlaps for one s and a column: A 0, B 1.
template <class T>
double* overlap_of(double* overlaps, int s, int column) {
    return overlaps + (s * table_columns + 2 * column) * Lanes<T>::lanes;
}

// Partners in two rows; FLIP: in other lanes too.
template <class C, bool FLIP, class T = typename C::Number>
void forward_pairs(const PairGroup& group, Vector<T>* state, size_t n_rows, const T* table, int parities) {
    const LaneFlip<T> flip(group.x.lane);
    for (int c = 0; c < group.sweep.n_classes; ++c) {
        const int s = group.sweep.sets[c] ^ parities;
        const Coefficients<C> first(table, s), second(table, s ^ group.partner_parities);
        for_each_row(group, c, n_rows, [&](size_t row, size_t partner) __attribute__((always_inline)) {
            Vector<T>*a = state + C::parts * row, *b = state + C::parts * partner;
            const auto psi_a = C::load(a), psi_b = C::load(b);
            first.apply(psi_a, FLIP ? flip_lanes(psi_b, flip) : psi_b).store(a);
            second.apply(psi_b, FLIP ? flip_lanes(psi_a, flip) : psi_a).store(b);
        });
    }
}

template <class C, bool FLIP, bool UNDO, class T = typename C::Number>
void backward_pairs(const PairGroup& group, Vector<T>* state, Vector<T>* adjoint, size_t n_rows, const T* table,
                    int parities, double* overlaps, double factor) {
    const LaneFlip<T> flip(group.x.lane);
    for (int c = 0; c < group.sweep.n_classes; ++c) {
        const int s_a = group.sweep.sets[c] ^ parities, s_b = s_a ^ group.partner_parities;
        const Coefficients<C> first(table, s_a), second(table, s_b);
        C own_a{}, other_a{}, own_b{}, other_b{};
        for_each_row(group, c, n_rows, [&](size_t row, size_t partner) __attribute__((always_inline)) {
            Vector<T>*a = state + C::parts * row, *b = state + C::parts * partner;
            Vector<T>*lambda_of_a = adjoint + C::parts * row, *lambda_of_b = adjoint + C::parts * partner;
            const C psi_a = C::load(a), psi_b = C::load(b);
            const C lambda_a = C::load(lambda_of_a), lambda_b = C::load(lambda_of_b);
            const C to_a = FLIP ? flip_lanes(psi_b, flip) : psi_b;
            const C to_b = FLIP ? flip_lanes(psi_a, flip) : psi_a;
            own_a.add_overlap(lambda_a, psi_a), other_a.add_overlap(lambda_a, to_a);
            own_b.add_overlap(lambda_b, psi_b), other_b.add_overlap(lambda_b, to_b);
            if (!UNDO) return;
            first.apply(psi_a, to_a).store(a);
            second.apply(psi_b, to_b).store(b);
            first.apply(lambda_a, FLIP ? flip_lanes(lambda_b, flip) : lambda_b).store(lambda_of_a);
            second.apply(lambda_b, FLIP ? flip_lanes(lambda_a, flip) : lambda_a).store(lambda_of_b);
        });
        add_lanes(own_a, factor, overlap_of<T>(overlaps, s_a, 0)),
            add_lanes(other_a, factor, overlap_of<T>(overlaps, s_a, 1));
        add_lanes(own_b, factor, overlap_of<T>(overlaps, s_b, 0)),
            add_lanes(other_b, factor, overlap_of<T>(overlaps, s_b, 1));
    }
}

// Partners in one row, or no partners (DIAGONAL).
template <class C, bool DIAGONAL, class T = typename C::Number>
void forward_rows(const PairGroup& group, Vector<T>* state, size_t n_rows, const T* table, int parities) {
    const LaneFlip<T> flip(group.x.lane);
    for (int c = 0; c < group.sweep.n_classes; ++c) {
        const Coefficients<C> own(table, group.sweep.sets[c] ^ parities);
        for_each_row(group, c, n_rows, [&](size_t row, size_t) __attribute__((always_inline)) {
            const auto psi = C::load(state + C::parts * row);
            if (DIAGONAL)
                product(own.diagonal, psi).store(state + C::parts * row);
            else
                own.apply(psi, flip_lanes(psi, flip)).store(state + C::parts * row);
        });
    }
}

template <class C, bool DIAGONAL, bool UNDO, class T = typename C::Number>
void backward_rows(const PairGroup& group, Vector<T>* state, Vector<T>* adjoint, size_t n_rows, const T* table,
                   int parities, double* overlaps, double factor) {
    const LaneFlip<T> flip(group.x.lane);
    for (int c = 0; c < group.sweep.n_classes; ++c) {
        const int s = group.sweep.sets[c] ^ parities;
        const Coefficients<C> inverse(table, s);
        C own{}, other{};
        for_each_row(group, c, n_rows, [&](size_t row, size_t) __attribute__((always_inline)) {
            const C psi = C::load(state + C::parts * row), lambda = C::load(adjoint + C::parts * row);
            own.add_overlap(lambda, psi);
            if (DIAGONAL) {
                if (!UNDO) return;
                product(inverse.diagonal, psi).store(state + C::parts * row);
                product(inverse.diagonal, lambda).store(adjoint + C::parts * row);
                return;
            }
            const C partner = flip_lanes(psi, flip);
            other.add_overlap(lambda, partner);
            if (!UNDO) return;
            inverse.apply(psi, partner).store(state + C::parts * row);
            inverse.apply(lambda, flip_lanes(lambda, flip)).store(adjoint + C::parts * row);
        });
        add_lanes(own, factor, overlap_of<T>(overlaps, s, 0));
        if (!DIAGONAL) add_lanes(other, factor, overlap_of<T>(overlaps, s, 1));
    }
}

template <class T>
using SignBits = typename Lanes<T>::BitVector;

template <class T>
KETFIT_INLINE Complex<T> change_signs(Complex<T> v, SignBits<T> signs) {
    return {Lanes<T>::change_signs(v.re, signs), Lanes<T>::change_signs(v.im, signs)};
}

template <class T>
KETFIT_INLINE Real<T> change_signs(Real<T> v, SignBits<T> signs) {
    return {Lanes<T>::change_signs(v.re, signs)};
}

template <class T>
KETFIT_INLINE Complex<T> divided(Complex<T> v, Vector<T> by) {
    return {v.re / by, v.im / by};
}

template <class T>
KETFIT_INLINE Real<T> divided(Real<T> v, Vector<T> by) {
    return {v.re / by};
}

// Group K of a pass over orbits of N rows; FLIP: it flips lanes too.
template <class C, int N, int K, bool FLIP, bool TANGENT, class T = typename C::Number>
struct OneWord {
    const WordPass& pass;
    const WordOperands<T>& operands;
    const LaneFlip<T> flip;
    C diagonal, off_diagonal[N];  // TANGENT: 1 and O / D
    C sums[N] = {};

    KETFIT_INLINE OneWord(const WordPass& pass, const WordOperands<T>& operands)
        : pass(pass), operands(operands), flip(pass.x[K].lane) {
        for (int p = 0; p < N; ++p) {
            const Coefficients<C> coefficients(operands.tables[K], operands.parities[K] ^ pass.parities[K][p]);
            diagonal = coefficients.diagonal;
            off_diagonal[p] = TANGENT ? divided(coefficients.off_diagonal, diagonal.re) : coefficients.off_diagonal;
        }
    }

    // The sign of O in an orbit.
    KETFIT_INLINE SignBits<T> signs(size_t row) const { return Lanes<T>::sign_bits(parity(row & pass.masks[K])); }

    KETFIT_INLINE void partners(const C* own, SignBits<T> signs, C* to) const {
        for (int p = 0; p < N; ++p) {
            const C& partner = own[p ^ (1 << K)];
            to[p] = change_signs(FLIP ? flip_lanes(partner, flip) : partner, signs);
        }
    }

    KETFIT_INLINE void apply(C* own, const C* partners) const {
        for (int p = 0; p < N; ++p) {
            C sum = TANGENT ? own[p] : product(diagonal, own[p]);
            sum.add_product(off_diagonal[p], partners[p]);
            own[p] = sum;
        }
    }

    KETFIT_INLINE void apply(C* psi, size_t row) const {
        C to[N];
        partners(psi, signs(row), to);
        apply(psi, to);
    }

    // Undoes the group on both, and adds to the sums.
    KETFIT_INLINE void undo(C* psi, C* lambda, size_t row) {
        const SignBits<T> signs = this->signs(row);
        C to[N];
        partners(psi, signs, to);
        for (int p = 0; p < N; ++p) sums[p].add_overlap(lambda[p], to[p]);
        apply(psi, to);
        partners(lambda, signs, to);
        apply(lambda, to);
    }

    // A row whose O has another sign than the first row's adds with another sign.
    void add_sums() const {
        double* to = overlap_of<T>(operands.overlaps[K], operands.parities[K], 1);
        for (int p = 0; p < N; ++p)
            add_lanes(sums[p], pass.parities[K][p] ? -operands.overlap_factors[K] : operands.overlap_factors[K], to);
    }
};

// The rows of an orbit.
template <class C, int N, class T = typename C::Number>
struct Orbit {
    Vector<T>* rows[N];

    KETFIT_INLINE Orbit(const WordPass& pass, Vector<T>* state, size_t row) {
        for (int p = 0; p < N; ++p) rows[p] = state + C::parts * (row ^ pass.rows[p]);
    }
    KETFIT_INLINE void load(C* to) const {
        for (int p = 0; p < N; ++p) to[p] = C::load(rows[p]);
    }
    KETFIT_INLINE void store(const C* from) const {
        for (int p = 0; p < N; ++p) from[p].store(rows[p]);
    }
};

// How a pass of words is compiled: for one group or two; FLIP: one of them flips lanes.
template <bool TWO, bool FLIP, bool TANGENT>
struct WordPassKind {
    template <class C, class T = typename C::Number>
    static void forward(const WordPass& pass, Vector<T>* state, size_t n_rows, const WordOperands<T>& operands) {
        constexpr int n = TWO ? 4 : 2;
        const OneWord<C, n, 0, FLIP, TANGENT> first(pass, operands);
        const OneWord<C, n, TWO, FLIP, TANGENT> second(pass, operands);
        for (size_t row = 0; row < n_rows; row = next_index(row, pass.pivots)) {
            const Orbit<C, n> orbit(pass, state, row);
            C psi[n];
            orbit.load(psi);
            first.apply(psi, row);
            if (TWO) second.apply(psi, row);
            orbit.store(psi);
        }
    }

    template <class C, class T = typename C::Number>
    static void backward(const WordPass& pass, Vector<T>* state, Vector<T>* adjoint, size_t n_rows,
                         const WordOperands<T>& operands) {
        constexpr int n = TWO ? 4 : 2;
        OneWord<C, n, 0, FLIP, TANGENT> first(pass, operands);
        OneWord<C, n, TWO, FLIP, TANGENT> second(pass, operands);
        for (size_t row = 0; row < n_rows; row = next_index(row, pass.pivots)) {
            const Orbit<C, n> orbit(pass, state, row), adjoint_orbit(pass, adjoint, row);
            C psi[n], lambda[n];
            orbit.load(psi), adjoint_orbit.load(lambda);
            if (TWO) second.undo(psi, lambda, row);
            first.undo(psi, lambda, row);
            orbit.store(psi), adjoint_orbit.store(lambda);
        }
        first.add_sums();
        if (TWO) second.add_sums();
    }
};

// Calls visit(kind).
template <bool TANGENT, class F>
void with_kind(const WordPass& pass, F visit) {
    const bool two = pass.n_groups == 2;
    if (pass.x[0].lane || pass.x[1].lane)
        two ? visit(WordPassKind<true, true, TANGENT>()) : visit(WordPassKind<false, true, TANGENT>());
    else
        two ? visit(WordPassKind<true, false, TANGENT>()) : visit(WordPassKind<false, false, TANGENT>());
}

template <class C, class T = typename C::Number>
void forward_words(const WordPass& pass, T* state, size_t n_rows, const WordOperands<T>& operands) {
    const auto run = [&](auto kind) {
        kind.template forward<C>(pass, reinterpret_cast<Vector<T>*>(state), n_rows, operands);
    };
    operands.is_tangent ? with_kind<true>(pass, run) : with_kind<false>(pass, run);
}

template <class C, class T = typename C::Number>
void backward_words(const WordPass& pass, T* state, T* adjoint, size_t n_rows, const WordOperands<T>& operands) {
    const auto run = [&](auto kind) {
        kind.template backward<C>(pass, reinterpret_cast<Vector<T>*>(state), reinterpret_cast<Vector<T>*>(adjoint),
                                  n_rows, operands);
    };
    operands.is_tangent ? with_kind<true>(pass, run) : with_kind<false>(pass, run);
}

template <class C, class T = typename C::Number>
void forward(const PairGroup& group, T* state, size_t n_rows, const T* table, int parities) {
    (group.x.row    ? group.x.lane ? forward_pairs<C, true> : forward_pairs<C, false>
     : group.x.lane ? forward_rows<C, false>
                    : forward_rows<C, true>)(group, reinterpret_cast<Vector<T>*>(state), n_rows, table, parities);
}

template <class C, bool UNDO, class T>
void backward_as(const PairGroup& group, T* state, T* adjoint, size_t n_rows, const T* table, int parities,
                 double* overlaps, double factor) {
    (group.x.row    ? group.x.lane ? backward_pairs<C, true, UNDO> : backward_pairs<C, false, UNDO>
     : group.x.lane ? backward_rows<C, false, UNDO>
                    : backward_rows<C, true, UNDO>)(group, reinterpret_cast<Vector<T>*>(state),
                                                    reinterpret_cast<Vector<T>*>(adjoint), n_rows, table, parities,
                                                    overlaps, factor);
}

template <class C, class T = typename C::Number>
void backward(const PairGroup& group, T* state, T* adjoint, size_t n_rows, const T* table, int parities,
              double* overlaps, double factor) {
    constexpr size_t max_table = 4 * table_columns * Lanes<T>::lanes;
    if (table) return backward_as<C, true>(group, state, adjoint, n_rows, table, parities, overlaps, factor);
    const T zeros[max_table] = {};
    backward_as<C, false>(group, state, adjoint, n_rows, zeros, parities, overlaps, factor);
}

template <class T>
KETFIT_INLINE Complex<T> select(Vector<T> chosen, Complex<T> a, Complex<T> b) {
    return {Lanes<T>::select(chosen, a.re, b.re), Lanes<T>::select(chosen, a.im, b.im)};
}

template <class T>
KETFIT_INLINE Real<T> select(Vector<T> chosen, Real<T> a, Real<T> b) {
    return {Lanes<T>::select(chosen, a.re, b.re)};
}

template <class C, class T = typename C::Number>
void prepare_product_state(T* state, int bits, int sample_bits, const T* factors) {
    using V = Vector<T>;
    using L = Lanes<T>;
    constexpr int lanes = L::lanes, lane_bits = L::lane_bits;
    V* psi = reinterpret_cast<V*>(state);
    C first{};
    first.re += 1;
    for (int bit = sample_bits; bit < lane_bits; ++bit) {
        const T* factor = factors + size_t(bit) * 4 * lanes;
        const auto zero = C::load(factor), one = C::load(factor + 2 * lanes);
        const V is_one = L::bit_signs(bit);
        first = product(first, select(is_one, one, zero));
    }
    first.store(psi);
    for (int bit = lane_bits; bit < bits; ++bit) {
        const T* factor = factors + size_t(bit) * 4 * lanes;
        const auto zero = C::load(factor), one = C::load(factor + 2 * lanes);
        const size_t n_rows = size_t(1) << (bit - lane_bits);
        for (size_t row = 0; row < n_rows; ++row) {
            const auto amplitude = C::load(psi + C::parts * row);
            product(one, amplitude).store(psi + C::parts * (row + n_rows));
            product(zero, amplitude).store(psi + C::parts * row);
        }
    }
}

// -1 in the lanes where the parity of lane & mask is 1.
template <class T>
KETFIT_INLINE Vector<T> lane_signs(int mask) {
    Vector<T> v = {};
    for (int lane = 0; lane < Lanes<T>::lanes; ++lane) v[lane] = parity(size_t(lane & mask)) ? -1 : 1;
    return v;
}

// The sign that (-i)^power and the word's parity mask give the amplitude i ^ x at index i, in the first row. (i^power
// and the parity of x & z together make (-i)^power with the parity of i & z.)
template <class T>
KETFIT_INLINE Vector<T> word_signs(const PauliWord& word) {
    const Vector<T> signs = lane_signs<T>(word.z.lane);
    return word.power & 2 ? -signs : signs;
}

// Re(conj(own) partner), or, if the power is odd, Re(-i conj(own) partner).
template <class T>
KETFIT_INLINE Vector<T> term(Complex<T> own, Complex<T> partner, int power) {
    return power & 1 ? own.re * partner.im - own.im * partner.re : own.re * partner.re + own.im * partner.im;
}

template <class T>
KETFIT_INLINE Vector<T> term(Real<T> own, Real<T> partner, int power) {
    return power & 1 ? Vector<T>{} : own.re * partner.re;
}

// Adds the amplitudes, times -i if the power is odd, times real factors to a row.
template <class T>
KETFIT_INLINE void add_times(Vector<T>* row, Vector<T> factor, Complex<T> amplitudes, int power) {
    row[0] += factor * (power & 1 ? amplitudes.im : amplitudes.re);
    row[1] += factor * (power & 1 ? -amplitudes.re : amplitudes.im);
}

// The imaginary part is left out: it changes no angle's derivative of a state that stays real.
template <class T>
KETFIT_INLINE void add_times(Vector<T>* row, Vector<T> factor, Real<T> amplitudes, int power) {
    if (!(power & 1)) row[0] += factor * amplitudes.re;
}

template <class C, class T = typename C::Number>
void add_word_value(const T* state, size_t begin, size_t end, const PauliWord& word, double* sums) {
    const LaneFlip<T> flip(word.x.lane);
    using V = Vector<T>;
    const V* psi = reinterpret_cast<const V*>(state);
    const V signs = word_signs<T>(word);
    constexpr size_t part_rows = 64;  // a long sum in single precision would lose digits
    for (size_t row = begin; row < end;) {
        V part = {};
        for (const size_t part_end = row + part_rows < end ? row + part_rows : end; row < part_end; ++row) {
            const auto own = C::load(psi + C::parts * row);
            auto partner = C::load(psi + C::parts * (row ^ word.x.row));
            if (word.x.lane) partner = flip_lanes(partner, flip);
            const V value = term(own, partner, word.power);
            part += parity(row & word.z.row) ? -value : value;
        }
        part *= signs;
        for (int lane = 0; lane < Lanes<T>::lanes; ++lane) sums[lane] += part[lane];
    }
}

template <class C, class T = typename C::Number>
void add_word(const T* state, T* adjoint, size_t begin, size_t end, const PauliWord& word, const T* factors) {
    const LaneFlip<T> flip(word.x.lane);
    using V = Vector<T>;
    const V* psi = reinterpret_cast<const V*>(state);
    V* lambda = reinterpret_cast<V*>(adjoint);
    const V even = word_signs<T>(word) * Lanes<T>::load(factors);
    for (size_t row = begin; row < end; ++row) {
        auto partner = C::load(psi + C::parts * (row ^ word.x.row));
        if (word.x.lane) partner = flip_lanes(partner, flip);
        const V factor = parity(row & word.z.row) ? -even : even;
        add_times(lambda + C::parts * row, factor, partner, word.power);
    }
}

template <class C, class T = typename C::Number>
constexpr PairKernels<T> kernels() {
    return {Lanes<T>::lanes,          forward<C>,        backward<C>, forward_words<C>, backward_words<C>,
            prepare_product_state<C>, add_word_value<C>, add_word<C>};
}

}  // namespace

extern const PairKernelSet KETFIT_FOR_ISA(complex_kernels_), KETFIT_FOR_ISA(real_kernels_);
const PairKernelSet KETFIT_FOR_ISA(complex_kernels_) = {kernels<Complex<float>>(), kernels<Complex<double>>()};
const PairKernelSet KETFIT_FOR_ISA(real_kernels_) = {kernels<Real<float>>(), kernels<Real<double>>()};

}  // namespace ketfit
