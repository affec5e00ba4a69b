// Density matrices over the operations of a plan (density.py), sample by sample; see channels.h for one pass.

#include "density.h"

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <deque>
#include <functional>
#include <stdexcept>
#include <string>
#include <vector>

#include "channels.h"
#include "threads.h"

namespace nb = nanobind;

namespace ketfit {

extern const TileEngines tiles_baseline;
#ifdef KETFIT_X86
extern const TileEngines tiles_avx2, tiles_avx512;
#endif

namespace {

constexpr int32_t no_angle = INT32_MIN;

// Two digits, counted from the last qubit; angles are weight i as i and input k as ~k.
struct DensityOp {
    int32_t a, b, cnot, angle_a, angle_b;
};

// What noise does to (x, z, y) of a qubit, and what it adds to z from i.
struct Factors {
    double x = 1, z = 1, y = 1, shift = 0;
};

struct DensityPlan {
    int n_qubits;
    int64_t n_weights, n_inputs;
    std::vector<DensityOp> ops;
    std::vector<int64_t> observables;  // strings, by index
    Factors after_rotation, after_cnot;
    double depolarizing;  // what is left of every string but I I after a CNOT
    const TileEngines* engines;

    size_t size() const { return size_t(1) << (2 * n_qubits); }
    size_t room() const { return skewed(size() - 1) + 1; }
};

using Ops = nb::ndarray<const int32_t, nb::shape<-1, 5>, nb::c_contig, nb::device::cpu>;

Factors read_factors(const std::vector<double>& numbers) {
    return {numbers.at(0), numbers.at(1), numbers.at(2), numbers.at(3)};
}

void make_plan(DensityPlan* plan, const std::string& isa, int n_qubits, int64_t n_weights, int64_t n_inputs, Ops ops,
               const std::vector<int64_t>& observables, const std::vector<double>& after_rotation,
               const std::vector<double>& after_cnot, double depolarizing) {
    new (plan) DensityPlan{
        n_qubits,     n_weights, n_inputs, {}, observables, read_factors(after_rotation), read_factors(after_cnot),
        depolarizing, nullptr};
    for (size_t i = 0; i < ops.shape(0); ++i) {
        const int32_t* row = ops.data() + 5 * i;
        plan->ops.push_back({row[0], row[1], row[2], row[3], row[4]});
    }
    if (isa == "baseline") plan->engines = &tiles_baseline;
#ifdef KETFIT_X86
    if (isa == "avx2") plan->engines = &tiles_avx2;
    if (isa == "avx512") plan->engines = &tiles_avx512;
#endif
    if (!plan->engines) throw std::invalid_argument("unknown instruction set " + isa);
}

// The bits of `value` go to the bits where `mask` is 0, from the lowest.
size_t spread_bits(size_t value, size_t mask) {
    size_t result = 0;
    for (int bit = 0; value; ++bit)
        if (!(mask >> bit & 1)) {
            result |= (value & 1) << bit;
            value >>= 1;
        }
    return result;
}

template <class T>
class DensityRun {
 public:
    DensityRun(const DensityPlan& plan, int64_t batch, const T* weights, const T* inputs, const T* start, bool shared,
               int threads)
        : plan_(plan),
          batch_(batch),
          weights_(weights),
          inputs_(inputs),
          start_(start),
          shared_(shared),
          threads_(threads),
          split_(batch < threads && plan.n_qubits >= 7),
          engine_(plan.engines->engine<T>(narrow(plan))) {
        const Factors& n = plan.after_cnot;
        const double factors[4] = {1, n.x, n.z, n.y};
        noise_.shift = T(n.shift);
        noise_.on = false;
        for (int a = 0; a < 4; ++a)
            for (int b = 0; b < 4; ++b) {
                const double factor = (a || b ? plan.depolarizing : 1) * factors[a] * factors[b];
                noise_.factors[4 * a + b] = T(factor);
                noise_.on |= factor != 1;
            }
        for (const DensityOp& op : plan.ops) tiles_.push_back(tile(op));
    }

