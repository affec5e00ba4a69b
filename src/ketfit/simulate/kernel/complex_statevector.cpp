// Complex statevectors: the plan from the arrays that pauli_scheduling.py makes, calls, and their bindings to Python.

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/complex.h>
#include <nanobind/stl/string.h>

#include <complex>
#include <cstdint>
#include <string>
#include <vector>

#include "arrays.h"
#include "complex_executor.h"
#include "complex_plan.h"
#include "instruction_sets.h"

namespace nb = nanobind;
using namespace nanobind::literals;

namespace ketfit {
namespace {

template <class Number, int COLUMNS>
using Table = nb::ndarray<const Number, nb::shape<-1, COLUMNS>, nb::c_contig, nb::device::cpu>;
template <class Number>
using List = nb::ndarray<const Number, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Basis = nb::ndarray<const int64_t, nb::ndim<2>, nb::c_contig, nb::device::cpu>;

void make_plan(ComplexPlan* plan, const std::string& instruction_set, int itemsize, bool is_real, int bits,
               int sample_bits, int64_t n_weights, int64_t n_inputs, int64_t n_signs, Table<int64_t, 7> groups,
               Table<int32_t, 4> rotations, List<double> offsets, List<int32_t> term_offsets, List<int32_t> term_angles,
               List<double> term_factors, Table<int32_t, 2> stages, Basis basis, Table<int64_t, 3> words,
               int64_t frame_offset, std::complex<double> frame_phase, Table<int64_t, 3> frame) {
    new (plan) ComplexPlan{};
    plan->bits = bits;
    plan->sample_bits = sample_bits;
    plan->n_weights = n_weights;
    plan->n_inputs = n_inputs;
    plan->n_signs = n_signs;
    plan->is_real = is_real;
    const InstructionSet& set = find_instruction_set(instruction_set);
    plan->kernels = is_real ? set.real_kernels : set.complex_kernels;
    plan->lane_bits = __builtin_ctz(unsigned(itemsize == 4 ? plan->kernels->f32.lanes : plan->kernels->f64.lanes));
    plan->term_offsets.assign(term_offsets.data(), term_offsets.data() + term_offsets.size());
    for (size_t t = 0; t < term_angles.size(); ++t)
        plan->terms.push_back({term_angles.data()[t], term_factors.data()[t]});
    for (size_t r = 0; r < rotations.shape(0); ++r) {
        const int32_t* row = rotations.data() + 4 * r;
        plan->rotations.push_back({row[0] != 0, row[1], row[2], offsets.data()[r], false, row[3]});
        for (int32_t t = plan->term_offsets[r]; t < plan->term_offsets[r + 1]; ++t)
            plan->rotations.back().reads_input |= plan->terms[size_t(t)].angle < 0;
    }
    for (size_t g = 0; g < groups.shape(0); ++g)
        plan->groups.push_back(make_group(groups.data() + 7 * g, plan->rotations));
    for (size_t s = 0; s < stages.shape(0); ++s)
        plan->add_stage(stages.data()[2 * s], stages.data()[2 * s + 1],
                        {basis.data() + s * basis.shape(1), basis.data() + (s + 1) * basis.shape(1)});
    for (size_t w = 0; w < words.shape(0); ++w) {
        const int64_t* row = words.data() + 3 * w;
        plan->add_word(uint64_t(row[0]), uint64_t(row[1]), row[2]);
    }
    std::vector<FrameBit> bits_of_frame;
    for (size_t bit = 0; bit < frame.shape(0); ++bit) {
        const int64_t* row = frame.data() + 3 * bit;
        bits_of_frame.push_back({uint64_t(row[0]), uint64_t(row[1]), int(row[2])});
    }
    plan->frame = CliffordFrame(uint64_t(frame_offset), frame_phase, bits_of_frame);
}

// An initial amplitude that is not finite shows in the result; a weight or an input need not.
template <class T>
bool all_finite(const ComplexPlan& plan, const CircuitBatch<T>& batch, const T* result, int64_t count) {
    return are_finite(batch.weights, plan.n_weights) &&
           (!batch.inputs || are_finite(batch.inputs, batch.size * plan.n_inputs)) && are_finite(result, count);
}

template <class T>
int64_t n_values(const ComplexPlan& plan, const CircuitBatch<T>& batch) {
    return batch.size * int64_t(plan.n_words());
}

// Calls function(executor, batch) without Python's lock.
template <class F>
auto call(const ComplexPlan& plan, const BatchAddresses& addresses, int n_threads, F function) {
    nb::gil_scoped_release release;
    return addresses.visit([&](auto batch) {
        ComplexExecutor<typename decltype(batch)::Number> executor(plan, batch, n_threads);
        return function(executor, batch);
    });
}

bool forward(const ComplexPlan& plan, const BatchAddresses& addresses, uintptr_t result, uintptr_t saved,
             int n_threads) {
    return call(plan, addresses, n_threads, [&](auto& executor, auto batch) {
        using T = typename decltype(batch)::Number;
        executor.forward(pointer<T>(result), pointer<T>(saved));
        return all_finite(plan, batch, pointer<T>(result), n_values(plan, batch));
    });
}

void backward(const ComplexPlan& plan, const BatchAddresses& addresses, uintptr_t states, uintptr_t word_grads,
              const GradientAddresses& gradients, int n_threads) {
    call(plan, addresses, n_threads, [&](auto& executor, auto batch) {
        using T = typename decltype(batch)::Number;
        executor.backward(pointer<T>(states), pointer<T>(word_grads), gradients.as<T>());
    });
}

bool forward_and_backward(const ComplexPlan& plan, const BatchAddresses& addresses, uintptr_t result,
                          uintptr_t word_grads, const GradientAddresses& gradients, int n_threads) {
    return call(plan, addresses, n_threads, [&](auto& executor, auto batch) {
        using T = typename decltype(batch)::Number;
        executor.forward_and_backward(pointer<T>(result), pointer<T>(word_grads), gradients.as<T>());
        return all_finite(plan, batch, pointer<T>(result), n_values(plan, batch)) &&
               are_finite(pointer<T>(word_grads), n_values(plan, batch));
    });
}

void prepare(const ComplexPlan& plan, const BatchAddresses& addresses, uintptr_t states, uintptr_t factors,
             int n_threads) {
    call(plan, addresses, n_threads, [&](auto& executor, auto batch) {
        using T = typename decltype(batch)::Number;
        executor.prepare(pointer<T>(states), pointer<T>(factors));
    });
}

void advance(const ComplexPlan& plan, const BatchAddresses& addresses, uintptr_t states, uintptr_t result,
             int n_threads) {
    call(plan, addresses, n_threads, [&](auto& executor, auto batch) {
        using T = typename decltype(batch)::Number;
        executor.advance(pointer<T>(states), pointer<T>(result));
    });
}

void retreat(const ComplexPlan& plan, const BatchAddresses& addresses, uintptr_t states, uintptr_t adjoints,
             uintptr_t word_grads, const GradientAddresses& gradients, int n_threads) {
    call(plan, addresses, n_threads, [&](auto& executor, auto batch) {
        using T = typename decltype(batch)::Number;
        executor.retreat(pointer<T>(states), pointer<T>(adjoints), pointer<T>(word_grads), gradients.as<T>());
    });
}

bool simulate(const ComplexPlan& plan, const BatchAddresses& addresses, uintptr_t amplitudes, int n_threads) {
    return call(plan, addresses, n_threads, [&](auto& executor, auto batch) {
        using T = typename decltype(batch)::Number;
        executor.simulate(pointer<T>(amplitudes));
        const int64_t count = batch.size * int64_t(plan.unit_size() >> plan.sample_bits) * 2;
        return all_finite(plan, batch, pointer<T>(amplitudes), count);
    });
}

void backward_from_states(const ComplexPlan& plan, const BatchAddresses& addresses, uintptr_t amplitudes,
                          uintptr_t amplitude_grads, const GradientAddresses& gradients, int n_threads) {
    call(plan, addresses, n_threads, [&](auto& executor, auto batch) {
        using T = typename decltype(batch)::Number;
        executor.backward_from_states(pointer<T>(amplitudes), pointer<T>(amplitude_grads), gradients.as<T>());
    });
}

}  // namespace

void bind_complex_statevector(nb::module_& m) {
    nb::class_<ComplexPlan>(m, "ComplexPlan")
        .def("__init__", &make_plan, nb::kw_only(), "instruction_set"_a, "itemsize"_a, "is_real"_a, "bits"_a,
             "sample_bits"_a, "n_weights"_a, "n_inputs"_a, "n_signs"_a, "groups"_a, "rotations"_a, "offsets"_a,
             "term_offsets"_a, "term_angles"_a, "term_factors"_a, "stages"_a, "basis"_a, "words"_a, "frame_offset"_a,
             "frame_phase"_a, "frame"_a)
        .def("n_units", &ComplexPlan::n_units)
        .def_prop_ro("unit_numbers", &ComplexPlan::unit_numbers)
        .def_prop_ro("n_words", &ComplexPlan::n_words)
        .def("forward", &forward)
        .def("backward", &backward)
        .def("forward_and_backward", &forward_and_backward)
        .def("prepare", &prepare)
        .def("advance", &advance)
        .def("retreat", &retreat)
        .def("simulate", &simulate)
        .def("backward_from_states", &backward_from_states);
}

}  // namespace ketfit
