// One call on statevectors: distributes units and chunks over threads, and adds up sums in an order that does not
// depend on the number of threads.

#pragma once

#include <algorithm>
#include <cstring>
#include <optional>
#include <utility>
#include <vector>

#include "angles.h"
#include "arrays.h"
#include "bits.h"
#include "buffer_pool.h"
#include "gate_kernels.h"
#include "plan.h"
#include "thread_pool.h"

namespace ketfit {

template <class T>
class Executor {
 public:
    Executor(const Plan& plan, const CircuitBatch<T>& batch, int n_threads)
        : plan_(plan),
          batch_(batch),
          angles_(plan, batch),
          product_state_(!batch.initial),
          n_units_(plan.n_units(batch.size)),
          n_blocks_(std::min<int64_t>(n_units_, 64)),
          units_per_block_(n_blocks_ ? (n_units_ + n_blocks_ - 1) / n_blocks_ : 0) {
        const double work = double(n_units_) * double(plan.unit_size()) * double(plan.operations.size() + 1);
        n_threads_ = work < min_shared_work ? 1 : n_threads;
        shares_unit_ = !plan.single_chunk() && (plan.bits >= 17 || n_units_ < n_threads_);
    }

    // Writes the result, [sample][column], and, unless `saved` is null, the states, [unit][amplitude]. Returns the
    // scale of the states.
    double forward(T* result, T* saved) {
        const AngleTable<T> forward_angles(angles_, 1, false, product_state_);
        run({&forward_angles, nullptr, saved, result, nullptr, {}});
        return forward_angles.scale;
    }

    // From the states that `forward` saved, which are overwritten, and their scale.
    void backward(T* states, double scale, const T* result_grads, const Gradients<T>& gradients) {
        const AngleTable<T> backward_angles(angles_, scale, true, product_state_);
        run({nullptr, &backward_angles, states, nullptr, result_grads, gradients});
    }

    // Both, unit by unit, while the state of the unit is still in the cache.
    void forward_and_backward(T* result, const T* result_grads, const Gradients<T>& gradients) {
        const AngleTable<T> forward_angles(angles_, 1, false, product_state_);
        const AngleTable<T> backward_angles(angles_, forward_angles.scale, true, product_state_);
        run({&forward_angles, &backward_angles, nullptr, result, result_grads, gradients});
    }

 private:
    // Memory for the work on one chunk.
    struct ChunkScratch {
        Buffer<T> state, adjoint;
    };
    // Memory of one thread for the work on one unit.
    struct UnitWorkspace {
        HalfAngles<T> angles;
        std::optional<AngleTable<T>> forward_angles, backward_angles;
        Buffer<T> state, adjoint;
        ChunkScratch scratch;
        std::vector<double> sums;
    };

    // What to do with each unit; null where it is not done.
    struct Passes {
        const AngleTable<T>*forward_angles, *backward_angles;
        T* states;  // [unit][amplitude], or null: in the workspace of the thread
        T* result;
        const T* result_grads;
        Gradients<T> gradients;
    };

