// Real statevectors of RY and CNOT circuits in batches: <Z> or the distribution of outcomes forward, gradients by the
// adjoint method.
//
// A unit is one array of 2^bits amplitudes, in which the lowest `sample_bits` bits of an index number samples and the
// others are qubits: with sample_bits = log2(lanes) every SIMD lane is a sample of its own; with 0 a unit is one sample
// and its lowest qubits lie across the lanes. The plan (plan.h) divides the circuit into stages. A stage acts on so few
// bits that a chunk of the unit, which spans those bits, fits into a cache and takes all operations of the stage there.
// A row is one vector of a chunk. So the lowest bits of a chunk's index number lanes, the others rows.
//
// An operation is an optional CNOT and then a rotation RY(angle). With c = cos(angle / 2), s = sin(angle / 2), and
// (a, b) the amplitudes where the target is 0 and 1, it maps
//     control 0:  (a, b) -> (c a - s b, c b + s a),  the matrix R;
//     control 1:  (a, b) -> (c b - s a, c a + s b),  the matrix R X, which is a reflection and so its own inverse.
// If all samples share the angle, c is left out: with t = s / c, (a, b) -> (a - t b, b + t a), one fused multiply-add
// for an amplitude. This is called tangent form. The product of the factors that were left out, `scale`, is applied in
// a later operation or to the result. In some samples an angle may have the opposite sign, which negates s in their
// lanes. This is how a Pauli error is simulated: moved past the rotations and CNOTs to the end of the circuit, it
// leaves no other trace.
//
// Backward: with lambda the derivative of the loss by the state psi behind an operation,
//     d loss / d angle = 1/2 <lambda, J psi>,  J (a, b) = (-b, a);
// then the operation is undone on lambda and on psi (Jones and Gacon, arXiv 2009.02823).

#pragma once

#include <cstddef>
#include <cstdint>

#include "simd.h"

namespace ketfit {

struct Operation {
    int32_t target, control;  // bits of the chunk's index; control -1: no CNOT
    int32_t fused;            // 1: done in one pass over the chunk with the next operation
    int32_t first_on_qubit;   // 1: a rotation of a qubit that nothing acted on before: part of the product state
};

// (a, b) -> R (a, b), or R X (a, b) if FLIP; in tangent form c is taken for 1, and s is the tangent.
template <bool TANGENT, bool FLIP, class V>
KETFIT_INLINE void rotate(V& a, V& b, V c, V s) {
    const V old = a;
    if (FLIP) {
        a = (TANGENT ? b : c * b) - s * old;
        b = (TANGENT ? old : c * old) + s * b;
    } else {
        a = (TANGENT ? old : c * old) - s * b;
        b = (TANGENT ? b : c * b) + s * old;
    }
}

// The inverse; in tangent form up to the factor 1 + s^2.
template <bool TANGENT, bool FLIP, class V>
KETFIT_INLINE void rotate_inverse(V& a, V& b, V c, V s) {
    rotate<TANGENT, FLIP>(a, b, c, FLIP ? s : -s);
}

// A chunk, and the operations to be done on it.
template <class T>
struct Chunk {
    T *state, *adjoint;  // adjoint: backward only
    int bits;            // log2 of the number of amplitudes
    const Operation* operations;
    int n_operations;
    const T* rotations;           // [operation][2][lane]: c and s
    const uint8_t* tangent_form;  // [operation]
    double* derivatives;          // [operation][lane], added to: <lambda, J psi>; backward only
    bool product_state;           // the circuit starts from the product state that its first rotations make
};

// <Z> of the measured qubits, one column of the result each.
struct Readout {
    const int32_t* columns;     // [bit of the chunk]: its column, or -1
    const int8_t* outer_signs;  // [column]: eigenvalue +1 or -1 of a qubit outside the chunk's bits, 0 if it is inside
    int n_columns;
    int sample_bits;
};

template <class T>
struct GateKernels {
    int lanes;
    // state[i] = outer * product over bits of factors[positions[bit]][bit of i]; factors: [position][2][lane].
    void (*prepare_product_state)(T* state, int bits, int sample_bits, const int32_t* positions, const T* factors,
                                  const T* outer);
    void (*forward)(const Chunk<T>&);
    void (*backward)(const Chunk<T>&);
    // Adds <Z> of column k, lane by lane, to sums[k][lane]; scratch: as many numbers as the state.
    void (*add_expectations)(const T* state, T* scratch, int bits, const Readout&, double* sums);
    // adjoint = 2 sum_k grads[k][lane] Z_k state, the derivative of sum_k grads[k] <Z_k> by the state.
    void (*apply_observable)(const T* state, T* adjoint, int bits, const Readout&, const T* grads);
};

using GateKernelSet = KernelSet<GateKernels>;

}  // namespace ketfit
