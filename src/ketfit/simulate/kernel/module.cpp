// The Python module: instruction sets, the arrays of a call, and plans for statevectors.

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>

#ifndef _WIN32
#include <unistd.h>
#endif

#include <algorithm>
#include <stdexcept>
#include <string>
#include <utility>

#include "arrays.h"
#include "executor.h"
#include "instruction_sets.h"

namespace nb = nanobind;
using namespace nanobind::literals;

namespace ketfit {

void bind_complex_statevector(nb::module_& m);
void bind_density_matrix(nb::module_& m);
void bind_unit_block(nb::module_& m);

namespace {

// Bytes of a core's second-level cache, 0 if the system does not say.
int64_t cache_bytes() {
#ifdef _SC_LEVEL2_CACHE_SIZE
    return std::max<int64_t>(sysconf(_SC_LEVEL2_CACHE_SIZE), 0);
#else
    return 0;
#endif
}

using IntArray = nb::ndarray<const int32_t, nb::c_contig, nb::device::cpu>;

Stage make_stage(const Plan& plan, const int32_t* operation_range, const int32_t* positions, size_t width) {
    Stage stage{};
    stage.first_operation = operation_range[0];
    stage.n_operations = operation_range[1];
    stage.positions.assign(positions, positions + width);
    for (int32_t position = 0; position < plan.bits; ++position)
        if (!std::binary_search(positions, positions + width, position)) stage.outer_positions.push_back(position);
    size_t run_bits = 0;
    while (run_bits < width && positions[run_bits] == int32_t(run_bits)) ++run_bits;
    stage.run_bits = int(run_bits);
    for (size_t r = 0; r < size_t(1) << (width - run_bits); ++r)
        stage.run_offsets.push_back(deposit_bits(r, positions + run_bits, width - run_bits));
    stage.columns.assign(width, -1);
    for (size_t k = 0; k < plan.measured.size(); ++k) {
        const auto found = std::find(positions, positions + width, plan.measured[k]);
        if (found != positions + width) stage.columns[size_t(found - positions)] = int32_t(k);
    }
    return stage;
}

// The arrays are those that plan.py makes.
void make_plan(Plan* plan, const std::string& instruction_set, int bits, int sample_bits, int64_t n_weights,
               int64_t n_inputs, int64_t n_rotations, bool joint, IntArray operations, IntArray term_offsets,
               IntArray terms, IntArray stages, IntArray positions, IntArray measured) {
    new (plan) Plan{};
    plan->bits = bits;
    plan->sample_bits = sample_bits;
    plan->n_weights = n_weights;
    plan->n_inputs = n_inputs;
    plan->n_rotations = n_rotations;
    plan->joint = joint;
    plan->kernels = find_instruction_set(instruction_set).gate_kernels;
    plan->term_offsets.assign(term_offsets.data(), term_offsets.data() + term_offsets.size());
    for (size_t t = 0; t < terms.shape(0); ++t) plan->terms.push_back({terms.data()[2 * t], terms.data()[2 * t + 1]});
    plan->measured.assign(measured.data(), measured.data() + measured.size());
    plan->first_rotations.assign(size_t(bits), -1);
    for (size_t i = 0; i < operations.shape(0); ++i) {
        const int32_t* row = operations.data() + 4 * i;
        const auto first = plan->terms.begin() + plan->term_offsets[i];
        const auto end = plan->terms.begin() + plan->term_offsets[i + 1];
        plan->reads_input.push_back(std::any_of(first, end, [](AngleTerm term) { return term.angle < 0; }));
        plan->operations.push_back({row[0], row[1], row[2], row[3]});
    }
    for (size_t s = 0; s < stages.shape(0); ++s) {
        const size_t width = positions.shape(1);
        plan->stages.push_back(make_stage(*plan, stages.data() + 2 * s, positions.data() + s * width, width));
        const Stage& stage = plan->stages.back();
        for (int i = stage.first_operation; i < stage.first_operation + stage.n_operations; ++i)
            if (const Operation& operation = plan->operations[size_t(i)]; operation.first_on_qubit)
                plan->first_rotations[size_t(stage.positions[size_t(operation.target)])] = i;
    }
}

// An initial amplitude that is not finite shows in the result; a weight or an input need not.
template <class T>
bool all_finite(const Plan& plan, const CircuitBatch<T>& batch, const T* result) {
    return are_finite(batch.weights, plan.n_weights) &&
           (!batch.inputs || are_finite(batch.inputs, batch.size * plan.n_inputs)) &&
           are_finite(result, batch.size * int64_t(plan.n_columns()));
}

std::pair<double, bool> forward(const Plan& plan, const BatchAddresses& addresses, uintptr_t result, uintptr_t saved,
                                int n_threads) {
    nb::gil_scoped_release release;
    return addresses.visit([&](auto batch) {
        using T = typename decltype(batch)::Number;
        const double scale = Executor<T>(plan, batch, n_threads).forward(pointer<T>(result), pointer<T>(saved));
        return std::pair(scale, all_finite(plan, batch, pointer<T>(result)));
    });
}

void backward(const Plan& plan, const BatchAddresses& addresses, uintptr_t states, double scale, uintptr_t result_grads,
              const GradientAddresses& gradients, int n_threads) {
    nb::gil_scoped_release release;
    addresses.visit([&](auto batch) {
        using T = typename decltype(batch)::Number;
        Executor<T>(plan, batch, n_threads)
            .backward(pointer<T>(states), scale, pointer<T>(result_grads), gradients.as<T>());
    });
}

bool forward_and_backward(const Plan& plan, const BatchAddresses& addresses, uintptr_t result, uintptr_t result_grads,
                          const GradientAddresses& gradients, int n_threads) {
    nb::gil_scoped_release release;
    return addresses.visit([&](auto batch) {
        using T = typename decltype(batch)::Number;
        const T* grads = pointer<T>(result_grads);
        Executor<T>(plan, batch, n_threads).forward_and_backward(pointer<T>(result), grads, gradients.as<T>());
        return all_finite(plan, batch, pointer<T>(result)) && are_finite(grads, batch.size * int64_t(plan.n_columns()));
    });
}

}  // namespace
}  // namespace ketfit

