// The kernels for each instruction set of the processor's architecture.

#pragma once

#include <string>
#include <vector>

#include "complex_kernels.h"
#include "gate_kernels.h"
#include "pauli_kernels.h"

namespace ketfit {

struct InstructionSet {
    const char* name;
    const GateKernelSet* gate_kernels;
    const PauliKernelSet* pauli_kernels;
    const PairKernelSet *complex_kernels, *real_kernels;
    bool is_supported;  // by this processor
};

// All that were compiled, from the widest to the narrowest.
const std::vector<InstructionSet>& instruction_sets();

// Throws std::invalid_argument if this processor does not support it.
const InstructionSet& find_instruction_set(const std::string& name);

}  // namespace ketfit
