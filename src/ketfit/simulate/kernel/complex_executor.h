// One call on complex statevectors: distributes units and chunks over threads, and adds up sums in an order that does
// not depend on the number of threads.

#pragma once

#include <algorithm>
#include <cstring>
#include <numeric>
#include <utility>
#include <vector>

#include "arrays.h"
#include "bits.h"
#include "buffer_pool.h"
#include "clifford_frame.h"
#include "complex_kernels.h"
#include "complex_plan.h"
#include "complex_tables.h"
#include "thread_pool.h"

namespace ketfit {

template <class T>
class ComplexExecutor {
 public:
    ComplexExecutor(const ComplexPlan& plan, const CircuitBatch<T>& batch, int n_threads)
        : plan_(plan),
          batch_(batch),
          lanes_(size_t(plan.kernels->get<T>().lanes)),
          lane_bits_(__builtin_ctzll(lanes_)),
          product_state_(!batch.initial),
          n_units_(plan.n_units(batch.size)),
          n_blocks_(std::min<int64_t>(n_units_, 64)),
          units_per_block_(n_blocks_ ? (n_units_ + n_blocks_ - 1) / n_blocks_ : 0) {
        const double work = double(n_units_) * double(plan.unit_size()) * double(plan.groups.size() + 1);
        n_threads_ = work < min_shared_work ? 1 : n_threads;
        shares_unit_ = !plan.single_chunk() && (plan.bits >= 17 || n_units_ < n_threads_);
        make_shared_tables();
    }

    // Writes the words' values, [sample][word], and, unless `saved` is null, the states, [unit][row].
    void forward(T* result, T* saved) {
        Passes passes{true, false};
        passes.states = saved, passes.result = result;
        run(passes);
    }

    // From the states that `forward` saved, which are overwritten, and the derivative of the loss by the words' values,
    // [sample][word].
    void backward(T* states, const T* word_grads, const Gradients<T>& gradients) {
        Passes passes{false, true};
        passes.states = states, passes.word_grads = word_grads, passes.gradients = gradients;
        run(passes);
    }

    // Both, unit by unit, while the state of the unit is still in the cache.
    void forward_and_backward(T* result, const T* word_grads, const Gradients<T>& gradients) {
        Passes passes{true, true};
        passes.result = result, passes.word_grads = word_grads, passes.gradients = gradients;
        run(passes);
    }

    // Writes the initial states, [unit][row]; a product state is multiplied by factors[sample], complex numbers, unless
    // they are null.
    void prepare(T* states, const T* factors) {
        Passes passes{false, false};
        passes.states = states, passes.factors = factors, passes.prepares = true;
        run(passes);
    }

    // Takes states, [unit][row], over all stages in place, and writes the words' values unless `result` is null.
    void advance(T* states, T* result) {
        Passes passes{true, false};
        passes.states = states, passes.result = result, passes.is_in_place = true;
        run(passes);
    }

    // Takes states and their adjoints, [unit][row], back over all stages in place. The adjoints are first written from
    // the derivative of the loss by the words' values, unless that is null.
    void retreat(T* states, T* adjoints, const T* word_grads, const Gradients<T>& gradients) {
        Passes passes{false, true};
        passes.states = states, passes.adjoints = adjoints, passes.word_grads = word_grads;
        passes.gradients = gradients;
        run(passes);
    }

    // Writes the circuit's final states, complex numbers [sample][amplitude].
    void simulate(T* amplitudes) {
        Passes passes{true, false};
        passes.amplitudes = amplitudes;
        run(passes);
    }

    // From the states that `simulate` wrote, and the derivative of the loss by them.
    void backward_from_states(const T* amplitudes, const T* amplitude_grads, const Gradients<T>& gradients) {
        Passes passes{false, true};
        passes.final_amplitudes = amplitudes, passes.amplitude_grads = amplitude_grads, passes.gradients = gradients;
        run(passes);
    }

