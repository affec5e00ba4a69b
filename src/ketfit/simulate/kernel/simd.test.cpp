#include "simd.h"

#include <doctest/doctest.h>

#include <initializer_list>
#include <vector>

using namespace ketfit;

#define EVERY_VECTOR \
    Simd<float, 16>, Simd<float, 32>, Simd<float, 64>, Simd<double, 16>, Simd<double, 32>, Simd<double, 64>

namespace {

// first, first + 1, ... lane by lane.
template <class S>
typename S::Vector count_from(int first) {
    typename S::Vector v = {};
    for (int lane = 0; lane < S::lanes; ++lane) v[lane] = first + lane;
    return v;
}

template <class S, int BIT>
void check_flip_lane_bit() {
    if constexpr (BIT < S::lane_bits) {
        const auto flipped = S::template flip_lane_bit<BIT>(count_from<S>(0));
        for (int lane = 0; lane < S::lanes; ++lane) CHECK(flipped[lane] == (lane ^ (1 << BIT)));
        check_flip_lane_bit<S, BIT + 1>();
    }
}

}  // namespace

TEST_CASE("next_index counts through the numbers with zeros at the mask") {
    for (const size_t mask : {size_t(0), size_t(1), size_t(0b101), size_t(0b1100)}) {
        size_t index = 0;
        for (size_t number = 0; number < 200; ++number)
            if (!(number & mask)) {
                CHECK(index == number);
                index = next_index(index, mask);
            }
    }
}

TEST_CASE_TEMPLATE("Simd has 2^lane_bits lanes", S, EVERY_VECTOR) {
    CHECK(S::lanes == (1 << S::lane_bits));
    CHECK(S::lanes == int(sizeof(typename S::Vector) / sizeof(S::zero()[0])));
}

TEST_CASE_TEMPLATE("Simd loads from any address", S, EVERY_VECTOR) {
    using T = std::remove_reference_t<decltype(S::zero()[0])>;
    std::vector<T> numbers(S::lanes + 1);
    for (int i = 0; i <= S::lanes; ++i) numbers[size_t(i)] = T(i);
    const auto v = S::load(numbers.data() + 1);
    for (int lane = 0; lane < S::lanes; ++lane) CHECK(v[lane] == lane + 1);
}

TEST_CASE_TEMPLATE("Simd sums its lanes", S, EVERY_VECTOR) {
    CHECK(S::sum(S::zero()) == 0);
    CHECK(S::sum(count_from<S>(1)) == S::lanes * (S::lanes + 1) / 2);
}

TEST_CASE_TEMPLATE("Simd::bit_signs is -1 where the bit is 0 and +1 where it is 1", S, EVERY_VECTOR) {
    for (int bit = 0; bit < S::lane_bits; ++bit)
        for (int lane = 0; lane < S::lanes; ++lane) CHECK(S::bit_signs(bit)[lane] == (lane >> bit & 1 ? 1 : -1));
}

TEST_CASE_TEMPLATE("Simd::select takes the first value where the condition is positive", S, EVERY_VECTOR) {
    const auto v = S::select(S::bit_signs(0), count_from<S>(100), count_from<S>(200));
    for (int lane = 0; lane < S::lanes; ++lane) CHECK(v[lane] == lane + (lane & 1 ? 100 : 200));
}

TEST_CASE_TEMPLATE("Simd::flip_lane_bit exchanges partners", S, EVERY_VECTOR) { check_flip_lane_bit<S, 0>(); }

TEST_CASE_TEMPLATE("Simd::transpose exchanges lane bits with bits of the vectors' numbers", S, EVERY_VECTOR) {
    for (int first = -1; first < S::lane_bits; ++first)
        for (int second = -1; second < S::lane_bits; ++second) {
            if (first >= 0 && first == second) continue;
            const int lane_bits[4] = {-1, first, -1, second};
            typename S::Vector v[16];
            for (int k = 0; k < 16; ++k) v[k] = count_from<S>(100 * k);
            S::transpose(v, lane_bits);
            for (int k = 0; k < 16; ++k)
                for (int lane = 0; lane < S::lanes; ++lane) {
                    int from_k = k, from_lane = lane;
                    for (int bit = 0; bit < 4; ++bit)
                        if (lane_bits[bit] >= 0 && (k >> bit & 1) != (lane >> lane_bits[bit] & 1)) {
                            from_k ^= 1 << bit;
                            from_lane ^= 1 << lane_bits[bit];
                        }
                    CHECK(double(v[k][lane]) == 100 * from_k + from_lane);
                }
            S::transpose(v, lane_bits);
            for (int k = 0; k < 16; ++k) CHECK(double(v[k][S::lanes - 1]) == 100 * k + S::lanes - 1);
        }
}

TEST_CASE("Scalar is a vector of one lane") {
    double v[16] = {3};
    Scalar<double>::transpose(v, nullptr);
    CHECK(Scalar<double>::sum(v[0]) == 3);
    CHECK(Scalar<double>::zero() == 0);
}
