// Cosines and sines of the operations of one call.

#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "arrays.h"
#include "buffer_pool.h"
#include "gate_kernels.h"
#include "plan.h"

namespace ketfit {

// Cosine and sine of half an angle.
struct HalfAngle {
    double c = 1, s = 0;

    template <class T>
    static HalfAngle of(T angle) {
        return {std::cos(double(angle) / 2), std::sin(double(angle) / 2)};
    }

    // Adds the angles by the addition theorem: a sum of the angles themselves would round a small one beside a huge
    // one.
    void add(HalfAngle other) {
        const double old = c;
        c = old * other.c - s * other.s;
        s = s * other.c + old * other.s;
    }
};

// The half angles of a batch, which the operations add up. Those of inputs, and the signs, are of one unit at a time.
template <class T>
struct HalfAngles {
    const Plan& plan;
    const CircuitBatch<T> batch;
    const size_t lanes;

    HalfAngles(const Plan& plan, const CircuitBatch<T>& batch)
        : plan(plan),
          batch(batch),
          lanes(size_t(plan.kernels->get<T>().lanes)),
          unit_signs_(batch.signs ? size_t(plan.n_rotations) * lanes : 0, T(1)) {
        weights_.reserve(size_t(plan.n_weights));
        for (int64_t w = 0; w < plan.n_weights; ++w) weights_.push_back(HalfAngle::of(batch.weights[w]));
    }

    // The sign of a rotation in a lane of the unit.
    T sign(int32_t rotation, size_t lane) const {
        return batch.signs ? unit_signs_[size_t(rotation) * lanes + lane] : T(1);
    }

    // Each sample has a cosine of its own: that of an input, or of a sum whose terms may differ in their signs.
    bool differs_per_sample(size_t operation) const {
        return plan.reads_input[operation] || (batch.signs && plan.n_terms(operation) > 1);
    }

    // The sum of the weights of an operation, with the signs of the unit's sample `first`.
    HalfAngle sum_weights(size_t operation, size_t first) const {
        HalfAngle sum;
        for (int32_t t = plan.term_offsets[operation]; t < plan.term_offsets[operation + 1]; ++t)
            if (const AngleTerm term = plan.terms[size_t(t)]; term.angle >= 0) {
                const HalfAngle half = weights_[size_t(term.angle)];
                sum.add({half.c, half.s * double(sign(term.rotation, first))});
            }
        return sum;
    }

    // `sum` and the inputs of an operation, of the unit's sample `first`.
    HalfAngle add_inputs(size_t operation, HalfAngle sum, size_t first) const {
        for (int32_t t = plan.term_offsets[operation]; t < plan.term_offsets[operation + 1]; ++t)
            if (const AngleTerm term = plan.terms[size_t(t)]; term.angle < 0) {
                const HalfAngle half = unit_inputs_[size_t(~term.angle) * samples() + first];
                sum.add({half.c, half.s * double(sign(term.rotation, first))});
            }
        return sum;
    }

    // Samples in a unit.
    size_t samples() const { return size_t(1) << plan.sample_bits; }

    // The index in the batch of the sample in a lane of a unit, or -1 behind the last sample.
    int64_t sample(int64_t unit, size_t lane) const {
        const int64_t b = (unit << plan.sample_bits) + int64_t(lane & (samples() - 1));
        return b < batch.size ? b : -1;
    }

    void set_unit(int64_t unit) {
        unit_inputs_.assign(size_t(plan.n_inputs) * samples(), HalfAngle{});
        for (int64_t k = 0; k < plan.n_inputs; ++k)
            for (size_t first = 0; first < samples(); ++first)
                if (const int64_t b = sample(unit, first); b >= 0)
                    unit_inputs_[size_t(k) * samples() + first] = HalfAngle::of(batch.inputs[b * plan.n_inputs + k]);
        for (size_t lane = 0; batch.signs && lane < lanes; ++lane)
            if (const int64_t b = sample(unit, lane); b >= 0) {
                const int8_t* row = batch.signs + b * plan.n_rotations;
                T* sign = unit_signs_.data() + lane;
                for (int64_t r = 0; r < plan.n_rotations; ++r, sign += lanes) *sign = T(row[r]);
            }
    }

    // Calls set(lane, cosine, sine) of an operation for every lane of the unit.
    template <class F>
    void for_each_lane(size_t operation, F set) const {
        const HalfAngle shared = sum_weights(operation, 0);
        const size_t distinct = batch.signs || plan.reads_input[operation] ? samples() : 1;
        for (size_t first = 0; first < distinct; ++first) {
            const HalfAngle half = add_inputs(operation, batch.signs ? sum_weights(operation, first) : shared, first);
            for (size_t lane = first; lane < lanes; lane += distinct) set(lane, half.c, half.s);
        }
    }

