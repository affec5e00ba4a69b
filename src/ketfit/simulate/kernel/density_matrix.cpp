// Density matrices as Pauli coefficients (see pauli_kernels.h): plans, calls, and their bindings to Python.

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <deque>
#include <functional>
#include <string>
#include <vector>

#include "arrays.h"
#include "bits.h"
#include "buffer_pool.h"
#include "instruction_sets.h"
#include "pauli_kernels.h"
#include "thread_pool.h"

namespace nb = nanobind;
using namespace nanobind::literals;

namespace ketfit {
namespace {

constexpr int32_t no_angle = INT32_MIN;

// On two digits, counted from the last qubit. Angles: weight i as i, input k as ~k.
struct PauliOperation {
    int32_t a, b, cnot, angle_a, angle_b;
};

// What noise does to one qubit: factors of its x, z and y, and the share of i that is added to z.
struct NoiseFactors {
    double x = 1, z = 1, y = 1, shift = 0;
};

struct DensityMatrixPlan {
    int n_qubits;
    int64_t n_weights, n_inputs;
    std::vector<PauliOperation> operations;
    std::vector<int64_t> observables;  // the numbers of their strings
    NoiseFactors after_rotation, after_cnot;
    double depolarizing;  // factor of every string but I I after a CNOT
    const PauliKernelSet* kernels;

    size_t n_coefficients() const { return size_t(1) << (2 * n_qubits); }
    size_t padded_size() const { return padded_index(n_coefficients() - 1) + 1; }
};

using OperationArray = nb::ndarray<const int32_t, nb::shape<-1, 5>, nb::c_contig, nb::device::cpu>;

NoiseFactors make_factors(const std::vector<double>& numbers) {
    return {numbers.at(0), numbers.at(1), numbers.at(2), numbers.at(3)};
}

void make_plan(DensityMatrixPlan* plan, const std::string& instruction_set, int n_qubits, int64_t n_weights,
               int64_t n_inputs, OperationArray operations, const std::vector<int64_t>& observables,
               const std::vector<double>& after_rotation, const std::vector<double>& after_cnot, double depolarizing) {
    new (plan) DensityMatrixPlan{n_qubits,
                                 n_weights,
                                 n_inputs,
                                 {},
                                 observables,
                                 make_factors(after_rotation),
                                 make_factors(after_cnot),
                                 depolarizing,
                                 find_instruction_set(instruction_set).pauli_kernels};
    for (size_t i = 0; i < operations.shape(0); ++i) {
        const int32_t* row = operations.data() + 5 * i;
        plan->operations.push_back({row[0], row[1], row[2], row[3], row[4]});
    }
}

// One call on density matrices: distributes samples, or parts of large states, over threads.
template <class T>
class DensityMatrixExecutor {
 public:
    // The batch's initial coefficients are [sample][coefficient], or [coefficient] if they are shared.
    DensityMatrixExecutor(const DensityMatrixPlan& plan, const CircuitBatch<T>& batch, bool shared_initial,
                          int n_threads)
        : plan_(plan),
          batch_(batch),
          shared_initial_(shared_initial),
          n_threads_(n_threads),
          shares_state_(batch.size < n_threads && plan.n_qubits >= 7),
          kernels_(set_for(plan).template get<T>()) {
        const NoiseFactors& n = plan.after_cnot;
        const double factors[4] = {1, n.x, n.z, n.y};
        cnot_noise_.shift = T(n.shift);
        cnot_noise_.on = false;
        for (int a = 0; a < 4; ++a)
            for (int b = 0; b < 4; ++b) {
                const double factor = (a || b ? plan.depolarizing : 1) * factors[a] * factors[b];
                cnot_noise_.factors[4 * a + b] = T(factor);
                cnot_noise_.on |= factor != 1;
            }
        for (const PauliOperation& operation : plan.operations) passes_.push_back(make_pass(operation));
    }

