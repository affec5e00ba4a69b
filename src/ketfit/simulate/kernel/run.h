// One call: units and chunks over threads, in and out of the cache, sums in a fixed order.

#pragma once

#include <cstring>
#include <optional>
#include <vector>

#include "call.h"
#include "passes.h"
#include "plan.h"
#include "threads.h"

namespace ketfit {

template <class T>
class Run {
 public:
    // `initial` is null where the circuit starts from |0...0> (`product`), and where nothing runs forward.
    Run(const Plan& plan, Angles<T> angles, const T* initial, bool product, int threads)
        : plan_(plan),
          angles_(std::move(angles)),
          initial_(initial),
          product_(product),
          units_(plan.units(angles_.batch)),
          bundles_(std::min<int64_t>(units_, 64)),
          per_bundle_(bundles_ ? (units_ + bundles_ - 1) / bundles_ : 0) {
        const double work = double(units_) * double(plan.size()) * double(plan.ops.size() + 1);
        threads_ = work < least_shared_work ? 1 : threads;
        split_ = !plan.whole() && (plan.bits >= 17 || units_ < threads_);
    }

    // Returns the scale of the states that are saved.
    double forward(T* out, T* saved) {
        const Sweep<T> forth(angles_, 1, false, product_);
        over_units(&forth, nullptr, saved || plan_.whole() ? 0 : plan_.size(), 0, [&](int64_t unit, Room& room) {
            T* state = saved ? saved + size_t(unit) * plan_.size() : plan_.whole() ? nullptr : room.state.data;
            room.angles.prepare(unit);
            forward_unit(unit, room, state, saved != nullptr, out);
        });
        return forth.scale;
    }

    // From the states and the scale that `forward` gave.
    void backward(T* states, double scale, const T* grads, T* grad_weights, T* grad_inputs, T* grad_initial) {
        const Sweep<T> back(angles_, scale, true, product_);
        std::vector<double> bundles = no_slopes(grad_inputs);
        over_units(nullptr, &back, 0, plan_.whole() ? 0 : plan_.size(), [&](int64_t unit, Room& room) {
            room.angles.prepare(unit);
            backward_unit(unit, room, states + size_t(unit) * plan_.size(), grads, bundle_of(bundles, unit),
                          grad_inputs, grad_initial);
        });
        add_bundles(bundles, grad_weights);
    }

    // Both, unit by unit, while its state is still in the cache.
    void step(T* out, const T* grads, T* grad_weights, T* grad_inputs, T* grad_initial) {
        const Sweep<T> forth(angles_, 1, false, product_), back(angles_, forth.scale, true, product_);
        std::vector<double> bundles = no_slopes(grad_inputs);
        over_units(&forth, &back, plan_.size(), plan_.whole() ? 0 : plan_.size(), [&](int64_t unit, Room& room) {
            room.angles.prepare(unit);
            forward_unit(unit, room, room.state.data, true, out);
            backward_unit(unit, room, room.state.data, grads, bundle_of(bundles, unit), grad_inputs, grad_initial);
        });
        add_bundles(bundles, grad_weights);
    }

 private:
    struct Desk {  // for the work on one chunk
        Buffer<T> state, adjoint;
    };
    struct Room {  // for the work on one unit
        Angles<T> angles;
        std::optional<Sweep<T>> forth, back;
        Buffer<T> state, adjoint;
        Desk desk;
        std::vector<double> sums;
    };

    std::vector<double> no_slopes(T* grad_inputs) const {
        std::fill_n(grad_inputs, grad_inputs ? angles_.batch * plan_.n_inputs : 0, T(0));
        return std::vector<double>(size_t(bundles_ * plan_.n_weights));
    }

    double* bundle_of(std::vector<double>& bundles, int64_t unit) const {
        return bundles.data() + (unit / per_bundle_) * plan_.n_weights;
    }

    void add_bundles(const std::vector<double>& bundles, T* grad_weights) const {
        for (int64_t w = 0; grad_weights && w < plan_.n_weights; ++w) {
            double sum = 0;
            for (int64_t b = 0; b < bundles_; ++b) sum += bundles[size_t(b * plan_.n_weights + w)];
            grad_weights[w] = T(sum);
        }
    }