 private:
    std::vector<T> unit_signs_;  // [rotation][lane]
    std::vector<HalfAngle> weights_;
    std::vector<HalfAngle> unit_inputs_;  // [input][sample]
};

// The cosines and sines that the operations use in one direction, forward or backward, in tangent form where samples
// share the angle (see gate_kernels.h).
template <class T>
struct AngleTable {
    const Plan& plan;
    const bool backward, product_state;
    const size_t lanes;
    Buffer<T> rotations;                // [operation][2][lane]
    std::vector<uint8_t> tangent_form;  // [operation]
    Buffer<T> product_factors;          // [position][2][lane]: amplitudes of 0 and 1 in the product state; forward only
    std::vector<double> derivative_scales;  // [operation]: times <lambda, J psi> it is the derivative; backward only
    const double initial_scale;             // of the state before the first of the operations
    double scale;                           // of the state behind the last of the operations

    AngleTable(const HalfAngles<T>& angles, double scale, bool backward, bool product_state)
        : plan(angles.plan),
          backward(backward),
          product_state(product_state),
          lanes(angles.lanes),
          rotations(plan.operations.size() * 2 * lanes),
          tangent_form(plan.operations.size()),
          product_factors(size_t(plan.bits) * 2 * lanes),
          derivative_scales(plan.operations.size()),
          initial_scale(scale),
          scale(scale),
          applied_scales_(plan.operations.size()),
          shared_sines_(plan.operations.size()) {
        const size_t n = plan.operations.size();
        for (size_t k = 0; k < n; ++k) set_shared(angles, backward ? n - 1 - k : k);
    }

    // Fills in what differs from sample to sample, for the unit that `angles` are set to.
    void set_unit(const HalfAngles<T>& angles) {
        for (const size_t i : per_sample_)
            angles.for_each_lane(i, [&](size_t lane, double c, double s) {
                set(i, lane, c * applied_scales_[i], s * applied_scales_[i]);
            });
        for (const size_t i : signed_) {
            const int32_t rotation = plan.terms[size_t(plan.term_offsets[i])].rotation;
            T* sines = rotations.data + (2 * i + 1) * lanes;
            for (size_t lane = 0; lane < lanes; ++lane) sines[lane] = T(shared_sines_[i]) * angles.sign(rotation, lane);
        }
        if (!product_state || backward) return;
        for (size_t position = size_t(plan.sample_bits); position < size_t(plan.bits); ++position) {
            T* factors = product_factors.data + position * 2 * lanes;
            std::fill_n(factors, lanes, T(1));
            std::fill_n(factors + lanes, lanes, T(0));
            if (plan.first_rotations[position] >= 0)
                angles.for_each_lane(size_t(plan.first_rotations[position]), [&](size_t lane, double c, double s) {
                    factors[lane] = T(c);
                    factors[lanes + lane] = T(s);
                });
        }
    }

 private:
    void set(size_t i, size_t lane, double c, double s) {
        rotations.data[(2 * i) * lanes + lane] = T(c);
        rotations.data[(2 * i + 1) * lanes + lane] = T(s);
    }

    // Operation i, if its samples share the angle up to a sign; otherwise the scale that its cosines and sines apply.
    void set_shared(const HalfAngles<T>& angles, size_t i) {
        // The derivative is taken before operation i is undone, on a state and an adjoint with the scale up to there.
        if (backward) derivative_scales[i] = scale * scale / 2;
        if (plan.operations[i].first_on_qubit && product_state) return;
        if (angles.differs_per_sample(i)) {
            per_sample_.push_back(i);
            applied_scales_[i] = scale;
            scale = 1;
            return;
        }
        if (angles.batch.signs && plan.n_terms(i)) signed_.push_back(i);
        const auto [c, s] = angles.sum_weights(i, 0);
        constexpr double min_scale = 1.0 / (1 << 20);  // so that neither a tangent nor the unscaled state overflows
        tangent_form[i] = std::abs(scale * c) > min_scale;
        shared_sines_[i] = tangent_form[i] ? s / c : s * scale;
        for (size_t lane = 0; lane < lanes; ++lane) set(i, lane, tangent_form[i] ? 1 : c * scale, shared_sines_[i]);
        scale = tangent_form[i] ? scale * c : 1;
    }

    std::vector<size_t> per_sample_;      // operations with a cosine of its own for each sample
    std::vector<size_t> signed_;          // operations of one angle that all samples share up to its sign
    std::vector<double> applied_scales_;  // [operation]: factor of its cosines and sines, if it is per sample
    std::vector<double> shared_sines_;    // [operation]: sine or tangent before the sign, if it is not
};

}  // namespace ketfit