    // Writes the expectations, [sample][observable].
    void forward(T* result) {
        const size_t n_columns = plan_.observables.size();
        for_each_sample(1, [&](int64_t sample, States& states) {
            T* state = states[0].data;
            load_initial(sample, state);
            for (size_t i = 0; i < plan_.operations.size(); ++i) apply(i, sample, state, state);
            for (size_t k = 0; k < n_columns; ++k)
                result[size_t(sample) * n_columns + k] = state[padded_index(size_t(plan_.observables[k]))];
        });
    }

    // Writes the observables as they are before all operations (Heisenberg picture), [observable][coefficient]. The
    // batch has a sample for each of them.
    void evolve_observables(T* result) {
        for_each_sample(1, [&](int64_t row, States& states) {
            T* adjoint = states[0].data;
            std::fill_n(adjoint, plan_.padded_size(), T(0));
            adjoint[padded_index(size_t(plan_.observables[size_t(row)]))] = 1;
            for (size_t i = plan_.operations.size(); i-- > 0;)
                for_each_part(prepare(i, row, nullptr, adjoint, nullptr),
                              [&](TilePass<T>& pass, int64_t) { kernels_.evolve_adjoint(pass); });
            copy_unpadded(adjoint, result + size_t(row) * plan_.n_coefficients());
        });
    }

    // Writes the gradients of inputs and initial coefficients, and that of the weights for each sample by itself,
    // [sample][weight] in `weight_grads`, so that the order of the additions does not depend on the threads.
    //
    // The states before every `stride`-th operation are stored on the way forward. Backward, the states between two of
    // them are computed again. For n operations this takes the memory of about 2 sqrt(n) states.
    void backward(const T* result_grads, double* weight_grads, const Gradients<T>& gradients) {
        const size_t n = plan_.operations.size(), n_columns = plan_.observables.size();
        const size_t stride = std::max<size_t>(1, size_t(std::ceil(std::sqrt(double(n)))));
        const size_t n_checkpoints = n / stride + 1;
        for_each_sample(1 + n_checkpoints + stride, [&](int64_t sample, States& states) {
            T* adjoint = states[0].data;
            const auto checkpoints = states.begin() + 1;
            const auto recomputed = checkpoints + std::ptrdiff_t(n_checkpoints);
            load_initial(sample, checkpoints[0].data);
            for (size_t first = 0; first + stride < n; first += stride) {
                const T* from = checkpoints[first / stride].data;
                T* to = checkpoints[first / stride + 1].data;
                for (size_t i = first; i < first + stride; ++i, from = to) apply(i, sample, from, to);
            }
            std::fill_n(adjoint, plan_.padded_size(), T(0));
            for (size_t k = 0; k < n_columns; ++k)
                adjoint[padded_index(size_t(plan_.observables[k]))] += result_grads[size_t(sample) * n_columns + k];
            for (size_t end = n; end > 0;) {
                const size_t first = (end - 1) / stride * stride;
                const auto state_before = [&](size_t i) {
                    return i == first ? checkpoints[first / stride].data : recomputed[i - first].data;
                };
                for (size_t i = first; i + 1 < end; ++i) apply(i, sample, state_before(i), state_before(i + 1));
                for (size_t i = end; i-- > first;) {
                    const Derivatives derivatives = apply_adjoint(i, sample, state_before(i), adjoint);
                    const PauliOperation& operation = plan_.operations[i];
                    add_gradient(operation.angle_a, derivatives.a, sample, weight_grads, gradients.inputs);
                    add_gradient(operation.angle_b, derivatives.b, sample, weight_grads, gradients.inputs);
                }
                end = first;
            }
            if (gradients.initial) copy_unpadded(adjoint, gradients.initial + size_t(sample) * plan_.n_coefficients());
        });
    }

 private:
    struct Derivatives {
        double a = 0, b = 0;  // by the angles of an operation
    };

    // A tile takes four bits of the index, and as many again as lie in the lanes.
    static const KernelSet<PauliKernels>& set_for(const DensityMatrixPlan& plan) {
        const size_t lanes = size_t(plan.kernels->vectors.template get<T>().lanes);
        return plan.n_coefficients() < 16 * lanes ? plan.kernels->scalars : plan.kernels->vectors;
    }