    void forward(T* out) {
        const size_t n_columns = plan_.observables.size();
        over_samples(1, [&](int64_t sample, States& states) {
            T* state = states[0].data;
            begin(sample, state);
            for (size_t i = 0; i < plan_.ops.size(); ++i) step(i, sample, state, state);
            for (size_t k = 0; k < n_columns; ++k)
                out[size_t(sample) * n_columns + k] = state[skewed(size_t(plan_.observables[k]))];
        });
    }

    // The observables in front of all operations: a row of coefficients for each, as if the batch were they.
    void pull(T* out) {
        over_samples(1, [&](int64_t row, States& states) {
            T* adjoint = states[0].data;
            std::fill_n(adjoint, plan_.room(), T(0));
            adjoint[skewed(size_t(plan_.observables[size_t(row)]))] = 1;
            for (size_t i = plan_.ops.size(); i-- > 0;)
                over_parts(prepare(i, row, nullptr, adjoint, nullptr),
                           [&](TilePass<T>& pass, int64_t) { engine_.pull(pass); });
            copy_out(adjoint, out + size_t(row) * plan_.size());
        });
    }

    // grad_weights holds doubles, a row for each sample, so that the order of adding does not depend on the threads.
    void backward(const T* grads, double* grad_weights, T* grad_inputs, T* grad_start) {
        const size_t n = plan_.ops.size(), n_columns = plan_.observables.size();
        const size_t stride = std::max<size_t>(1, size_t(std::ceil(std::sqrt(double(n))))), n_kept = n / stride + 1;
        over_samples(1 + n_kept + stride, [&](int64_t sample, States& states) {
            // The state in front of every `stride`-th operation, and then in front of each operation of one stretch.
            T* adjoint = states[0].data;
            const auto kept = states.begin() + 1, stretch = kept + std::ptrdiff_t(n_kept);
            begin(sample, kept[0].data);
            for (size_t first = 0; first + stride < n; first += stride) {
                const T* from = kept[first / stride].data;
                T* to = kept[first / stride + 1].data;
                for (size_t i = first; i < first + stride; ++i, from = to) step(i, sample, from, to);
            }
            std::fill_n(adjoint, plan_.room(), T(0));
            for (size_t k = 0; k < n_columns; ++k)
                adjoint[skewed(size_t(plan_.observables[k]))] += grads[size_t(sample) * n_columns + k];
            for (size_t end = n; end > 0;) {
                const size_t first = (end - 1) / stride * stride;
                T* from = kept[first / stride].data;
                for (size_t i = first; i + 1 < end; ++i)
                    step(i, sample, i == first ? from : stretch[i - first].data, stretch[i - first + 1].data);
                for (size_t i = end; i-- > first;) {
                    const Slopes slopes = unstep(i, sample, i == first ? from : stretch[i - first].data, adjoint);
                    give(plan_.ops[i].angle_a, slopes.a, sample, grad_weights, grad_inputs);
                    give(plan_.ops[i].angle_b, slopes.b, sample, grad_weights, grad_inputs);
                }
                end = first;
            }
            if (grad_start) copy_out(adjoint, grad_start + size_t(sample) * plan_.size());
        });
    }

 private:
    struct Slopes {
        double a = 0, b = 0;
    };

    // A tile takes four bits, and as many again as lie across the lanes.
    static bool narrow(const DensityPlan& plan) {
        const int lanes = plan.engines->engine<T>(false).lanes;
        return (size_t(1) << (2 * plan.n_qubits)) < size_t(16) * size_t(lanes);
    }

    using States = std::deque<Buffer<T>>;

