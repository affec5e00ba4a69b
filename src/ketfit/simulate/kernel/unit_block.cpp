// Bindings of the blocks of a unit that ranks exchange.

#include "unit_block.h"

#include <nanobind/nanobind.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include "arrays.h"
#include "instruction_sets.h"
#include "thread_pool.h"

namespace nb = nanobind;
using namespace nanobind::literals;

namespace ketfit {
namespace {

constexpr size_t part_length = size_t(1) << 16;  // amplitudes that a thread takes at a time

void make_block(UnitBlock* block, const std::string& instruction_set, int itemsize, bool is_real, int bits,
                std::vector<uint64_t> masks, uint64_t parities) {
    const PairKernelSet& kernels = *find_instruction_set(instruction_set).complex_kernels;
    const int lanes = itemsize == 4 ? kernels.f32.lanes : kernels.f64.lanes;
    new (block) UnitBlock(itemsize, is_real, bits, __builtin_ctz(unsigned(lanes)), std::move(masks), parities);
}

// Calls copy(begin, end, place in the buffer) for parts of a range, on several threads.
template <class F>
void for_each_part(size_t begin, size_t end, int n_threads, F copy) {
    ThreadPool::get().run(int64_t((end - begin + part_length - 1) / part_length), n_threads, [&](TaskQueue& queue) {
        for (int64_t part; queue.next(part);) {
            const size_t first = begin + size_t(part) * part_length;
            copy(first, std::min(end, first + part_length), first - begin);
        }
    });
}

template <class T>
void gather_as(const UnitBlock& block, const T* unit, size_t begin, size_t end, T* buffer, int n_threads) {
    for_each_part(begin, end, n_threads, [&](size_t first, size_t last, size_t place) {
        block.gather(unit, first, last, buffer + block.parts() * place);
    });
}

template <class T>
void scatter_as(const UnitBlock& block, const T* buffer, size_t begin, size_t end, T* unit, int n_threads) {
    for_each_part(begin, end, n_threads, [&](size_t first, size_t last, size_t place) {
        block.scatter(buffer + block.parts() * place, first, last, unit);
    });
}

void gather(const UnitBlock& block, uintptr_t unit, size_t begin, size_t end, uintptr_t buffer, int n_threads) {
    nb::gil_scoped_release release;
    if (block.itemsize() == 4)
        gather_as(block, pointer<float>(unit), begin, end, pointer<float>(buffer), n_threads);
    else
        gather_as(block, pointer<double>(unit), begin, end, pointer<double>(buffer), n_threads);
}

void scatter(const UnitBlock& block, uintptr_t buffer, size_t begin, size_t end, uintptr_t unit, int n_threads) {
    nb::gil_scoped_release release;
    if (block.itemsize() == 4)
        scatter_as(block, pointer<float>(buffer), begin, end, pointer<float>(unit), n_threads);
    else
        scatter_as(block, pointer<double>(buffer), begin, end, pointer<double>(unit), n_threads);
}

}  // namespace

void bind_unit_block(nb::module_& m) {
    nb::class_<UnitBlock>(m, "UnitBlock")
        .def("__init__", &make_block, nb::kw_only(), "instruction_set"_a, "itemsize"_a, "is_real"_a, "bits"_a,
             "masks"_a, "parities"_a)
        .def_prop_ro("size", &UnitBlock::size)
        .def("gather", &gather)
        .def("scatter", &scatter);
}

}  // namespace ketfit
