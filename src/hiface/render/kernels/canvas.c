/* SPDX-License-Identifier: Apache-2.0
 *
 * One mesh after the other onto a canvas that holds colour, depth and label of every sub-pixel: which fragments lie
 * in front of what is drawn already, vertex values there, writing them, and averaging sub-pixels. The same results
 * as the functions called `..._plain` in synthetic/scene.py.
 */
#include <stddef.h>
#include <stdint.h>

#include "kernels.h"

/* Projects vertices [n, 3] with intrinsics fx, fy, cx, cy, and finds the window of pixels (x, y, width, height) that
 * holds all that is further away than `near_z`; what is written is relative to the window. */
EXPORT void hiface_project(const float *verts_cam, int64_t n, const float *intrinsics, int64_t size, float near_z,
                           float *out, int64_t *window) {
    float low[2] = {(float)size, (float)size}, high[2] = {0.0f, 0.0f};
    for (int64_t v = 0; v < n; ++v) {
        const float *from = verts_cam + 3 * v, z = from[2];
        const float safe = z > 1e-4f || z < -1e-4f ? z : 1e-4f;
        for (int k = 0; k < 2; ++k) {
            const float at = intrinsics[k] * from[k] / safe + intrinsics[2 + k];
            out[3 * v + k] = at;
            if (!(z > near_z)) continue;
            low[k] = at < low[k] ? at : low[k];
            high[k] = at > high[k] ? at : high[k];
        }
        out[3 * v + 2] = z;
    }
    for (int k = 0; k < 2; ++k) {
        const float first = low[k] > 1.0f ? low[k] - 1.0f : 0.0f;
        const float last = high[k] < (float)(size - 1) ? high[k] + 1.0f : (float)size;
        window[k] = (int64_t)first;
        window[2 + k] = last > (float)window[k] ? (int64_t)last + (last < (float)size) - window[k] : 0;
    }
    for (int64_t v = 0; v < n; ++v)
        for (int k = 0; k < 2; ++k) out[3 * v + k] -= (float)window[k];
}

/* Inputs of hiface_front; mirrored by `FrontInputs` in canvas.py. */
typedef struct {
    const float *verts;       /* [n_verts, 3] x px, y px in the window, z */
    const int64_t *triangles; /* [n_triangles, 3] */
    const int32_t *ids;       /* [n_pixels] of the window */
    const float *depth;       /* [size * size] of the canvas */
    int64_t *pixel;           /* out [capacity] */
    int64_t *triangle;        /* out [capacity] */
    float *place;             /* out [4, capacity] barycentrics and z */
    int64_t width, n_pixels, capacity; /* of the window */
    int64_t size, origin;     /* of the canvas; its pixel where the window begins */
} FrontInputs;

/* Fragments nearer than the canvas; returns their number. The formulas are those of surface.c. */
EXPORT int64_t hiface_front(const FrontInputs *in) {
    const int64_t n = in->capacity;
    const float *corner[3] = {in->verts, in->verts, in->verts};
    int64_t found = 0, at = 0, row = 0;
    int32_t last = -1;
    while (at < in->n_pixels) {
        int64_t pixel[BLOCK], canvas_pixel[BLOCK];
        int32_t triangle[BLOCK];
        Lane x[3], y[3], z[3], px, py, place[4];
        int count = 0;
        for (; count < BLOCK && at < in->n_pixels; ++at)
            if (in->ids[at] >= 0) pixel[count++] = at;
        if (count == 0) break;
        for (int i = 0; i < count; ++i) {
            const int64_t p = pixel[i];
            while (p >= (row + 1) * in->width) ++row;
            canvas_pixel[i] = in->origin + row * in->size + (p - row * in->width);
            px[i] = (float)(p - row * in->width) + 0.5f;
            py[i] = (float)row + 0.5f;
            if (in->ids[p] != last) {
                last = in->ids[p];
                for (int k = 0; k < 3; ++k) corner[k] = in->verts + 3 * in->triangles[3 * (int64_t)last + k];
            }
            triangle[i] = last;
            for (int k = 0; k < 3; ++k) {
                x[k][i] = corner[k][0];
                y[k][i] = corner[k][1];
                z[k][i] = corner[k][2];
            }
        }
        for (int i = count; i < BLOCK; ++i)
            for (int k = 0; k < 3; ++k) x[k][i] = y[k][i] = z[k][i] = px[i] = py[i] = 1.0f;
        FOR_LANES {
            for (int k = 0; k < 3; ++k) {
                x[k][i] -= px[i];
                y[k][i] -= py[i];
            }
        }
        place_on_triangles(x, y, z, place, place[3]);
        int nearer = 0;
        for (int i = 0; i < count; ++i) nearer += place[3][i] < in->depth[canvas_pixel[i]];
        if (nearer == BLOCK) {
            FOR_LANES in->pixel[found + i] = canvas_pixel[i];
            FOR_LANES in->triangle[found + i] = triangle[i];
            for (int k = 0; k < 4; ++k) FOR_LANES in->place[k * n + found + i] = place[k][i];
            found += BLOCK;
        } else if (nearer > 0) {
            for (int i = 0; i < count; ++i) {
                if (!(place[3][i] < in->depth[canvas_pixel[i]])) continue;
                in->pixel[found] = canvas_pixel[i];
                in->triangle[found] = triangle[i];
                for (int k = 0; k < 4; ++k) in->place[k * n + found] = place[k][i];
                ++found;
            }
        }
    }
    return found;
}