    // Threads take units, or, if a unit is large, share each one.
    template <class F>
    void over_units(const Sweep<T>* forth, const Sweep<T>* back, size_t state, size_t adjoint, F work) {
        const int teams = split_ ? 1 : int(std::clamp<int64_t>(bundles_, 1, threads_));
        Team::get().run(bundles_, teams, [&](Tasks& tasks) {
            int64_t b;
            if (!tasks.next(b)) return;
            // Made by the thread that uses it: what another has just written takes long to come from its cache.
            Room room{
                angles_, own(forth, tasks.slot), own(back, tasks.slot), Buffer<T>(state), Buffer<T>(adjoint), desk(),
                {}};
            do {
                for (int64_t unit = b * per_bundle_; unit < std::min((b + 1) * per_bundle_, units_); ++unit)
                    work(unit, room);
            } while (tasks.next(b));
        });
    }

    std::optional<Sweep<T>> own(const Sweep<T>* sweep, int slot) const {
        if (!sweep) return std::nullopt;
        return slot ? Sweep<T>(angles_, sweep->first_scale, sweep->backward, product_) : *sweep;
    }

    Desk desk() const {
        const size_t chunk = size_t(1) << plan_.stages[0].positions.size();
        return {Buffer<T>(chunk), Buffer<T>(chunk)};
    }

    // Every chunk of a stage, on this thread or on all; the partial sums of its groups are added up in order.
    template <class F>
    void over_chunks(const Stage& stage, Room& room, size_t n_sums, F work) {
        const size_t groups = stage.groups(), per_group = stage.chunks() / groups;
        room.sums.assign(groups * n_sums, 0);
        const auto group = [&](size_t g, Desk& desk) {
            for (size_t c = g * per_group; c < (g + 1) * per_group; ++c) work(c, desk, room.sums.data() + g * n_sums);
        };
        if (split_)
            Team::get().run(int64_t(groups), threads_, [&](Tasks& tasks) {
                Desk own = desk();
                for (int64_t g; tasks.next(g);) group(size_t(g), own);
            });
        else
            for (size_t g = 0; g < groups; ++g) group(g, room.desk);
        for (size_t g = 1; g < groups; ++g)
            for (size_t i = 0; i < n_sums; ++i) room.sums[i] += room.sums[g * n_sums + i];
    }

    void forward_unit(int64_t unit, Room& room, T* state, bool keep, T* out) {
        Sweep<T>& sweep = *room.forth;
        sweep.prepare(room.angles);
        const size_t n_columns = plan_.n_columns(), width = plan_.joint ? angles_.samples() : angles_.L;
        for (const Stage& stage : plan_.stages) {
            const bool first = &stage == &plan_.stages.front(), last = &stage == &plan_.stages.back();
            over_chunks(stage, room, last ? n_columns * width : 0, [&](size_t c, Desk& desk, double* sums) {
                const size_t base = deposit(c, stage.others.data(), stage.others.size());
                const bool whole = stage.others.empty() && state;
                T* x = whole ? state : desk.state.data;
                if (!first)
                    gather(stage, state + base, x);
                else if (product_)
                    start(stage, sweep, base, x);
                else
                    load_initial(stage, unit, base, x);
                engine_.forward(chunk(stage, sweep, x, nullptr, nullptr));
                if (last && plan_.joint) {
                    count_outcomes(stage, base, x, sums);
                } else if (last) {
                    std::vector<int8_t> outer(n_columns);
                    engine_.measure(x, desk.adjoint.data, int(stage.positions.size()), readout(stage, base, outer),
                                    sums);
                }
                if (!whole && (keep || !last)) scatter(stage, x, state + base);
            });
        }
        const double square = sweep.scale * sweep.scale;
        for (size_t k = 0; k < n_columns; ++k)
            spread(unit, room.sums.data() + k * width, width,
                   [&](int64_t b, size_t, double sum) { out[b * int64_t(n_columns) + int64_t(k)] = T(square * sum); });
    }

