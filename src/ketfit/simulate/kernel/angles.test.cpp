#include "angles.h"

#include "executor.h"
#include "test_support.h"

using namespace ketfit;

namespace {

// One qubit in a unit of one sample for each lane: RY(weights[0]), RY(weights[1] + inputs[0]), RY(weights[1]). The
// first is a part of the product state.
template <class T>
Plan make_plan() {
    Plan plan{};
    plan.kernels = instruction_sets().back().gate_kernels;
    while (1 << plan.sample_bits < plan.kernels->get<T>().lanes) ++plan.sample_bits;
    plan.bits = plan.sample_bits + 1;
    plan.n_weights = 2;
    plan.n_inputs = 1;
    plan.n_rotations = 4;
    plan.operations = {{plan.sample_bits, -1, 0, 1}, {plan.sample_bits, -1, 0, 0}, {plan.sample_bits, -1, 0, 0}};
    plan.term_offsets = {0, 1, 3, 4};
    plan.terms = {{0, 0}, {1, 1}, {~0, 2}, {1, 3}};
    plan.reads_input = {0, 1, 0};
    plan.measured = {plan.sample_bits};
    plan.first_rotations.assign(size_t(plan.bits), -1);
    plan.first_rotations.back() = 0;
    Stage stage{};
    stage.n_operations = 3;
    for (int bit = 0; bit < plan.bits; ++bit) stage.positions.push_back(bit);
    stage.run_bits = plan.bits;
    stage.run_offsets = {0};
    stage.columns.assign(size_t(plan.bits), -1);
    stage.columns.back() = 0;
    plan.stages = {stage};
    return plan;
}

}  // namespace

TEST_CASE("HalfAngle adds angles") {
    HalfAngle sum = HalfAngle::of(0.4);
    sum.add(HalfAngle::of(-1.0));
    CHECK(sum.c == doctest::Approx(std::cos(-0.3)));
    CHECK(sum.s == doctest::Approx(std::sin(-0.3)));
}

TEST_CASE_TEMPLATE("AngleTable holds the cosines and sines of each sample times its scale", T, float, double) {
    const Plan plan = make_plan<T>();
    const std::vector<T> weights{T(0.5), T(-0.8)}, inputs{T(0.1), T(2.5), T(-3)};
    const std::vector<int8_t> signs{1, 1, 1, 1, -1, -1, 1, -1, 1, 1, -1, 1};
    const size_t lanes = size_t(plan.kernels->get<T>().lanes);
    for (const int8_t* given : {(const int8_t*)nullptr, signs.data()})
        for (const bool backward : {false, true})
            for (const bool product_state : {false, true}) {
                HalfAngles<T> angles(plan, {3, weights.data(), inputs.data(), nullptr, given});
                AngleTable<T> table(angles, 0.5, backward, product_state);
                angles.set_unit(0);
                table.set_unit(angles);
                for (size_t lane = 0; lane < std::min<size_t>(lanes, 3); ++lane) {
                    const auto sign = [&](size_t k) { return given ? int(given[4 * lane + k]) : 1; };
                    const double half[3] = {sign(0) * double(weights[0]) / 2,
                                            (sign(1) * double(weights[1]) + sign(2) * double(inputs[lane])) / 2,
                                            sign(3) * double(weights[1]) / 2};
                    double scale = 1;  // of all operations together: that of the table, and their tables' own
                    for (size_t i = product_state ? 1 : 0; i < 3; ++i) {
                        const double c = table.rotations.data[2 * i * lanes + lane];
                        const double s = table.rotations.data[(2 * i + 1) * lanes + lane];
                        CHECK(std::atan2(s, c) == doctest::Approx(std::remainder(half[i], 2 * M_PI)).epsilon(1e-5));
                        if (table.tangent_form[i]) CHECK(c == 1);
                        scale *= std::hypot(c, s);
                    }
                    CHECK(scale * table.scale == doctest::Approx(0.5).epsilon(1e-5));
                    if (product_state && !backward) {
                        const T* factors = table.product_factors.data + 2 * lanes * size_t(plan.sample_bits);
                        CHECK(factors[lane] == doctest::Approx(std::cos(half[0])));
                        CHECK(factors[lanes + lane] == doctest::Approx(std::sin(half[0])));
                    }
                }
            }
}

TEST_CASE_TEMPLATE("HalfAngles gives lanes behind the last sample no sample", T, float, double) {
    const Plan plan = make_plan<T>();
    const std::vector<T> weights(2), inputs(100);
    const int64_t lanes = plan.kernels->get<T>().lanes;
    const HalfAngles<T> angles(plan, {lanes + 1, weights.data(), inputs.data(), nullptr, nullptr});
    CHECK(angles.sample(0, size_t(lanes) - 1) == lanes - 1);
    CHECK(angles.sample(1, 0) == lanes);
    CHECK(angles.sample(1, 1) == -1);
}

TEST_CASE_TEMPLATE("Executor gives cos of the sum of the angles, and -sin as its derivatives", T, float, double) {
    const Plan plan = make_plan<T>();
    const std::vector<T> weights{T(0.5), T(-0.8)}, inputs{T(0.1), T(2.5), T(-3), T(0), T(1)};
    const CircuitBatch<T> batch{5, weights.data(), inputs.data(), nullptr, nullptr};
    const std::vector<T> result_grads(5, 1);
    std::vector<T> result(5), grad_weights(2), grad_inputs(5), states(size_t(plan.n_units(5)) * plan.unit_size());
    const Gradients<T> gradients{grad_weights.data(), grad_inputs.data(), nullptr};
    const auto check = [&] {
        double sum = 0;
        for (size_t b = 0; b < 5; ++b) {
            const double angle = 0.5 - 0.8 * 2 + double(inputs[b]);
            CHECK(std::abs(result[b] - std::cos(angle)) < 4 * tolerance<T>);
            CHECK(std::abs(grad_inputs[b] + std::sin(angle)) < 4 * tolerance<T>);
            sum -= std::sin(angle);
        }
        CHECK(std::abs(grad_weights[0] - sum) < 20 * tolerance<T>);
        CHECK(std::abs(grad_weights[1] - 2 * sum) < 20 * tolerance<T>);
    };
    Executor<T>(plan, batch, 2).forward_and_backward(result.data(), result_grads.data(), gradients);
    check();
    Buffer<T> saved(states.size());  // aligned, as tensors are
    Executor<T> executor(plan, batch, 2);
    const double scale = executor.forward(result.data(), saved.data);
    grad_weights = {0, 0};
    executor.backward(saved.data, scale, result_grads.data(), gradients);
    check();
}
