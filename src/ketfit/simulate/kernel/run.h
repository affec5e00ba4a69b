// One call: units and chunks over threads, in and out of the cache, sums in a fixed order.

#pragma once

#include <cstring>
#include <memory>
#include <numeric>
#include <vector>

#include "call.h"
#include "passes.h"
#include "plan.h"
#include "threads.h"

namespace ketfit {

template <class T>
class Run {
 public:
    Run(const Plan& plan, Call<T> call, int threads)
        : plan_(plan),
          call_(std::move(call)),
          units_(plan.units(call_.batch)),
          bundles_(std::min<int64_t>(units_, 64)),
          per_bundle_(bundles_ ? (units_ + bundles_ - 1) / bundles_ : 0) {
        const double work = double(units_) * double(plan.size()) * double(plan.ops.size() + 1);
        threads_ = work < 2e5 ? 1 : threads;
        split_ = !plan.whole() && (plan.bits >= 17 || units_ < threads_);
    }

    void forward(T* out, T* saved) {
        over_units(saved || plan_.whole() ? 0 : plan_.size(), 0, [&](int64_t unit, Room& room, int slot) {
            T* state = saved ? saved + size_t(unit) * plan_.size() : plan_.whole() ? nullptr : room.state.data;
            forward_unit(unit, room, slot, state, saved != nullptr, out);
        });
    }

    void backward(T* state, const T* grads, T* grad_weights, T* grad_inputs, T* grad_initial) {
        std::fill_n(grad_inputs, grad_inputs ? call_.batch * plan_.n_inputs : 0, T(0));
        std::vector<double> bundles(size_t(bundles_ * plan_.n_weights));
        over_units(0, plan_.whole() ? 0 : plan_.size(), [&](int64_t unit, Room& room, int slot) {
            backward_unit(unit, room, slot, state + size_t(unit) * plan_.size(), grads,
                          bundles.data() + (unit / per_bundle_) * plan_.n_weights, grad_inputs, grad_initial);
        });
        for (int64_t w = 0; grad_weights && w < plan_.n_weights; ++w) {
            double sum = 0;
            for (int64_t b = 0; b < bundles_; ++b) sum += bundles[size_t(b * plan_.n_weights + w)];
            grad_weights[w] = T(sum);
        }
    }

 private:
    struct Room {  // for the work on one unit
        Call<T> call;
        Buffer<T> state, adjoint;
        std::vector<double> sums;
    };
    struct Desk {  // for the work on one chunk
        Buffer<T> state, adjoint;
    };

    // Threads take units, or, if a unit is large, share each one.
    template <class F>
    void over_units(size_t state, size_t adjoint, F work) {
        const size_t chunk = size_t(1) << plan_.stages[0].positions.size();
        const int teams = split_ ? 1 : int(std::clamp<int64_t>(bundles_, 1, threads_));
        for (int slot = 0; slot < (split_ ? threads_ : teams); ++slot)
            desks_.push_back(std::make_unique<Desk>(Desk{Buffer<T>(chunk), Buffer<T>(chunk)}));
        std::vector<std::unique_ptr<Room>> rooms;
        for (int slot = 0; slot < teams; ++slot)
            rooms.push_back(std::make_unique<Room>(Room{call_, Buffer<T>(state), Buffer<T>(adjoint), {}}));
        const auto bundle = [&](int64_t b, int slot) {
            for (int64_t unit = b * per_bundle_; unit < std::min((b + 1) * per_bundle_, units_); ++unit)
                work(unit, *rooms[size_t(slot)], slot);
        };
        Team::get().run(bundles_, teams, bundle);
    }

    // Every chunk of a stage, on this thread or on all; the partial sums of its groups are added up in order.
    template <class F>
    void over_chunks(const Stage& stage, Room& room, int slot, size_t n_sums, F work) {
        const size_t groups = stage.groups(), per_group = stage.chunks() / groups;
        room.sums.assign(groups * n_sums, 0);
        const auto group = [&](int64_t g, int on) {
            for (size_t c = size_t(g) * per_group; c < size_t(g + 1) * per_group; ++c)
                work(c, *desks_[size_t(on)], room.sums.data() + size_t(g) * n_sums);
        };
        if (split_)
            Team::get().run(int64_t(groups), threads_, group);
        else
            for (size_t g = 0; g < groups; ++g) group(int64_t(g), slot);
        for (size_t g = 1; g < groups; ++g)
            for (size_t i = 0; i < n_sums; ++i) room.sums[i] += room.sums[g * n_sums + i];
    }

    void forward_unit(int64_t unit, Room& room, int slot, T* state, bool keep, T* out) {
        room.call.prepare(unit);
        const size_t n_columns = plan_.measured.size(), n_sums = n_columns * room.call.L;
        for (const Stage& stage : plan_.stages) {
            const bool first = &stage == &plan_.stages.front(), last = &stage == &plan_.stages.back();
            over_chunks(stage, room, slot, last ? n_sums : 0, [&](size_t c, Desk& desk, double* sums) {
                const size_t base = deposit(c, stage.others.data(), stage.others.size());
                const bool whole = stage.others.empty() && state;
                T* x = whole ? state : desk.state.data;
                if (!first)
                    gather(stage, state + base, x);
                else if (call_.product)
                    start(stage, room.call, base, x);
                else
                    load_initial(stage, unit, base, x);
                call_.engine.forward(chunk(stage, room.call, x, nullptr, nullptr));
                if (last) {
                    std::vector<int8_t> outer(n_columns);
                    call_.engine.measure(x, desk.adjoint.data, int(stage.positions.size()), readout(stage, base, outer),
                                         sums);
                }
                if (!whole && (keep || !last)) scatter(stage, x, state + base);
            });
        }
        const double square = room.call.scale * room.call.scale;
        for (size_t k = 0; k < n_columns; ++k)
            spread(unit, room, k,
                   [&](int64_t b, double sum) { out[b * int64_t(n_columns) + int64_t(k)] = T(square * sum); });
    }

