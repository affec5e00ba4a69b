// The arrays of one call, and the cosines and sines that follow from them on the way there and on the way back.

#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "passes.h"
#include "plan.h"
#include "threads.h"

namespace ketfit {

// The half angles that a circuit's operations add up: shared by both ways through it.
template <class T>
struct Angles {
    const Plan& plan;
    const T *weights, *inputs;
    const int8_t* signs;  // [sample][rotation], or null: all +1
    int64_t batch;
    const size_t L;

    Angles(const Plan& plan, const T* weights, const T* inputs, const int8_t* signs, int64_t batch)
        : plan(plan),
          weights(weights),
          inputs(inputs),
          signs(signs),
          batch(batch),
          L(size_t(plan.engine<T>().lanes)),
          flips_(signs ? size_t(plan.n_rotations) * L : 0, T(1)) {
        weight_turns_.reserve(size_t(plan.n_weights));
        for (int64_t w = 0; w < plan.n_weights; ++w) weight_turns_.push_back(HalfAngle::of(weights[w]));
    }

    struct HalfAngle {
        double c = 1, s = 0;

        static HalfAngle of(T angle) { return {std::cos(double(angle) / 2), std::sin(double(angle) / 2)}; }

        // The sum with another: adding a small angle to a huge one would round it away.
        void add(HalfAngle other) {
            const double old = c;
            c = old * other.c - s * other.s;
            s = s * other.c + old * other.s;
        }
    };

    // The sign of a rotation in a lane of the unit that is prepared.
    T flip(int32_t rotation, size_t lane) const { return signs ? flips_[size_t(rotation) * L + lane] : T(1); }

    // Each sample has a cosine of its own: an input's, or that of a sum whose terms may differ in their signs.
    bool per_sample(size_t i) const { return plan.reads_input[i] || (signs && plan.n_terms(i) > 1); }

    // Of operation `i`, for the unit's sample `first`: the weights' part, and with that the inputs' part.
    HalfAngle half_angle(size_t i, size_t first) const {
        HalfAngle half;
        for (int32_t t = plan.term_offsets[i]; t < plan.term_offsets[i + 1]; ++t)
            if (const Term term = plan.terms[size_t(t)]; term.angle >= 0) {
                const HalfAngle turn = weight_turns_[size_t(term.angle)];
                half.add({turn.c, turn.s * double(flip(term.rotation, first))});
            }
        return half;
    }

    HalfAngle half_angle(size_t i, HalfAngle half, size_t first) const {
        for (int32_t t = plan.term_offsets[i]; t < plan.term_offsets[i + 1]; ++t)
            if (const Term term = plan.terms[size_t(t)]; term.angle < 0) {
                const HalfAngle turn = input_turns_[size_t(~term.angle) * samples() + first];
                half.add({turn.c, turn.s * double(flip(term.rotation, first))});
            }
        return half;
    }

    size_t samples() const { return size_t(1) << plan.sample_bits; }

    int64_t sample(int64_t unit, size_t lane) const {
        const int64_t b = (unit << plan.sample_bits) + int64_t(lane & (samples() - 1));
        return b < batch ? b : -1;
    }

    // What differs from sample to sample, for the samples of `unit`.
    void prepare(int64_t unit) {
        input_turns_.assign(size_t(plan.n_inputs) * samples(), HalfAngle{});
        for (int64_t k = 0; k < plan.n_inputs; ++k)
            for (size_t first = 0; first < samples(); ++first)
                if (const int64_t b = sample(unit, first); b >= 0)
                    input_turns_[size_t(k) * samples() + first] = HalfAngle::of(inputs[b * plan.n_inputs + k]);
        for (size_t lane = 0; signs && lane < L; ++lane)
            if (const int64_t b = sample(unit, lane); b >= 0) {
                const int8_t* row = signs + b * plan.n_rotations;
                T* flip = flips_.data() + lane;
                for (int64_t r = 0; r < plan.n_rotations; ++r, flip += L) *flip = T(row[r]);
            }
    }

