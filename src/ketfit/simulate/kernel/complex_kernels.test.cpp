// Each kernel against plain loops over amplitudes in double precision.

#include "complex_kernels.h"

#include <complex>

#include "complex_plan.h"
#include "test_support.h"

using namespace ketfit;

namespace {

using Amplitude = std::complex<double>;
using Amplitudes = std::vector<Amplitude>;

// Index of the real part of an amplitude in rows; the imaginary part follows `lanes` behind it.
size_t place(size_t index, size_t lanes) { return index / lanes * lanes + index; }

template <class T>
Amplitudes to_amplitudes(const T* rows, size_t size, size_t lanes) {
    Amplitudes result(size);
    for (size_t i = 0; i < size; ++i)
        result[i] = {double(rows[place(i, lanes)]), double(rows[place(i, lanes) + lanes])};
    return result;
}

double max_distance(const Amplitudes& a, const Amplitudes& b) {
    double largest = 0;
    for (size_t i = 0; i < a.size(); ++i) largest = std::max(largest, std::abs(a[i] - b[i]));
    return largest;
}

struct Masks {
    uint64_t x, z[2];
    int n_parities;

    int set_of(uint64_t index) const { return parity_of(index & z[0]) | parity_of(index & z[1]) << 1; }
};

// D and O of each parity set and lane, as the kernel takes them.
template <class T>
struct RandomTable {
    Buffer<T> numbers;
    const size_t lanes;

    RandomTable(size_t lanes, std::mt19937& rng) : numbers(random_buffer<T>(16 * lanes, rng)), lanes(lanes) {}