    // Threads take blocks of units, or, if units are large, share each one. A thread takes the units of a block in
    // turn, and the blocks' sums of the weights' gradient are added up in order, so the order of additions is fixed.
    void run(const Passes& passes) {
        const bool is_forward = passes.forward_angles, is_backward = passes.backward_angles;
        const bool in_workspace = !passes.states && (is_backward || !plan_.single_chunk());
        const size_t state_size = in_workspace ? plan_.unit_size() : 0;
        const size_t adjoint_size = is_backward && !plan_.single_chunk() ? plan_.unit_size() : 0;
        const Gradients<T>& gradients = passes.gradients;
        std::fill_n(gradients.inputs, gradients.inputs ? batch_.size * plan_.n_inputs : 0, T(0));
        std::vector<double> block_sums(is_backward ? size_t(n_blocks_ * plan_.n_weights) : 0);  // [block][weight]
        const int n_threads = shares_unit_ ? 1 : int(std::clamp<int64_t>(n_blocks_, 1, n_threads_));
        ThreadPool::get().run(n_blocks_, n_threads, [&](TaskQueue& queue) {
            int64_t block;
            if (!queue.next(block)) return;
            // Made by the thread that uses it, because what another core has just written is slow to read.
            UnitWorkspace workspace{angles_,
                                    table_of(passes.forward_angles, queue.thread),
                                    table_of(passes.backward_angles, queue.thread),
                                    Buffer<T>(state_size),
                                    Buffer<T>(adjoint_size),
                                    make_scratch(),
                                    {}};
            do {
                const int64_t end = std::min((block + 1) * units_per_block_, n_units_);
                for (int64_t unit = block * units_per_block_; unit < end; ++unit) {
                    T* state = passes.states  ? passes.states + size_t(unit) * plan_.unit_size()
                               : in_workspace ? workspace.state.data
                                              : nullptr;
                    workspace.angles.set_unit(unit);
                    if (is_forward) forward_unit(unit, workspace, state, passes.states || is_backward, passes.result);
                    if (is_backward)
                        backward_unit(unit, workspace, state, passes.result_grads,
                                      block_sums.data() + block * plan_.n_weights, gradients);
                }
            } while (queue.next(block));
        });
        for (int64_t w = 0; gradients.weights && w < plan_.n_weights; ++w) {
            double sum = 0;
            for (int64_t b = 0; b < n_blocks_; ++b) sum += block_sums[size_t(b * plan_.n_weights + w)];
            gradients.weights[w] = T(sum);
        }
    }

    std::optional<AngleTable<T>> table_of(const AngleTable<T>* table, int thread) const {
        if (!table) return std::nullopt;
        return thread ? AngleTable<T>(angles_, table->initial_scale, table->backward, product_state_) : *table;
    }

    ChunkScratch make_scratch() const {
        const size_t chunk_size = size_t(1) << plan_.stages[0].positions.size();
        return {Buffer<T>(chunk_size), Buffer<T>(chunk_size)};
    }

    // Calls work(chunk, scratch, sums) for every chunk of a stage, on this thread or on all. The sums of its groups of
    // chunks are added up in order, to workspace.sums.
    template <class F>
    void for_each_chunk(const Stage& stage, UnitWorkspace& workspace, size_t n_sums, F work) {
        const size_t n_groups = stage.n_groups(), per_group = stage.n_chunks() / n_groups;
        workspace.sums.assign(n_groups * n_sums, 0);
        const auto do_group = [&](size_t group, ChunkScratch& scratch) {
            for (size_t chunk = group * per_group; chunk < (group + 1) * per_group; ++chunk)
                work(chunk, scratch, workspace.sums.data() + group * n_sums);
        };
        if (shares_unit_)
            ThreadPool::get().run(int64_t(n_groups), n_threads_, [&](TaskQueue& queue) {
                ChunkScratch scratch = make_scratch();
                for (int64_t group; queue.next(group);) do_group(size_t(group), scratch);
            });
        else
            for (size_t group = 0; group < n_groups; ++group) do_group(group, workspace.scratch);
        for (size_t group = 1; group < n_groups; ++group)
            for (size_t i = 0; i < n_sums; ++i) workspace.sums[i] += workspace.sums[group * n_sums + i];
    }

