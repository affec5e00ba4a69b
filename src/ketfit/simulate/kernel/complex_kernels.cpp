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

    KETFIT_INLINE void add(Complex a) { re += a.re, im += a.im; }
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

    KETFIT_INLINE void add(Real a) { re += a.re; }
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

// The first rows of the orbits of a class in a tile.
struct OrbitClass {
    size_t tile;
    const uint8_t *begin, *end;

    template <class F>
    KETFIT_INLINE void for_each_row(F visit) const {
        for (const uint8_t* row = begin; row != end; ++row) visit(tile | *row);
    }
};

// Calls visit(parities, orbits) for each class of each tile that has orbits.
template <class F>
KETFIT_INLINE void for_each_class(const RowOrbits& orbits, size_t n_rows, F visit) {
    for (size_t tile = 0; tile < n_rows; tile = next_index(tile, orbits.tile_bits | orbits.pivots)) {
        const int parities = parity(tile & orbits.masks[0]) | parity(tile & orbits.masks[1]) << 1;
        const uint8_t* begin = orbits.rows;
        for (int s = 0; s < 4; ++s) {
            const uint8_t* end = orbits.rows + orbits.ends[s];
            if (begin != end) visit(s ^ parities, OrbitClass{tile, begin, end});
            begin = end;
        }
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
    for_each_class(group.orbits, n_rows,
                   [&](int class_parities, const OrbitClass& orbits) __attribute__((always_inline)) {
                       const int s = class_parities ^ parities;
                       const Coefficients<C> first(table, s), second(table, s ^ group.partner_parities);
                       orbits.for_each_row([&](size_t row) __attribute__((always_inline)) {
                           Vector<T>*a = state + C::parts * row, *b = state + C::parts * (row ^ group.x.row);
                           const auto psi_a = C::load(a), psi_b = C::load(b);
                           first.apply(psi_a, FLIP ? flip_lanes(psi_b, flip) : psi_b).store(a);
                           second.apply(psi_b, FLIP ? flip_lanes(psi_a, flip) : psi_a).store(b);
                       });
                   });
}

// Sums of A and B for each s.
template <class C, class T = typename C::Number>
struct Overlaps {
    C own[4] = {}, other[4] = {};

    void add_to(double* overlaps, double factor, int n_sets) const {
        for (int s = 0; s < n_sets; ++s) {
            add_lanes(own[s], factor, overlap_of<T>(overlaps, s, 0));
            add_lanes(other[s], factor, overlap_of<T>(overlaps, s, 1));
        }
    }
};

template <class C, bool FLIP, bool UNDO, class T = typename C::Number>
void backward_pairs(const PairGroup& group, Vector<T>* state, Vector<T>* adjoint, size_t n_rows, const T* table,
                    int parities, double* overlaps, double factor) {
    const LaneFlip<T> flip(group.x.lane);
    Overlaps<C> sums;
    for_each_class(
        group.orbits, n_rows, [&](int class_parities, const OrbitClass& orbits) __attribute__((always_inline)) {
            const int s_a = class_parities ^ parities, s_b = s_a ^ group.partner_parities;
            const Coefficients<C> first(table, s_a), second(table, s_b);
            C own_a{}, other_a{}, own_b{}, other_b{};
            orbits.for_each_row([&](size_t row) __attribute__((always_inline)) {
                const size_t partner = row ^ group.x.row;
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
            sums.own[s_a].add(own_a), sums.other[s_a].add(other_a);
            sums.own[s_b].add(own_b), sums.other[s_b].add(other_b);
        });
    sums.add_to(overlaps, factor, group.n_sets);
}

// Partners in one row, or no partners (DIAGONAL).
template <class C, bool DIAGONAL, class T = typename C::Number>
void forward_rows(const PairGroup& group, Vector<T>* state, size_t n_rows, const T* table, int parities) {
    const LaneFlip<T> flip(group.x.lane);
    for_each_class(group.orbits, n_rows,
                   [&](int class_parities, const OrbitClass& orbits) __attribute__((always_inline)) {
                       const Coefficients<C> own(table, class_parities ^ parities);
                       orbits.for_each_row([&](size_t row) __attribute__((always_inline)) {
                           const auto psi = C::load(state + C::parts * row);
                           if (DIAGONAL)
                               product(own.diagonal, psi).store(state + C::parts * row);
                           else
                               own.apply(psi, flip_lanes(psi, flip)).store(state + C::parts * row);
                       });
                   });
}

template <class C, bool DIAGONAL, bool UNDO, class T = typename C::Number>
void backward_rows(const PairGroup& group, Vector<T>* state, Vector<T>* adjoint, size_t n_rows, const T* table,
                   int parities, double* overlaps, double factor) {
    const LaneFlip<T> flip(group.x.lane);
    Overlaps<C> sums;
    for_each_class(group.orbits, n_rows,
                   [&](int class_parities, const OrbitClass& orbits) __attribute__((always_inline)) {
                       const int s = class_parities ^ parities;
                       const Coefficients<C> inverse(table, s);
                       C own{}, other{};
                       orbits.for_each_row([&](size_t row) __attribute__((always_inline)) {
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
                       sums.own[s].add(own), sums.other[s].add(other);
                   });
    sums.add_to(overlaps, factor, group.n_sets);
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
    C diagonal, off_diagonal[N];  // of rows whose parity is 0; TANGENT: 1 and O / D
    C sums[N] = {};

    KETFIT_INLINE OneWord(const WordPass& pass, const WordOperands<T>& operands)
        : pass(pass), operands(operands), flip(pass.x[K].lane) {
        for (int p = 0; p < N; ++p) {
            const Coefficients<C> coefficients(operands.tables[K], operands.parities[K] ^ pass.parities[K][p]);
            diagonal = coefficients.diagonal;
            off_diagonal[p] = TANGENT ? divided(coefficients.off_diagonal, diagonal.re) : coefficients.off_diagonal;
        }
    }

    // The same for the orbits of a class.
    class InClass {
     public:
        KETFIT_INLINE InClass(const OneWord& word, int parities)
            : flip_(word.flip), signs_(Lanes<T>::sign_bits(parities >> K & 1)), diagonal_(word.diagonal) {
            for (int p = 0; p < N; ++p) off_diagonal_[p] = change_signs(word.off_diagonal[p], signs_);
        }

        KETFIT_INLINE void apply(C* psi) const {
            C to[N];
            partners(psi, to);
            apply(psi, to);
        }

        // Undoes the group on both, and adds to the sums.
        KETFIT_INLINE void undo(C* psi, C* lambda) {
            C to[N];
            partners(psi, to);
            for (int p = 0; p < N; ++p) sums_[p].add_overlap(lambda[p], to[p]);
            apply(psi, to);
            partners(lambda, to);
            apply(lambda, to);
        }

        KETFIT_INLINE void add_sums(OneWord& word) const {
            for (int p = 0; p < N; ++p) word.sums[p].add(change_signs(sums_[p], signs_));
        }

     private:
        KETFIT_INLINE void partners(const C* own, C* to) const {
            for (int p = 0; p < N; ++p) to[p] = FLIP ? flip_lanes(own[p ^ (1 << K)], flip_) : own[p ^ (1 << K)];
        }

        KETFIT_INLINE void apply(C* own, const C* partners) const {
            for (int p = 0; p < N; ++p) {
                C sum = TANGENT ? own[p] : product(diagonal_, own[p]);
                sum.add_product(off_diagonal_[p], partners[p]);
                own[p] = sum;
            }
        }

        const LaneFlip<T> flip_;
        const SignBits<T> signs_;
        const C diagonal_;
        C off_diagonal_[N], sums_[N] = {};
    };

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
        using First = OneWord<C, n, 0, FLIP, TANGENT>;
        using Second = OneWord<C, n, TWO, FLIP, TANGENT>;
        const First first(pass, operands);
        const Second second(pass, operands);
        for_each_class(pass.orbits, n_rows, [&](int parities, const OrbitClass& orbits) __attribute__((always_inline)) {
            const typename First::InClass first_in_class(first, parities);
            const typename Second::InClass second_in_class(second, parities);
            orbits.for_each_row([&](size_t row) __attribute__((always_inline)) {
                const Orbit<C, n> orbit(pass, state, row);
                C psi[n];
                orbit.load(psi);
                first_in_class.apply(psi);
                if (TWO) second_in_class.apply(psi);
                orbit.store(psi);
            });
        });
    }

    template <class C, class T = typename C::Number>
    static void backward(const WordPass& pass, Vector<T>* state, Vector<T>* adjoint, size_t n_rows,
                         const WordOperands<T>& operands) {
        constexpr int n = TWO ? 4 : 2;
        using First = OneWord<C, n, 0, FLIP, TANGENT>;
        using Second = OneWord<C, n, TWO, FLIP, TANGENT>;
        First first(pass, operands);
        Second second(pass, operands);
        for_each_class(pass.orbits, n_rows, [&](int parities, const OrbitClass& orbits) __attribute__((always_inline)) {
            typename First::InClass first_in_class(first, parities);
            typename Second::InClass second_in_class(second, parities);
            orbits.for_each_row([&](size_t row) __attribute__((always_inline)) {
                const Orbit<C, n> orbit(pass, state, row), adjoint_orbit(pass, adjoint, row);
                C psi[n], lambda[n];
                orbit.load(psi), adjoint_orbit.load(lambda);
                if (TWO) second_in_class.undo(psi, lambda);
                first_in_class.undo(psi, lambda);
                orbit.store(psi), adjoint_orbit.store(lambda);
            });
            first_in_class.add_sums(first);
            if (TWO) second_in_class.add_sums(second);
        });
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
void copy_times(const T* from, size_t size, T factor, T* to) {
    for (size_t i = 0; i < size; i += Lanes<T>::lanes) {
        const Vector<T> product = factor * Lanes<T>::load(from + i);
        __builtin_memcpy(to + i, &product, sizeof product);
    }
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
    return {Lanes<T>::lanes,          forward<C>,        backward<C>,
            forward_words<C>,         backward_words<C>, copy_times<T>,
            prepare_product_state<C>, add_word_value<C>, add_word<C>};
}

}  // namespace

extern const PairKernelSet KETFIT_FOR_ISA(complex_kernels_), KETFIT_FOR_ISA(real_kernels_);
const PairKernelSet KETFIT_FOR_ISA(complex_kernels_) = {kernels<Complex<float>>(), kernels<Complex<double>>()};
const PairKernelSet KETFIT_FOR_ISA(real_kernels_) = {kernels<Real<float>>(), kernels<Real<double>>()};

}  // namespace ketfit