    void backward_unit(int64_t unit, Room& room, T* state, const T* grads, double* grad_weights, T* grad_inputs,
                       T* grad_initial) {
        Sweep<T>& sweep = *room.back;
        sweep.prepare(room.angles);
        const size_t L = angles_.L, n_columns = plan_.n_columns();
        Buffer<T> lane_grads(plan_.joint ? 0 : n_columns * L);
        for (size_t k = 0; !plan_.joint && k < n_columns; ++k)
            for (size_t lane = 0; lane < L; ++lane) {
                const int64_t b = angles_.sample(unit, lane);
                lane_grads.data[k * L + lane] = b < 0 ? T(0) : grads[b * int64_t(n_columns) + int64_t(k)];
            }
        for (size_t s = plan_.stages.size(); s-- > 0;) {
            const Stage& stage = plan_.stages[s];
            const bool last = s + 1 == plan_.stages.size();
            over_chunks(stage, room, size_t(stage.n_ops) * L, [&](size_t c, Desk& desk, double* slopes) {
                const size_t base = deposit(c, stage.others.data(), stage.others.size());
                const bool whole = stage.others.empty();
                T *x = whole ? state : desk.state.data, *y = desk.adjoint.data;
                if (!whole) gather(stage, state + base, x);
                if (last && plan_.joint) {
                    observe_outcomes(stage, unit, base, x, y, grads);
                } else if (last) {
                    std::vector<int8_t> outer(n_columns);
                    engine_.observe(x, y, int(stage.positions.size()), readout(stage, base, outer), lane_grads.data);
                } else {
                    gather(stage, room.adjoint.data + base, y);
                }
                engine_.backward(chunk(stage, sweep, x, y, slopes));
                if (s > 0) {
                    if (!whole) scatter(stage, x, state + base);
                    scatter(stage, y, room.adjoint.data + base);
                } else if (grad_initial) {
                    store_initial(stage, unit, base, y, T(sweep.scale), grad_initial);
                }
            });
            for (int i = 0; i < stage.n_ops; ++i)
                give_slope(unit, room, size_t(stage.first_op + i), room.sums.data() + size_t(i) * L, grad_weights,
                           grad_inputs);
        }
    }

    // An operation's slope, lane by lane, to the angles that it adds up.
    void give_slope(int64_t unit, const Room& room, size_t op, const double* slopes, double* grad_weights,
                    T* grad_inputs) const {
        const Angles<T>& angles = room.angles;
        const double scale = room.back->scales[op];
        for (int32_t t = plan_.term_offsets[op]; t < plan_.term_offsets[op + 1]; ++t) {
            const Term term = plan_.terms[size_t(t)];
            if (term.angle >= 0) {
                double sum = 0;
                for (size_t lane = 0; lane < angles.L; ++lane)
                    sum += slopes[lane] * double(angles.flip(term.rotation, lane));
                grad_weights[term.angle] += scale * sum;
            } else if (grad_inputs) {
                spread(unit, slopes, angles.L, [&](int64_t b, size_t first, double sum) {
                    const double slope = scale * double(angles.flip(term.rotation, first)) * sum;
                    grad_inputs[b * plan_.n_inputs + ~term.angle] += T(slope);
                });
            }
        }
    }

    // Numbers of `width` lanes, summed for each sample: give(sample of the batch, its first lane, sum).
    template <class F>
    void spread(int64_t unit, const double* numbers, size_t width, F give) const {
        for (size_t first = 0; first < angles_.samples(); ++first) {
            double sum = 0;
            for (size_t lane = first; lane < width; lane += angles_.samples()) sum += numbers[lane];
            if (const int64_t b = angles_.sample(unit, first); b >= 0) give(b, first, sum);
        }
    }

    // visit(place in the chunk, outcome) for every row of amplitudes, one of each sample.
    template <class F>
    void outcomes(const Stage& stage, size_t base, F visit) const {
        const size_t p = size_t(plan_.sample_bits), width = stage.positions.size();
        std::vector<size_t> carried;  // how the outcome changes when the count of rows carries up to a bit
        for (size_t bit = p; bit < width; ++bit)
            carried.push_back((carried.empty() ? 0 : carried.back()) ^
                              plan_.outcome(size_t(1) << stage.positions[bit]));
        size_t outcome = plan_.outcome(base);
        for (size_t row = 0; row < size_t(1) << (width - p); ++row) {
            if (row) outcome ^= carried[size_t(__builtin_ctzll(row))];
            visit(row << p, outcome);
        }
    }

    // Adds psi^2, sample by sample, to the sums of its outcome.
    void count_outcomes(const Stage& stage, size_t base, const T* x, double* sums) const {
        const size_t samples = angles_.samples();
        outcomes(stage, base, [&](size_t place, size_t outcome) {
            for (size_t s = 0; s < samples; ++s) sums[outcome * samples + s] += double(x[place + s]) * x[place + s];
        });
    }

