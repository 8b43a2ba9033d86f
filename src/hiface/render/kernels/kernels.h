/* SPDX-License-Identifier: Apache-2.0
 *
 * What all kernels share: exported names, blocks of fixed length that the compiler turns into vectors, and looking up
 * textures.
 */
#ifndef HIFACE_KERNELS_H
#define HIFACE_KERNELS_H

#include <stdint.h>

#if defined(_WIN32)
#define EXPORT __declspec(dllexport)
#else
#define EXPORT __attribute__((visibility("default")))
#endif

#define BLOCK 8
#define FOR_LANES for (int i = 0; i < BLOCK; ++i)

typedef float Lane[BLOCK];

typedef float fvec __attribute__((vector_size(16)));
typedef struct {
    fvec v;
} __attribute__((packed, aligned(4))) fvec_unaligned;

#define MAX_COORD 4194304.0f /* 2^22 px */

/* Limits of skin.c, mirrored in skin.py. */
#define MAX_LAMPS 8
#define MAX_ROWS 24

/* Perspective-correct weights of points on their triangles, and depth there.
 *
 * Args: the triangles' corners in pixels relative to the points, and their depths; out: weights of the corners, depth.
 */
static inline void place_on_triangles(const Lane *x, const Lane *y, const Lane *z, Lane *weight, float *depth) {
    FOR_LANES {
        const float e0 = x[1][i] * y[2][i] - x[2][i] * y[1][i], e1 = x[2][i] * y[0][i] - x[0][i] * y[2][i];
        const float e2 = x[0][i] * y[1][i] - x[1][i] * y[0][i];
        const float u0 = e0 * (1.0f / z[0][i]), u1 = e1 * (1.0f / z[1][i]), u2 = e2 * (1.0f / z[2][i]);
        const float scale = 1.0f / (u0 + u1 + u2);
        weight[0][i] = u0 * scale;
        weight[1][i] = u1 * scale;
        weight[2][i] = u2 * scale;
        depth[i] = (e0 + e1 + e2) * scale;
    }
}

/* Bilinear lookup of [side, side, 4] at coordinates -1..1, borders repeated. */
static inline fvec lookup(const float *map, int64_t side, float u, float v) {
    const float top = (float)(side - 1), scale = 0.5f * (float)side;
    float x = (u + 1.0f) * scale - 0.5f, y = (v + 1.0f) * scale - 0.5f;
    x = x > 0.0f ? (x < top ? x : top) : 0.0f;
    y = y > 0.0f ? (y < top ? y : top) : 0.0f;
    const int64_t x0 = (int64_t)x, y0 = (int64_t)y;
    const int64_t right = x0 + 1 < side ? 4 : 0, down = y0 + 1 < side ? 4 * side : 0;
    const float fx = x - (float)x0, fy = y - (float)y0;
    const float *at = map + 4 * (y0 * side + x0);
    const fvec a = ((const fvec_unaligned *)at)->v, b = ((const fvec_unaligned *)(at + right))->v;
    const fvec c = ((const fvec_unaligned *)(at + down))->v, d = ((const fvec_unaligned *)(at + down + right))->v;
    return (a * (1.0f - fx) + b * fx) * (1.0f - fy) + (c * (1.0f - fx) + d * fx) * fy;
}

#endif