    Amplitude at(int s, int column, size_t lane) const {
        const T* entry = numbers.data + (size_t(s) * 4 + 2 * size_t(column)) * lanes + lane;
        return {double(entry[0]), double(entry[lanes])};
    }
};

// The numbers of an index: its lane's, for its row's parities.
template <class T>
Amplitude coefficient(const RandomTable<T>& table, const Masks& masks, uint64_t index, int column, int parities) {
    const uint64_t lane = index % table.lanes;
    return table.at(masks.set_of(index - lane) ^ parities, column, lane);
}

template <class T>
Amplitudes apply_plain(const Amplitudes& psi, const Masks& masks, const RandomTable<T>& table, int parities) {
    Amplitudes result(psi.size());
    for (size_t i = 0; i < psi.size(); ++i) {
        result[i] = coefficient(table, masks, i, 0, parities) * psi[i];
        if (masks.x) result[i] += coefficient(table, masks, i, 1, parities) * psi[i ^ masks.x];
    }
    return result;
}

template <class T>
int lane_bits(const PairKernels<T>& kernels) {
    return __builtin_ctz(unsigned(kernels.lanes));
}

// A stage of one chunk.
ComplexStage whole_stage(int bits) {
    std::vector<uint64_t> basis;
    for (int bit = 0; bit < bits; ++bit) basis.push_back(uint64_t(1) << bit);
    return {0, 0, basis, bits};
}

ComplexGroup unit_group(const Masks& masks) {
    const int64_t row[] = {int64_t(masks.x), int64_t(masks.z[0]), int64_t(masks.z[1]), masks.n_parities, 0, 0, -1};
    return ketfit::make_group(row, {});
}

template <class T>
PairGroup make_group(const Masks& masks, int bits, const PairKernels<T>& kernels) {
    return chunk_group(whole_stage(bits), unit_group(masks), lane_bits(kernels));
}

template <class T>
void check_group(const PairKernels<T>& kernels, int bits, const Masks& masks, int parities, std::mt19937& rng) {
    CAPTURE(masks.x);
    CAPTURE(masks.z[0]);
    CAPTURE(masks.z[1]);
    const size_t lanes = size_t(kernels.lanes), size = size_t(1) << bits;
    const PairGroup group = make_group(masks, bits, kernels);
    const RandomTable<T> table(lanes, rng);
    Buffer<T> state = random_buffer<T>(2 * size, rng), adjoint = random_buffer<T>(2 * size, rng);
    const Amplitudes psi = to_amplitudes(state.data, size, lanes), lambda = to_amplitudes(adjoint.data, size, lanes);
    std::vector<double> overlaps(16 * lanes);
    kernels.backward(group, state.data, adjoint.data, size / lanes, nullptr, parities, overlaps.data(), 0.5);
    CHECK(max_distance(to_amplitudes(state.data, size, lanes), psi) == 0);
    kernels.backward(group, state.data, adjoint.data, size / lanes, table.numbers.data, parities, overlaps.data(), 1.5);
    const double limit = tolerance<T> * double(size) * 8;
    CHECK(max_distance(to_amplitudes(state.data, size, lanes), apply_plain(psi, masks, table, parities)) < limit);
    CHECK(max_distance(to_amplitudes(adjoint.data, size, lanes), apply_plain(lambda, masks, table, parities)) < limit);
    std::vector<Amplitude> expected(8 * lanes);  // twice those of one call
    for (size_t i = 0; i < size; ++i) {
        const size_t lane = i % lanes, s = size_t(masks.set_of(i - lane) ^ parities);
        expected[2 * s * lanes + lane] += 2.0 * std::conj(lambda[i]) * psi[i];
        if (masks.x) expected[(2 * s + 1) * lanes + lane] += 2.0 * std::conj(lambda[i]) * psi[i ^ masks.x];
    }
    for (size_t entry = 0; entry < 8; ++entry)
        for (size_t lane = 0; lane < lanes; ++lane) {
            const double* sum = overlaps.data() + 2 * entry * lanes + lane;
            CHECK(std::abs(Amplitude(sum[0], sum[lanes]) - expected[entry * lanes + lane]) < limit);
        }
    const Amplitudes before = to_amplitudes(state.data, size, lanes);
    kernels.forward(group, state.data, size / lanes, table.numbers.data, parities);
    CHECK(max_distance(to_amplitudes(state.data, size, lanes), apply_plain(before, masks, table, parities)) <
          4 * limit);
}

// D and O of a group of one word, as the kernel takes them; D is real and the same in all lanes.
template <class T>
Buffer<T> one_word_table(size_t lanes, std::mt19937& rng) {
    Buffer<T> numbers = random_buffer<T>(8 * lanes, rng);
    T* first = numbers.data;
    std::fill_n(first, lanes, (2 + first[0]) / 3), std::fill_n(first + lanes, lanes, T(0));
    std::copy_n(first, 2 * lanes, first + 4 * lanes);
    for (size_t i = 2 * lanes; i < 4 * lanes; ++i) first[i + 4 * lanes] = -first[i];
    return numbers;
}

// A pass of words against its groups one after the other.
template <class T>
void check_word_pass(const PairKernels<T>& kernels, size_t parts, int row_bits, const std::vector<Masks>& masks,
                     bool is_tangent, std::mt19937& rng) {
    const size_t lanes = size_t(kernels.lanes), n_groups = masks.size(), n_rows = size_t(1) << row_bits;
    const size_t size = parts * n_rows * lanes;
    const int bits = lane_bits(kernels) + row_bits;
    std::vector<ComplexGroup> groups;
    std::vector<Buffer<T>> tables;
    std::vector<double> sums[2], expected_sums[2];
    WordOperands<T> operands;
    operands.is_tangent = is_tangent;
    double factor = 1;  // what tangent numbers have to be multiplied by
    for (size_t k = 0; k < n_groups; ++k) {
        groups.push_back(unit_group(masks[k]));
        tables.push_back(one_word_table<T>(lanes, rng));
        sums[k].resize(8 * lanes), expected_sums[k].resize(8 * lanes);
    }
    for (size_t k = n_groups; k-- > 0;) {
        operands.tables[k] = tables[k].data, operands.parities[k] = int(rng() & 1);
        operands.overlaps[k] = sums[k].data(), operands.overlap_factors[k] = factor * factor;
        if (is_tangent) factor *= double(tables[k].data[0]);
    }
    const WordPass pass = make_word_pass(whole_stage(bits), groups.data(), int(n_groups), lane_bits(kernels));
    Buffer<T> state = random_buffer<T>(size, rng), adjoint = random_buffer<T>(size, rng);
    Buffer<T> expected_state(state), expected_adjoint(adjoint);
    const double limit = tolerance<T> * 16;
    const auto check_numbers = [&](Buffer<T>& found, const Buffer<T>& expected) {
        for (size_t i = 0; i < size; ++i) found.data[i] *= T(factor);
        CHECK(max_difference(found.data, expected.data, size) < limit);
    };
    kernels.backward_words(pass, state.data, adjoint.data, n_rows, operands);
    for (size_t k = n_groups; k-- > 0;)
        kernels.backward(make_group(masks[k], bits, kernels), expected_state.data, expected_adjoint.data, n_rows,
                         tables[k].data, operands.parities[k], expected_sums[k].data(), 1);
    check_numbers(state, expected_state), check_numbers(adjoint, expected_adjoint);
    for (size_t k = 0; k < n_groups; ++k) {
        const size_t own = size_t(operands.parities[k]) * 4 * lanes, other = 4 * lanes - own;
        for (size_t i = 2 * lanes; i < (2 + parts) * lanes; ++i) {  // B
            CHECK(std::abs(sums[k][i + own] - expected_sums[k][i + own] + expected_sums[k][i + other]) < limit * 16);
            CHECK(sums[k][i + other] == 0);
        }
    }
    kernels.forward_words(pass, state.data, n_rows, operands);
    for (size_t k = 0; k < n_groups; ++k)
        kernels.forward(make_group(masks[k], bits, kernels), expected_state.data, n_rows, tables[k].data,
                        operands.parities[k]);
    check_numbers(state, expected_state);
}

}  // namespace

