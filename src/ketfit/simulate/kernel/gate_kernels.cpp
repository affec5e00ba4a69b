// The loops over a chunk that gate_kernels.h describes, compiled for the instruction set KETFIT_ISA (see simd.h).

#include "gate_kernels.h"

namespace ketfit {
namespace {

template <class T>
using Lanes = Simd<T, KETFIT_VECTOR_BYTES>;

template <class T>
using Vector = typename Lanes<T>::Vector;

// The rows of a chunk from `base` on.
template <class T>
struct Rows {
    size_t count;
    Vector<T>*state, *adjoint;

    KETFIT_INLINE explicit Rows(const Chunk<T>& chunk, size_t base = 0)
        : count((size_t(1) << chunk.bits) / Lanes<T>::lanes),
          state(reinterpret_cast<Vector<T>*>(chunk.state) + base),
          adjoint(reinterpret_cast<Vector<T>*>(chunk.adjoint) + base) {}
};

// Two fused operations in one pass: the first on target y, with FLIP_FIRST as R X, and the second on target z, which
// has y as its control (CONTROL_SECOND) or none. Of the rows those whose bits in `mask` are 0 in y and z and elsewhere
// as in `base`. Derivatives are added to.
template <class T, bool ADJOINT, bool TANGENT, bool FLIP_FIRST, bool CONTROL_SECOND>
void apply_fused_pair(const Chunk<T>& chunk, size_t base, size_t stride_y, size_t stride_z, size_t mask,
                      const T* rotation_y, const T* rotation_z, Vector<T>& derivative_y, Vector<T>& derivative_z) {
    using V = Vector<T>;
    const Rows<T> rows(chunk, base);
    const V cos_y = Lanes<T>::load(rotation_y), sin_y = Lanes<T>::load(rotation_y + Lanes<T>::lanes);
    const V cos_z = Lanes<T>::load(rotation_z), sin_z = Lanes<T>::load(rotation_z + Lanes<T>::lanes);
    V sum_y = {}, sum_z = {};
    for (size_t row = 0; row < rows.count; row = next_index(row, mask)) {
        V *state_0 = rows.state + row, *state_1 = state_0 + stride_y;  // y = 0 and y = 1
        V psi_00 = state_0[0], psi_01 = state_0[stride_z], psi_10 = state_1[0], psi_11 = state_1[stride_z];
        if (!ADJOINT) {
            rotate<TANGENT, FLIP_FIRST>(psi_00, psi_10, cos_y, sin_y);
            rotate<TANGENT, FLIP_FIRST>(psi_01, psi_11, cos_y, sin_y);
            rotate<TANGENT, false>(psi_00, psi_01, cos_z, sin_z);
            rotate<TANGENT, CONTROL_SECOND>(psi_10, psi_11, cos_z, sin_z);
        } else {
            V *adjoint_0 = rows.adjoint + row, *adjoint_1 = adjoint_0 + stride_y;
            V lambda_00 = adjoint_0[0], lambda_01 = adjoint_0[stride_z];
            V lambda_10 = adjoint_1[0], lambda_11 = adjoint_1[stride_z];
            sum_z += lambda_01 * psi_00 - lambda_00 * psi_01 + (lambda_11 * psi_10 - lambda_10 * psi_11);
            rotate_inverse<TANGENT, false>(psi_00, psi_01, cos_z, sin_z);
            rotate_inverse<TANGENT, false>(lambda_00, lambda_01, cos_z, sin_z);
            rotate_inverse<TANGENT, CONTROL_SECOND>(psi_10, psi_11, cos_z, sin_z);
            rotate_inverse<TANGENT, CONTROL_SECOND>(lambda_10, lambda_11, cos_z, sin_z);
            sum_y += lambda_10 * psi_00 - lambda_00 * psi_10 + (lambda_11 * psi_01 - lambda_01 * psi_11);
            rotate_inverse<TANGENT, FLIP_FIRST>(psi_00, psi_10, cos_y, sin_y);
            rotate_inverse<TANGENT, FLIP_FIRST>(lambda_00, lambda_10, cos_y, sin_y);
            rotate_inverse<TANGENT, FLIP_FIRST>(psi_01, psi_11, cos_y, sin_y);
            rotate_inverse<TANGENT, FLIP_FIRST>(lambda_01, lambda_11, cos_y, sin_y);
            adjoint_0[0] = lambda_00, adjoint_0[stride_z] = lambda_01;
            adjoint_1[0] = lambda_10, adjoint_1[stride_z] = lambda_11;
        }
        state_0[0] = psi_00, state_0[stride_z] = psi_01, state_1[0] = psi_10, state_1[stride_z] = psi_11;
    }
    derivative_y += sum_y;
    derivative_z += sum_z;
}

// The target is a bit of the row, and so is the control, if there is one: the pairs of rows whose bits in `mask` are 0
// in the target and elsewhere as in `base`. Returns the derivative lane by lane, as the functions below do.
template <class T, bool ADJOINT, bool TANGENT, bool FLIP>
Vector<T> apply_to_rows(const Chunk<T>& chunk, size_t base, size_t stride, size_t mask, Vector<T> c, Vector<T> s) {
    using V = Vector<T>;
    const Rows<T> rows(chunk, base);
    V *const state = rows.state, *const adjoint = rows.adjoint;
    V sum_10 = {}, sum_01 = {};
    for (size_t row = 0; row < rows.count; row = next_index(row, mask)) {
        V psi_0 = state[row], psi_1 = state[row + stride];
        if (!ADJOINT) {
            rotate<TANGENT, FLIP>(psi_0, psi_1, c, s);
        } else {
            V lambda_0 = adjoint[row], lambda_1 = adjoint[row + stride];
            sum_10 += lambda_1 * psi_0;
            sum_01 += lambda_0 * psi_1;
            rotate_inverse<TANGENT, FLIP>(psi_0, psi_1, c, s);
            rotate_inverse<TANGENT, FLIP>(lambda_0, lambda_1, c, s);
            adjoint[row] = lambda_0;
            adjoint[row + stride] = lambda_1;
        }
        state[row] = psi_0;
        state[row + stride] = psi_1;
    }
    return sum_10 - sum_01;
}

// (a, b) -> (m_00 a + m_01 b, m_10 a + m_11 b), a matrix of its own in each lane.
template <class T>
struct LaneMatrices {
    Vector<T> m_00, m_01, m_10, m_11;
};

// The target is a bit of the row, and the control a bit of the lane.
template <class T, bool ADJOINT>
Vector<T> apply_lane_matrices(const Chunk<T>& chunk, size_t stride, const LaneMatrices<T>& m) {
    using V = Vector<T>;
    const Rows<T> rows(chunk);
    V *const state = rows.state, *const adjoint = rows.adjoint;
    V sum_10 = {}, sum_01 = {};
    for (size_t row = 0; row < rows.count; row = next_index(row, stride)) {
        const V psi_0 = state[row], psi_1 = state[row + stride];
        if (ADJOINT) {
            const V lambda_0 = adjoint[row], lambda_1 = adjoint[row + stride];
            sum_10 += lambda_1 * psi_0;
            sum_01 += lambda_0 * psi_1;
            adjoint[row] = m.m_00 * lambda_0 + m.m_01 * lambda_1;
            adjoint[row + stride] = m.m_10 * lambda_0 + m.m_11 * lambda_1;
        }
        state[row] = m.m_00 * psi_0 + m.m_01 * psi_1;
        state[row + stride] = m.m_10 * psi_0 + m.m_11 * psi_1;
    }
    return sum_10 - sum_01;
}

// The target is bit BIT of the lane: v -> diagonal v + off_diagonal (v with the lanes' bit flipped), on the rows whose
// bits in `mask` are as in `base`. Returns sum lambda (psi with the lanes' bit flipped).
template <class T, bool ADJOINT, int BIT>
Vector<T> apply_to_lane_bit(const Chunk<T>& chunk, size_t base, size_t mask, Vector<T> diagonal,
                            Vector<T> off_diagonal) {
    using V = Vector<T>;
    const Rows<T> rows(chunk, base);
    V *const state = rows.state, *const adjoint = rows.adjoint;
    V sum = {};
    for (size_t row = 0; row < rows.count; row = next_index(row, mask)) {
        const V psi = state[row], flipped_psi = Lanes<T>::template flip_lane_bit<BIT>(psi);
        if (ADJOINT) {
            const V lambda = adjoint[row];
            sum += lambda * flipped_psi;
            adjoint[row] = diagonal * lambda + off_diagonal * Lanes<T>::template flip_lane_bit<BIT>(lambda);
        }
        state[row] = diagonal * psi + off_diagonal * flipped_psi;
    }
    return sum;
}

template <class T, bool ADJOINT>
Vector<T> apply_to_lane_bit(const Chunk<T>& chunk, int bit, size_t base, size_t mask, Vector<T> diagonal,
                            Vector<T> off_diagonal) {
    switch (bit) {
        case 0:
            return apply_to_lane_bit<T, ADJOINT, 0>(chunk, base, mask, diagonal, off_diagonal);
        case 1:
            if constexpr (Lanes<T>::lane_bits > 1)
                return apply_to_lane_bit<T, ADJOINT, 1>(chunk, base, mask, diagonal, off_diagonal);
            [[fallthrough]];
        case 2:
            if constexpr (Lanes<T>::lane_bits > 2)
                return apply_to_lane_bit<T, ADJOINT, 2>(chunk, base, mask, diagonal, off_diagonal);
            [[fallthrough]];
        default:
            if constexpr (Lanes<T>::lane_bits > 3)
                return apply_to_lane_bit<T, ADJOINT, 3>(chunk, base, mask, diagonal, off_diagonal);
            __builtin_unreachable();
    }
}

// The derivative alone, of a rotation that the product state holds: it need not be undone, because all operations that
// are left act on other qubits.
template <class T>
Vector<T> first_rotation_derivative(const Chunk<T>& chunk, size_t stride) {
    using V = Vector<T>;
    const Rows<T> rows(chunk);
    const V *const state = rows.state, *const adjoint = rows.adjoint;
    V sum_10 = {}, sum_01 = {};
    for (size_t row = 0; row < rows.count; row = next_index(row, stride)) {
        sum_10 += adjoint[row + stride] * state[row];
        sum_01 += adjoint[row] * state[row + stride];
    }
    return sum_10 - sum_01;
}

// One operation in a pass of its own. Returns the derivative lane by lane.
template <class T, bool ADJOINT>
Vector<T> apply_single(const Chunk<T>& chunk, const Operation& operation, bool tangent_form, const T* rotation) {
    using V = Vector<T>;
    using L = Lanes<T>;
    constexpr int lane_bits = L::lane_bits;
    const V c = L::load(rotation), s = L::load(rotation + L::lanes);
    const bool row_control = operation.control >= lane_bits;
    const size_t control = row_control ? size_t(1) << (operation.control - lane_bits) : 0;
    if (operation.target >= lane_bits) {
        const size_t stride = size_t(1) << (operation.target - lane_bits);
        if (ADJOINT && operation.first_on_qubit && chunk.product_state)
            return first_rotation_derivative<T>(chunk, stride);
        if (operation.control >= 0 && !row_control) {
            const V on = L::bit_signs(operation.control), u = ADJOINT ? -s : s;
            return apply_lane_matrices<T, ADJOINT>(
                chunk, stride, {L::select(on, -s, c), L::select(on, c, -u), L::select(on, c, u), L::select(on, s, c)});
        }
        const size_t mask = stride | control;
        V derivative = tangent_form ? apply_to_rows<T, ADJOINT, true, false>(chunk, 0, stride, mask, c, s)
                                    : apply_to_rows<T, ADJOINT, false, false>(chunk, 0, stride, mask, c, s);
        if (row_control)
            derivative += tangent_form ? apply_to_rows<T, ADJOINT, true, true>(chunk, control, stride, mask, c, s)
                                       : apply_to_rows<T, ADJOINT, false, true>(chunk, control, stride, mask, c, s);
        return derivative;
    }
    // J psi is the flipped psi with the sign of the target bit.
    const V sign = L::bit_signs(operation.target);
    if (ADJOINT && operation.first_on_qubit && chunk.product_state)
        return sign * apply_to_lane_bit<T, true>(chunk, operation.target, 0, 0, V{} + 1, V{});
    const V signed_s = sign * s, off_diagonal = ADJOINT ? -signed_s : signed_s;
    V sum;
    if (operation.control >= 0 && !row_control) {
        const V on = L::bit_signs(operation.control);
        sum = apply_to_lane_bit<T, ADJOINT>(chunk, operation.target, 0, 0, L::select(on, signed_s, c),
                                            L::select(on, c, off_diagonal));
    } else {
        sum = apply_to_lane_bit<T, ADJOINT>(chunk, operation.target, 0, control, c, off_diagonal);
        if (row_control) sum += apply_to_lane_bit<T, ADJOINT>(chunk, operation.target, control, control, signed_s, c);
    }
    return sign * sum;
}

// Two operations that the plan fused: the first on y, perhaps controlled, and the second on z, perhaps controlled by y;
// all of them bits of the row.
template <class T, bool ADJOINT, bool TANGENT, bool CONTROL_SECOND>
void apply_fused(const Chunk<T>& chunk, const Operation& first, const Operation& second, const T* rotations,
                 Vector<T>& derivative_y, Vector<T>& derivative_z) {
    constexpr int lane_bits = Lanes<T>::lane_bits;
    const size_t control = first.control < 0 ? 0 : size_t(1) << (first.control - lane_bits);
    const size_t y = size_t(1) << (first.target - lane_bits), z = size_t(1) << (second.target - lane_bits);
    const size_t mask = control | y | z;
    const T* second_rotation = rotations + 2 * Lanes<T>::lanes;
    apply_fused_pair<T, ADJOINT, TANGENT, false, CONTROL_SECOND>(chunk, 0, y, z, mask, rotations, second_rotation,
                                                                 derivative_y, derivative_z);
    if (control)
        apply_fused_pair<T, ADJOINT, TANGENT, true, CONTROL_SECOND>(chunk, control, y, z, mask, rotations,
                                                                    second_rotation, derivative_y, derivative_z);
}

// One pass over the chunk, for `count` operations: 1, or 2 that are fused.
template <class T, bool ADJOINT>
void apply_pass(const Chunk<T>& chunk, int first, int count) {
    constexpr int lanes = Lanes<T>::lanes;
    const T* rotations = chunk.rotations + size_t(first) * 2 * lanes;
    Vector<T> derivatives[2] = {};
    const Operation &operation = chunk.operations[first], &last = chunk.operations[first + count - 1];
    const bool tangent_form = chunk.tangent_form[first] && chunk.tangent_form[first + count - 1];
    const bool controlled = last.control >= 0;
    if (count == 1)
        derivatives[0] = apply_single<T, ADJOINT>(chunk, operation, tangent_form, rotations);
    else
        (tangent_form ? controlled ? apply_fused<T, ADJOINT, true, true> : apply_fused<T, ADJOINT, true, false>
         : controlled ? apply_fused<T, ADJOINT, false, true>
                      : apply_fused<T, ADJOINT, false, false>)(chunk, operation, last, rotations, derivatives[0],
                                                               derivatives[1]);
    if (ADJOINT)
        for (int i = 0; i < count; ++i)
            for (int lane = 0; lane < lanes; ++lane)
                chunk.derivatives[size_t(first + i) * lanes + lane] += derivatives[i][lane];
}

template <class T>
void forward(const Chunk<T>& chunk) {
    for (int i = 0; i < chunk.n_operations;) {
        const int count = 1 + chunk.operations[i].fused;
        if (!(chunk.product_state && chunk.operations[i].first_on_qubit)) apply_pass<T, false>(chunk, i, count);
        i += count;
    }
}

template <class T>
void backward(const Chunk<T>& chunk) {
    for (int i = chunk.n_operations; i > 0;) {
        const int count = i > 1 && chunk.operations[i - 2].fused ? 2 : 1;
        i -= count;
        apply_pass<T, true>(chunk, i, count);
    }
}

template <class T>
void prepare_product_state(T* state, int bits, int sample_bits, const int32_t* positions, const T* factors,
                           const T* outer) {
    using V = Vector<T>;
    using L = Lanes<T>;
    constexpr int lanes = L::lanes, lane_bits = L::lane_bits;
    V* psi = reinterpret_cast<V*>(state);
    V v = L::load(outer);
    for (int bit = sample_bits; bit < lane_bits; ++bit) {
        const T* factor = factors + size_t(positions[bit]) * 2 * lanes;
        v *= L::select(L::bit_signs(bit), L::load(factor + lanes), L::load(factor));
    }
    psi[0] = v;
    for (int bit = lane_bits; bit < bits; ++bit) {
        const T* factor = factors + size_t(positions[bit]) * 2 * lanes;
        const V zero = L::load(factor), one = L::load(factor + lanes);
        const size_t n_rows = size_t(1) << (bit - lane_bits);
        for (size_t row = 0; row < n_rows; ++row) {
            psi[row + n_rows] = psi[row] * one;
            psi[row] *= zero;
        }
    }
}

// The squares are added up in halves, from the highest bit down; the difference of the halves is <Z> of their bit.
template <class T>
void add_expectations(const T* state, T* scratch, int bits, const Readout& readout, double* sums) {
    using V = Vector<T>;
    constexpr int lanes = Lanes<T>::lanes, lane_bits = Lanes<T>::lane_bits;
    const V* psi = reinterpret_cast<const V*>(state);
    V* probability = reinterpret_cast<V*>(scratch);
    const size_t n_rows = size_t(1) << (bits - lane_bits);
    const auto add = [&](int column, V v) {
        for (int lane = 0; lane < lanes; ++lane) sums[size_t(column) * lanes + lane] += v[lane];
    };
    for (size_t row = 0; row < n_rows; ++row) probability[row] = psi[row] * psi[row];
    for (int bit = bits - 1; bit >= lane_bits; --bit) {
        const size_t half = size_t(1) << (bit - lane_bits);
        V difference = {};
        for (size_t row = 0; row < half;) {
            V part = {};  // a long sum in single precision would lose digits
            for (const size_t end = row + (half < 32 ? half : 32); row < end; ++row) {
                part += probability[row] - probability[row + half];
                probability[row] += probability[row + half];
            }
            difference += part;
        }
        if (readout.columns[bit] >= 0) add(readout.columns[bit], difference);
    }
    for (int bit = readout.sample_bits; bit < lane_bits; ++bit)
        if (readout.columns[bit] >= 0) add(readout.columns[bit], -Lanes<T>::bit_signs(bit) * probability[0]);
    for (int k = 0; k < readout.n_columns; ++k)
        if (readout.outer_signs[k]) add(k, probability[0] * T(readout.outer_signs[k]));
}

// First the eigenvalues of the observable, row by row from the lowest bit up, and then their products with the state.
template <class T>
void apply_observable(const T* state, T* adjoint, int bits, const Readout& readout, const T* grads) {
    using V = Vector<T>;
    using L = Lanes<T>;
    constexpr int lanes = L::lanes, lane_bits = L::lane_bits;
    const auto* psi = reinterpret_cast<const V*>(state);
    auto* lambda = reinterpret_cast<V*>(adjoint);
    V sum = {};
    for (int k = 0; k < readout.n_columns; ++k) sum += L::load(grads + size_t(k) * lanes) * T(readout.outer_signs[k]);
    for (int bit = readout.sample_bits; bit < lane_bits; ++bit)
        if (readout.columns[bit] >= 0) sum -= L::bit_signs(bit) * L::load(grads + size_t(readout.columns[bit]) * lanes);
    for (int bit = lane_bits; bit < bits; ++bit)
        if (readout.columns[bit] >= 0) sum += L::load(grads + size_t(readout.columns[bit]) * lanes);
    lambda[0] = 2 * sum;
    for (int bit = lane_bits; bit < bits; ++bit) {
        const size_t half = size_t(1) << (bit - lane_bits);
        V step = {};
        if (readout.columns[bit] >= 0) step = 4 * L::load(grads + size_t(readout.columns[bit]) * lanes);
        for (size_t row = 0; row < half; ++row) lambda[row + half] = lambda[row] - step;
    }
    const size_t n_rows = size_t(1) << (bits - lane_bits);
    for (size_t row = 0; row < n_rows; ++row) lambda[row] *= psi[row];
}

template <class T>
constexpr GateKernels<T> kernels() {
    return {Lanes<T>::lanes, prepare_product_state<T>, forward<T>,
            backward<T>,     add_expectations<T>,      apply_observable<T>};
}

}  // namespace

extern const GateKernelSet KETFIT_FOR_ISA(gate_kernels_);
const GateKernelSet KETFIT_FOR_ISA(gate_kernels_) = {kernels<float>(), kernels<double>()};

}  // namespace ketfit