    void backward_unit(int64_t unit, Room& room, int slot, T* state, const T* grads, double* grad_weights,
                       T* grad_inputs, T* grad_initial) {
        room.call.prepare(unit);
        const size_t L = room.call.L, n_columns = plan_.measured.size();
        Buffer<T> lane_grads(n_columns * L);
        for (size_t k = 0; k < n_columns; ++k)
            for (size_t lane = 0; lane < L; ++lane) {
                const int64_t b = room.call.sample(unit, lane);
                lane_grads.data[k * L + lane] = b < 0 ? T(0) : grads[b * int64_t(n_columns) + int64_t(k)];
            }
        for (size_t s = plan_.stages.size(); s-- > 0;) {
            const Stage& stage = plan_.stages[s];
            const bool last = s + 1 == plan_.stages.size();
            over_chunks(stage, room, slot, size_t(stage.n_ops) * L, [&](size_t c, Desk& desk, double* slopes) {
                const size_t base = deposit(c, stage.others.data(), stage.others.size());
                const bool whole = stage.others.empty();
                T *x = whole ? state : desk.state.data, *y = desk.adjoint.data;
                if (!whole) gather(stage, state + base, x);
                if (last) {
                    std::vector<int8_t> outer(n_columns);
                    call_.engine.observe(x, y, int(stage.positions.size()), readout(stage, base, outer),
                                         lane_grads.data);
                } else {
                    gather(stage, room.adjoint.data + base, y);
                }
                call_.engine.backward(chunk(stage, room.call, x, y, slopes));
                if (s > 0) {
                    if (!whole) scatter(stage, x, state + base);
                    scatter(stage, y, room.adjoint.data + base);
                } else if (grad_initial) {
                    store_initial(stage, unit, base, y, T(room.call.scale), grad_initial);
                }
            });
            for (int i = 0; i < stage.n_ops; ++i) {
                const size_t op = size_t(stage.first_op + i);
                const double* slopes = room.sums.data() + size_t(i) * L;
                const double sum = room.call.scales[op] * std::accumulate(slopes, slopes + L, 0.0);
                for (int32_t t = plan_.term_offsets[op]; t < plan_.term_offsets[op + 1]; ++t) {
                    const int32_t term = plan_.terms[size_t(t)];
                    if (term >= 0)
                        grad_weights[term] += sum;
                    else if (grad_inputs)
                        spread(unit, room, size_t(i), [&](int64_t b, double part) {
                            grad_inputs[b * plan_.n_inputs + ~term] += T(room.call.scales[op] * part);
                        });
                }
            }
        }
    }

    // Sum `i` of the unit, sample by sample.
    template <class F>
    void spread(int64_t unit, const Room& room, size_t i, F give) {
        const double* sums = room.sums.data() + i * room.call.L;
        for (size_t first = 0; first < room.call.samples(); ++first) {
            double sum = 0;
            for (size_t lane = first; lane < room.call.L; lane += room.call.samples()) sum += sums[lane];
            if (const int64_t b = room.call.sample(unit, first); b >= 0) give(b, sum);
        }
    }

    Chunk<T> chunk(const Stage& stage, Call<T>& call, T* x, T* y, double* slopes) {
        const size_t first = size_t(stage.first_op);
        const Turns<T> turns{call.table.data + first * 2 * call.L, call.plain.data() + first, call.idle.data() + first};
        return {x, y, int(stage.positions.size()), plan_.ops.data() + first, stage.n_ops, turns, slopes, call.product};
    }

    Readout readout(const Stage& stage, size_t base, std::vector<int8_t>& outer) const {
        for (size_t k = 0; k < outer.size(); ++k) {
            const bool inside = std::binary_search(stage.positions.begin(), stage.positions.end(), plan_.measured[k]);
            outer[k] = inside ? 0 : base >> plan_.measured[k] & 1 ? -1 : 1;
        }
        return {stage.columns.data(), outer.data(), int(outer.size()), plan_.sample_bits};
    }

    void start(const Stage& stage, const Call<T>& call, size_t base, T* x) {
        Buffer<T> outer(call.L);
        std::fill_n(outer.data, call.L, T(1));
        for (const int32_t position : stage.others)
            for (size_t lane = 0; lane < call.L; ++lane)
                outer.data[lane] *= call.halves.data[(size_t(position) * 2 + (base >> position & 1)) * call.L + lane];
        call_.engine.start(x, int(stage.positions.size()), plan_.sample_bits, stage.positions.data(), call.halves.data,
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
                    if (const int64_t b = call_.sample(unit, lane); b >= 0)
                        visit(r * length + i + lane,
                              (size_t(b) << (plan_.bits - p)) + ((base + stage.runs[r] + i) >> p));
    }

    void load_initial(const Stage& stage, int64_t unit, size_t base, T* chunk) const {
        std::fill_n(chunk, size_t(1) << stage.positions.size(), T(0));
        transposed(stage, unit, base, [&](size_t to, size_t from) { chunk[to] = call_.initial[from]; });
    }

    void store_initial(const Stage& stage, int64_t unit, size_t base, const T* chunk, T scale, T* grad) const {
        transposed(stage, unit, base, [&](size_t from, size_t to) { grad[to] = scale * chunk[from]; });
    }

    const Plan& plan_;
    const Call<T> call_;
    const int64_t units_, bundles_, per_bundle_;
    int threads_;
    bool split_;
    std::vector<std::unique_ptr<Desk>> desks_;
};

}  // namespace ketfit
