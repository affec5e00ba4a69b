// Blocks of a unit against a search through all its indices.

#include "unit_block.h"

#include <complex>
#include <numeric>

#include "test_support.h"

using namespace ketfit;

namespace {

template <class T>
std::vector<T> counted(size_t size) {
    std::vector<T> numbers(size);
    std::iota(numbers.begin(), numbers.end(), T(1));
    return numbers;
}

}  // namespace

TEST_CASE_TEMPLATE("UnitBlock gathers and scatters the amplitudes with its parities", T, float, double) {
    constexpr int bits = 7;
    // The highest bit of each mask is in no other.
    const std::vector<std::vector<uint64_t>> all_masks{{}, {1}, {64}, {0b1000100}, {0b1001011, 0b0100110}, {2, 1}};
    for (const auto& masks : all_masks)
        for (uint64_t parities = 0; parities < uint64_t(1) << masks.size(); ++parities)
            for (const bool is_real : {false, true})
                for (const int lane_bits : {1, 3}) {
                    const size_t lanes = size_t(1) << lane_bits, parts = is_real ? 1 : 2;
                    const UnitBlock block(sizeof(T), is_real, bits, lane_bits, masks, parities);
                    const std::vector<T> unit = counted<T>(parts << bits);
                    std::vector<T> expected, found(parts * block.size()), scattered(unit.size(), T(0)), kept(scattered);
                    for (size_t index = 0; index < size_t(1) << bits; ++index) {
                        bool is_in_block = true;
                        for (size_t k = 0; k < masks.size(); ++k)
                            is_in_block &= __builtin_parityll(index & masks[k]) == int(parities >> k & 1);
                        if (!is_in_block) continue;
                        for (size_t part = 0; part < parts; ++part) {
                            const size_t place = (index / lanes * parts + part) * lanes + index % lanes;
                            expected.push_back(unit[place]), kept[place] = unit[place];
                        }
                    }
                    const size_t middle = block.size() / 3;
                    block.gather(unit.data(), 0, middle, found.data());
                    block.gather(unit.data(), middle, block.size(), found.data() + parts * middle);
                    CHECK(block.size() == size_t(1) << (bits - int(masks.size())));
                    CHECK(found.size() == expected.size());
                    CHECK(std::accumulate(found.begin(), found.end(), T(0)) ==
                          std::accumulate(expected.begin(), expected.end(), T(0)));
                    block.scatter(found.data(), 0, middle, scattered.data());
                    block.scatter(found.data() + parts * middle, middle, block.size(), scattered.data());
                    CHECK(scattered == kept);
                }
}
