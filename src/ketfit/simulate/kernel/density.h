// Python's view of density.cpp.

#pragma once

#include <nanobind/nanobind.h>

namespace ketfit {

void bind_density(nanobind::module_& m);

}  // namespace ketfit