TEST_CASE_TEMPLATE("passes of words do the same as their groups", T, float, double) {
    for_each_instruction_set([](const InstructionSet& set) {
        std::mt19937 rng(4);
        for (const PairKernelSet* kernel_set : {set.complex_kernels, set.real_kernels}) {
            const PairKernels<T>& kernels = kernel_set->get<T>();
            const size_t parts = kernel_set == set.real_kernels ? 1 : 2;
            for (int repeat = 0; repeat < 60; ++repeat) {
                const int row_bits = repeat % 3 ? 4 : 10;  // one tile of orbits, or several
                const uint64_t lanes = uint64_t(kernels.lanes), all = (lanes << row_bits) - 1,
                               rows = all & ~(lanes - 1);
                const uint64_t flips = repeat % 2 ? all : rows;
                const Masks first{rng() & flips, {rng() & all, 0}, 1}, second{rng() & flips, {rng() & all, 0}, 1};
                const bool is_tangent = repeat % 4 < 2;
                if (first.x & rows) check_word_pass(kernels, parts, row_bits, {first}, is_tangent, rng);
                if (first.x & rows && second.x & rows && (first.x ^ second.x) & rows)
                    check_word_pass(kernels, parts, row_bits, {first, second}, is_tangent, rng);
            }
        }
    });
}

TEST_CASE_TEMPLATE("forward and backward apply groups with all kinds of masks", T, float, double) {
    for_each_instruction_set([](const InstructionSet& set) {
        std::mt19937 rng(1);
        const PairKernels<T>& kernels = set.complex_kernels->get<T>();
        for (const int row_bits : {4, 9}) {  // one tile of orbits, or several
            const int bits = lane_bits(kernels) + row_bits;
            const uint64_t all = (uint64_t(1) << bits) - 1, lane = all >> row_bits, row = all & ~lane;
            for (const uint64_t x_bits : {uint64_t(0), lane, row, all})
                for (const uint64_t z_bits : {lane, row, all})
                    for (int n_parities = 0; n_parities <= 2; ++n_parities) {
                        const auto mask = [&](uint64_t bits) { return rng() & bits; };
                        const Masks masks{mask(x_bits),
                                          {n_parities > 0 ? mask(z_bits) : 0, n_parities > 1 ? mask(all) : 0},
                                          n_parities};
                        check_group(kernels, bits, masks, int(rng()) & ((1 << n_parities) - 1), rng);
                    }
            const uint64_t top = uint64_t(1) << (bits - 1), next = top >> 1;
            const Masks controlled{top, {top, next}, 2}, of_partner{top | next, {top | next, 0}, 1},
                equal{top, {next, next}, 2};
            check_group(kernels, bits, controlled, 0, rng);
            check_group(kernels, bits, of_partner, 1, rng);  // dependent on the partner's bit alone
            check_group(kernels, bits, equal, 0, rng);
        }
    });
}

