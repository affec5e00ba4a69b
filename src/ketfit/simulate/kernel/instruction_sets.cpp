#include "instruction_sets.h"

#include <stdexcept>

namespace ketfit {

extern const GateKernelSet gate_kernels_baseline;
extern const PauliKernelSet pauli_kernels_baseline;
extern const PairKernelSet complex_kernels_baseline, real_kernels_baseline;
#ifdef KETFIT_X86
extern const GateKernelSet gate_kernels_avx2, gate_kernels_avx512;
extern const PauliKernelSet pauli_kernels_avx2, pauli_kernels_avx512;
extern const PairKernelSet complex_kernels_avx2, complex_kernels_avx512, real_kernels_avx2, real_kernels_avx512;
#endif

const std::vector<InstructionSet>& instruction_sets() {
    static const std::vector<InstructionSet> all = [] {
        std::vector<InstructionSet> sets;
#ifdef KETFIT_X86
        __builtin_cpu_init();
        sets.push_back({"avx512", &gate_kernels_avx512, &pauli_kernels_avx512, &complex_kernels_avx512,
                        &real_kernels_avx512,
                        __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
                            __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl")});
        sets.push_back({"avx2", &gate_kernels_avx2, &pauli_kernels_avx2, &complex_kernels_avx2, &real_kernels_avx2,
                        __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")});
#endif
        sets.push_back({"baseline", &gate_kernels_baseline, &pauli_kernels_baseline, &complex_kernels_baseline,
                        &real_kernels_baseline, true});
        return sets;
    }();
    return all;
}

const InstructionSet& find_instruction_set(const std::string& name) {
    for (const InstructionSet& set : instruction_sets())
        if (set.name == name && set.is_supported) return set;
    throw std::invalid_argument("this processor does not support the instruction set '" + name + "'");
}

}  // namespace ketfit
