/* SPDX-License-Identifier: Apache-2.0
 *
 * Clothes and bare skin of a body at its fragments. The same as `shade_plain` in synthetic/body.py.
 */
#include <stddef.h>
#include <stdint.h>

#include "kernels.h"

#define TILE 256 /* side of a tile of noise */

/* Inputs of hiface_shade_body; mirrored by `BodyInputs` in body.py. */
typedef struct {
    const float *attributes;  /* [n_verts, 8] light, place on the body (x, y, z), 0, 0 */
    const int64_t *triangles; /* [n_triangles, 3] */
    const int64_t *triangle, *pixel; /* [n_fragments] */
    const float *place;       /* [4, stride] barycentrics and z */
    const float *creases;     /* [TILE, TILE] factors */
    const float *noise;       /* [TILE, TILE] of the pattern */
    float *colour, *depth;    /* canvas [3, n_pixels], [n_pixels] */
    uint8_t *label;           /* [n_pixels] */
    int64_t n_fragments, stride, n_pixels, pattern, has_tie, label_skin, label_cloth;
    float main[3], second[3], shirt[3], tie[3], skin[3];
    float scale, side, deep, centre_z;
} BodyInputs;

enum { PLAIN, STRIPES, CHECKS, NOISE, JACKET };

static inline float texel(const float *tile, float u, float v) {
    const int32_t column = (int32_t)(u * (float)TILE) & (TILE - 1), row = (int32_t)(v * (float)TILE) & (TILE - 1);
    return tile[row * TILE + column];
}

/* 1 on every other band. */
static inline float band(float x) {
    float part = x - (float)(int32_t)x;
    part = part < 0.0f ? -part : part;
    return part > 0.5f ? 1.0f : 0.0f;
}

static inline float between(float x, float low, float high) { return x > low ? (x < high ? x : high) : low; }

/* Colour of the cloth at a place on the body. */
static inline void cloth(const BodyInputs *in, float x, float y, float front, float *out) {
    const float wide = x < 0.0f ? -x : x;
    float mix = 0.0f;
    if (in->pattern == JACKET) {
        const int shirt = wide < 0.012f + 0.30f * between(y + 0.33f, 0.0f, 0.14f) && front > 0.0f;
        const int tie = shirt && in->has_tie && wide < 0.014f + 0.05f * between(-0.15f - y, 0.0f, 0.3f);
        for (int c = 0; c < 3; ++c) out[c] = tie ? in->tie[c] : shirt ? in->shirt[c] : in->main[c];
        return;
    }
    if (in->pattern == STRIPES) mix = band(y / in->scale);
    if (in->pattern == CHECKS) mix = 0.5f * band(y / in->scale) + 0.5f * band(x / in->scale);
    if (in->pattern == NOISE)
        mix = texel(in->noise, x / (in->scale * 12.0f), y / (in->scale * 12.0f)) > 0.4f ? 1.0f : 0.0f;
    for (int c = 0; c < 3; ++c) out[c] = in->main[c] + (in->second[c] - in->main[c]) * mix;
}

/* Colour, depth and label of the fragments of a body, onto the canvas. */
EXPORT void hiface_shade_body(const BodyInputs *in) {
    for (int64_t i = 0; i < in->n_fragments; ++i) {
        const float wa = in->place[i], wb = in->place[in->stride + i], wc = in->place[2 * in->stride + i];
        const int64_t t = in->triangle[i], pixel = in->pixel[i];
        const float *a = in->attributes + 8 * in->triangles[3 * t], *b = in->attributes + 8 * in->triangles[3 * t + 1];
        const float *c = in->attributes + 8 * in->triangles[3 * t + 2];
        float row[8], colour[3];
        for (int k = 0; k < 8; ++k) row[k] = a[k] * wa + b[k] * wb + c[k] * wc;
        const float x = row[3], y = row[4], z = row[5] + in->centre_z, wide = x < 0.0f ? -x : x;
        const float steep = z > 0.0f ? between(1.0f - wide / 0.10f, 0.0f, 1.0f) : 0.0f;
        const int bare = y > in->side - in->deep * steep;
        if (bare) {
            for (int k = 0; k < 3; ++k) colour[k] = in->skin[k];
        } else {
            cloth(in, x, y, z, colour);
            const float crease = texel(in->creases, x * 3.0f + z, y * 3.0f);
            for (int k = 0; k < 3; ++k) colour[k] *= crease;
        }
        for (int k = 0; k < 3; ++k) in->colour[k * in->n_pixels + pixel] = colour[k] * row[k];
        in->depth[pixel] = in->place[3 * in->stride + i];
        in->label[pixel] = (uint8_t)(bare ? in->label_skin : in->label_cloth);
    }
}
