// Each kernel against density matrices of complex elements: rho = 2^-Q sum_P r_P P.

#include "pauli_kernels.h"

#include <complex>

#include "test_support.h"

using namespace ketfit;

namespace {

using Complex = std::complex<double>;
constexpr int n_qubits = 4;  // digits, counted from the lowest bits of an index, as the bits of a matrix index are
constexpr size_t dim = 1 << n_qubits, n_strings = dim * dim;
using Matrix = std::vector<Complex>;  // [row][column]

// The column where string P has its one element of a row, and the element.
std::pair<size_t, Complex> element_of_string(size_t string, size_t row) {
    size_t column = row;
    Complex value = 1;
    for (int qubit = 0; qubit < n_qubits; ++qubit) {
        const int digit = int(string >> (2 * qubit) & 3), bit = int(row >> qubit & 1);
        if (digit == 1 || digit == 3) column ^= size_t(1) << qubit;
        if (digit == 2) value *= bit ? -1 : 1;
        if (digit == 3) value *= Complex(0, bit ? 1 : -1);
    }
    return {column, value};
}

Matrix to_matrix(const std::vector<double>& coefficients) {
    Matrix rho(dim * dim);
    for (size_t string = 0; string < n_strings; ++string)
        for (size_t row = 0; row < dim; ++row) {
            const auto [column, value] = element_of_string(string, row);
            rho[row * dim + column] += coefficients[string] * value / double(dim);
        }
    return rho;
}

std::vector<double> to_coefficients(const Matrix& rho) {
    std::vector<double> coefficients(n_strings);
    for (size_t string = 0; string < n_strings; ++string) {
        Complex trace = 0;
        for (size_t row = 0; row < dim; ++row) {
            const auto [column, value] = element_of_string(string, row);
            trace += value * rho[column * dim + row];
        }
        coefficients[string] = trace.real();
    }
    return coefficients;
}

// sum_k K rho K^T for real Kraus operators.
Matrix apply_kraus(const Matrix& rho, const std::vector<std::vector<double>>& operators) {
    Matrix result(dim * dim);
    for (const std::vector<double>& kraus : operators) {
        Matrix left(dim * dim);
        for (size_t i = 0; i < dim; ++i)
            for (size_t k = 0; k < dim; ++k)
                if (kraus[i * dim + k] != 0)
                    for (size_t j = 0; j < dim; ++j) left[i * dim + j] += kraus[i * dim + k] * rho[k * dim + j];
        for (size_t i = 0; i < dim; ++i)
            for (size_t j = 0; j < dim; ++j)
                for (size_t k = 0; k < dim; ++k) result[i * dim + j] += left[i * dim + k] * kraus[j * dim + k];
    }
    return result;
}

// A real matrix [[m00, m01], [m10, m11]] on one qubit, as one of all qubits.
std::vector<double> on_qubit(int qubit, double m00, double m01, double m10, double m11) {
    const double m[2][2] = {{m00, m01}, {m10, m11}};
    std::vector<double> full(dim * dim);
    for (size_t i = 0; i < dim; ++i)
        for (const size_t j : {i, i ^ size_t(1) << qubit}) full[i * dim + j] = m[i >> qubit & 1][j >> qubit & 1];
    return full;
}

std::vector<double> cnot_matrix(int control, int target) {
    std::vector<double> full(dim * dim);
    for (size_t i = 0; i < dim; ++i) full[i * dim + (i >> control & 1 ? i ^ size_t(1) << target : i)] = 1;
    return full;
}

std::vector<std::vector<double>> ry_matrix(int qubit, double t) {
    return {on_qubit(qubit, std::cos(t / 2), -std::sin(t / 2), std::sin(t / 2), std::cos(t / 2))};
}

std::vector<std::vector<double>> damping_matrices(int qubit, double gamma) {
    return {on_qubit(qubit, 1, 0, 0, std::sqrt(1 - gamma)), on_qubit(qubit, 0, std::sqrt(gamma), 0, 0)};
}

constexpr double damping = 0.2;

// RY and then amplitude damping.
template <class T>
NoisyRotation<T> noisy_rotation(double t) {
    const double c = std::cos(t), s = std::sin(t), x = std::sqrt(1 - damping), z = 1 - damping;
    return {true, T(x * c), T(x * s), T(-z * s), T(z * c), T(x), T(damping), T(-x * s), T(x * c), T(-z * c), T(-z * s)};
}

// Amplitude damping of both qubits.
template <class T>
CnotNoise<T> damping_noise() {
    const double factors[4] = {1, std::sqrt(1 - damping), 1 - damping, std::sqrt(1 - damping)};
    CnotNoise<T> noise{true, {}, T(damping)};
    for (int k = 0; k < 16; ++k) noise.factors[k] = T(factors[k / 4] * factors[k % 4]);
    return noise;
}

template <class T>
Buffer<T> padded(const std::vector<double>& coefficients) {
    Buffer<T> buffer(padded_index(n_strings - 1) + 1);
    for (size_t i = 0; i < n_strings; ++i) buffer.data[padded_index(i)] = T(coefficients[i]);
    return buffer;
}

template <class T>
std::vector<double> unpadded(const Buffer<T>& buffer) {
    std::vector<double> coefficients(n_strings);
    for (size_t i = 0; i < n_strings; ++i) coefficients[i] = buffer.data[padded_index(i)];
    return coefficients;
}

std::vector<double> random_coefficients(std::mt19937& rng) {
    const Buffer<double> numbers = random_buffer<double>(n_strings, rng);
    return {numbers.data, numbers.data + n_strings};
}

double dot(const std::vector<double>& a, const std::vector<double>& b) {
    double sum = 0;
    for (size_t i = 0; i < a.size(); ++i) sum += a[i] * b[i];
    return sum;
}

// Calls visit(kernels, pass) for all pairs of digits, on vectors and on single numbers, of every instruction set.
template <class T, class F>
void for_each_pass(F visit) {
    for_each_instruction_set([&](const InstructionSet& set) {
        for (const bool scalar : {false, true}) {
            const PauliKernelSet& both = *set.pauli_kernels;
            const PauliKernels<T>& kernels = (scalar ? both.scalars : both.vectors).template get<T>();
            for (int a = 0; a < n_qubits; ++a)
                for (int b = 0; b < n_qubits; ++b) {
                    if (a == b) continue;
                    CAPTURE(scalar);
                    CAPTURE(a);
                    CAPTURE(b);
                    TilePass<T> pass = make_tile_layout<T>(a, b, size_t(kernels.lanes));
                    pass.n_tiles = n_strings / 16 / size_t(kernels.lanes);
                    visit(kernels, pass, a, b);
                }
        }
    });
}

template <class T>
std::vector<double> run_forward(const PauliKernels<T>& kernels, TilePass<T> pass, const std::vector<double>& before) {
    Buffer<T> state = padded<T>(before);
    pass.state = pass.out = state.data;
    kernels.forward(pass);
    return unpadded(state);
}

template <class T>
void check_close(const std::vector<double>& mine, const std::vector<double>& expected) {
    CHECK(max_difference(mine.data(), expected.data(), expected.size()) < 4 * tolerance<T>);
}

}  // namespace

