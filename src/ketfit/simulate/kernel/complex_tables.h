// The tables of a group's numbers, in double precision: D and O from its angles, and derivatives from its overlaps.

#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "complex_plan.h"

namespace ketfit {

// Numbers [s][column][lane] of a group; see table_columns. The lanes are samples, or one for all samples.
struct GroupTable {
    const ComplexGroup& group;
    const size_t width;  // lanes
    double* numbers;

    double* column(int s, int c) const { return numbers + (size_t(s) * table_columns + size_t(c)) * width; }
};

// Factors of a rotation: c and w = s (-i)^power with a sign, in each lane.
struct RotationFactors {
    const double *c, *s;  // [lane]
    double re, im;        // of (-i)^power

    RotationFactors(const ComplexRotation& rotation, const double* cosines_sines, size_t width)
        : c(cosines_sines),
          s(cosines_sines + width),
          re(rotation.power & 1   ? 0
             : rotation.power & 2 ? -1
                                  : 1),
          im(rotation.power & 1 ? (rotation.power & 2 ? 1 : -1) : 0) {}
};

inline double sign_of(const ComplexRotation& rotation, int s) {
    return parity_of(uint64_t(s & rotation.subset)) ? -1 : 1;
}

// The product of a group's rotations, from [rotation][c, s][lane].
inline void multiply_rotations(const GroupTable& table, const ComplexRotation* rotations, const double* cosines_sines) {
    const size_t width = table.width;
    const int n_sets = table.group.n_sets(), partner = table.group.partner_parities;
    std::fill_n(table.numbers, table.group.table_size(width), 0.0);
    for (int s = 0; s < n_sets; ++s) std::fill_n(table.column(s, 0), width, 1.0);
    for (int r = 0; r < table.group.n_rotations; ++r) {
        const ComplexRotation& rotation = rotations[r];
        const RotationFactors factors(rotation, cosines_sines + size_t(r) * 2 * width, width);
        // A rotation that flips mixes the sets s and s ^ partner, in D of one and O of the other.
        const auto mix = [&](double* a, double* b, double sign_a, double sign_b) {
            const double re_a = sign_a * factors.re, im_a = sign_a * factors.im;
            const double re_b = sign_b * factors.re, im_b = sign_b * factors.im;
            for (size_t l = 0; l < width; ++l) {
                const double c = factors.c[l], s = factors.s[l];
                const double ar = a[l], ai = a[width + l], br = b[l], bi = b[width + l];
                a[l] = c * ar + s * (re_a * br - im_a * bi);
                a[width + l] = c * ai + s * (re_a * bi + im_a * br);
                b[l] = c * br + s * (re_b * ar - im_b * ai);
                b[width + l] = c * bi + s * (re_b * ai + im_b * ar);
            }
        };
        const auto turn = [&](double* a, double sign) {
            for (size_t l = 0; l < width; ++l) {
                const double c = factors.c[l], s = sign * factors.im * factors.s[l];
                const double re = a[l], im = a[width + l];
                a[l] = c * re - s * im;
                a[width + l] = c * im + s * re;
            }
        };
        for (int s = 0; s < n_sets; ++s) {
            if (rotation.flips) {
                mix(table.column(s, 0), table.column(s ^ partner, 2), sign_of(rotation, s),
                    sign_of(rotation, s ^ partner));
            } else {
                turn(table.column(s, 0), sign_of(rotation, s));
                turn(table.column(s, 2), sign_of(rotation, s));
            }
        }
    }
}

// The table of the inverse.
inline void invert(const GroupTable& table, double* inverse) {
    const GroupTable result{table.group, table.width, inverse};
    const size_t width = table.width;
    for (int s = 0; s < table.group.n_sets(); ++s) {
        const int partner = s ^ table.group.partner_parities;
        for (size_t l = 0; l < width; ++l) {
            result.column(s, 0)[l] = table.column(s, 0)[l];
            result.column(s, 1)[l] = -table.column(s, 1)[l];
            result.column(s, 2)[l] = table.column(partner, 2)[l];
            result.column(s, 3)[l] = -table.column(partner, 3)[l];
        }
    }
}

// From the overlaps behind a group, which are overwritten, the derivatives of its rotations, [rotation][lane].
inline void differentiate_rotations(const GroupTable& overlaps, const ComplexRotation* rotations,
                                    const double* cosines_sines, double* derivatives) {
    const size_t width = overlaps.width;
    const int n_sets = overlaps.group.n_sets(), partner = overlaps.group.partner_parities;
    for (int r = overlaps.group.n_rotations; r-- > 0;) {
        const ComplexRotation& rotation = rotations[r];
        const RotationFactors factors(rotation, cosines_sines + size_t(r) * 2 * width, width);
        double* derivative = derivatives + size_t(r) * width;
        std::fill_n(derivative, width, 0.0);
        for (int s = 0; s < n_sets; ++s) {
            const double re = sign_of(rotation, s) * factors.re / 2, im = sign_of(rotation, s) * factors.im / 2;
            const double* overlap = overlaps.column(s, rotation.flips ? 2 : 0);
            for (size_t l = 0; l < width; ++l) derivative[l] += re * overlap[l] - im * overlap[width + l];
        }
        if (r == 0) return;
        if (overlaps.group.is_one_word) continue;  // the rotations commute: A is not needed
        // Undone on psi and then on lambda: a -= w b, and the same with A and B of partners exchanged.
        const auto undo = [&](double* a, double* b, double re_a, double im_a, double re_b, double im_b) {
            for (size_t l = 0; l < width; ++l) {
                const double c = factors.c[l], s = factors.s[l];
                const double ar = a[l], ai = a[width + l], br = b[l], bi = b[width + l];
                a[l] = c * ar - s * (re_a * br - im_a * bi);
                a[width + l] = c * ai - s * (re_a * bi + im_a * br);
                b[l] = c * br - s * (re_b * ar - im_b * ai);
                b[width + l] = c * bi - s * (re_b * ai + im_b * ar);
            }
        };
        for (int s = 0; rotation.flips && s < n_sets; ++s) {
            const double here = sign_of(rotation, s), there = sign_of(rotation, s ^ partner);
            undo(overlaps.column(s, 0), overlaps.column(s, 2), here * factors.re, here * factors.im, there * factors.re,
                 there * factors.im);
        }
        for (int s = 0; rotation.flips && s < n_sets; ++s) {
            const double here = sign_of(rotation, s), there = sign_of(rotation, s ^ partner);
            undo(overlaps.column(s, 0), overlaps.column(s ^ partner, 2), here * factors.re, -here * factors.im,
                 there * factors.re, -there * factors.im);
        }
        for (int s = 0; !rotation.flips && s < n_sets; ++s) {
            // A stays; B[s] gets the inverse factor of s ^ partner and the conjugate of that of s.
            const double sign = sign_of(rotation, s ^ partner) - sign_of(rotation, s);
            if (sign == 0) continue;  // the two factors cancel
            double* b = overlaps.column(s, 2);
            for (size_t l = 0; l < width; ++l) {
                // (c - i t)^2 with t = sign / 2 * im * s: both factors turn in the same direction
                const double c = factors.c[l], t = sign / 2 * factors.im * factors.s[l];
                const double cos_angle = c * c - t * t, sin_angle = 2 * c * t, re = b[l], im = b[width + l];
                b[l] = cos_angle * re + sin_angle * im;
                b[width + l] = cos_angle * im - sin_angle * re;
            }
        }
    }
}

}  // namespace ketfit