 private:
    // Memory for the work on one chunk.
    struct ChunkScratch {
        Buffer<T> state, adjoint;
    };
    // Tables of the groups that differ from sample to sample, for those of a unit.
    struct UnitTables {
        std::vector<double> cosines_sines;  // [rotation][c, s][sample]
        std::vector<T> forward, inverse;    // as the kernels take them
    };
    // Memory of one thread for the work on one unit.
    struct UnitWorkspace {
        UnitTables tables;
        Buffer<T> state, adjoint;
        ChunkScratch scratch;
        std::vector<double> sums, derivatives;
    };
    // Sums of a block of units.
    struct BlockSums {
        std::vector<double> weights, overlaps;  // [weight]; tables of the other groups, with one lane
    };
    // Of the frame's phases: the numbers phase * i^power.
    struct FrameFactors {
        T re[4], im[4];
        explicit FrameFactors(const CliffordFrame& frame) {
            for (int power = 0; power < 4; ++power)
                re[power] = T(frame.factor(power).real()), im[power] = T(frame.factor(power).imag());
        }
    };
    // Arrays are null where they are not wanted.
    struct Passes {
        bool is_forward, is_backward;
        T *states = nullptr, *adjoints = nullptr;  // [unit][row], or null: in the workspace of the thread
        bool prepares = false, is_in_place = false;
        const T* factors = nullptr;
        T *result = nullptr, *amplitudes = nullptr;
        const T *word_grads = nullptr, *final_amplitudes = nullptr, *amplitude_grads = nullptr;
        Gradients<T> gradients{};
    };

    size_t samples() const { return size_t(1) << plan_.sample_bits; }

    // The index in the batch of the sample in a lane of a unit, or -1 behind the last sample.
    int64_t sample(int64_t unit, size_t lane) const {
        const int64_t b = (unit << plan_.sample_bits) + int64_t(lane & (samples() - 1));
        return b < batch_.size ? b : -1;
    }

    // Each sample has a table of its own.
    bool differs_per_sample(const ComplexGroup& group) const { return group.reads_input || batch_.signs; }

    // The sign of a rotation's angle in a sample of the batch.
    double sign(size_t rotation, int64_t b) const {
        return batch_.signs && b >= 0 ? batch_.signs[b * plan_.n_signs + plan_.rotations[rotation].column] : 1;
    }

    bool is_prepared(const ComplexGroup& group) const { return product_state_ && group.product_bit >= 0; }

    // Angle of a rotation in a sample of the batch; a sample is needed for inputs only.
    double angle(size_t rotation, int64_t b) const {
        double sum = plan_.rotations[rotation].offset;
        for (int32_t t = plan_.term_offsets[rotation]; t < plan_.term_offsets[rotation + 1]; ++t) {
            const ComplexTerm term = plan_.terms[size_t(t)];
            if (term.angle >= 0)
                sum += term.factor * double(batch_.weights[term.angle]);
            else
                sum += b < 0 ? 0 : term.factor * double(batch_.inputs[b * plan_.n_inputs + ~term.angle]);
        }
        return sum;
    }

    void make_shared_tables() {
        shared_cosines_sines_.resize(2 * plan_.rotations.size());
        for (size_t r = 0; r < plan_.rotations.size(); ++r)
            if (!plan_.rotations[r].reads_input) {
                const double half = angle(r, -1) / 2;
                shared_cosines_sines_[2 * r] = std::cos(half), shared_cosines_sines_[2 * r + 1] = std::sin(half);
            }
        size_t own_size = 0, shared_size = 0, overlaps_size = 0;
        for (const ComplexGroup& group : plan_.groups) {
            size_t& size = differs_per_sample(group) ? own_size : shared_size;
            table_offsets_.push_back(size);
            size += group.table_size(lanes_);
            overlap_offsets_.push_back(overlaps_size);
            if (!differs_per_sample(group)) overlaps_size += group.table_size(1);
        }
        overlap_offsets_.push_back(overlaps_size);
        for (const ComplexStage& stage : plan_.stages) {
            stage_overlaps_.push_back(0);
            for (int i = 0; i < stage.n_groups; ++i) {
                chunk_offsets_.push_back(stage_overlaps_.back());
                stage_overlaps_.back() += plan_.groups[size_t(stage.first_group + i)].table_size(lanes_);
            }
        }
        own_tables_size_ = own_size;
        shared_forward_.resize(shared_size), shared_inverse_.resize(shared_size);
        for (size_t g = 0; g < plan_.groups.size(); ++g)
            if (const ComplexGroup& group = plan_.groups[g]; !differs_per_sample(group))
                make_tables(group, 1, shared_cosines_sines_.data() + 2 * size_t(group.first_rotation),
                            shared_forward_.data() + table_offsets_[g], shared_inverse_.data() + table_offsets_[g]);
    }

