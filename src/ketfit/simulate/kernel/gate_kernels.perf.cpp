// Prints the time of a gate and the bandwidth of the state, beside that of a copy of memory. One pass over a state
// reads and writes every amplitude, so the copy is its roofline. A pass beyond 100% writes where it has read, while a
// copy from main memory has to load the lines that it overwrites. A fused pair is two gates in one or two passes.

#include "gate_kernels.h"

#include <chrono>
#include <cstdio>
#include <cstring>
#include <initializer_list>
#include <vector>

#include "buffer_pool.h"
#include "instruction_sets.h"

using namespace ketfit;

namespace {

// The least time of a call, in seconds.
template <class F>
double time_of(F call) {
    using Clock = std::chrono::steady_clock;
    double best = 1e9;
    const auto end = Clock::now() + std::chrono::milliseconds(60);
    for (int repeat = 0; repeat < 3 || Clock::now() < end; ++repeat) {
        const auto start = Clock::now();
        call();
        const double seconds = std::chrono::duration<double>(Clock::now() - start).count();
        if (seconds < best) best = seconds;
    }
    return best;
}

template <class T>
void measure(const char* set, const GateKernels<T>& kernels, int bits) {
    const size_t size = size_t(1) << bits, bytes = size * sizeof(T), lanes = size_t(kernels.lanes);
    int row = 0;  // the first bit that is not in lanes
    while (1 << row < kernels.lanes) ++row;
    Buffer<T> state(size), adjoint(size);
    for (size_t i = 0; i < size; ++i) state.data[i] = adjoint.data[i] = T(1) / T(i % 7 + 1);
    // From one half of the state to the other, so that the copy has as much memory in use as a gate.
    const size_t n_copies = size < 1 << 16 ? 64 : 1;
    const double copy = time_of([&] {
        for (size_t k = 0; k < n_copies; ++k) {
            std::memcpy(state.data + size / 2, state.data, bytes / 2);
            asm volatile("" ::: "memory");
        }
    });
    const double copied = double(bytes) * double(n_copies) / copy;  // bytes read and written in a second
    const int last = bits - 1;
    const struct {
        const char* name;
        std::vector<Operation> operations;
    } cases[] = {
        {"RY", {{last, -1, 0, 0}}},
        {"CNOT RY", {{last, row, 0, 0}}},
        {"CNOT RY, control in lanes", {{last, 0, 0, 0}}},
        {"CNOT RY, target in lanes", {{0, last, 0, 0}}},
        {"CNOT RY CNOT RY, fused", {{last, row + 1, 1, 0}, {row, last, 0, 0}}},
    };
    for (const auto& [name, operations] : cases)
        for (const bool tangent_form : {false, true}) {
            if (tangent_form &&
                (operations[0].target < row || (operations[0].control >= 0 && operations[0].control < row)))
                continue;  // the plan has no such operations, or they gain nothing
            const size_t n = operations.size(), repeats = size < 1 << 16 ? 64 : 1;
            std::vector<Operation> all;
            for (size_t k = 0; k < repeats; ++k) all.insert(all.end(), operations.begin(), operations.end());
            Buffer<T> rotations(all.size() * 2 * lanes);
            // Small angles, so that a state in tangent form does not overflow.
            for (size_t i = 0; i < rotations.size; ++i) rotations.data[i] = i / lanes % 2 ? T(1e-4) : T(1);
            const std::vector<uint8_t> tangent_forms(all.size(), tangent_form);
            std::vector<double> derivatives(all.size() * lanes);
            const Chunk<T> chunk{state.data,           adjoint.data,       bits,
                                 all.data(),           int(all.size()),    rotations.data,
                                 tangent_forms.data(), derivatives.data(), false};
            for (const bool backward : {false, true}) {
                const double pass =
                    time_of([&] { (backward ? kernels.backward : kernels.forward)(chunk); }) / double(repeats);
                const double bandwidth = 2.0 * double(bytes) * (backward ? 2 : 1) / pass;
                std::printf("%-8s %-6s %4d  %-27s %-7s %-8s %12.1f %8.1f %7.0f%%\n", set,
                            sizeof(T) == 4 ? "float" : "double", bits, name, tangent_form ? "tangent" : "full",
                            backward ? "backward" : "forward", pass / double(n) * 1e9, bandwidth / 1e9,
                            100 * bandwidth / copied);
            }
        }
    std::printf("%-8s %-6s %4d  %-27s %-7s %-8s %12.1f %8.1f\n\n", set, sizeof(T) == 4 ? "float" : "double", bits,
                "copy of the state", "", "", 2.0 * double(bytes) / copied * 1e9, copied / 1e9);
}

}  // namespace

int main() {
    std::printf("%-8s %-6s %4s  %-27s %-7s %-8s %12s %8s %8s\n", "set", "type", "bits", "operation", "form", "pass",
                "ns a gate", "GB/s", "of copy");
    for (const InstructionSet& set : instruction_sets()) {
        if (!set.is_supported) continue;
        for (const int bits : {10, 15, 22}) {
            measure<float>(set.name, set.gate_kernels->f32, bits);
            measure<double>(set.name, set.gate_kernels->f64, bits);
        }
    }
}