/* Marks the corners of triangles; ids [n] of 4 or 8 bytes each, negative for none. */
EXPORT void hiface_seen_vertices(const void *ids, int64_t n, int64_t bytes, const int64_t *triangles, uint8_t *seen) {
    int64_t last = -1;
    for (int64_t i = 0; i < n; ++i) {
        const int64_t id = bytes == 4 ? ((const int32_t *)ids)[i] : ((const int64_t *)ids)[i];
        if (id < 0 || id == last) continue;
        for (int k = 0; k < 3; ++k) seen[triangles[3 * id + k]] = 1;
        last = id;
    }
}

/* Marks all corners of the triangles [n, 3] that have a corner in `seen`. */
EXPORT void hiface_with_neighbours(const uint8_t *seen, const int64_t *triangles, int64_t n, uint8_t *out) {
    for (int64_t i = 0; i < n; ++i, triangles += 3) {
        if (!(seen[triangles[0]] | seen[triangles[1]] | seen[triangles[2]])) continue;
        for (int k = 0; k < 3; ++k) out[triangles[k]] = 1;
    }
}

/* Inputs of hiface_front_rows; mirrored by `RowInputs` in canvas.py. */
typedef struct {
    const float *attributes;  /* [n_verts, n_attributes] */
    const float *corners;     /* [n_triangles, 3, n_corner] */
    const int64_t *triangles; /* [n_triangles, 3] */
    const int64_t *triangle;  /* [n_fragments] */
    const float *place;       /* [4, stride] */
    float *out;               /* [n_attributes + n_corner, n_fragments] */
    int64_t n_fragments, stride, n_attributes, n_corner;
} RowInputs;

/* Values of vertices and of triangle corners at fragments. */
EXPORT void hiface_front_rows(const RowInputs *in) {
    const int64_t n = in->n_fragments, m = in->n_attributes, d = in->n_corner;
    for (int64_t i = 0; i < n; ++i) {
        const float wa = in->place[i], wb = in->place[in->stride + i], wc = in->place[2 * in->stride + i];
        const int64_t t = in->triangle[i];
        const float *a = in->attributes + m * in->triangles[3 * t], *b = in->attributes + m * in->triangles[3 * t + 1];
        const float *c = in->attributes + m * in->triangles[3 * t + 2];
        float *out = in->out + i;
        for (int64_t k = 0; k < m; ++k) out[k * n] = a[k] * wa + b[k] * wb + c[k] * wc;
        a = in->corners + 3 * d * t;
        out += m * n;
        for (int64_t k = 0; k < d; ++k) out[k * n] = a[k] * wa + a[d + k] * wb + a[2 * d + k] * wc;
    }
}

/* Inputs of hiface_put; mirrored by `PutInputs` in canvas.py. */
typedef struct {
    const int64_t *pixel;    /* [n_fragments] */
    const float *z;          /* [n_fragments] */
    const float *colour;     /* [3, n_fragments] */
    const uint8_t *labels;   /* [n_fragments] or NULL */
    const uint8_t *keep;     /* [n_fragments] or NULL */
    float *canvas_colour;    /* [3, n_pixels] */
    float *canvas_depth;     /* [n_pixels] */
    uint8_t *canvas_label;   /* [n_pixels] */
    int64_t n_fragments, n_pixels, label;
} PutInputs;

/* Writes fragments. */
EXPORT void hiface_put(const PutInputs *in) {
    const int64_t n = in->n_fragments;
    for (int64_t i = 0; i < n; ++i) {
        if (in->keep && !in->keep[i]) continue;
        const int64_t p = in->pixel[i];
        for (int c = 0; c < 3; ++c) in->canvas_colour[c * in->n_pixels + p] = in->colour[c * n + i];
        in->canvas_depth[p] = in->z[i];
        in->canvas_label[p] = in->labels ? in->labels[i] : (uint8_t)in->label;
    }
}

/* colour [3, (2 side)^2], depth [(2 side)^2] -> mean [4, side, side] of 2 x 2 sub-pixels, coverage last. */
EXPORT void hiface_resolve(const float *colour, const float *depth, float far_m, int64_t side, float *mean) {
    const int64_t width = 2 * side, n_pixels = width * width, n_out = side * side;
    for (int64_t y = 0; y < side; ++y) {
        const float *near_row = depth + 2 * y * width, *next = near_row + width;
        for (int64_t x = 0; x < side; ++x) {
            const int64_t at = 2 * y * width + 2 * x;
            const float a = near_row[2 * x] < far_m, b = near_row[2 * x + 1] < far_m;
            const float c = next[2 * x] < far_m, d = next[2 * x + 1] < far_m;
            float *out = mean + y * side + x;
            const float *from = colour + at;
            for (int k = 0; k < 3; ++k, from += n_pixels, out += n_out)
                *out = ((from[0] * a + from[width] * c) + (from[1] * b + from[width + 1] * d)) * 0.25f;
            *out = ((a + c) + (b + d)) * 0.25f;
        }
    }
}
