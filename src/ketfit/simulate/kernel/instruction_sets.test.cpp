#include "instruction_sets.h"

#include <doctest/doctest.h>

#include <stdexcept>

using namespace ketfit;

TEST_CASE("instruction_sets ends with the baseline, which every processor supports") {
    REQUIRE(!instruction_sets().empty());
    CHECK(std::string(instruction_sets().back().name) == "baseline");
    CHECK(instruction_sets().back().is_supported);
}

TEST_CASE("find_instruction_set refuses unknown names") {
    CHECK(find_instruction_set("baseline").gate_kernels->f64.lanes >= 2);
    CHECK_THROWS_AS(find_instruction_set("avx1024"), std::invalid_argument);
}
