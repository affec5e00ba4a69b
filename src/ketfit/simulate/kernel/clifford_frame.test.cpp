// Sums over the bits of an index against a table in halves.

#include "clifford_frame.h"

#include "test_support.h"

using namespace ketfit;

TEST_CASE("CliffordFrame adds up places, powers and pairs of an index's bits") {
    std::mt19937_64 rng(2);
    for (const size_t n_bits : {0, 1, 2, 7}) {
        std::vector<FrameBit> bits;
        for (size_t bit = 0; bit < n_bits; ++bit)
            bits.push_back({rng() & 127, rng() & ((uint64_t(1) << bit) - 1), int(rng() & 3)});
        const CliffordFrame frame(5, {0, 1}, bits);
        for (uint64_t index = 0; index < uint64_t(1) << n_bits; ++index) {
            uint64_t place = 5;
            int power = 0;
            for (size_t bit = 0; bit < n_bits; ++bit)
                if (index >> bit & 1) {
                    place ^= bits[bit].place;
                    power += bits[bit].power + 2 * __builtin_parityll(index & bits[bit].pairs);
                }
            CHECK(frame(index).place == place);
            CHECK(frame(index).power == (power & 3));
        }
        CHECK(frame.factor(1) == std::complex<double>(-1, 0));
    }
}
