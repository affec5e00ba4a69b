// Each kernel against plain loops over amplitudes in double precision.

#include "gate_kernels.h"

#include <utility>

#include "test_support.h"

using namespace ketfit;

namespace {

using Amplitudes = std::vector<double>;

// A CNOT and a rotation by the definition. c and s: those of each lane, which are the lowest bits of an index.
void apply_plain(Amplitudes& psi, const Operation& operation, const double* c, const double* s, size_t lanes) {
    const size_t target = size_t(1) << operation.target;
    for (size_t i = 0; i < psi.size(); ++i) {
        if (i & target) continue;
        if (operation.control >= 0 && i >> operation.control & 1) std::swap(psi[i], psi[i | target]);
        const double a = psi[i], b = psi[i | target];
        psi[i] = c[i % lanes] * a - s[i % lanes] * b;
        psi[i | target] = s[i % lanes] * a + c[i % lanes] * b;
    }
}

// The transposed, which is the inverse.
void undo_plain(Amplitudes& psi, const Operation& operation, const double* c, const double* s, size_t lanes) {
    const std::vector<double> minus_s = [&] {
        std::vector<double> negated(s, s + lanes);
        for (double& number : negated) number = -number;
        return negated;
    }();
    apply_plain(psi, {operation.target, -1, 0, 0}, c, minus_s.data(), lanes);
    const std::vector<double> one(lanes, 1), zero(lanes, 0);
    apply_plain(psi, operation, one.data(), zero.data(), lanes);
}

// <lambda, J psi> of each lane, J = [[0, -1], [1, 0]] on the target; summed over lanes that differ in the target.
Amplitudes plain_derivative(const Amplitudes& lambda, const Amplitudes& psi, int target, size_t lanes) {
    Amplitudes sums(lanes);
    for (size_t i = 0; i < psi.size(); ++i)
        sums[i % lanes] += (i >> target & 1 ? 1 : -1) * lambda[i] * psi[i ^ size_t(1) << target];
    return sums;
}

// Operations in a row, with cosines and sines for each lane: all the same, or each its own.
struct Case {
    std::vector<Operation> operations;
    bool tangent_form, lanes_differ;
};

template <class T>
void check_case(const GateKernels<T>& kernels, int bits, const Case& test, std::mt19937& rng) {
    const size_t size = size_t(1) << bits, lanes = size_t(kernels.lanes), n = test.operations.size();
    std::uniform_real_distribution<double> angle(-1.2, 1.2);
    Buffer<T> rotations(n * 2 * lanes);
    std::vector<Amplitudes> c(n, Amplitudes(lanes)), s(n, Amplitudes(lanes));  // as the kernel applies them
    for (size_t i = 0; i < n; ++i)
        for (size_t lane = 0; lane < lanes; ++lane) {
            const double half = angle(rng);
            const bool same = lane > 0 && !test.lanes_differ;
            c[i][lane] = same ? c[i][0] : test.tangent_form ? 1 : std::cos(half);
            s[i][lane] = same ? s[i][0] : test.tangent_form ? std::tan(half) : std::sin(half);
            rotations.data[(2 * i) * lanes + lane] = T(c[i][lane]);
            rotations.data[(2 * i + 1) * lanes + lane] = T(s[i][lane]);
        }
    const std::vector<uint8_t> tangent_form(n, test.tangent_form);
    Buffer<T> state = random_buffer<T>(size, rng), adjoint = random_buffer<T>(size, rng);
    Amplitudes psi(state.data, state.data + size), lambda(adjoint.data, adjoint.data + size);
    std::vector<double> derivatives(n * lanes);
    const Chunk<T> chunk{state.data,          adjoint.data,       bits, test.operations.data(), int(n), rotations.data,
                         tangent_form.data(), derivatives.data(), false};
    const double limit = tolerance<T> * double(size) * 8;
    kernels.forward(chunk);
    for (size_t i = 0; i < n; ++i) apply_plain(psi, test.operations[i], c[i].data(), s[i].data(), lanes);
    CHECK(max_difference(state.data, psi.data(), size) < limit);
    kernels.backward(chunk);
    for (size_t i = n; i-- > 0;) {
        const Amplitudes expected = plain_derivative(lambda, psi, test.operations[i].target, lanes);
        double sum = 0, expected_sum = 0;
        for (size_t lane = 0; lane < lanes; ++lane) {
            sum += derivatives[i * lanes + lane];
            expected_sum += expected[lane];
            if (test.lanes_differ)
                CHECK(derivatives[i * lanes + lane] == doctest::Approx(expected[lane]).epsilon(limit));
        }
        CHECK(std::abs(sum - expected_sum) < limit);
        undo_plain(psi, test.operations[i], c[i].data(), s[i].data(), lanes);
        undo_plain(lambda, test.operations[i], c[i].data(), s[i].data(), lanes);
    }
    CHECK(max_difference(state.data, psi.data(), size) < limit);
    CHECK(max_difference(adjoint.data, lambda.data(), size) < limit);
}

template <class T>
int lane_bits(const GateKernels<T>& kernels) {
    int bits = 0;
    while (1 << bits < kernels.lanes) ++bits;
    return bits;
}

}  // namespace