TEST_CASE_TEMPLATE("prepare_product_state multiplies one complex factor for each bit", T, float, double) {
    for_each_instruction_set([](const InstructionSet& set) {
        std::mt19937 rng(2);
        const PairKernels<T>& kernels = set.complex_kernels->get<T>();
        const size_t lanes = size_t(kernels.lanes);
        const int bits = lane_bits(kernels) + 2;
        const Buffer<T> factors = random_buffer<T>(size_t(bits) * 4 * lanes, rng);
        for (const int sample_bits : {0, lane_bits(kernels)}) {
            const size_t size = size_t(1) << bits;
            Buffer<T> state(2 * size);
            kernels.prepare_product_state(state.data, bits, sample_bits, factors.data);
            Amplitudes expected(size, 1);
            for (size_t i = 0; i < size; ++i)
                for (int bit = sample_bits; bit < bits; ++bit) {
                    const T* factor = factors.data + (size_t(bit) * 4 + 2 * (i >> bit & 1)) * lanes + i % lanes;
                    expected[i] *= Amplitude(factor[0], factor[lanes]);
                }
            CHECK(max_distance(to_amplitudes(state.data, size, lanes), expected) < 4 * tolerance<T>);
        }
    });
}

TEST_CASE_TEMPLATE("add_word_value and add_word apply Pauli words", T, float, double) {
    for_each_instruction_set([](const InstructionSet& set) {
        std::mt19937 rng(3);
        const PairKernels<T>& kernels = set.complex_kernels->get<T>();
        const size_t lanes = size_t(kernels.lanes);
        const int bits = lane_bits(kernels) + 7;
        const size_t size = size_t(1) << bits;
        ComplexPlan plan{};
        plan.lane_bits = lane_bits(kernels);
        for (int repeat = 0; repeat < 20; ++repeat) {
            const uint64_t x = repeat < 2 ? 0 : rng() & (size - 1), z = rng() & (size - 1);
            plan.add_word(x, z);
            const Buffer<T> state = random_buffer<T>(2 * size, rng), factors = random_buffer<T>(lanes, rng);
            Buffer<T> adjoint = random_buffer<T>(2 * size, rng);
            const Amplitudes psi = to_amplitudes(state.data, size, lanes);
            Amplitudes expected = to_amplitudes(adjoint.data, size, lanes);
            std::vector<double> sums(lanes, 1), expected_sums(lanes, 1);
            const Amplitude powers[4] = {1, {0, 1}, -1, {0, -1}};
            for (size_t i = 0; i < size; ++i) {
                const double sign = parity_of((i ^ x) & z) ? -1 : 1;
                const Amplitude image = sign * powers[__builtin_popcountll(x & z) & 3] * psi[i ^ x];
                expected_sums[i % lanes] += (std::conj(psi[i]) * image).real();
                expected[i] += double(factors.data[i % lanes]) * image;
            }
            const size_t n_rows = size / lanes;
            kernels.add_word_value(state.data, 0, n_rows / 4, plan.words.back(), sums.data());
            kernels.add_word_value(state.data, n_rows / 4, n_rows, plan.words.back(), sums.data());
            kernels.add_word(state.data, adjoint.data, 0, n_rows, plan.words.back(), factors.data);
            CHECK(max_difference(sums.data(), expected_sums.data(), lanes) < 400 * tolerance<T>);
            CHECK(max_distance(to_amplitudes(adjoint.data, size, lanes), expected) < 4 * tolerance<T>);
        }
    });
}

TEST_CASE_TEMPLATE("copy_times multiplies numbers, and no others", T, float, double) {
    for_each_instruction_set([](const InstructionSet& set) {
        std::mt19937 rng(4);
        const PairKernels<T>& kernels = set.complex_kernels->get<T>();
        const size_t lanes = size_t(kernels.lanes), size = 3 * lanes, first = 1;
        const Buffer<T> from = random_buffer<T>(size + first, rng);
        Buffer<T> to = random_buffer<T>(size + 2 * first, rng);
        std::vector<T> expected(to.data, to.data + to.size);
        for (size_t i = 0; i < size; ++i) expected[first + i] = T(0.3) * from.data[first + i];
        kernels.copy_times(from.data + first, size, T(0.3), to.data + first);
        CHECK(std::equal(expected.begin(), expected.end(), to.data));
    });
}