    // `state` may be null if the unit is one chunk; it is written if `keep`, and otherwise only as far as needed.
    void forward_unit(int64_t unit, UnitWorkspace& workspace, T* state, bool keep, T* result) {
        AngleTable<T>& table = *workspace.forward_angles;
        table.set_unit(workspace.angles);
        const size_t n_columns = plan_.n_columns();
        const size_t width = plan_.joint ? angles_.samples() : angles_.lanes;  // sums for a column
        for (const Stage& stage : plan_.stages) {
            const bool first = &stage == &plan_.stages.front(), last = &stage == &plan_.stages.back();
            const auto work = [&](size_t chunk, ChunkScratch& scratch, double* sums) {
                const size_t base = deposit_bits(chunk, stage.outer_positions.data(), stage.outer_positions.size());
                const bool in_place = stage.outer_positions.empty() && state;
                T* psi = in_place ? state : scratch.state.data;
                if (!first)
                    gather(stage, state + base, psi);
                else if (product_state_)
                    prepare_product_state(stage, table, base, psi);
                else
                    load_initial(stage, unit, base, psi);
                kernels_.forward(make_chunk(stage, table, psi, nullptr, nullptr));
                if (last && plan_.joint) {
                    add_outcome_probabilities(stage, base, psi, sums);
                } else if (last) {
                    std::vector<int8_t> outer_signs(n_columns);
                    kernels_.add_expectations(psi, scratch.adjoint.data, int(stage.positions.size()),
                                              make_readout(stage, base, outer_signs), sums);
                }
                if (!in_place && (keep || !last)) scatter(stage, psi, state + base);
            };
            for_each_chunk(stage, workspace, last ? n_columns * width : 0, work);
        }
        const double square = table.scale * table.scale;
        for (size_t k = 0; k < n_columns; ++k)
            sum_by_sample(unit, workspace.sums.data() + k * width, width, [&](int64_t b, size_t, double sum) {
                result[b * int64_t(n_columns) + int64_t(k)] = T(square * sum);
            });
    }

    void backward_unit(int64_t unit, UnitWorkspace& workspace, T* state, const T* result_grads, double* weight_sums,
                       const Gradients<T>& gradients) {
        AngleTable<T>& table = *workspace.backward_angles;
        table.set_unit(workspace.angles);
        const size_t lanes = angles_.lanes, n_columns = plan_.n_columns();
        Buffer<T> lane_grads(plan_.joint ? 0 : n_columns * lanes);  // [column][lane]
        for (size_t k = 0; !plan_.joint && k < n_columns; ++k)
            for (size_t lane = 0; lane < lanes; ++lane) {
                const int64_t b = angles_.sample(unit, lane);
                lane_grads.data[k * lanes + lane] = b < 0 ? T(0) : result_grads[b * int64_t(n_columns) + int64_t(k)];
            }
        for (size_t s = plan_.stages.size(); s-- > 0;) {
            const Stage& stage = plan_.stages[s];
            const bool last = s + 1 == plan_.stages.size();
            const auto work = [&](size_t chunk, ChunkScratch& scratch, double* derivatives) {
                const size_t base = deposit_bits(chunk, stage.outer_positions.data(), stage.outer_positions.size());
                const bool in_place = stage.outer_positions.empty();
                T *psi = in_place ? state : scratch.state.data, *lambda = scratch.adjoint.data;
                if (!in_place) gather(stage, state + base, psi);
                if (last && plan_.joint) {
                    apply_outcome_gradients(stage, unit, base, psi, lambda, result_grads);
                } else if (last) {
                    std::vector<int8_t> outer_signs(n_columns);
                    kernels_.apply_observable(psi, lambda, int(stage.positions.size()),
                                              make_readout(stage, base, outer_signs), lane_grads.data);
                } else {
                    gather(stage, workspace.adjoint.data + base, lambda);
                }
                kernels_.backward(make_chunk(stage, table, psi, lambda, derivatives));
                if (s > 0) {
                    if (!in_place) scatter(stage, psi, state + base);
                    scatter(stage, lambda, workspace.adjoint.data + base);
                } else if (gradients.initial) {
                    store_initial(stage, unit, base, lambda, T(table.scale), gradients.initial);
                }
            };
            for_each_chunk(stage, workspace, size_t(stage.n_operations) * lanes, work);
            for (int i = 0; i < stage.n_operations; ++i)
                add_gradient(unit, workspace, size_t(stage.first_operation + i),
                             workspace.sums.data() + size_t(i) * lanes, weight_sums, gradients.inputs);
        }
    }

