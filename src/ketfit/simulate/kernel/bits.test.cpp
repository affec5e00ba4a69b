#include "bits.h"

#include <doctest/doctest.h>

#include <initializer_list>

using namespace ketfit;

TEST_CASE("deposit_bits moves bit i to positions[i]") {
    const int32_t positions[] = {1, 4, 5, 40};
    CHECK(deposit_bits(0, positions, 4) == 0);
    CHECK(deposit_bits(0b0110, positions, 4) == 0b110000);
    CHECK(deposit_bits(0b1001, positions, 4) == (size_t(1) << 40 | 0b10));
    CHECK(deposit_bits(0b1111, positions, 2) == 0b10010);
    CHECK(deposit_bits(0b1111, nullptr, 0) == 0);
}

TEST_CASE("deposit_bits_outside counts through the numbers with zeros at the mask") {
    for (const size_t mask : {size_t(0), size_t(0b1), size_t(0b1011), size_t(0b110000)}) {
        size_t value = 0;
        for (size_t index = 0; index < 1000; ++index)
            if (!(index & mask)) CHECK(deposit_bits_outside(value++, mask) == index);
    }
}