TEST_CASE("padded_index is linear in numbers without a common bit, and gives each coefficient a place of its own") {
    CHECK(padded_index(0x12345) == padded_index(0x12000) + padded_index(0x345));
    for (size_t i = 1; i < 1 << 16; ++i) REQUIRE(padded_index(i) > padded_index(i - 1));
}

TEST_CASE_TEMPLATE("forward applies a CNOT", T, float, double) {
    std::mt19937 rng(1);
    for_each_pass<T>([&](const PauliKernels<T>& kernels, TilePass<T>& pass, int a, int b) {
        const CnotNoise<T> none{};
        pass.cnot = true;
        pass.noise = &none;
        const std::vector<double> before = random_coefficients(rng);
        const Matrix rho = apply_kraus(to_matrix(before), {cnot_matrix(a, b)});
        check_close<T>(run_forward(kernels, pass, before), to_coefficients(rho));
    });
}

TEST_CASE_TEMPLATE("forward applies noise behind a CNOT, and noisy rotations of b and a", T, float, double) {
    std::mt19937 rng(2);
    for_each_pass<T>([&](const PauliKernels<T>& kernels, TilePass<T>& pass, int a, int b) {
        const CnotNoise<T> noise = damping_noise<T>();
        pass.cnot = true;
        pass.noise = &noise;
        pass.a = noisy_rotation<T>(0.7);
        pass.b = noisy_rotation<T>(-1.9);
        const std::vector<double> before = random_coefficients(rng);
        Matrix rho = apply_kraus(to_matrix(before), {cnot_matrix(a, b)});
        for (const int qubit : {a, b}) rho = apply_kraus(rho, damping_matrices(qubit, damping));
        for (const auto& [qubit, angle] : {std::pair{b, -1.9}, std::pair{a, 0.7}})
            rho = apply_kraus(apply_kraus(rho, ry_matrix(qubit, angle)), damping_matrices(qubit, damping));
        check_close<T>(run_forward(kernels, pass, before), to_coefficients(rho));
    });
}

TEST_CASE_TEMPLATE("backward applies the transposed operation and gives the derivatives by both angles", T, float,
                   double) {
    std::mt19937 rng(3);
    for_each_pass<T>([&](const PauliKernels<T>& kernels, TilePass<T>& pass, int, int) {
        const CnotNoise<T> noise = damping_noise<T>();
        pass.noise = &noise;
        const std::vector<double> v = random_coefficients(rng), w = random_coefficients(rng);
        for (const bool cnot : {false, true}) {
            pass.cnot = cnot;
            // <w, A v> at angles near those of the test, for the quotient of differences.
            const auto inner = [&](double angle_a, double angle_b) {
                pass.a = noisy_rotation<T>(angle_a);
                pass.b = noisy_rotation<T>(angle_b);
                return dot(w, run_forward(kernels, pass, v));
            };
            const double step = sizeof(T) == 4 ? 1e-2 : 1e-5;
            const double by_a = (inner(0.7 + step, -1.9) - inner(0.7 - step, -1.9)) / (2 * step);
            const double by_b = (inner(0.7, -1.9 + step) - inner(0.7, -1.9 - step)) / (2 * step);
            const double value = inner(0.7, -1.9);
            const Buffer<T> state = padded<T>(v);
            Buffer<T> adjoint = padded<T>(w), observable = padded<T>(w);
            pass.state = state.data;
            pass.adjoint = adjoint.data;
            kernels.backward(pass);
            CHECK(std::abs(dot(unpadded(adjoint), v) - value) < 200 * tolerance<T>);
            CHECK(std::abs(pass.derivatives[0] - by_a) < (sizeof(T) == 4 ? 2e-3 : 1e-8));
            CHECK(std::abs(pass.derivatives[1] - by_b) < (sizeof(T) == 4 ? 2e-3 : 1e-8));
            pass.adjoint = observable.data;
            kernels.evolve_adjoint(pass);
            CHECK(unpadded(observable) == unpadded(adjoint));
        }
    });
}