    using States = std::deque<Buffer<T>>;

    // Calls work(sample, states) with `n_states` states to work in; a thread has the same ones for all its samples.
    template <class F>
    void for_each_sample(size_t n_states, F work) {
        const int n_threads = shares_state_ ? 1 : n_threads_;
        std::vector<States> states_of_threads(size_t(std::max(1, n_threads)));
        const std::function<void(int64_t, int)> task = [&](int64_t sample, int thread) {
            States& states = states_of_threads[size_t(thread)];
            while (states.size() < n_states) states.emplace_back(plan_.padded_size());
            work(sample, states);
        };
        ThreadPool::get().for_each(batch_.size, n_threads, task);
    }

    void load_initial(int64_t sample, T* state) const {
        const T* initial = batch_.initial + (shared_initial_ ? 0 : size_t(sample) * plan_.n_coefficients());
        for_each_run([&](size_t from, size_t to, size_t length) { std::copy_n(initial + from, length, state + to); });
    }

    void copy_unpadded(const T* adjoint, T* out) const {
        for_each_run([&](size_t to, size_t from, size_t length) { std::copy_n(adjoint + from, length, out + to); });
    }

    // Calls visit(index, padded index, length) for every run of coefficients without a gap.
    template <class F>
    void for_each_run(F visit) const {
        const size_t length = std::min<size_t>(plan_.n_coefficients(), 256);
        for (size_t index = 0; index < plan_.n_coefficients(); index += length)
            visit(index, padded_index(index), length);
    }

    // What does not depend on the sample.
    TilePass<T> make_pass(const PauliOperation& operation) const {
        TilePass<T> pass = make_tile_layout<T>(operation.a, operation.b, size_t(kernels_.lanes));
        pass.cnot = operation.cnot;
        pass.noise = &cnot_noise_;
        return pass;
    }

    NoisyRotation<T> make_rotation(int32_t angle, int64_t sample) const {
        if (angle == no_angle) return {};
        const double t =
            angle >= 0 ? double(batch_.weights[angle]) : double(batch_.inputs[sample * plan_.n_inputs + ~angle]);
        const double c = std::cos(t), s = std::sin(t);
        const NoiseFactors& n = plan_.after_rotation;
        return {true,       T(n.x * c),  T(n.x * s), T(-n.z * s), T(n.z * c), T(n.y),
                T(n.shift), T(-n.x * s), T(n.x * c), T(-n.z * c), T(-n.z * s)};
    }

    TilePass<T> prepare(size_t i, int64_t sample, const T* state, T* adjoint, T* out) const {
        TilePass<T> pass = passes_[i];
        pass.state = state;
        pass.adjoint = adjoint;
        pass.out = out;
        pass.n_tiles = plan_.n_coefficients() / size_t(kernels_.lanes) / 16;
        pass.a = make_rotation(plan_.operations[i].angle_a, sample);
        pass.b = make_rotation(plan_.operations[i].angle_b, sample);
        return pass;
    }

    // Calls work(pass, part) for every part of a large state, or once. The division does not depend on the threads.
    template <class F>
    void for_each_part(const TilePass<T>& whole, F work) {
        if (plan_.n_qubits < 7) {
            TilePass<T> pass = whole;
            work(pass, 0);
            return;
        }
        const std::function<void(int64_t, int)> task = [&](int64_t part, int) {
            TilePass<T> pass = whole;
            pass.n_tiles = whole.n_tiles / n_parts;
            pass.first = deposit_bits_outside(size_t(part) * pass.n_tiles, whole.mask);
            work(pass, part);
        };
        if (shares_state_)
            ThreadPool::get().for_each(n_parts, n_threads_, task);
        else
            for (int64_t part = 0; part < n_parts; ++part) task(part, 0);
    }

    void apply(size_t i, int64_t sample, const T* from, T* to) {
        for_each_part(prepare(i, sample, from, nullptr, to),
                      [&](TilePass<T>& pass, int64_t) { kernels_.forward(pass); });
    }

