/* SPDX-License-Identifier: Apache-2.0
 *
 * Spherical-harmonics shading of a run of fragments, forward and backward: normalises interpolated normals,
 * evaluates the nine basis functions of shade.py and adds them up with the light of the image.
 */
#include <stdint.h>

#include "kernels.h"

/* The constants of shade.py. */
#define C0 0.28209479177387814f
#define C1 0.4886025119029199f
#define C2 1.0925484305920792f
#define C3 0.31539156525252005f
#define C4 0.5462742152960396f

static inline void load_lanes(const float *from, int count, Lane to) {
    if (count == BLOCK) {
        FOR_LANES to[i] = from[i];
    } else {
        FOR_LANES to[i] = i < count ? from[i] : 0.0f;
    }
}

static inline void store_lanes(const Lane from, int count, float *to) {
    if (count == BLOCK) {
        FOR_LANES to[i] = from[i];
    } else {
        for (int i = 0; i < count; ++i) to[i] = from[i];
    }
}

/* raw [3] -> unit [3], scale = 1 / length, and the basis [9]. */
static inline void evaluate(const Lane *raw, Lane *unit, Lane scale, Lane *basis) {
    FOR_LANES {
        const float sum = raw[0][i] * raw[0][i] + raw[1][i] * raw[1][i] + raw[2][i] * raw[2][i];
        scale[i] = 1.0f / __builtin_sqrtf(sum > 1e-20f ? sum : 1e-20f);
        const float x = raw[0][i] * scale[i], y = raw[1][i] * scale[i], z = raw[2][i] * scale[i];
        unit[0][i] = x;
        unit[1][i] = y;
        unit[2][i] = z;
        basis[0][i] = C0;
        basis[1][i] = C1 * y;
        basis[2][i] = C1 * z;
        basis[3][i] = C1 * x;
        basis[4][i] = C2 * x * y;
        basis[5][i] = C2 * y * z;
        basis[6][i] = 3.0f * C3 * z * z - C3;
        basis[7][i] = C2 * x * z;
        basis[8][i] = C4 * (x - y) * (x + y);
    }
}

/* Fragments start..stop of one image: raw [3, n] -> out [6, n], unit normals and shading. light is [9, 3]. */
EXPORT void hiface_shade_forward(const float *raw, const float *light, int64_t n, int64_t start, int64_t stop,
                                 float *out) {
    for (int64_t first = start; first < stop; first += BLOCK) {
        const int count = stop - first < BLOCK ? (int)(stop - first) : BLOCK;
        Lane in[3], unit[3], scale, basis[9];
        for (int k = 0; k < 3; ++k) load_lanes(raw + k * n + first, count, in[k]);
        evaluate((const Lane *)in, unit, scale, basis);
        for (int k = 0; k < 3; ++k) store_lanes(unit[k], count, out + k * n + first);
        for (int c = 0; c < 3; ++c) {
            Lane sum = {0};
            for (int k = 0; k < 9; ++k) FOR_LANES sum[i] += light[3 * k + c] * basis[k][i];
            store_lanes(sum, count, out + (3 + c) * n + first);
        }
    }
}

/* grad [6, n] -> grad_raw [3, n] (written) and grad_light [9, 3] (written). */
EXPORT void hiface_shade_backward(const float *raw, const float *light, int64_t n, int64_t start, int64_t stop,
                                  const float *grad, float *grad_raw, float *grad_light) {
    Lane sums[9][3] = {{{0}}};
    for (int64_t first = start; first < stop; first += BLOCK) {
        const int count = stop - first < BLOCK ? (int)(stop - first) : BLOCK;
        Lane in[3], unit[3], scale, basis[9], g[6], gb[9];
        for (int k = 0; k < 3; ++k) load_lanes(raw + k * n + first, count, in[k]);
        for (int k = 0; k < 6; ++k) load_lanes(grad + k * n + first, count, g[k]);
        evaluate((const Lane *)in, unit, scale, basis);
        for (int k = 0; k < 9; ++k) {
            FOR_LANES gb[k][i] = light[3 * k] * g[3][i] + light[3 * k + 1] * g[4][i] + light[3 * k + 2] * g[5][i];
            for (int c = 0; c < 3; ++c) FOR_LANES sums[k][c][i] += basis[k][i] * g[3 + c][i];
        }
        FOR_LANES {
            const float x = unit[0][i], y = unit[1][i], z = unit[2][i];
            const float gx = g[0][i] + C1 * gb[3][i] + C2 * (y * gb[4][i] + z * gb[7][i]) + 2.0f * C4 * x * gb[8][i];
            const float gy = g[1][i] + C1 * gb[1][i] + C2 * (x * gb[4][i] + z * gb[5][i]) - 2.0f * C4 * y * gb[8][i];
            const float gz = g[2][i] + C1 * gb[2][i] + C2 * (y * gb[5][i] + x * gb[7][i]) + 6.0f * C3 * z * gb[6][i];
            const float along = x * gx + y * gy + z * gz;
            g[0][i] = (gx - x * along) * scale[i];
            g[1][i] = (gy - y * along) * scale[i];
            g[2][i] = (gz - z * along) * scale[i];
        }
        for (int k = 0; k < 3; ++k) store_lanes(g[k], count, grad_raw + k * n + first);
    }
    for (int k = 0; k < 9; ++k) {
        for (int c = 0; c < 3; ++c) {
            float sum = 0.0f;
            FOR_LANES sum += sums[k][c][i];
            grad_light[3 * k + c] = sum;
        }
    }
}
