// The Python module: instruction sets, plans from tables, calls on addresses.

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>

#ifndef _WIN32
#include <unistd.h>
#endif

#include <stdexcept>
#include <string>
#include <utility>

#include "density.h"
#include "run.h"

namespace nb = nanobind;

namespace ketfit {

extern const Engines baseline;
#ifdef KETFIT_X86
extern const Engines avx2, avx512;
#endif

struct Isa {
    const char* name;
    const Engines* engines;
    bool runs;
};

// From the widest to the narrowest.
std::vector<Isa> isas() {
    std::vector<Isa> all;
#ifdef KETFIT_X86
    __builtin_cpu_init();
    all.push_back({"avx512", &avx512,
                   __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
                       __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl")});
    all.push_back({"avx2", &avx2, __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")});
#endif
    all.push_back({"baseline", &baseline, true});
    return all;
}

// Bytes of a core's second-level cache, 0 if the system does not say.
int64_t cache_bytes() {
#ifdef _SC_LEVEL2_CACHE_SIZE
    return std::max<int64_t>(sysconf(_SC_LEVEL2_CACHE_SIZE), 0);
#else
    return 0;
#endif
}

using Table = nb::ndarray<const int32_t, nb::c_contig, nb::device::cpu>;

Stage read_stage(const Plan& plan, const int32_t* ops, const int32_t* positions, size_t width) {
    Stage stage{};
    stage.first_op = ops[0];
    stage.n_ops = ops[1];
    stage.positions.assign(positions, positions + width);
    for (int32_t position = 0; position < plan.bits; ++position)
        if (!std::binary_search(positions, positions + width, position)) stage.others.push_back(position);
    size_t run_bits = 0;
    while (run_bits < width && positions[run_bits] == int32_t(run_bits)) ++run_bits;
    stage.run_bits = int(run_bits);
    for (size_t r = 0; r < size_t(1) << (width - run_bits); ++r)
        stage.runs.push_back(deposit(r, positions + run_bits, width - run_bits));
    stage.columns.assign(width, -1);
    for (size_t k = 0; k < plan.measured.size(); ++k) {
        const auto place = std::find(positions, positions + width, plan.measured[k]);
        if (place != positions + width) stage.columns[size_t(place - positions)] = int32_t(k);
    }
    return stage;
}

// The tables are those of plan.py.
void make_plan(Plan* plan, const std::string& isa, int bits, int sample_bits, int64_t n_weights, int64_t n_inputs,
               int64_t n_rotations, bool joint, Table ops, Table term_offsets, Table terms, Table stages,
               Table positions, Table measured) {
    new (plan) Plan{};
    plan->bits = bits;
    plan->sample_bits = sample_bits;
    plan->n_weights = n_weights;
    plan->n_inputs = n_inputs;
    plan->n_rotations = n_rotations;
    plan->joint = joint;
    for (const Isa& known : isas())
        if (known.name == isa && known.runs) plan->engines = known.engines;
    if (!plan->engines) throw std::invalid_argument("this processor has no " + isa);
    plan->term_offsets.assign(term_offsets.data(), term_offsets.data() + term_offsets.size());
    for (size_t t = 0; t < terms.shape(0); ++t) plan->terms.push_back({terms.data()[2 * t], terms.data()[2 * t + 1]});
    plan->measured.assign(measured.data(), measured.data() + measured.size());
    plan->starts.assign(size_t(bits), -1);
    for (size_t i = 0; i < ops.shape(0); ++i) {
        const int32_t* row = ops.data() + 4 * i;
        const auto first = plan->terms.begin() + plan->term_offsets[i];
        const auto end = plan->terms.begin() + plan->term_offsets[i + 1];
        plan->reads_input.push_back(std::any_of(first, end, [](Term term) { return term.angle < 0; }));
        plan->ops.push_back({row[0], row[1], row[2], row[3]});
    }
    for (size_t s = 0; s < stages.shape(0); ++s) {
        const size_t width = positions.shape(1);
        plan->stages.push_back(read_stage(*plan, stages.data() + 2 * s, positions.data() + s * width, width));
        const Stage& stage = plan->stages.back();
        for (int i = stage.first_op; i < stage.first_op + stage.n_ops; ++i)
            if (const Op& op = plan->ops[size_t(i)]; op.start)
                plan->starts[size_t(stage.positions[size_t(op.target)])] = i;
    }
}

template <class T>
T* at(uintptr_t address) {
    return reinterpret_cast<T*>(address);
}

template <class T>
bool all_finite(const T* numbers, int64_t count) {
    return std::all_of(numbers, numbers + count, [](T number) { return std::isfinite(number); });
}

// Whether the numbers that can tell are: an infinite or missing initial amplitude shows in the result.
template <class T>
bool all_finite(const Plan& plan, const Angles<T>& angles, const T* out) {
    return all_finite(angles.weights, plan.n_weights) &&
           (!angles.inputs || all_finite(angles.inputs, angles.batch * plan.n_inputs)) &&
           all_finite(out, angles.batch * int64_t(plan.n_columns()));
}

template <class T>
std::pair<double, bool> forward(const Plan& plan, int64_t batch, uintptr_t weights, uintptr_t inputs, uintptr_t initial,
                                uintptr_t signs, uintptr_t out, uintptr_t saved, int threads) {
    nb::gil_scoped_release release;
    const Angles<T> angles(plan, at<const T>(weights), at<const T>(inputs), at<const int8_t>(signs), batch);
    Run<T> run(plan, angles, at<const T>(initial), !initial, threads);
    const double scale = run.forward(at<T>(out), at<T>(saved));
    return {scale, all_finite(plan, angles, at<const T>(out))};
}

template <class T>
void backward(const Plan& plan, int64_t batch, uintptr_t weights, uintptr_t inputs, uintptr_t signs, bool product,
              double scale, uintptr_t states, uintptr_t grads, uintptr_t grad_weights, uintptr_t grad_inputs,
              uintptr_t grad_initial, int threads) {
    nb::gil_scoped_release release;
    const Angles<T> angles(plan, at<const T>(weights), at<const T>(inputs), at<const int8_t>(signs), batch);
    Run<T> run(plan, angles, nullptr, product, threads);
    run.backward(at<T>(states), scale, at<const T>(grads), at<T>(grad_weights), at<T>(grad_inputs),
                 at<T>(grad_initial));
}

template <class T>
bool step(const Plan& plan, int64_t batch, uintptr_t weights, uintptr_t inputs, uintptr_t initial, uintptr_t grads,
          uintptr_t out, uintptr_t grad_weights, uintptr_t grad_inputs, uintptr_t grad_initial, int threads) {
    nb::gil_scoped_release release;
    const Angles<T> angles(plan, at<const T>(weights), at<const T>(inputs), nullptr, batch);
    Run<T> run(plan, angles, at<const T>(initial), !initial, threads);
    run.step(at<T>(out), at<const T>(grads), at<T>(grad_weights), at<T>(grad_inputs), at<T>(grad_initial));
    return all_finite(plan, angles, at<const T>(out)) &&
           all_finite(at<const T>(grads), batch * int64_t(plan.n_columns()));
}

}  // namespace ketfit

NB_MODULE(_kernel, m) {
    using namespace ketfit;
    nb::set_leak_warnings(false);  // plans live in a cache until the interpreter ends
    m.def("instruction_sets", [] {
        nb::list names;
        for (const Isa& isa : isas())
            if (isa.runs) names.append(isa.name);
        return names;
    });
    m.def("lanes", [](const std::string& name, int itemsize) {
        for (const Isa& isa : isas())
            if (isa.name == name) return itemsize == 4 ? isa.engines->f32.lanes : isa.engines->f64.lanes;
        throw std::invalid_argument("unknown instruction set " + name);
    });
    m.def("cache_bytes", &cache_bytes);
    nb::class_<Plan>(m, "Plan")
        .def("__init__", &make_plan)
        .def("units", &Plan::units)
        .def_prop_ro("size", &Plan::size)
        .def_prop_ro("n_columns", &Plan::n_columns)
        .def("forward_f32", &forward<float>)
        .def("forward_f64", &forward<double>)
        .def("backward_f32", &backward<float>)
        .def("backward_f64", &backward<double>)
        .def("step_f32", &step<float>)
        .def("step_f64", &step<double>);
    bind_density(m);
}