    Derivatives apply_adjoint(size_t i, int64_t sample, const T* state, T* adjoint) {
        Derivatives parts[n_parts], total;
        for_each_part(prepare(i, sample, state, adjoint, nullptr), [&](TilePass<T>& pass, int64_t part) {
            kernels_.backward(pass);
            parts[part] = {pass.derivatives[0], pass.derivatives[1]};
        });
        for (const Derivatives& part : parts) {
            total.a += part.a;
            total.b += part.b;
        }
        return total;
    }

    void add_gradient(int32_t angle, double derivative, int64_t sample, double* weight_grads, T* grad_inputs) const {
        if (angle == no_angle) return;
        if (angle >= 0)
            weight_grads[sample * plan_.n_weights + angle] += derivative;
        else if (grad_inputs)
            grad_inputs[sample * plan_.n_inputs + ~angle] += T(derivative);
    }

    static constexpr int64_t n_parts = 16;

    const DensityMatrixPlan& plan_;
    const CircuitBatch<T> batch_;
    const bool shared_initial_;
    const int n_threads_;
    const bool shares_state_;  // threads share each state instead of the samples
    const PauliKernels<T>& kernels_;
    CnotNoise<T> cnot_noise_;
    std::vector<TilePass<T>> passes_;
};

void forward(const DensityMatrixPlan& plan, const BatchAddresses& addresses, bool shared_initial, uintptr_t result,
             int n_threads) {
    nb::gil_scoped_release release;
    addresses.visit([&](auto batch) {
        using T = typename decltype(batch)::Number;
        DensityMatrixExecutor<T>(plan, batch, shared_initial, n_threads).forward(pointer<T>(result));
    });
}

void evolve_observables(const DensityMatrixPlan& plan, const BatchAddresses& addresses, uintptr_t result,
                        int n_threads) {
    nb::gil_scoped_release release;
    addresses.visit([&](auto batch) {
        using T = typename decltype(batch)::Number;
        DensityMatrixExecutor<T>(plan, batch, true, n_threads).evolve_observables(pointer<T>(result));
    });
}

void backward(const DensityMatrixPlan& plan, const BatchAddresses& addresses, bool shared_initial,
              uintptr_t result_grads, const GradientAddresses& gradient_addresses, int n_threads) {
    nb::gil_scoped_release release;
    addresses.visit([&](auto batch) {
        using T = typename decltype(batch)::Number;
        const Gradients<T> gradients = gradient_addresses.as<T>();
        std::vector<double> weight_grads(size_t(batch.size * plan.n_weights));
        std::fill_n(gradients.inputs, gradients.inputs ? batch.size * plan.n_inputs : 0, T(0));
        DensityMatrixExecutor<T>(plan, batch, shared_initial, n_threads)
            .backward(pointer<T>(result_grads), weight_grads.data(), gradients);
        for (int64_t i = 0; i < plan.n_weights; ++i) {
            double sum = 0;
            for (int64_t b = 0; b < batch.size; ++b) sum += weight_grads[size_t(b * plan.n_weights + i)];
            gradients.weights[i] = T(sum);
        }
    });
}

}  // namespace

void bind_density_matrix(nb::module_& m) {
    nb::class_<DensityMatrixPlan>(m, "DensityMatrixPlan")
        .def("__init__", &make_plan, nb::kw_only(), "instruction_set"_a, "n_qubits"_a, "n_weights"_a, "n_inputs"_a,
             "operations"_a, "observables"_a, "after_rotation"_a, "after_cnot"_a, "depolarizing"_a)
        .def_prop_ro("n_observables", [](const DensityMatrixPlan& plan) { return plan.observables.size(); })
        .def_prop_ro("n_coefficients", &DensityMatrixPlan::n_coefficients)
        .def("forward", &forward)
        .def("evolve_observables", &evolve_observables)
        .def("backward", &backward);
}

}  // namespace ketfit
