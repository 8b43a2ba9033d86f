/* SPDX-License-Identifier: Apache-2.0
 *
 * Label maps as the whole numbers that files hold, and tone curves. The same as the functions called `..._plain` in
 * synthetic/pixels.py.
 */
#include <stddef.h>
#include <stdint.h>

#include "kernels.h"

#define OCTAVES 13 /* of linear light below 1 in which sRGB rises above 0 */
#define BINS 128   /* in each of them: so narrow that a bin holds one step at most */

/* linear [3, n] -> srgb [n, 3]; steps [256] where each level begins, the last infinite; first [OCTAVES * BINS] level
 * at the beginning of each bin. */
EXPORT void hiface_srgb_pixels(const float *linear, int64_t n, const float *steps, const uint8_t *first, uint8_t *srgb) {
    for (int64_t i = 0; i < n; ++i) {
        for (int c = 0; c < 3; ++c) {
            union {
                float f;
                int32_t i;
            } value = {linear[c * n + i]};
            const int32_t bin = (value.i >> 16) - ((127 - OCTAVES) << 7);
            const int32_t inside = bin < 0 ? 0 : bin < OCTAVES * BINS ? bin : OCTAVES * BINS - 1;
            const uint8_t low = first[inside];
            srgb[3 * i + c] = value.f >= 1.0f ? 255 : (uint8_t)(low + (value.f >= steps[low]));
        }
    }
}

/* normals [3, n] -> [n, 3] (v + 1) / 2 of 255, 0 for nothing. */
EXPORT void hiface_normal_pixels(const float *normals, int64_t n, uint8_t *out) {
    for (int64_t i = 0; i < n; ++i) {
        const float *v = normals + i;
        const int there = v[0] != 0.0f || v[n] != 0.0f || v[2 * n] != 0.0f;
        for (int c = 0; c < 3; ++c) {
            const float at = v[c * n] * 127.5f + 128.0f;
            out[3 * i + c] = there ? (uint8_t)(int32_t)(at > 0.0f ? (at < 255.0f ? at : 255.0f) : 0.0f) : 0;
        }
    }
}

/* Lengths [n] -> whole steps, cut to 16 bits; `zero` is what 0 becomes, plus a half. */
EXPORT void hiface_step_pixels(const float *lengths, int64_t n, float step, float zero, uint16_t *out) {
    for (int64_t i = 0; i < n; ++i) {
        const float at = lengths[i] / step + zero;
        out[i] = (uint16_t)(int32_t)(at > 0.0f ? (at < 65535.0f ? at : 65535.0f) : 0.0f);
    }
}

/* Values of a table over the square root of 0..brightest; entries of 1 or 4 bytes. */
EXPORT void hiface_look_up(const void *table, int64_t bytes, float scale, float brightest, const float *linear, int64_t n,
                           void *out) {
    for (int64_t first = 0; first < n; first += BLOCK) {
        const int64_t count = n - first < BLOCK ? n - first : BLOCK;
        int32_t index[BLOCK];
        Lane x = {0};
        for (int64_t i = 0; i < count; ++i) x[i] = linear[first + i];
        FOR_LANES {
            const float inside = x[i] > 0.0f ? (x[i] < brightest ? x[i] : brightest) : 0.0f;
            index[i] = (int32_t)(__builtin_sqrtf(inside) * scale + 0.5f);
        }
        if (bytes == 1)
            for (int64_t i = 0; i < count; ++i) ((uint8_t *)out)[first + i] = ((const uint8_t *)table)[index[i]];
        else
            for (int64_t i = 0; i < count; ++i) ((uint32_t *)out)[first + i] = ((const uint32_t *)table)[index[i]];
    }
}