    void make_tables(const ComplexGroup& group, size_t width, const double* cosines_sines, T* forward,
                     T* inverse) const {
        double numbers[2][max_sets * table_columns * max_lanes];
        const GroupTable table{group, width, numbers[0]};
        multiply_rotations(table, plan_.rotations.data() + group.first_rotation, cosines_sines);
        invert(table, numbers[1]);
        spread(table, forward);
        spread({group, width, numbers[1]}, inverse);
    }

    // The lanes add no parities to those of their row.
    bool lanes_alike(const ComplexGroup& group) const { return !((group.z[0] | group.z[1]) & (lanes_ - 1)); }

    // To the layout of the kernels: [s ^ parities of the lane][column][lane].
    void spread(const GroupTable& table, T* to) const {
        if (lanes_alike(table.group) && table.width == lanes_) {
            std::copy_n(table.numbers, table.group.table_size(lanes_), to);
            return;
        }
        if (lanes_alike(table.group) && table.width == 1) {
            for (size_t i = 0; i < table.group.table_size(1); ++i)
                std::fill_n(to + i * lanes_, lanes_, T(table.numbers[i]));
            return;
        }
        for (int s = 0; s < table.group.n_sets(); ++s)
            for (size_t lane = 0; lane < lanes_; ++lane) {
                const int own = s ^ table.group.lane_sets[lane];
                for (int c = 0; c < table_columns; ++c)
                    to[(size_t(s) * table_columns + size_t(c)) * lanes_ + lane] =
                        T(table.column(own, c)[lane & (table.width - 1)]);
            }
    }

    // Overlaps from the layout of the kernels, added to those of a table with one lane, or one for each sample.
    void collect(const double* from, const GroupTable& table) const {
        if (lanes_alike(table.group) && table.width == lanes_) {
            for (size_t i = 0; i < table.group.table_size(lanes_); ++i) table.numbers[i] += from[i];
            return;
        }
        if (lanes_alike(table.group) && table.width == 1) {
            for (size_t i = 0; i < table.group.table_size(1); ++i)
                table.numbers[i] = std::accumulate(from + i * lanes_, from + (i + 1) * lanes_, table.numbers[i]);
            return;
        }
        for (int s = 0; s < table.group.n_sets(); ++s)
            for (int c = 0; c < table_columns; ++c)
                for (size_t lane = 0; lane < lanes_; ++lane)
                    table.column(s ^ table.group.lane_sets[lane], c)[lane & (table.width - 1)] +=
                        from[(size_t(s) * table_columns + size_t(c)) * lanes_ + lane];
    }

    void set_unit(int64_t unit, UnitTables& tables) const {
        if (!own_tables_size_) return;
        tables.cosines_sines.resize(plan_.rotations.size() * 2 * samples());
        tables.forward.resize(own_tables_size_), tables.inverse.resize(own_tables_size_);
        for (size_t g = 0; g < plan_.groups.size(); ++g) {
            const ComplexGroup& group = plan_.groups[g];
            if (!differs_per_sample(group)) continue;
            double* first = tables.cosines_sines.data() + size_t(group.first_rotation) * 2 * samples();
            for (int i = 0; i < group.n_rotations; ++i) {
                const size_t r = size_t(group.first_rotation + i);
                double *cosines = first + size_t(i) * 2 * samples(), *sines = cosines + samples();
                for (size_t s = 0; s < samples(); ++s) {
                    const int64_t b = sample(unit, s);
                    if (plan_.rotations[r].reads_input) {
                        const double half = angle(r, b) / 2;
                        cosines[s] = std::cos(half), sines[s] = sign(r, b) * std::sin(half);
                    } else {
                        cosines[s] = shared_cosines_sines_[2 * r],
                        sines[s] = sign(r, b) * shared_cosines_sines_[2 * r + 1];
                    }
                }
            }
            make_tables(group, samples(), first, tables.forward.data() + table_offsets_[g],
                        tables.inverse.data() + table_offsets_[g]);
        }
    }

    const T* table_of(size_t g, const UnitTables& tables, bool inverse) const {
        if (differs_per_sample(plan_.groups[g]))
            return (inverse ? tables.inverse : tables.forward).data() + table_offsets_[g];
        return (inverse ? shared_inverse_ : shared_forward_).data() + table_offsets_[g];
    }

