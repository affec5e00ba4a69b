// The Clifford gates that the kernel does not apply, because they only permute amplitudes and give them phases.

#pragma once

#include <complex>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace ketfit {

// What the gates do to one bit of an index, and with the lower bits in `pairs`.
struct FrameBit {
    uint64_t place, pairs;
    int power;
};

// Amplitude i of the kernel's state is, times phase * i^power, the amplitude `place` of the circuit's state. The place
// is `offset` xor those of the bits of i that are set. The power is the sum of theirs, and 2 more for each pair of bits
// that are both set.
class CliffordFrame {
 public:
    struct Target {
        uint64_t place;
        int power;
    };

    CliffordFrame() = default;
    CliffordFrame(uint64_t offset, std::complex<double> phase, const std::vector<FrameBit>& bits)
        : phase_(phase), low_bits_(bits.size() / 2) {
        low_ = combine({offset, 0, 0}, bits, 0, low_bits_);
        high_ = combine({0, 0, 0}, bits, low_bits_, bits.size());
    }

    Target operator()(uint64_t index) const {
        const FrameBit &low = low_[index & (low_.size() - 1)], &high = high_[index >> low_bits_];
        const int pairs = __builtin_parityll(index & (low_.size() - 1) & high.pairs);
        return {low.place ^ high.place, (low.power + high.power + 2 * pairs) & 3};
    }

    // phase * i^power.
    std::complex<double> factor(int power) const {
        const std::complex<double> powers[4] = {1, {0, 1}, -1, {0, -1}};
        return phase_ * powers[power];
    }

 private:
    // The sums of bits [begin, end), for each number that these bits can be.
    static std::vector<FrameBit> combine(FrameBit start, const std::vector<FrameBit>& bits, size_t begin, size_t end) {
        std::vector<FrameBit> sums{start};
        for (size_t bit = begin; bit < end; ++bit)
            for (size_t i = 0, n = sums.size(); i < n; ++i) {
                const int pairs = __builtin_parityll(uint64_t(i) << begin & bits[bit].pairs);
                sums.push_back({sums[i].place ^ bits[bit].place, sums[i].pairs ^ bits[bit].pairs,
                                sums[i].power + bits[bit].power + 2 * pairs});
            }
        return sums;
    }

    std::complex<double> phase_ = 1;
    size_t low_bits_ = 0;
    std::vector<FrameBit> low_{FrameBit{}}, high_{FrameBit{}};
};

}  // namespace ketfit
