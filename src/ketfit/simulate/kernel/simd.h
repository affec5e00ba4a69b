// SIMD vectors, by the vector extensions of GCC and Clang.
//
// gate_kernels.cpp, pauli_kernels.cpp and complex_kernels.cpp are compiled once for each instruction set. Of an inline
// function that is not inlined the linker keeps one copy, which might be the one for AVX-512. So every function here is
// inlined always, and those files call no function of the standard library.

#pragma once

#include <cstddef>
#include <cstdint>
#include <type_traits>
#include <utility>

#define KETFIT_INLINE inline __attribute__((always_inline))

namespace ketfit {

// The smallest number above `index` that has zeros at the bits of `mask`; `index` has zeros there too.
KETFIT_INLINE size_t next_index(size_t index, size_t mask) { return ((index | mask) + 1) & ~mask; }

// Lane l of a vector is a part of an index: its lowest `lane_bits` bits.
template <class T, int BYTES>
struct Simd {
    typedef T Vector __attribute__((vector_size(BYTES)));
    using Bits = std::conditional_t<sizeof(T) == 4, int32_t, int64_t>;
    typedef Bits BitVector __attribute__((vector_size(BYTES)));
    static constexpr int lanes = BYTES / sizeof(T);
    static constexpr int lane_bits = lanes == 2 ? 1 : lanes == 4 ? 2 : lanes == 8 ? 3 : 4;

    static KETFIT_INLINE Vector zero() { return Vector{}; }

    static KETFIT_INLINE Vector load(const T* from) {
        Vector v;
        __builtin_memcpy(&v, from, sizeof v);
        return v;
    }

    // -1 in the lanes where `bit` of the lane's number is 0, +1 where it is 1.
    static KETFIT_INLINE Vector bit_signs(int bit) {
        Vector v = {};
        for (int lane = 0; lane < lanes; ++lane) v[lane] = lane >> bit & 1 ? 1 : -1;
        return v;
    }

    // `positive` in the lanes where `condition` is positive, `otherwise` elsewhere.
    static KETFIT_INLINE Vector select(Vector condition, Vector positive, Vector otherwise) {
        return condition > 0 ? positive : otherwise;
    }

    // The sign bits of all lanes, or none.
    static KETFIT_INLINE BitVector sign_bits(bool negative) {
        return BitVector{} | Bits(!negative ? 0 : sizeof(T) == 4 ? INT32_MIN : INT64_MIN);
    }

    static KETFIT_INLINE Vector change_signs(Vector v, BitVector signs) {
        return reinterpret_cast<Vector>(reinterpret_cast<BitVector>(v) ^ signs);
    }

    // Lane l gets lane l ^ mask.
    class LaneFlip {
     public:
#if defined(__AVX2__) && !defined(__clang__)  // any order of the lanes is one instruction, but Clang has no name for it
        explicit KETFIT_INLINE LaneFlip(int mask) {
            for (int lane = 0; lane < lanes; ++lane) order_[lane] = lane ^ mask;
        }
        KETFIT_INLINE Vector operator()(Vector v) const { return __builtin_shuffle(v, order_); }

     private:
        BitVector order_;
#else
        explicit KETFIT_INLINE LaneFlip(int mask) : mask_(mask) {}
        KETFIT_INLINE Vector operator()(Vector v) const {
            if (mask_ & 1) v = flip_lane_bit<0>(v);
            if constexpr (lane_bits > 1)
                if (mask_ & 2) v = flip_lane_bit<1>(v);
            if constexpr (lane_bits > 2)
                if (mask_ & 4) v = flip_lane_bit<2>(v);
            if constexpr (lane_bits > 3)
                if (mask_ & 8) v = flip_lane_bit<3>(v);
            return v;
        }

     private:
        int mask_;
#endif
    };

    // Lane l gets lane l ^ 2^BIT: its partner along a bit of the lane's number.
    template <int BIT>
    static KETFIT_INLINE Vector flip_lane_bit(Vector v) {
        return flip_lane_bit<BIT>(v, AllLanes());
    }

    // Transposes a block of 16 vectors: lane bit lane_bits[b] changes places with bit b of the vectors' numbers, for
    // each b of 0 to 3 with lane_bits[b] >= 0. It is its own inverse.
    static KETFIT_INLINE void transpose(Vector* v, const int* lane_bits) {
        for (int bit = 0; bit < 4; ++bit) {
            if (lane_bits[bit] == 0) exchange_bits<0>(v, bit);
            if (lane_bits[bit] == 1) exchange_bits<1>(v, bit);
            if (lane_bits[bit] == 2) exchange_bits<2>(v, bit);
            if (lane_bits[bit] == 3) exchange_bits<3>(v, bit);
        }
    }

    static KETFIT_INLINE double sum(Vector v) {
        double total = 0;
        for (int lane = 0; lane < lanes; ++lane) total += v[lane];
        return total;
    }

 private:
    using AllLanes = std::make_integer_sequence<int, lanes>;

    template <int BIT, int... LANE>
    static KETFIT_INLINE Vector flip_lane_bit(Vector v, std::integer_sequence<int, LANE...>) {
        return __builtin_shufflevector(v, v, (LANE ^ (1 << BIT))...);
    }

    // a keeps its lanes with BIT 0, and gets those of b at its lanes with BIT 1; b gets those of a that this replaces.
    template <int BIT, int... LANE>
    static KETFIT_INLINE void exchange_halves(Vector& a, Vector& b, std::integer_sequence<int, LANE...>) {
        const Vector low = __builtin_shufflevector(a, b, (LANE >> BIT & 1 ? lanes + (LANE ^ (1 << BIT)) : LANE)...);
        const Vector high = __builtin_shufflevector(a, b, (LANE >> BIT & 1 ? lanes + LANE : (LANE ^ (1 << BIT)))...);
        a = low, b = high;
    }

    template <int BIT>
    static KETFIT_INLINE void exchange_bits(Vector* v, int number_bit) {
        if constexpr ((1 << BIT) < lanes)
            for (int k = 0; k < 16; ++k)
                if (!(k >> number_bit & 1)) exchange_halves<BIT>(v[k], v[k | 1 << number_bit], AllLanes());
    }
};

// One lane, for states that are too small for vectors.
template <class T>
struct Scalar {
    typedef T Vector;
    static constexpr int lanes = 1;
    static KETFIT_INLINE Vector zero() { return 0; }
    static KETFIT_INLINE void transpose(Vector*, const int*) {}
    static KETFIT_INLINE double sum(Vector v) { return v; }
};

// Kernels of both number types.
template <template <class> class Kernels>
struct KernelSet {
    Kernels<float> f32;
    Kernels<double> f64;

    template <class T>
    const Kernels<T>& get() const {
        if constexpr (sizeof(T) == 4)
            return f32;
        else
            return f64;
    }
};

}  // namespace ketfit

// The name of a kernel set of the instruction set that is compiled for.
#define KETFIT_JOIN_EXPANDED(a, b) a##b
#define KETFIT_JOIN(a, b) KETFIT_JOIN_EXPANDED(a, b)
#define KETFIT_FOR_ISA(name) KETFIT_JOIN(name, KETFIT_ISA)