TEST_CASE_TEMPLATE("rotate and rotate_inverse are the matrices R and R X and their inverses", V, double,
                   Simd<double, 16>::Vector, Simd<double, 64>::Vector) {
    const double half = 0.7, cosine = std::cos(half), sine = std::sin(half), tangent = std::tan(half);
    const auto first_lane = [](V v) {
        double number;
        __builtin_memcpy(&number, &v, sizeof number);
        return number;
    };
    const auto check = [&](auto rotate, auto inverse, V c, V s, bool flip, double norm) {
        V a = V{} + 0.3, b = V{} - 1.1;
        const double x = flip ? -1.1 : 0.3, y = flip ? 0.3 : -1.1;
        rotate(a, b, c, s);
        CHECK(first_lane(a) == doctest::Approx(first_lane(c) * x - first_lane(s) * y).epsilon(1e-14));
        CHECK(first_lane(b) == doctest::Approx(first_lane(c) * y + first_lane(s) * x).epsilon(1e-14));
        inverse(a, b, c, s);
        CHECK(first_lane(a) == doctest::Approx(0.3 * norm).epsilon(1e-14));
        CHECK(first_lane(b) == doctest::Approx(-1.1 * norm).epsilon(1e-14));
    };
    const V c = V{} + cosine, s = V{} + sine, one = V{} + 1.0, t = V{} + tangent;
    const double norm = 1 + tangent * tangent;
    check(rotate<false, false, V>, rotate_inverse<false, false, V>, c, s, false, 1);
    check(rotate<false, true, V>, rotate_inverse<false, true, V>, c, s, true, 1);
    check(rotate<true, false, V>, rotate_inverse<true, false, V>, one, t, false, norm);
    check(rotate<true, true, V>, rotate_inverse<true, true, V>, one, t, true, norm);
}

TEST_CASE_TEMPLATE("forward and backward do single operations on all bits", T, float, double) {
    for_each_instruction_set([](const InstructionSet& set) {
        std::mt19937 rng(1);
        const GateKernels<T>& kernels = set.gate_kernels->get<T>();
        const int first_row = lane_bits(kernels), bits = first_row + 3;
        for (int target = 0; target < bits; ++target)
            for (int control = -1; control < bits; ++control) {
                if (control == target) continue;
                CAPTURE(target);
                CAPTURE(control);
                const std::vector<Operation> operations{{target, control, 0, 0}};
                check_case(kernels, bits, {operations, false, false}, rng);
                // The plan gives a lane of its own only to samples, and tangent form to bits that are not in lanes.
                const bool in_rows = target >= first_row && (control < 0 || control >= first_row);
                if (in_rows) check_case(kernels, bits, {operations, false, true}, rng);
                if (in_rows) check_case(kernels, bits, {operations, true, true}, rng);
            }
    });
}

TEST_CASE_TEMPLATE("forward and backward do single operations in tangent form on lanes", T, float, double) {
    for_each_instruction_set([](const InstructionSet& set) {
        std::mt19937 rng(2);
        const GateKernels<T>& kernels = set.gate_kernels->get<T>();
        const int bits = lane_bits(kernels) + 2;
        for (int control = -1; control < bits; ++control)
            if (control != 0) check_case(kernels, bits, {{{0, control, 0, 0}}, true, false}, rng);
    });
}

TEST_CASE_TEMPLATE("forward and backward do fused pairs", T, float, double) {
    for_each_instruction_set([](const InstructionSet& set) {
        std::mt19937 rng(3);
        const GateKernels<T>& kernels = set.gate_kernels->get<T>();
        const int row = lane_bits(kernels);
        for (const bool tangent_form : {false, true})
            for (const bool lanes_differ : {false, true})
                for (const int x : {-1, row, row + 3})
                    for (const bool controlled : {false, true}) {
                        const int y = row + 2, z = row + 1;
                        const std::vector<Operation> operations{
                            {y, x, 1, 0}, {z, controlled ? y : -1, 0, 0}, {y, -1, 0, 0}};
                        check_case(kernels, row + 4, {operations, tangent_form, lanes_differ}, rng);
                    }
    });
}