NB_MODULE(_kernel, m) {
    using namespace ketfit;
    nb::set_leak_warnings(false);  // plans live in a cache until the interpreter ends
    m.def("instruction_sets", [] {
        nb::list names;
        for (const InstructionSet& set : instruction_sets())
            if (set.is_supported) names.append(set.name);
        return names;
    });
    m.def("lanes", [](const std::string& name, int itemsize) {
        for (const InstructionSet& set : instruction_sets())
            if (set.name == name) return itemsize == 4 ? set.gate_kernels->f32.lanes : set.gate_kernels->f64.lanes;
        throw std::invalid_argument("unknown instruction set " + name);
    });
    m.def("cache_bytes", &cache_bytes);
    nb::class_<BatchAddresses>(m, "CircuitBatch")
        .def(nb::init<int, int64_t, uintptr_t, uintptr_t, uintptr_t, uintptr_t>(), "itemsize"_a, "size"_a, "weights"_a,
             "inputs"_a = 0, "initial"_a = 0, "signs"_a = 0);
    nb::class_<GradientAddresses>(m, "Gradients")
        .def(nb::init<uintptr_t, uintptr_t, uintptr_t>(), "weights"_a = 0, "inputs"_a = 0, "initial"_a = 0);
    nb::class_<Plan>(m, "Plan")
        .def("__init__", &make_plan, nb::kw_only(), "instruction_set"_a, "bits"_a, "sample_bits"_a, "n_weights"_a,
             "n_inputs"_a, "n_rotations"_a, "joint"_a, "operations"_a, "term_offsets"_a, "terms"_a, "stages"_a,
             "positions"_a, "measured"_a)
        .def("n_units", &Plan::n_units)
        .def_prop_ro("unit_size", &Plan::unit_size)
        .def_prop_ro("n_columns", &Plan::n_columns)
        .def("forward", &forward)
        .def("backward", &backward)
        .def("forward_and_backward", &forward_and_backward);
    bind_complex_statevector(m);
    bind_density_matrix(m);
    bind_unit_block(m);
}