    // put_lane(lane, cosine, sine) of operation `i` in every lane.
    template <class F>
    void each(size_t i, F put_lane) const {
        const HalfAngle shared = half_angle(i, 0);
        const size_t distinct = signs || plan.reads_input[i] ? samples() : 1;
        for (size_t first = 0; first < distinct; ++first) {
            const HalfAngle half = half_angle(i, signs ? half_angle(i, first) : shared, first);
            for (size_t lane = first; lane < L; lane += distinct) put_lane(lane, half.c, half.s);
        }
    }

 private:
    std::vector<T> flips_;  // [rotation][lane]: the signs of the unit
    std::vector<HalfAngle> weight_turns_, input_turns_;
};

// One way through the circuit: the cosines and sines that its operations use, and the scale that builds up.
template <class T>
struct Sweep {
    const Plan& plan;
    bool backward, product;
    const size_t L;
    Buffer<T> table, halves;
    std::vector<uint8_t> plain;
    std::vector<double> scales;  // of each operation's slope, backward
    const double first_scale;    // of the state before the first operation
    double scale;                // of the state behind the last operation

    Sweep(const Angles<T>& angles, double scale, bool backward, bool product)
        : plan(angles.plan),
          backward(backward),
          product(product),
          L(angles.L),
          table(plan.ops.size() * 2 * L),
          halves(size_t(plan.bits) * 2 * L),
          plain(plan.ops.size()),
          scales(plan.ops.size()),
          first_scale(scale),
          scale(scale),
          folds_(plan.ops.size()),
          sines_(plan.ops.size()) {
        for (size_t k = 0; k < plan.ops.size(); ++k) share(angles, backward ? plan.ops.size() - 1 - k : k);
    }

    // What differs from sample to sample, for the unit that `angles` are prepared for.
    void prepare(const Angles<T>& angles) {
        for (const size_t i : own_)
            angles.each(i, [&](size_t lane, double c, double s) { put(i, lane, c * folds_[i], s * folds_[i]); });
        for (const size_t i : signed_) {
            const int32_t rotation = plan.terms[size_t(plan.term_offsets[i])].rotation;
            T* sines = table.data + (2 * i + 1) * L;
            for (size_t lane = 0; lane < L; ++lane) sines[lane] = T(sines_[i]) * angles.flip(rotation, lane);
        }
        if (!product || backward) return;
        for (size_t position = size_t(plan.sample_bits); position < size_t(plan.bits); ++position) {
            T* half = halves.data + position * 2 * L;
            std::fill_n(half, L, T(1));
            std::fill_n(half + L, L, T(0));
            if (plan.starts[position] >= 0)
                angles.each(size_t(plan.starts[position]), [&](size_t lane, double c, double s) {
                    half[lane] = T(c);
                    half[L + lane] = T(s);
                });
        }
    }

 private:
    bool skips(const Op& op) const { return op.start && product; }  // see start() and slope_of()

    void put(size_t i, size_t lane, double c, double s) {
        table.data[(2 * i) * L + lane] = T(c);
        table.data[(2 * i + 1) * L + lane] = T(s);
    }

    // Cosine and sine of an operation whose angle all samples share up to its sign, with the scale that is due.
    void share(const Angles<T>& angles, size_t i) {
        if (backward) scales[i] = scale * scale / 2;
        if (skips(plan.ops[i])) return;
        if (angles.per_sample(i)) {
            // Folded into the cosines and sines of every sample; a slope is taken before its gate is undone.
            own_.push_back(i);
            folds_[i] = scale;
            scale = 1;
            return;
        }
        if (angles.signs && plan.n_terms(i)) signed_.push_back(i);
        const auto [c, s] = angles.half_angle(i, 0);
        constexpr double least = 1.0 / (1 << 20);
        plain[i] = std::abs(scale * c) > least;
        sines_[i] = plain[i] ? s / c : s * scale;
        for (size_t lane = 0; lane < L; ++lane) put(i, lane, plain[i] ? 1 : c * scale, sines_[i]);
        scale = plain[i] ? scale * c : 1;
    }

    std::vector<size_t> own_, signed_;  // operations with cosines per sample, and with signs of a shared sine
    std::vector<double> folds_;         // of each operation per sample: the scale that goes into its cosines and sines
    std::vector<double> sines_;         // of each other operation: the sine in its table, before a sign
};

}  // namespace ketfit