TEST_CASE_TEMPLATE("forward and backward do random sequences", T, float, double) {
    for_each_instruction_set([](const InstructionSet& set) {
        std::mt19937 rng(4);
        const GateKernels<T>& kernels = set.gate_kernels->get<T>();
        const int bits = lane_bits(kernels) + 4;
        std::vector<Operation> operations;
        for (int i = 0; i < 12; ++i) {
            const int target = int(rng() % unsigned(bits)), control = int(rng() % unsigned(bits));
            operations.push_back({target, control == target ? -1 : control, 0, 0});
        }
        check_case(kernels, bits, {operations, false, false}, rng);
    });
}

TEST_CASE_TEMPLATE("prepare_product_state multiplies one factor for each bit", T, float, double) {
    for_each_instruction_set([](const InstructionSet& set) {
        std::mt19937 rng(5);
        const GateKernels<T>& kernels = set.gate_kernels->get<T>();
        const size_t lanes = size_t(kernels.lanes);
        const int bits = lane_bits(kernels) + 2;
        std::vector<int32_t> positions;
        for (int bit = 0; bit < bits; ++bit) positions.push_back(bits - 1 - bit);
        const Buffer<T> factors = random_buffer<T>(size_t(bits) * 2 * lanes, rng), outer = random_buffer<T>(lanes, rng);
        for (const int sample_bits : {0, lane_bits(kernels)}) {
            Buffer<T> state(size_t(1) << bits);
            kernels.prepare_product_state(state.data, bits, sample_bits, positions.data(), factors.data, outer.data);
            std::vector<double> expected(state.size);
            for (size_t i = 0; i < state.size; ++i) {
                const size_t lane = i % lanes;
                expected[i] = outer.data[lane];
                for (int bit = sample_bits; bit < bits; ++bit)
                    expected[i] *= factors.data[(size_t(positions[size_t(bit)]) * 2 + (i >> bit & 1)) * lanes + lane];
            }
            CHECK(max_difference(state.data, expected.data(), state.size) < tolerance<T>);
        }
    });
}

TEST_CASE_TEMPLATE("add_expectations and apply_observable use the eigenvalues of Z", T, float, double) {
    for_each_instruction_set([](const InstructionSet& set) {
        std::mt19937 rng(6);
        const GateKernels<T>& kernels = set.gate_kernels->get<T>();
        const size_t lanes = size_t(kernels.lanes);
        const int bits = lane_bits(kernels) + 7;
        for (const int sample_bits : {0, lane_bits(kernels)}) {
            std::vector<int32_t> columns(size_t(bits), -1);
            columns[size_t(bits) - 1] = 0;
            columns[size_t(sample_bits)] = 2;
            const std::vector<int8_t> outer_signs{0, -1, 0, 1};
            const Readout readout{columns.data(), outer_signs.data(), 4, sample_bits};
            const Buffer<T> state = random_buffer<T>(size_t(1) << bits, rng);
            Buffer<T> scratch(state.size), adjoint(state.size);
            // The kernels sum over lanes that are amplitudes of one sample later, so their grads are the same.
            Buffer<T> grads = random_buffer<T>(4 * lanes, rng);
            for (size_t i = 0; sample_bits == 0 && i < grads.size; ++i) grads.data[i] = grads.data[i / lanes * lanes];
            std::vector<double> sums(4 * lanes, 1), expected_sums(4 * lanes, 1), expected_adjoint(state.size);
            for (size_t i = 0; i < state.size; ++i) {
                const int eigenvalues[4] = {i >> (bits - 1) & 1 ? -1 : 1, -1, i >> sample_bits & 1 ? -1 : 1, 1};
                for (size_t k = 0; k < 4; ++k) {
                    expected_sums[k * lanes + i % lanes] += eigenvalues[k] * double(state.data[i]) * state.data[i];
                    expected_adjoint[i] +=
                        2 * eigenvalues[k] * double(grads.data[k * lanes + i % lanes]) * state.data[i];
                }
            }
            kernels.add_expectations(state.data, scratch.data, bits, readout, sums.data());
            kernels.apply_observable(state.data, adjoint.data, bits, readout, grads.data);
            CHECK(max_difference(adjoint.data, expected_adjoint.data(), state.size) < 20 * tolerance<T>);
            for (size_t k = 0; k < 4; ++k) {
                double sum = 0, expected = 0;
                for (size_t lane = 0; lane < lanes; ++lane) {
                    sum += sums[k * lanes + lane];
                    expected += expected_sums[k * lanes + lane];
                }
                CHECK(std::abs(sum - expected) < 100 * tolerance<T>);
                if (sample_bits > 0)
                    CHECK(max_difference(&sums[k * lanes], &expected_sums[k * lanes], lanes) < 100 * tolerance<T>);
            }
        }
    });
}
