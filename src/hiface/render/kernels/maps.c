/* SPDX-License-Identifier: Apache-2.0
 *
 * Label maps of one picture in one go: where the face model is seen, its normals, texture coordinates, albedo and light
 * at the pixel centres, and the depth of the whole person. The same as `maps_plain` in synthetic/surface_maps.py.
 */
#include <stddef.h>
#include <stdint.h>

#include "kernels.h"

/* Inputs of hiface_label_maps; mirrored by `MapInputs` in maps.py. */
typedef struct {
    const float *verts;       /* [n_verts, 3] x px, y px, z */
    const float *rows;        /* [n_verts, stride] light, normal */
    const float *corners;     /* [n_triangles, 3, 2] texture coordinates, -1..1 */
    const int64_t *triangles; /* [n_triangles, 3] */
    const int32_t *ids;       /* [size, size] */
    const float *texture;     /* [side, side, 4] albedo */
    const float *depth, *head_depth; /* [size * n, size * n] of the person's and of the head's sub-pixels */
    const uint8_t *label, *mask;     /* [size, size] of the person, and with what is in front */
    float *person;            /* out [size, size] */
    float *maps;              /* out [11, size, size] normals, uv, albedo, light */
    int64_t size, subpixels, stride, side;
    int64_t first_label, last_label, accessory;
    float far_m;
} MapInputs;

enum { NORMAL = 0, UV = 3, ALBEDO = 5, LIGHT = 8, CHANNELS = 11 };

/* Place of up to BLOCK pixel centres on their triangles; the formulas are those of surface.c. */
static inline void place(const MapInputs *in, const int64_t *pixel, int64_t row, Lane *weight, Lane depth) {
    Lane x[3], y[3], z[3];
    FOR_LANES {
        const int64_t t = in->ids[pixel[i]];
        const float px = (float)(pixel[i] - row * in->size) + 0.5f, py = (float)row + 0.5f;
        for (int k = 0; k < 3; ++k) {
            const float *v = in->verts + 3 * in->triangles[3 * t + k];
            x[k][i] = v[0] - px;
            y[k][i] = v[1] - py;
            z[k][i] = v[2];
        }
    }
    place_on_triangles(x, y, z, weight, depth);
}

/* Values of one pixel into column i of `out`. */
static inline void fill(const MapInputs *in, int64_t pixel, int i, const Lane *weight, Lane *out) {
    const float wa = weight[0][i], wb = weight[1][i], wc = weight[2][i];
    const int64_t t = in->ids[pixel];
    const float *a = in->rows + in->stride * in->triangles[3 * t], *b = in->rows + in->stride * in->triangles[3 * t + 1];
    const float *c = in->rows + in->stride * in->triangles[3 * t + 2], *uv = in->corners + 6 * t;
    for (int k = 0; k < 3; ++k) {
        out[LIGHT + k][i] = a[k] * wa + b[k] * wb + c[k] * wc;
        out[NORMAL + k][i] = a[3 + k] * wa + b[3 + k] * wb + c[3 + k] * wc;
    }
    const float u = uv[0] * wa + uv[2] * wb + uv[4] * wc, v = uv[1] * wa + uv[3] * wb + uv[5] * wc;
    const fvec albedo = lookup(in->texture, in->side, u, v);
    for (int k = 0; k < 3; ++k) out[ALBEDO + k][i] = albedo[k];
    out[UV][i] = (u + 1.0f) * 0.5f;
    out[UV + 1][i] = (v + 1.0f) * 0.5f;
}

static inline void make_unit(Lane *n) {
    FOR_LANES {
        const float squared = n[0][i] * n[0][i] + n[1][i] * n[1][i] + n[2][i] * n[2][i];
        const float scale = 1.0f / __builtin_sqrtf(squared > 1e-20f ? squared : 1e-20f);
        for (int k = 0; k < 3; ++k) n[k][i] *= scale;
    }
}

/* Depth of the person in one row of pixels, and which pixels [size] show the face model; returns their number. */
static inline int64_t row_depth(const MapInputs *in, int64_t row, int64_t *seen) {
    const int64_t n = in->subpixels, first = row * in->size;
    const float *depth = in->depth + (row * n + n / 2) * in->size * n + n / 2;
    const float *head = in->head_depth + (row * n + n / 2) * in->size * n + n / 2;
    int64_t found = 0;
    for (int64_t x = 0; x < in->size; ++x) {
        const uint8_t mask = in->mask[first + x];
        const float z = depth[x * n];
        const int hidden = mask == in->accessory && in->label[first + x] != mask;
        in->person[first + x] = z < in->far_m && mask > 0 && !hidden ? z : 0.0f;
        if (in->ids[first + x] >= 0 && head[x * n] == z && mask >= in->first_label && mask <= in->last_label)
            seen[found++] = first + x;
    }
    return found;
}

/* All maps; `seen` is memory for one row. */
EXPORT void hiface_label_maps(const MapInputs *in, int64_t *seen) {
    const int64_t n = in->size * in->size;
    for (int64_t row = 0; row < in->size; ++row) {
        const int64_t found = row_depth(in, row, seen);
        for (int k = 0; k < CHANNELS; ++k) {
            float *begin = in->maps + k * n + row * in->size;
            for (int64_t x = 0; x < in->size; ++x) begin[x] = 0.0f;
        }
        for (int64_t at = 0; at < found; at += BLOCK) {
            const int count = found - at < BLOCK ? (int)(found - at) : BLOCK;
            int64_t pixel[BLOCK];
            Lane weight[3], depth, out[CHANNELS];
            FOR_LANES pixel[i] = seen[at + (i < count ? i : count - 1)];
            place(in, pixel, row, weight, depth);
            FOR_LANES fill(in, pixel[i], i, (const Lane *)weight, out);
            make_unit(out + NORMAL);
            for (int i = 0; i < count; ++i)
                if (depth[i] > 0.0f && depth[i] < in->far_m) in->person[pixel[i]] = depth[i];
            for (int k = 0; k < CHANNELS; ++k) /* one plane after the other: they lie a multiple of a page apart */
                for (int i = 0; i < count; ++i) in->maps[k * n + pixel[i]] = out[k][i];
        }
    }
}
