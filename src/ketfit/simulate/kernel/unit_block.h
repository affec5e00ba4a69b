// Blocks of a unit that two ranks of a distributed state exchange.

#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include "bits.h"

namespace ketfit {

// The amplitudes of a unit (see complex_kernels.h) whose index i has given parities of i & masks[k]. The highest bit of
// a mask, its pivot, is in no other mask, so a block is numbered by the other bits of an index, in their order.
class UnitBlock {
 public:
    UnitBlock(int itemsize, bool is_real, int bits, int lane_bits, std::vector<uint64_t> masks, uint64_t parities)
        : itemsize_(itemsize),
          is_real_(is_real),
          bits_(bits),
          lane_bits_(lane_bits),
          masks_(std::move(masks)),
          parities_(parities) {
        for (const uint64_t mask : masks_) {
            pivots_.push_back(uint64_t(1) << (63 - __builtin_clzll(mask)));
            pivot_mask_ |= pivots_.back();
        }
        run_bits_ = pivot_mask_ ? __builtin_ctzll(pivot_mask_) : bits_;
        for (const uint64_t mask : masks_) runs_are_contiguous_ &= !(mask & ((uint64_t(1) << run_bits_) - 1));
    }

    int itemsize() const { return itemsize_; }  // bytes of a real number
    size_t size() const { return size_t(1) << (bits_ - int(masks_.size())); }

    size_t parts() const { return is_real_ ? 1 : 2; }  // real numbers of an amplitude

    // Copies amplitudes [begin, end) of the block to numbers, [amplitude][part].
    template <class T>
    void gather(const T* unit, size_t begin, size_t end, T* numbers) const {
        for_each(begin, end, [&](size_t place) {
            *numbers++ = unit[place];
            if (!is_real_) *numbers++ = unit[place + lanes()];
        });
    }

    // The reverse.
    template <class T>
    void scatter(const T* numbers, size_t begin, size_t end, T* unit) const {
        for_each(begin, end, [&](size_t place) {
            unit[place] = *numbers++;
            if (!is_real_) unit[place + lanes()] = *numbers++;
        });
    }

 private:
    size_t lanes() const { return size_t(1) << lane_bits_; }

    // Where the real part of an amplitude is.
    size_t place(size_t index) const { return is_real_ ? index : (index >> lane_bits_ << lane_bits_) + index; }

    // The pivots that give an index, which has none of them, the block's parities.
    size_t solve(size_t index, uint64_t parities) const {
        size_t solved = 0;
        for (size_t k = 0; k < masks_.size(); ++k)
            if (__builtin_parityll(index & masks_[k]) != int(parities >> k & 1)) solved |= pivots_[k];
        return solved;
    }

    template <class F>
    void for_each(size_t begin, size_t end, F visit) const {
        const size_t run = size_t(1) << run_bits_;
        while (begin < end) {
            const size_t low = begin & (run - 1), run_end = std::min(run, low + (end - begin));
            const size_t outside = deposit_bits_outside(begin >> run_bits_, pivot_mask_ >> run_bits_) << run_bits_;
            const size_t base = outside | solve(outside, parities_);
            if (runs_are_contiguous_)
                for (size_t i = low; i < run_end; ++i) visit(place(base | i));
            else
                for (size_t i = low; i < run_end; ++i) visit(place((base | i) ^ solve(i, 0)));
            begin += run_end - low;
        }
    }

    int itemsize_;
    bool is_real_;
    int bits_, lane_bits_;
    int run_bits_;  // a run has the 2^run_bits indices that differ below the lowest pivot
    std::vector<uint64_t> masks_, pivots_;
    uint64_t parities_, pivot_mask_ = 0;
    bool runs_are_contiguous_ = true;
};

}  // namespace ketfit