    // Adds an operation's derivative, which is given lane by lane, to the gradient of each angle of its sum.
    void add_gradient(int64_t unit, const UnitWorkspace& workspace, size_t operation, const double* derivatives,
                      double* weight_sums, T* grad_inputs) const {
        const HalfAngles<T>& angles = workspace.angles;
        const double scale = workspace.backward_angles->derivative_scales[operation];
        for (int32_t t = plan_.term_offsets[operation]; t < plan_.term_offsets[operation + 1]; ++t) {
            const AngleTerm term = plan_.terms[size_t(t)];
            if (term.angle >= 0) {
                double sum = 0;
                for (size_t lane = 0; lane < angles.lanes; ++lane)
                    sum += derivatives[lane] * double(angles.sign(term.rotation, lane));
                weight_sums[term.angle] += scale * sum;
            } else if (grad_inputs) {
                sum_by_sample(unit, derivatives, angles.lanes, [&](int64_t b, size_t first, double sum) {
                    const double derivative = scale * double(angles.sign(term.rotation, first)) * sum;
                    grad_inputs[b * plan_.n_inputs + ~term.angle] += T(derivative);
                });
            }
        }
    }

    // Sums numbers of `width` lanes for each sample: calls visit(sample of the batch, its first lane, sum).
    template <class F>
    void sum_by_sample(int64_t unit, const double* numbers, size_t width, F visit) const {
        for (size_t first = 0; first < angles_.samples(); ++first) {
            double sum = 0;
            for (size_t lane = first; lane < width; lane += angles_.samples()) sum += numbers[lane];
            if (const int64_t b = angles_.sample(unit, first); b >= 0) visit(b, first, sum);
        }
    }

    // Calls visit(index in the chunk, outcome) for every run of amplitudes, one of each sample, in ascending order.
    template <class F>
    void for_each_outcome(const Stage& stage, size_t base, F visit) const {
        const size_t p = size_t(plan_.sample_bits), width = stage.positions.size();
        // When the number of the run goes up by one, its bits up to the lowest one that is set now have changed.
        std::vector<size_t> changes;  // [that bit]: of the outcome, as a mask
        for (size_t bit = p; bit < width; ++bit)
            changes.push_back((changes.empty() ? 0 : changes.back()) ^
                              plan_.outcome(size_t(1) << stage.positions[bit]));
        size_t outcome = plan_.outcome(base);
        for (size_t run = 0; run < size_t(1) << (width - p); ++run) {
            if (run) outcome ^= changes[size_t(__builtin_ctzll(run))];
            visit(run << p, outcome);
        }
    }

    // Adds psi^2 to sums[outcome][sample].
    void add_outcome_probabilities(const Stage& stage, size_t base, const T* psi, double* sums) const {
        const size_t samples = angles_.samples();
        for_each_outcome(stage, base, [&](size_t index, size_t outcome) {
            for (size_t s = 0; s < samples; ++s) sums[outcome * samples + s] += double(psi[index + s]) * psi[index + s];
        });
    }

    // lambda = 2 result_grads[sample][outcome] psi, the derivative by psi.
    void apply_outcome_gradients(const Stage& stage, int64_t unit, size_t base, const T* psi, T* lambda,
                                 const T* result_grads) const {
        const size_t samples = angles_.samples(), n_columns = plan_.n_columns();
        for_each_outcome(stage, base, [&](size_t index, size_t outcome) {
            for (size_t s = 0; s < samples; ++s) {
                const int64_t b = angles_.sample(unit, s);
                lambda[index + s] = b < 0 ? T(0) : 2 * result_grads[size_t(b) * n_columns + outcome] * psi[index + s];
            }
        });
    }

    Chunk<T> make_chunk(const Stage& stage, const AngleTable<T>& table, T* psi, T* lambda, double* derivatives) const {
        const size_t first = size_t(stage.first_operation);
        return {psi,
                lambda,
                int(stage.positions.size()),
                plan_.operations.data() + first,
                stage.n_operations,
                table.rotations.data + first * 2 * table.lanes,
                table.tangent_form.data() + first,
                derivatives,
                product_state_};
    }

