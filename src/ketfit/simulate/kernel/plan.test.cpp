#include "plan.h"

#include <doctest/doctest.h>

using namespace ketfit;

TEST_CASE("Plan counts units, columns and terms") {
    Plan plan{};
    plan.bits = 5;
    plan.sample_bits = 3;
    plan.measured = {4, 3};
    plan.term_offsets = {0, 2, 2, 3};
    CHECK(plan.unit_size() == 32);
    CHECK(plan.n_units(0) == 0);
    CHECK(plan.n_units(8) == 1);
    CHECK(plan.n_units(9) == 2);
    CHECK(plan.n_columns() == 2);
    plan.joint = true;
    CHECK(plan.n_columns() == 4);
    CHECK(plan.n_terms(0) == 2);
    CHECK(plan.n_terms(1) == 0);
    CHECK(plan.n_terms(2) == 1);
}

TEST_CASE("Plan reads the first measured qubit as the most significant bit of an outcome") {
    Plan plan{};
    plan.measured = {0, 4, 2};
    CHECK(plan.outcome(0b00001) == 0b100);
    CHECK(plan.outcome(0b10000) == 0b010);
    CHECK(plan.outcome(0b00100) == 0b001);
    CHECK(plan.outcome(0b01010) == 0);
}

TEST_CASE("Stage groups its chunks into at most 32 groups") {
    Stage stage{};
    CHECK(stage.n_chunks() == 1);
    CHECK(stage.n_groups() == 1);
    stage.outer_positions = {3, 5, 6};
    CHECK(stage.n_chunks() == 8);
    CHECK(stage.n_groups() == 8);
    stage.outer_positions.assign(9, 0);
    CHECK(stage.n_chunks() == 512);
    CHECK(stage.n_groups() == 32);
}
