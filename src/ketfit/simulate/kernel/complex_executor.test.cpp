// Calls on plans against plain rotations of complex amplitudes in double precision.

#include "complex_executor.h"

#include <complex>

#include "test_support.h"

using namespace ketfit;

namespace {

using Amplitude = std::complex<double>;
using Amplitudes = std::vector<Amplitude>;

constexpr int n_qubits = 6, n_weights = 3, n_inputs = 2;
constexpr size_t n_amplitudes = size_t(1) << n_qubits;

// exp(-i angle / 2 P) with the word's masks; its angle is factor * weight or input + 0.3.
struct TestRotation {
    uint64_t x, z;
    int32_t angle;  // weight i as i, input k as ~k
    double factor;
};

using Groups = std::vector<std::vector<TestRotation>>;

// Rotations in groups with one mask, on one qubit, or on several.
const Groups groups{
    {{1, 0, ~0, 1}, {0, 1, 0, 1}, {1, 1, 1, -2}},
    {{2, 2, ~1, 1}, {0, 2, 2, 1}},
    {{32, 0, 0, 0.5}},
    {{3, 2, 1, 1}, {0, 2, ~0, 1}},
    {{0, 40, 2, 1}},
    {{48, 16, 0, 1}, {48, 0, ~1, 1.5}},
    {{5, 4, 1, 1}, {0, 4, 2, 1}},
    {{8, 8, 0, 1}},
    {{36, 4, 2, 1}, {0, 4, 0, 1}},
};

// Words with an odd number of Ys.
const Groups real_groups{
    {{1, 1, ~0, 1}, {1, 1, 0, 1}},
    {{2, 2, ~1, 1}},
    {{32, 32, 0, 0.5}},
    {{3, 2, 1, 1}},
    {{48, 16, 0, 1}},
    {{5, 4, 1, 1}},
    {{8, 8, 0, 1}},
    {{36, 4, 2, 1}},
    {{7, 7, ~1, 0.5}},
};

Amplitudes run_plain(const double* weights, const double* inputs, Amplitudes psi) {
    const Amplitude powers[4] = {1, {0, 1}, -1, {0, -1}};
    for (const auto& group : groups)
        for (const TestRotation& r : group) {
            const double half = (0.3 + r.factor * (r.angle >= 0 ? weights[r.angle] : inputs[~r.angle])) / 2;
            Amplitudes rotated(psi.size());
            for (size_t i = 0; i < psi.size(); ++i) {
                const double sign = parity_of((i ^ r.x) & r.z) ? -1 : 1;
                const Amplitude image = sign * powers[__builtin_popcountll(r.x & r.z) & 3] * psi[i ^ r.x];
                rotated[i] = std::cos(half) * psi[i] - Amplitude(0, std::sin(half)) * image;
            }
            psi = rotated;
        }
    return psi;
}

// Stages of `width` bits at most, or one of all bits.
ComplexPlan make_plan(const InstructionSet& set, int itemsize, int sample_bits, bool small_chunks,
                      const Groups& groups = ::groups) {
    ComplexPlan plan{};
    plan.kernels = set.complex_kernels;
    const int lanes = itemsize == 4 ? plan.kernels->f32.lanes : plan.kernels->f64.lanes;
    plan.lane_bits = __builtin_ctz(unsigned(lanes));
    plan.sample_bits = std::min(sample_bits, plan.lane_bits);
    plan.bits = n_qubits + plan.sample_bits;
    plan.n_weights = n_weights, plan.n_inputs = n_inputs;
    plan.term_offsets = {0};
    for (const auto& group : groups) {
        const uint64_t x = group[0].x << plan.sample_bits, z = group.back().z << plan.sample_bits;
        const bool first_on_qubit = plan.groups.size() < 3;
        const int64_t row[] = {int64_t(x),
                               int64_t(first_on_qubit ? x
                                       : z            ? z
                                                      : x),
                               0,
                               1,
                               int64_t(plan.rotations.size()),
                               int64_t(group.size()),
                               first_on_qubit ? __builtin_ctzll(x) : -1};
        std::vector<int64_t> numbers(row, row + 7);
        if (!first_on_qubit && group[0].z << plan.sample_bits != z) {
            numbers[2] = int64_t(group[0].z << plan.sample_bits), numbers[3] = 2;
            if (z == 0) numbers[1] = numbers[2], numbers[2] = 0, numbers[3] = 1;
        }
        for (const TestRotation& r : group) {
            const uint64_t mask = r.z << plan.sample_bits;
            const int subset = mask == 0 ? 0 : mask == uint64_t(numbers[1]) ? 1 : 2;
            plan.rotations.push_back(
                {r.x != 0, subset, 1 + __builtin_popcountll(r.x & r.z), 0.3, r.angle < 0, int(plan.rotations.size())});
            plan.terms.push_back({r.angle, r.factor});
            plan.term_offsets.push_back(int32_t(plan.terms.size()));
        }
        plan.groups.push_back(make_group(numbers.data(), plan.rotations));
    }
    plan.add_word(uint64_t(33) << plan.sample_bits, uint64_t(35) << plan.sample_bits);
    plan.add_word(0, uint64_t(5) << plan.sample_bits);
    const int n_groups = int(plan.groups.size());
    std::vector<uint64_t> all;
    for (int bit = 0; bit < plan.bits; ++bit) all.push_back(uint64_t(1) << bit);
    if (!small_chunks) {
        plan.add_stage(0, n_groups, all);
        return plan;
    }
    for (int g = 0; g < n_groups; ++g) {  // a stage for each group, on the lanes and what it flips
        std::vector<uint64_t> basis(all.begin(), all.begin() + plan.lane_bits);
        const uint64_t rest = plan.groups[size_t(g)].x >> plan.lane_bits << plan.lane_bits;
        basis.push_back(rest ? rest : uint64_t(1) << plan.lane_bits);
        plan.add_stage(g, 1, basis);
    }
    return plan;
}

template <class T>
std::vector<T> random_numbers(size_t size, std::mt19937& rng) {
    const Buffer<T> buffer = random_buffer<T>(size, rng);
    return {buffer.data, buffer.data + size};
}

// The values of the two words, weighted by `grads`, of all samples.
double loss(const std::vector<double>& weights, const std::vector<double>& inputs, const std::vector<double>& initial,
            const std::vector<double>& grads) {
    double sum = 0;
    for (size_t b = 0; b < inputs.size() / n_inputs; ++b) {
        Amplitudes psi(n_amplitudes);
        psi[0] = 1;
        for (size_t i = 0; !initial.empty() && i < n_amplitudes; ++i)
            psi[i] = {initial[2 * (b * n_amplitudes + i)], initial[2 * (b * n_amplitudes + i) + 1]};
        psi = run_plain(weights.data(), inputs.data() + b * n_inputs, psi);
        for (size_t i = 0; i < n_amplitudes; ++i) {
            const double z_sign = parity_of(i & 5) ? -1 : 1, y_sign = parity_of((i ^ 33) & 35) ? -1 : 1;
            sum += grads[2 * b + 1] * z_sign * std::norm(psi[i]);
            sum -= grads[2 * b] * y_sign * (std::conj(psi[i]) * psi[i ^ 33]).real();  // i^2
        }
    }
    return sum;
}

template <class T>
std::vector<double> widen(const std::vector<T>& numbers) {
    return {numbers.begin(), numbers.end()};
}

// Differences of the loss by a vector's entries against a gradient.
template <class T, class F>
void check_gradient(std::vector<double>& numbers, const std::vector<T>& gradient, F loss_of_numbers) {
    constexpr double step = 1e-4;
    for (size_t i = 0; i < numbers.size(); i += numbers.size() > 100 ? 7 : 1) {
        const double old = numbers[i];
        numbers[i] = old + step;
        const double above = loss_of_numbers();
        numbers[i] = old - step;
        const double below = loss_of_numbers();
        numbers[i] = old;
        CHECK(std::abs((above - below) / (2 * step) - double(gradient[i])) < (sizeof(T) == 4 ? 2e-4 : 1e-6));
    }
}

template <class T>
void check_plan(const ComplexPlan& plan, size_t batch_size, bool with_initial, std::mt19937& rng) {
    const std::vector<T> weights = random_numbers<T>(n_weights, rng),
                         inputs = random_numbers<T>(batch_size * n_inputs, rng);
    const std::vector<T> initial = random_numbers<T>(with_initial ? 2 * batch_size * n_amplitudes : 0, rng);
    const std::vector<T> grads = random_numbers<T>(2 * batch_size, rng);
    std::vector<T> values(2 * batch_size), grad_weights(n_weights), grad_inputs(inputs.size()),
        grad_initial(initial.size());
    const CircuitBatch<T> batch{int64_t(batch_size), weights.data(), inputs.data(),
                                with_initial ? initial.data() : nullptr, nullptr};
    const Gradients<T> gradients{grad_weights.data(), grad_inputs.data(), with_initial ? grad_initial.data() : nullptr};
    ComplexExecutor<T>(plan, batch, 2).forward_and_backward(values.data(), grads.data(), gradients);
    std::vector<double> w = widen(weights), x = widen(inputs), start = widen(initial);
    const std::vector<double> g = widen(grads);
    const auto current = [&] { return loss(w, x, start, g); };
    double total = 0;
    for (size_t k = 0; k < values.size(); ++k) total += double(values[k]) * g[k];
    CHECK(std::abs(total - current()) < 100 * tolerance<T> * double(batch_size));
    check_gradient(w, grad_weights, current);
    check_gradient(x, grad_inputs, current);
    check_gradient(start, grad_initial, current);
    // Both directions apart give the same numbers.
    std::vector<T> saved(size_t(plan.n_units(int64_t(batch_size))) * 2 * plan.unit_size() + 16), values_again(values);
    const std::vector<T> grad_weights_before = grad_weights;
    T* states = saved.data();
    while (uintptr_t(states) % 64) ++states;
    ComplexExecutor<T>(plan, batch, 2).forward(values_again.data(), states);
    ComplexExecutor<T>(plan, batch, 1).backward(states, grads.data(), gradients);
    CHECK(values_again == values);
    CHECK(grad_weights == grad_weights_before);
    // So do steps on states in place.
    std::vector<T> other(saved.size());
    T* adjoints = other.data();
    while (uintptr_t(adjoints) % 64) ++adjoints;
    std::fill(values_again.begin(), values_again.end(), T(0));
    ComplexExecutor<T>(plan, batch, 2).prepare(states, nullptr);
    ComplexExecutor<T>(plan, batch, 2).advance(states, values_again.data());
    ComplexExecutor<T>(plan, batch, 2).retreat(states, adjoints, grads.data(), gradients);
    CHECK(values_again == values);
    CHECK(grad_weights == grad_weights_before);
}

// Values, the gradients of weights and inputs, and the values from an initial state that is multiplied by i / 2.
template <class T>
std::vector<T> run_from_zero(const ComplexPlan& plan, size_t batch_size, const std::vector<T>& weights,
                             const std::vector<T>& inputs) {
    const size_t n_values = 2 * batch_size, n_numbers = size_t(plan.n_units(int64_t(batch_size))) * plan.unit_numbers();
    const CircuitBatch<T> batch{int64_t(batch_size), weights.data(), inputs.data(), nullptr, nullptr};
    std::vector<T> found(n_values + weights.size() + inputs.size() + n_values), factors, grads(n_values, T(0.7));
    T *grad_weights = found.data() + n_values, *grad_inputs = grad_weights + weights.size();
    ComplexExecutor<T>(plan, batch, 2)
        .forward_and_backward(found.data(), grads.data(), {grad_weights, grad_inputs, nullptr});
    for (size_t b = 0; b < batch_size; ++b) {
        factors.push_back(plan.is_real ? T(0.5) : T(0));
        factors.push_back(plan.is_real ? T(0) : T(0.5));
    }
    Buffer<T> states(n_numbers);
    ComplexExecutor<T>(plan, batch, 2).prepare(states.data, factors.data());
    ComplexExecutor<T>(plan, batch, 2).advance(states.data, grad_inputs + inputs.size());
    return found;
}

// The states against the plain ones behind a frame, and the gradients of their product with `grads`.
template <class T>
void check_states(ComplexPlan plan, size_t batch_size, std::mt19937& rng) {
    std::vector<FrameBit> bits;
    for (int bit = 0; bit < n_qubits; ++bit)  // bit 0 is added to the bits above
        bits.push_back({bit ? uint64_t(1) << bit : uint64_t(n_amplitudes - 1), bit == 4 ? 5u : 0u, bit & 3});
    const CliffordFrame frame(9, {0.6, 0.8}, bits);
    plan.frame = frame;
    const std::vector<T> weights = random_numbers<T>(n_weights, rng),
                         inputs = random_numbers<T>(batch_size * n_inputs, rng),
                         initial = random_numbers<T>(2 * batch_size * n_amplitudes, rng),
                         grads = random_numbers<T>(2 * batch_size * n_amplitudes, rng);
    std::vector<T> amplitudes(grads), grad_weights(n_weights), grad_inputs(inputs.size()), grad_initial(grads);
    const CircuitBatch<T> batch{int64_t(batch_size), weights.data(), inputs.data(), initial.data(), nullptr};
    ComplexExecutor<T>(plan, batch, 2).simulate(amplitudes.data());
    ComplexExecutor<T>(plan, batch, 2)
        .backward_from_states(amplitudes.data(), grads.data(),
                              {grad_weights.data(), grad_inputs.data(), grad_initial.data()});
    std::vector<double> w = widen(weights), x = widen(inputs), start = widen(initial);
    const auto plain = [&] {
        std::vector<double> all;
        for (size_t b = 0; b < batch_size; ++b) {
            Amplitudes psi(n_amplitudes), moved(n_amplitudes);
            for (size_t i = 0; i < n_amplitudes; ++i)
                psi[i] = {start[2 * (b * n_amplitudes + i)], start[2 * (b * n_amplitudes + i) + 1]};
            psi = run_plain(w.data(), x.data() + b * n_inputs, psi);
            for (size_t i = 0; i < n_amplitudes; ++i) moved[frame(i).place] = frame.factor(frame(i).power) * psi[i];
            for (const Amplitude amplitude : moved) all.push_back(amplitude.real()), all.push_back(amplitude.imag());
        }
        return all;
    };
    const std::vector<double> expected = plain();
    for (size_t i = 0; i < expected.size(); ++i) CHECK(std::abs(expected[i] - double(amplitudes[i])) < tolerance<T>);
    const auto current = [&] {
        const std::vector<double> all = plain();
        double sum = 0;
        for (size_t i = 0; i < all.size(); ++i) sum += all[i] * double(grads[i]);
        return sum;
    };
    check_gradient(w, grad_weights, current);
    check_gradient(x, grad_inputs, current);
    check_gradient(start, grad_initial, current);
}

}  // namespace