    // work(sample, n_states states to work in), the same ones for all samples of a thread.
    template <class F>
    void over_samples(size_t n_states, F work) {
        const int threads = split_ ? 1 : threads_;
        std::vector<States> rooms(size_t(std::max(1, threads)));
        const std::function<void(int64_t, int)> task = [&](int64_t sample, int slot) {
            States& states = rooms[size_t(slot)];
            while (states.size() < n_states) states.emplace_back(plan_.room());
            work(sample, states);
        };
        Team::get().each(batch_, threads, task);
    }

    void begin(int64_t sample, T* state) const {
        const T* start = start_ + (shared_ ? 0 : size_t(sample) * plan_.size());
        runs([&](size_t from, size_t to, size_t length) { std::copy_n(start + from, length, state + to); });
    }

    void copy_out(const T* adjoint, T* out) const {
        runs([&](size_t to, size_t from, size_t length) { std::copy_n(adjoint + from, length, out + to); });
    }

    // visit(index, skewed index, length) for every run of coefficients without a gap.
    template <class F>
    void runs(F visit) const {
        const size_t length = std::min<size_t>(plan_.size(), 256);
        for (size_t index = 0; index < plan_.size(); index += length) visit(index, skewed(index), length);
    }

    TilePass<T> tile(const DensityOp& op) const {
        TilePass<T> pass{};
        const size_t lanes = size_t(engine_.lanes);
        const int bits[4] = {2 * op.b, 2 * op.b + 1, 2 * op.a, 2 * op.a + 1};
        pass.mask = lanes - 1;
        for (const int bit : bits) pass.mask |= size_t(1) << bit;
        size_t strides[4];
        for (int k = 0; k < 4; ++k) {
            const bool in_lanes = size_t(1) << bits[k] < lanes;
            pass.lane_bits[k] = in_lanes ? bits[k] : -1;
            pass.across |= in_lanes;
            size_t stride = size_t(1) << bits[k];
            if (in_lanes)  // another bit stands in for it while the tile is worked on
                for (stride = 1; pass.mask & stride;) stride <<= 1;
            pass.mask |= stride;
            strides[k] = stride;
        }
        for (size_t number = 0; number < 16; ++number)
            for (int k = 0; k < 4; ++k)
                if (number >> k & 1) pass.offsets[number] += skewed(strides[k]);
        pass.cnot = op.cnot;
        pass.noise = &noise_;
        return pass;
    }

    DigitMap<T> digit(int32_t angle, int64_t sample) const {
        if (angle == no_angle) return {};
        const double t = angle >= 0 ? double(weights_[angle]) : double(inputs_[sample * plan_.n_inputs + ~angle]);
        const double c = std::cos(t), s = std::sin(t);
        const Factors& n = plan_.after_rotation;
        return {true,       T(n.x * c),  T(n.x * s), T(-n.z * s), T(n.z * c), T(n.y),
                T(n.shift), T(-n.x * s), T(n.x * c), T(-n.z * c), T(-n.z * s)};
    }

    TilePass<T> prepare(size_t i, int64_t sample, const T* state, T* adjoint, T* out) const {
        TilePass<T> pass = tiles_[i];
        pass.state = state;
        pass.adjoint = adjoint;
        pass.out = out;
        pass.n_tiles = plan_.size() / size_t(engine_.lanes) / 16;
        pass.a = digit(plan_.ops[i].angle_a, sample);
        pass.b = digit(plan_.ops[i].angle_b, sample);
        return pass;
    }

    // A wide state is cut into parts, always the same ones.
    template <class F>
    void over_parts(const TilePass<T>& whole, F work) {
        if (plan_.n_qubits < 7) {
            TilePass<T> pass = whole;
            work(pass, 0);
            return;
        }
        const std::function<void(int64_t, int)> task = [&](int64_t part, int) {
            TilePass<T> pass = whole;
            pass.n_tiles = whole.n_tiles / n_parts;
            pass.first = spread_bits(size_t(part) * pass.n_tiles, whole.mask);
            work(pass, part);
        };
        if (split_)
            Team::get().each(n_parts, threads_, task);
        else
            for (int64_t part = 0; part < n_parts; ++part) task(part, 0);
    }