    // The adjoint behind the last gate: 2 grads[outcome] psi.
    void observe_outcomes(const Stage& stage, int64_t unit, size_t base, const T* x, T* y, const T* grads) const {
        const size_t samples = angles_.samples(), n_columns = plan_.n_columns();
        outcomes(stage, base, [&](size_t place, size_t outcome) {
            for (size_t s = 0; s < samples; ++s) {
                const int64_t b = angles_.sample(unit, s);
                y[place + s] = b < 0 ? T(0) : 2 * grads[size_t(b) * n_columns + outcome] * x[place + s];
            }
        });
    }

    Chunk<T> chunk(const Stage& stage, Sweep<T>& sweep, T* x, T* y, double* slopes) {
        const size_t first = size_t(stage.first_op);
        const Turns<T> turns{sweep.table.data + first * 2 * sweep.L, sweep.plain.data() + first};
        return {x, y, int(stage.positions.size()), plan_.ops.data() + first, stage.n_ops, turns, slopes, product_};
    }

    Readout readout(const Stage& stage, size_t base, std::vector<int8_t>& outer) const {
        for (size_t k = 0; k < outer.size(); ++k) {
            const bool inside = std::binary_search(stage.positions.begin(), stage.positions.end(), plan_.measured[k]);
            outer[k] = inside ? 0 : base >> plan_.measured[k] & 1 ? -1 : 1;
        }
        return {stage.columns.data(), outer.data(), int(outer.size()), plan_.sample_bits};
    }

    void start(const Stage& stage, const Sweep<T>& sweep, size_t base, T* x) {
        Buffer<T> outer(sweep.L);
        std::fill_n(outer.data, sweep.L, T(1));
        for (const int32_t position : stage.others)
            for (size_t lane = 0; lane < sweep.L; ++lane)
                outer.data[lane] *= sweep.halves.data[(size_t(position) * 2 + (base >> position & 1)) * sweep.L + lane];
        engine_.start(x, int(stage.positions.size()), plan_.sample_bits, stage.positions.data(), sweep.halves.data,
                      outer.data);
    }

    void gather(const Stage& stage, const T* unit, T* chunk) const {
        const size_t length = size_t(1) << stage.run_bits;
        for (size_t r = 0; r < stage.runs.size(); ++r)
            std::memcpy(chunk + r * length, unit + stage.runs[r], length * sizeof(T));
    }

    void scatter(const Stage& stage, const T* chunk, T* unit) const {
        const size_t length = size_t(1) << stage.run_bits;
        for (size_t r = 0; r < stage.runs.size(); ++r)
            std::memcpy(unit + stage.runs[r], chunk + r * length, length * sizeof(T));
    }

    // visit(place in the chunk, place in an array of shape (batch, 2^n_qubits)) for every amplitude of every sample.
    template <class F>
    void transposed(const Stage& stage, int64_t unit, size_t base, F visit) const {
        const int p = plan_.sample_bits;
        const size_t length = size_t(1) << stage.run_bits;
        for (size_t r = 0; r < stage.runs.size(); ++r)
            for (size_t i = 0; i < length; i += size_t(1) << p)
                for (size_t lane = 0; lane < size_t(1) << p; ++lane)
                    if (const int64_t b = angles_.sample(unit, lane); b >= 0)
                        visit(r * length + i + lane,
                              (size_t(b) << (plan_.bits - p)) + ((base + stage.runs[r] + i) >> p));
    }

    void load_initial(const Stage& stage, int64_t unit, size_t base, T* chunk) const {
        std::fill_n(chunk, size_t(1) << stage.positions.size(), T(0));
        transposed(stage, unit, base, [&](size_t to, size_t from) { chunk[to] = initial_[from]; });
    }

    void store_initial(const Stage& stage, int64_t unit, size_t base, const T* chunk, T scale, T* grad) const {
        transposed(stage, unit, base, [&](size_t from, size_t to) { grad[to] = scale * chunk[from]; });
    }

    static constexpr double least_shared_work = 2e5;  // amplitudes times operations: waking threads costs as much

    const Plan& plan_;
    const Engine<T>& engine_ = plan_.template engine<T>();
    const Angles<T> angles_;
    const T* initial_;
    const bool product_;
    const int64_t units_, bundles_, per_bundle_;
    int threads_;
    bool split_;
};

}  // namespace ketfit