TEST_CASE_TEMPLATE("ComplexExecutor gives values and gradients of rotations", T, float, double) {
    for_each_instruction_set([](const InstructionSet& set) {
        std::mt19937 rng(4);
        for (const int sample_bits : {0, 1, 4})
            for (const bool small_chunks : {false, true}) {
                CAPTURE(sample_bits);
                CAPTURE(small_chunks);
                const ComplexPlan plan = make_plan(set, sizeof(T), sample_bits, small_chunks);
                check_plan<T>(plan, 3, false, rng);
                check_plan<T>(plan, 2, true, rng);
            }
    });
}

TEST_CASE_TEMPLATE("ComplexExecutor gives the same results of real states without their imaginary parts", T, float,
                   double) {
    for_each_instruction_set([](const InstructionSet& set) {
        std::mt19937 rng(6);
        for (const int sample_bits : {0, 1, 4})
            for (const bool small_chunks : {false, true}) {
                constexpr size_t batch_size = 3;
                const std::vector<T> weights = random_numbers<T>(n_weights, rng),
                                     inputs = random_numbers<T>(batch_size * n_inputs, rng);
                ComplexPlan plan = make_plan(set, sizeof(T), sample_bits, small_chunks, real_groups);
                const std::vector<T> expected = run_from_zero<T>(plan, batch_size, weights, inputs);
                plan.is_real = true, plan.kernels = set.real_kernels;
                const std::vector<T> found = run_from_zero<T>(plan, batch_size, weights, inputs);
                CHECK(max_difference(found.data(), expected.data(), found.size()) < 10 * tolerance<T>);
                for (size_t k = 0; k < 2 * batch_size; ++k)  // a quarter of the values
                    CHECK(std::abs(double(found[k]) / 4 - double(found[found.size() - 2 * batch_size + k])) <
                          tolerance<T>);
            }
    });
}

TEST_CASE_TEMPLATE("ComplexExecutor gives states and the gradients of functions of them", T, float, double) {
    for_each_instruction_set([](const InstructionSet& set) {
        std::mt19937 rng(5);
        for (const int sample_bits : {0, 1, 4})
            for (const bool small_chunks : {false, true})
                check_states<T>(make_plan(set, sizeof(T), sample_bits, small_chunks), 3, rng);
    });
}