    void step(size_t i, int64_t sample, const T* from, T* to) {
        over_parts(prepare(i, sample, from, nullptr, to), [&](TilePass<T>& pass, int64_t) { engine_.forward(pass); });
    }

    Slopes unstep(size_t i, int64_t sample, const T* state, T* adjoint) {
        Slopes parts[n_parts], total;
        over_parts(prepare(i, sample, state, adjoint, nullptr), [&](TilePass<T>& pass, int64_t part) {
            engine_.backward(pass);
            parts[part] = {pass.slopes[0], pass.slopes[1]};
        });
        for (const Slopes& part : parts) {
            total.a += part.a;
            total.b += part.b;
        }
        return total;
    }

    void give(int32_t angle, double slope, int64_t sample, double* grad_weights, T* grad_inputs) const {
        if (angle == no_angle) return;
        if (angle >= 0)
            grad_weights[sample * plan_.n_weights + angle] += slope;
        else if (grad_inputs)
            grad_inputs[sample * plan_.n_inputs + ~angle] += T(slope);
    }

    static constexpr int64_t n_parts = 16;

    const DensityPlan& plan_;
    const int64_t batch_;
    const T *weights_, *inputs_, *start_;
    const bool shared_;
    const int threads_;
    const bool split_;  // threads share one state instead of the samples
    const TileEngine<T>& engine_;
    PairNoise<T> noise_;
    std::vector<TilePass<T>> tiles_;
};

template <class T>
T* at(uintptr_t address) {
    return reinterpret_cast<T*>(address);
}

template <class T>
void forward(const DensityPlan& plan, int64_t batch, uintptr_t weights, uintptr_t inputs, uintptr_t start, bool shared,
             uintptr_t out, int threads) {
    nb::gil_scoped_release release;
    DensityRun<T>(plan, batch, at<const T>(weights), at<const T>(inputs), at<const T>(start), shared, threads)
        .forward(at<T>(out));
}

template <class T>
void pull(const DensityPlan& plan, uintptr_t weights, uintptr_t out, int threads) {
    nb::gil_scoped_release release;
    DensityRun<T>(plan, int64_t(plan.observables.size()), at<const T>(weights), nullptr, nullptr, true, threads)
        .pull(at<T>(out));
}

template <class T>
void backward(const DensityPlan& plan, int64_t batch, uintptr_t weights, uintptr_t inputs, uintptr_t start, bool shared,
              uintptr_t grads, uintptr_t grad_weights, uintptr_t grad_inputs, uintptr_t grad_start, int threads) {
    nb::gil_scoped_release release;
    std::vector<double> by_sample(size_t(batch * plan.n_weights));
    T* inputs_out = at<T>(grad_inputs);
    std::fill_n(inputs_out, inputs_out ? batch * plan.n_inputs : 0, T(0));
    DensityRun<T>(plan, batch, at<const T>(weights), at<const T>(inputs), at<const T>(start), shared, threads)
        .backward(at<const T>(grads), by_sample.data(), inputs_out, at<T>(grad_start));
    for (int64_t i = 0; i < plan.n_weights; ++i) {
        double sum = 0;
        for (int64_t b = 0; b < batch; ++b) sum += by_sample[size_t(b * plan.n_weights + i)];
        at<T>(grad_weights)[i] = T(sum);
    }
}

}  // namespace

void bind_density(nb::module_& m) {
    nb::class_<DensityPlan>(m, "DensityPlan")
        .def("__init__", &make_plan)
        .def("forward_f32", &forward<float>)
        .def("forward_f64", &forward<double>)
        .def("pull_f32", &pull<float>)
        .def("pull_f64", &pull<double>)
        .def("backward_f32", &backward<float>)
        .def("backward_f64", &backward<double>);
}

}  // namespace ketfit