    // Threads take blocks of units, or, if units are large, share each one. A thread takes the units of a block in
    // turn, and the blocks' sums are added up in order, so the order of additions is fixed.
    void run(const Passes& passes) {
        const bool in_workspace = !passes.states;
        const size_t state_size = in_workspace ? plan_.unit_numbers() : 0;
        const size_t adjoint_size = passes.is_backward && !passes.adjoints ? plan_.unit_numbers() : 0;
        const Gradients<T>& gradients = passes.gradients;
        std::fill_n(gradients.inputs, gradients.inputs ? batch_.size * plan_.n_inputs : 0, T(0));
        std::vector<BlockSums> block_sums(passes.is_backward ? size_t(n_blocks_) : 0);
        ThreadPool::get().run(n_blocks_, shares_unit_ ? 1 : n_threads_, [&](TaskQueue& queue) {
            int64_t block;
            if (!queue.next(block)) return;
            UnitWorkspace workspace{{}, Buffer<T>(state_size), Buffer<T>(adjoint_size), make_scratch(), {}, {}};
            do {
                if (passes.is_backward) {
                    block_sums[size_t(block)].weights.assign(size_t(plan_.n_weights), 0);
                    block_sums[size_t(block)].overlaps.assign(overlap_offsets_.back(), 0);
                }
                const int64_t end = std::min(n_units_, (block + 1) * units_per_block_);
                for (int64_t unit = block * units_per_block_; unit < end; ++unit) {
                    set_unit(unit, workspace.tables);
                    T* state =
                        in_workspace ? workspace.state.data : passes.states + size_t(unit) * plan_.unit_numbers();
                    if (passes.prepares) prepare_unit(unit, workspace, state, passes.factors);
                    if (passes.is_forward) forward_unit(unit, workspace, state, passes);
                    if (passes.is_backward) backward_unit(unit, workspace, state, passes, block_sums[size_t(block)]);
                }
            } while (queue.next(block));
        });
        if (passes.is_backward && gradients.weights) write_weight_gradient(block_sums, gradients.weights);
    }

    void write_weight_gradient(std::vector<BlockSums>& block_sums, T* gradient) const {
        std::vector<double> weights(size_t(plan_.n_weights)), overlaps(overlap_offsets_.back()), derivatives;
        for (const BlockSums& sums : block_sums) {
            for (size_t w = 0; w < sums.weights.size(); ++w) weights[w] += sums.weights[w];
            for (size_t i = 0; i < sums.overlaps.size(); ++i) overlaps[i] += sums.overlaps[i];
        }
        for (size_t g = 0; g < plan_.groups.size(); ++g) {
            const ComplexGroup& group = plan_.groups[g];
            if (differs_per_sample(group)) continue;
            derivatives.resize(size_t(group.n_rotations));
            differentiate_rotations(
                {group, 1, overlaps.data() + overlap_offsets_[g]}, plan_.rotations.data() + group.first_rotation,
                shared_cosines_sines_.data() + 2 * size_t(group.first_rotation), derivatives.data());
            for (int i = 0; i < group.n_rotations; ++i) {
                const size_t r = size_t(group.first_rotation + i);
                for (int32_t t = plan_.term_offsets[r]; t < plan_.term_offsets[r + 1]; ++t)
                    weights[size_t(plan_.terms[size_t(t)].angle)] +=
                        plan_.terms[size_t(t)].factor * derivatives[size_t(i)];
            }
        }
        for (size_t w = 0; w < weights.size(); ++w) gradient[w] = T(weights[w]);
    }

    ChunkScratch make_scratch() const {
        const size_t size = plan_.single_chunk() ? 0 : plan_.parts() * plan_.stages[0].chunk_size();
        return {Buffer<T>(size), Buffer<T>(size)};
    }