    // `outer_signs`, one for each column, is filled in.
    Readout make_readout(const Stage& stage, size_t base, std::vector<int8_t>& outer_signs) const {
        for (size_t k = 0; k < outer_signs.size(); ++k) {
            const bool inside = std::binary_search(stage.positions.begin(), stage.positions.end(), plan_.measured[k]);
            outer_signs[k] = inside ? 0 : base >> plan_.measured[k] & 1 ? -1 : 1;
        }
        return {stage.columns.data(), outer_signs.data(), int(outer_signs.size()), plan_.sample_bits};
    }

    void prepare_product_state(const Stage& stage, const AngleTable<T>& table, size_t base, T* psi) const {
        Buffer<T> outer(table.lanes);  // the factor of the bits outside the chunk
        std::fill_n(outer.data, table.lanes, T(1));
        for (const int32_t position : stage.outer_positions)
            for (size_t lane = 0; lane < table.lanes; ++lane)
                outer.data[lane] *=
                    table.product_factors.data[(size_t(position) * 2 + (base >> position & 1)) * table.lanes + lane];
        kernels_.prepare_product_state(psi, int(stage.positions.size()), plan_.sample_bits, stage.positions.data(),
                                       table.product_factors.data, outer.data);
    }

    void gather(const Stage& stage, const T* unit, T* chunk) const {
        const size_t length = size_t(1) << stage.run_bits;
        for (size_t r = 0; r < stage.run_offsets.size(); ++r)
            std::memcpy(chunk + r * length, unit + stage.run_offsets[r], length * sizeof(T));
    }

    void scatter(const Stage& stage, const T* chunk, T* unit) const {
        const size_t length = size_t(1) << stage.run_bits;
        for (size_t r = 0; r < stage.run_offsets.size(); ++r)
            std::memcpy(unit + stage.run_offsets[r], chunk + r * length, length * sizeof(T));
    }

    // Calls visit(index in the chunk, index in an array [sample of the batch][amplitude]) for each sample's amplitudes.
    template <class F>
    void for_each_amplitude(const Stage& stage, int64_t unit, size_t base, F visit) const {
        const int p = plan_.sample_bits;
        const size_t length = size_t(1) << stage.run_bits;
        for (size_t r = 0; r < stage.run_offsets.size(); ++r)
            for (size_t i = 0; i < length; i += size_t(1) << p)
                for (size_t lane = 0; lane < size_t(1) << p; ++lane)
                    if (const int64_t b = angles_.sample(unit, lane); b >= 0)
                        visit(r * length + i + lane,
                              (size_t(b) << (plan_.bits - p)) + ((base + stage.run_offsets[r] + i) >> p));
    }

    void load_initial(const Stage& stage, int64_t unit, size_t base, T* psi) const {
        std::fill_n(psi, size_t(1) << stage.positions.size(), T(0));
        for_each_amplitude(stage, unit, base, [&](size_t to, size_t from) { psi[to] = batch_.initial[from]; });
    }

    void store_initial(const Stage& stage, int64_t unit, size_t base, const T* lambda, T scale, T* gradient) const {
        for_each_amplitude(stage, unit, base, [&](size_t from, size_t to) { gradient[to] = scale * lambda[from]; });
    }

    static constexpr double min_shared_work = 2e5;  // amplitudes times operations: waking threads costs as much time

    const Plan& plan_;
    const GateKernels<T>& kernels_ = plan_.kernels->template get<T>();
    const CircuitBatch<T> batch_;
    const HalfAngles<T> angles_;  // threads copy it and set their copies to units
    const bool product_state_;
    const int64_t n_units_, n_blocks_, units_per_block_;
    int n_threads_;
    bool shares_unit_;  // threads share each unit instead of the units
};

}  // namespace ketfit
