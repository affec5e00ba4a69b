// Real statevectors of RY and CNOT circuits in batches: <Z> or the distribution of outcomes forward, gradients by the
// adjoint method.
//
// A unit is one array of 2^bits amplitudes, in which the lowest `sample_bits` bits of an index count samples and the
// others are qubits: with sample_bits = log2(lanes) every SIMD lane is a sample of its own, with 0 a unit is one
// sample and its lowest qubits lie across the lanes. A plan (plan.py) cuts the circuit into stages; a stage acts on
// few enough bits that a chunk of the unit, gathered into a cache, takes all of its operations at once.
//
// An operation is a CNOT or none, and then a rotation: on the two halves (a, b) of the state along the target it is
// the turn (c a - s b, s a + c b) where the control is 0, and the flip (c b - s a, c a + s b) where it is 1. A turn by
// a shared angle is done as (a - t b, b + t a) with t = s / c; the product of the factors c left out, `scale`, goes
// into a later operation or into the result, so that an amplitude costs one fused multiply-add. An angle may have the
// other sign in some samples, which is a sign of s in their lanes: a Pauli error that moves past a turn or a CNOT to
// the end leaves no other trace, so that no error costs a pass.
//
// Backward, with lambda the derivative with respect to psi behind the gate, d loss / d angle = 1/2 <lambda, J psi>,
// J psi = (-b, a); then the operation is undone on both (Jones and Gacon, arXiv 2009.02823).

#pragma once

#include <cstddef>
#include <cstdint>

namespace ketfit {

struct Op {
    int32_t target, control;  // bits of the chunk; control -1: no CNOT
    int32_t fused;            // 1: runs in one pass with the next operation
    int32_t start;            // 1: a rotation of |0>, which the product state already holds
};

// What an operation does to a unit: cosine and sine, one pair a lane; `plain` means c = 1 and s = t.
template <class T>
struct Turns {
    T* table;  // [op][2][lanes]
    uint8_t* plain;
};

template <class T>
struct Chunk {
    T *state, *adjoint;
    int bits;  // lanes included
    const Op* ops;
    int n_ops;
    Turns<T> turns;
    double* slopes;  // [op][lanes], added to
    bool product;    // the circuit starts from the product state
};

// <Z> of measured qubits: columns[bit] is the result's column for a bit of the chunk or -1; for the bits outside,
// outer[k] is +1 or -1, and 0 if column k lies inside.
struct Readout {
    const int32_t* columns;
    const int8_t* outer;
    int n_columns;
    int sample_bits;
};

template <class T>
struct Engine {
    int lanes;
    void (*start)(T* state, int bits, int sample_bits, const int32_t* positions, const T* halves, const T* outer);
    void (*forward)(const Chunk<T>&);
    void (*backward)(const Chunk<T>&);
    void (*measure)(const T* state, T* spare, int bits, const Readout&, double* sums);
    void (*observe)(const T* state, T* adjoint, int bits, const Readout&, const T* grads);
};

struct Engines {
    Engine<float> f32;
    Engine<double> f64;
};

}  // namespace ketfit