    // Calls work(task, scratch, sums) for tasks of a unit, on this thread or on all, in groups that add to sums of
    // their own. These are added up in order, to workspace.sums.
    template <class F>
    void for_each_task(size_t n_tasks, UnitWorkspace& workspace, size_t n_sums, F work) {
        const size_t n_groups = std::min<size_t>(n_tasks, 32), per_group = n_tasks / n_groups;
        workspace.sums.assign(n_groups * n_sums, 0);
        const auto do_group = [&](size_t group, ChunkScratch& scratch) {
            for (size_t task = group * per_group; task < (group + 1) * per_group; ++task)
                work(task, scratch, workspace.sums.data() + group * n_sums);
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

    // Calls work(begin, end, sums) for ranges of the unit's rows.
    template <class F>
    void for_each_row_range(UnitWorkspace& workspace, size_t n_sums, F work) {
        const size_t n_rows = plan_.unit_size() / lanes_;
        const size_t n_ranges = plan_.single_chunk() ? 1 : std::min<size_t>(n_rows, 32), length = n_rows / n_ranges;
        for_each_task(n_ranges, workspace, n_sums, [&](size_t range, ChunkScratch&, double* sums) {
            work(range * length, (range + 1) * length, sums);
        });
    }

    void prepare_unit(int64_t unit, UnitWorkspace& workspace, T* state, const T* factors) {
        if (product_state_)
            prepare_product_state(unit, workspace.tables, state, factors);
        else
            load_initial(unit, workspace, state);
    }

    void forward_unit(int64_t unit, UnitWorkspace& workspace, T* state, const Passes& passes) {
        if (!passes.is_in_place) prepare_unit(unit, workspace, state, nullptr);
        for (const ComplexStage& stage : plan_.stages)
            for_each_task(stage.n_chunks(), workspace, 0, [&](size_t chunk, ChunkScratch& scratch, double*) {
                const size_t base = deposit_bits(chunk, stage.outer_positions.data(), stage.outer_positions.size());
                const bool in_place = plan_.single_chunk();
                T* psi = in_place ? state : scratch.state.data;
                if (!in_place) gather(stage, base, state, psi);
                const double factor = forward_chunk(stage, base, workspace.tables, psi);
                if (!in_place) scatter(stage, base, psi, T(factor), state);
            });
        if (passes.amplitudes) store_final(unit, workspace, state, passes.amplitudes);
        if (passes.result) store_word_values(unit, workspace, state, passes.result);
    }

    // Returns what all amplitudes of the chunk have yet to be multiplied by.
    double forward_chunk(const ComplexStage& stage, size_t base, const UnitTables& tables, T* psi) const {
        const size_t n_rows = stage.chunk_size() / lanes_;
        double factor = 1;
        for (const ChunkPass& pass : stage.passes) {
            const size_t g = size_t(stage.first_group + pass.group);
            if (pass.is_of_words) {
                const WordOperands<T> operands = word_operands(pass.words, g, base, tables, false, factor);
                kernels_.forward_words(pass.words, psi, n_rows, operands);
                for (int k = 0; operands.is_tangent && k < pass.words.n_groups; ++k)
                    factor *= double(operands.tables[k][0]);
            } else if (!is_prepared(plan_.groups[g])) {
                kernels_.forward(stage.groups[size_t(pass.group)], psi, n_rows, table_of(g, tables, false),
                                 plan_.groups[g].parities(base));
            }
        }
        return factor;
    }

    // The operands of a pass whose first group is g. D, which is a cosine, is left out where one sample alone has the
    // chunk, which is then written back with another factor; `factor` is that of the passes before.
    WordOperands<T> word_operands(const WordPass& pass, size_t g, size_t base, const UnitTables& own, bool inverse,
                                  double factor) const {
        WordOperands<T> operands;
        operands.is_tangent = !plan_.single_chunk() && !plan_.sample_bits && std::abs(factor) >= min_chunk_factor;
        for (int k = 0; k < pass.n_groups; ++k, ++g) {
            operands.tables[k] = table_of(g, own, inverse);
            operands.parities[k] = plan_.groups[g].parities(base);
            operands.is_tangent &= std::abs(operands.tables[k][0]) >= min_tangent_cosine;
        }
        return operands;
    }

    void store_word_values(int64_t unit, UnitWorkspace& workspace, const T* state, T* result) {
        const size_t n_words = plan_.n_words();
        for_each_row_range(workspace, n_words * lanes_, [&](size_t begin, size_t end, double* sums) {
            for (size_t w = 0; w < n_words; ++w)
                kernels_.add_word_value(state, begin, end, plan_.words[w], sums + w * lanes_);
        });
        for (size_t w = 0; w < n_words; ++w)
            for (size_t first = 0; first < samples(); ++first) {
                double sum = 0;
                for (size_t lane = first; lane < lanes_; lane += samples()) sum += workspace.sums[w * lanes_ + lane];
                if (const int64_t b = sample(unit, first); b >= 0) result[size_t(b) * n_words + w] = T(sum);
            }
    }

    void backward_unit(int64_t unit, UnitWorkspace& workspace, T* state, const Passes& passes, BlockSums& block_sums) {
        T* adjoint = passes.adjoints ? passes.adjoints + size_t(unit) * plan_.unit_numbers() : workspace.adjoint.data;
        if (passes.amplitude_grads) {
            load_final(unit, workspace, passes.final_amplitudes, state);
            load_final(unit, workspace, passes.amplitude_grads, adjoint);
        } else if (passes.word_grads) {
            apply_words(unit, workspace, state, adjoint, passes.word_grads);
        }
        for (size_t s = plan_.stages.size(); s-- > 0;) {
            const ComplexStage& stage = plan_.stages[s];
            for_each_task(stage.n_chunks(), workspace, stage_overlaps_[s],
                          [&](size_t chunk, ChunkScratch& scratch, double* overlaps) {
                              backward_chunk(stage, chunk, workspace.tables, scratch, {state, adjoint}, overlaps);
                          });
            for (int i = 0; i < stage.n_groups; ++i) {
                const size_t g = size_t(stage.first_group + i);
                add_gradient(unit, workspace, g, workspace.sums.data() + chunk_offsets_[g], block_sums,
                             passes.gradients);
            }
        }
        if (passes.gradients.initial) store_initial(unit, workspace, adjoint, passes.gradients.initial);
    }

    void backward_chunk(const ComplexStage& stage, size_t chunk, const UnitTables& tables, ChunkScratch& scratch,
                        std::pair<T*, T*> unit, double* overlaps) const {
        const size_t base = deposit_bits(chunk, stage.outer_positions.data(), stage.outer_positions.size());
        const bool in_place = plan_.single_chunk();
        T *psi = in_place ? unit.first : scratch.state.data, *lambda = in_place ? unit.second : scratch.adjoint.data;
        if (!in_place) gather(stage, base, unit.first, psi), gather(stage, base, unit.second, lambda);
        const size_t n_rows = stage.chunk_size() / lanes_;
        double factor = 1;  // that the numbers have yet to be multiplied by
        for (size_t i = stage.passes.size(); i-- > 0;) {
            const ChunkPass& pass = stage.passes[i];
            const size_t g = size_t(stage.first_group + pass.group);
            if (pass.is_of_words) {
                WordOperands<T> operands = word_operands(pass.words, g, base, tables, true, factor);
                for (int k = pass.words.n_groups; k-- > 0;) {
                    operands.overlaps[k] = overlaps + chunk_offsets_[g + size_t(k)];
                    operands.overlap_factors[k] = factor * factor;
                    if (operands.is_tangent) factor *= double(operands.tables[k][0]);
                }
                kernels_.backward_words(pass.words, psi, lambda, n_rows, operands);
                continue;
            }
            // All that is left behind a group of the product state acts on other bits, so it need not be undone.
            const T* table = is_prepared(plan_.groups[g]) ? nullptr : table_of(g, tables, true);
            kernels_.backward(stage.groups[size_t(pass.group)], psi, lambda, n_rows, table,
                              plan_.groups[g].parities(base), overlaps + chunk_offsets_[g], factor * factor);
        }
        if (in_place) return;
        scatter(stage, base, psi, T(factor), unit.first);
        scatter(stage, base, lambda, T(factor), unit.second);
    }

    // adjoint = 2 sum over words of their gradients times the word times the state, the derivative by the state.
    void apply_words(int64_t unit, UnitWorkspace& workspace, const T* state, T* adjoint, const T* word_grads) {
        const size_t n_words = plan_.n_words();
        Buffer<T> factors(n_words * lanes_);
        for (size_t w = 0; w < n_words; ++w)
            for (size_t lane = 0; lane < lanes_; ++lane) {
                const int64_t b = sample(unit, lane);
                factors.data[w * lanes_ + lane] = b < 0 ? T(0) : 2 * word_grads[size_t(b) * n_words + w];
            }
        for_each_row_range(workspace, 0, [&](size_t begin, size_t end, double*) {
            std::fill(adjoint + begin * plan_.parts() * lanes_, adjoint + end * plan_.parts() * lanes_, T(0));
            for (size_t w = 0; w < n_words; ++w)
                kernels_.add_word(state, adjoint, begin, end, plan_.words[w], factors.data + w * lanes_);
        });
    }

    // Adds a group's overlaps to those of the block, or its derivatives to the gradients if samples differ.
    void add_gradient(int64_t unit, UnitWorkspace& workspace, size_t g, const double* overlaps, BlockSums& block_sums,
                      const Gradients<T>& gradients) const {
        const ComplexGroup& group = plan_.groups[g];
        if (!differs_per_sample(group)) {
            collect(overlaps, {group, 1, block_sums.overlaps.data() + overlap_offsets_[g]});
            return;
        }
        double numbers[max_sets * table_columns * max_lanes];
        const GroupTable table{group, samples(), numbers};
        std::fill_n(numbers, group.table_size(samples()), 0.0);
        collect(overlaps, table);
        std::vector<double>& derivatives = workspace.derivatives;
        derivatives.resize(size_t(group.n_rotations) * samples());
        differentiate_rotations(table, plan_.rotations.data() + group.first_rotation,
                                workspace.tables.cosines_sines.data() + size_t(group.first_rotation) * 2 * samples(),
                                derivatives.data());
        for (int i = 0; i < group.n_rotations; ++i) {
            const size_t r = size_t(group.first_rotation + i);
            double* derivative = derivatives.data() + size_t(i) * samples();
            for (size_t s = 0; s < samples(); ++s) derivative[s] *= sign(r, sample(unit, s));
            for (int32_t t = plan_.term_offsets[r]; t < plan_.term_offsets[r + 1]; ++t) {
                const ComplexTerm term = plan_.terms[size_t(t)];
                for (size_t s = 0; s < samples(); ++s) {
                    const int64_t b = sample(unit, s);
                    if (b < 0) break;
                    if (term.angle >= 0)
                        block_sums.weights[size_t(term.angle)] += term.factor * derivative[s];
                    else if (gradients.inputs)
                        gradients.inputs[b * plan_.n_inputs + ~term.angle] += T(term.factor * derivative[s]);
                }
            }
        }
    }

    void prepare_product_state(int64_t unit, const UnitTables& tables, T* state, const T* sample_factors) const {
        const size_t stride = 4 * lanes_;  // [zero, one][re, im][lane]
        Buffer<T> factors(size_t(plan_.bits) * stride);
        std::fill_n(factors.data, factors.size, T(0));
        for (int bit = 0; bit < plan_.bits; ++bit) std::fill_n(factors.data + size_t(bit) * stride, lanes_, T(1));
        for (size_t g = 0; g < plan_.groups.size(); ++g) {
            const ComplexGroup& group = plan_.groups[g];
            if (!is_prepared(group)) continue;
            const T* table = table_of(g, tables, false);
            const int ones = group.parities(uint64_t(1) << group.product_bit);  // s of the amplitude of 1
            T* factor = factors.data + size_t(group.product_bit) * stride;
            for (size_t lane = 0; lane < lanes_; ++lane) {
                const int row_sets[2] = {group.lane_sets[lane], ones ^ group.lane_sets[lane]};
                for (int part = 0; part < 2; ++part) {  // D of the amplitude of 0, O of that of 1
                    factor[part * lanes_ + lane] =
                        table[(size_t(row_sets[0]) * table_columns + size_t(part)) * lanes_ + lane];
                    factor[(2 + part) * lanes_ + lane] =
                        table[(size_t(row_sets[1]) * table_columns + size_t(2 + part)) * lanes_ + lane];
                }
            }
        }
        if (sample_factors) multiply(unit, sample_factors, factors.data + size_t(plan_.sample_bits) * stride);
        kernels_.prepare_product_state(state, plan_.bits, plan_.sample_bits, factors.data);
    }

    // Multiplies the factors of a bit, [zero, one][re, im][lane], by those of the samples of a unit.
    void multiply(int64_t unit, const T* sample_factors, T* factors) const {
        for (size_t lane = 0; lane < lanes_; ++lane) {
            const int64_t b = sample(unit, lane);
            if (b < 0) continue;
            const T re = sample_factors[2 * b], im = sample_factors[2 * b + 1];
            for (size_t part = lane; part < 4 * lanes_; part += 2 * lanes_) {
                const T own_re = factors[part], own_im = factors[part + lanes_];
                factors[part] = re * own_re - im * own_im, factors[part + lanes_] = re * own_im + im * own_re;
            }
        }
    }

    void gather(const ComplexStage& stage, size_t base, const T* unit, T* chunk) const {
        const size_t parts = plan_.parts(), length = parts << stage.run_bits;
        for (size_t r = 0; r < stage.run_offsets.size(); ++r)
            std::memcpy(chunk + r * length, unit + parts * (base ^ stage.run_offsets[r]), length * sizeof(T));
    }

    // The other way, with numbers times a factor.
    void scatter(const ComplexStage& stage, size_t base, const T* chunk, T factor, T* unit) const {
        const size_t parts = plan_.parts(), length = parts << stage.run_bits;
        for (size_t r = 0; r < stage.run_offsets.size(); ++r)
            kernels_.copy_times(chunk + r * length, length, factor, unit + parts * (base ^ stage.run_offsets[r]));
    }

    // Calls visit(place of the real part in a state, sample of the batch or -1, amplitude of the sample) for a unit.
    template <class F>
    void for_each_amplitude(int64_t unit, UnitWorkspace& workspace, F visit) {
        for_each_row_range(workspace, 0, [&](size_t begin, size_t end, double*) {
            for (size_t index = begin * lanes_; index < end * lanes_; ++index)
                visit(plan_.is_real ? index : (index >> lane_bits_ << lane_bits_) + index, sample(unit, index),
                      index >> plan_.sample_bits);
        });
    }

    size_t n_amplitudes() const { return plan_.unit_size() >> plan_.sample_bits; }

    void load_initial(int64_t unit, UnitWorkspace& workspace, T* state) {
        for_each_amplitude(unit, workspace, [&](size_t to, int64_t b, size_t i) {
            const T zeros[2] = {};
            const T* from = b < 0 ? zeros : batch_.initial + 2 * (size_t(b) * n_amplitudes() + i);
            state[to] = from[0];
            if (!plan_.is_real) state[to + lanes_] = from[1];
        });
    }

    void store_initial(int64_t unit, UnitWorkspace& workspace, const T* state, T* amplitudes) {
        for_each_amplitude(unit, workspace, [&](size_t from, int64_t b, size_t i) {
            if (b < 0) return;
            T* to = amplitudes + 2 * (size_t(b) * n_amplitudes() + i);
            to[0] = state[from], to[1] = plan_.is_real ? 0 : state[from + lanes_];
        });
    }

    // From the circuit's final state, or its derivative, to that of the kernel.
    void load_final(int64_t unit, UnitWorkspace& workspace, const T* amplitudes, T* state) {
        const FrameFactors factors(plan_.frame);
        for_each_amplitude(unit, workspace, [&](size_t to, int64_t b, size_t i) {
            state[to] = state[to + lanes_] = 0;
            if (b < 0) return;
            const auto [place, power] = plan_.frame(i);
            const T* from = amplitudes + 2 * (size_t(b) * n_amplitudes() + place);
            const T re = factors.re[power], im = factors.im[power];
            state[to] = re * from[0] + im * from[1];
            state[to + lanes_] = re * from[1] - im * from[0];
        });
    }

    void store_final(int64_t unit, UnitWorkspace& workspace, const T* state, T* amplitudes) {
        const FrameFactors factors(plan_.frame);
        for_each_amplitude(unit, workspace, [&](size_t from, int64_t b, size_t i) {
            if (b < 0) return;
            const auto [place, power] = plan_.frame(i);
            T* to = amplitudes + 2 * (size_t(b) * n_amplitudes() + place);
            const T re = factors.re[power], im = factors.im[power];
            to[0] = re * state[from] - im * state[from + lanes_];
            to[1] = re * state[from + lanes_] + im * state[from];
        });
    }

    static constexpr double min_shared_work = 1e5;  // amplitudes times groups: waking threads costs as much time
    // So that the numbers of a chunk, which are those of the state divided by the factor, and the products of two of
    // them do not overflow.
    static constexpr T min_tangent_cosine = T(0.5);
    static constexpr double min_chunk_factor = 1.0 / double(int64_t(1) << 40);
    static constexpr size_t max_sets = 4;

    const ComplexPlan& plan_;
    const PairKernels<T>& kernels_ = plan_.kernels->template get<T>();
    const CircuitBatch<T> batch_;
    const size_t lanes_;
    const int lane_bits_;
    const bool product_state_;
    const int64_t n_units_, n_blocks_, units_per_block_;
    int n_threads_;
    bool shares_unit_;                                // threads share each unit instead of the units
    std::vector<double> shared_cosines_sines_;        // [rotation][c, s]
    std::vector<size_t> table_offsets_;               // [group]: in the shared tables, or in those of a unit
    std::vector<size_t> overlap_offsets_;             // [group] and the end: in the sums of a block
    std::vector<size_t> chunk_offsets_;               // [group]: in the overlaps of its stage
    std::vector<size_t> stage_overlaps_;              // [stage]: numbers of its overlaps
    std::vector<T> shared_forward_, shared_inverse_;  // of the groups that all samples share
    size_t own_tables_size_ = 0;
};

}  // namespace ketfit
