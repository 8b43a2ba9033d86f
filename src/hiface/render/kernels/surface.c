/* SPDX-License-Identifier: Apache-2.0
 *
 * Where each pixel lies on its triangle, and vertex values there; forward and backward. The formulas are those of
 * `barycentrics` and `interpolate` in the Python package, fused: a block of pixels is gathered into small arrays,
 * computed in fixed-length loops that the compiler turns into vectors, and written out. Nothing is kept between
 * forward and backward but the inputs.
 */
#include <stddef.h>
#include <stdint.h>

#include "kernels.h"

/* The inputs; the layout is mirrored by `SurfaceInputs` in surface.py. */
typedef struct {
    const float *verts;       /* [n_images, n_verts, 3] x px, y px, z */
    const float *attributes;  /* [n_images, n_verts, n_attributes] */
    const float *corners;     /* [n_triangles, 3, n_corner] */
    const int64_t *triangles; /* [n_triangles, 3] */
    const int32_t *ids;       /* [n_images, height, width] */
    const int64_t *pixels;    /* [n_fragments] into the flattened ids, ascending */
    int64_t n_fragments, n_verts, n_triangles, n_pixels, width;
    int64_t n_attributes, n_corner;
} Inputs;

typedef struct {
    int count;                     /* pixels in use, the others repeat the last of them */
    int64_t vertex[3][BLOCK];      /* corner vertices, into this image */
    int64_t triangle[BLOCK];
    Lane x[3], y[3], w[3], e[3];   /* corners relative to the pixel centre, 1/z, areas */
    Lane weight[3], scale, z;      /* barycentrics, 1 / sum(e w), depth */
} Block;

static inline void load_block(const Inputs *in, const float *verts, int64_t image, int64_t first, int count,
                              int64_t *row, Block *b) {
    Lane z[3];
    float px = 0.0f, py = 0.0f;
    int64_t triangle = 0;
    b->count = count;
    FOR_LANES {
        if (i < count) {
            const int64_t pixel = in->pixels[first + i], local = pixel - image * in->n_pixels;
            while (local >= (*row + 1) * in->width) ++*row;
            px = (float)(local - *row * in->width) + 0.5f;
            py = (float)*row + 0.5f;
            triangle = in->ids[pixel];
            if ((uint64_t)triangle >= (uint64_t)in->n_triangles) triangle = 0;
        }
        b->triangle[i] = triangle;
        for (int k = 0; k < 3; ++k) {
            int64_t v = in->triangles[3 * triangle + k];
            if ((uint64_t)v >= (uint64_t)in->n_verts) v = 0; /* never read outside, whatever the ids say */
            b->vertex[k][i] = v;
            b->x[k][i] = verts[3 * v] - px;
            b->y[k][i] = verts[3 * v + 1] - py;
            z[k][i] = verts[3 * v + 2];
        }
    }
    FOR_LANES {
        for (int k = 0; k < 3; ++k) b->w[k][i] = 1.0f / z[k][i];
        b->e[0][i] = b->x[1][i] * b->y[2][i] - b->x[2][i] * b->y[1][i];
        b->e[1][i] = b->x[2][i] * b->y[0][i] - b->x[0][i] * b->y[2][i];
        b->e[2][i] = b->x[0][i] * b->y[1][i] - b->x[1][i] * b->y[0][i];
        const float ua = b->e[0][i] * b->w[0][i], ub = b->e[1][i] * b->w[1][i], uc = b->e[2][i] * b->w[2][i];
        const float scale = 1.0f / (ua + ub + uc);
        b->scale[i] = scale;
        b->weight[0][i] = ua * scale;
        b->weight[1][i] = ub * scale;
        b->weight[2][i] = uc * scale;
        b->z[i] = (b->e[0][i] + b->e[1][i] + b->e[2][i]) * scale;
    }
}

/* Values of one attribute at the three corners; `stride` and `offset` are in floats. */
static inline void load_attribute(const Block *b, const float *attributes, int64_t stride, int64_t k, Lane *at) {
    for (int c = 0; c < 3; ++c) FOR_LANES at[c][i] = attributes[b->vertex[c][i] * stride + k];
}

static inline void load_corner_value(const Block *b, const float *table, int64_t stride, int64_t k, Lane *at) {
    for (int c = 0; c < 3; ++c) FOR_LANES at[c][i] = table[(b->triangle[i] * 3 + c) * stride + k];
}

static inline void store_value(const Block *b, const Lane *at, float *out) {
    Lane value;
    FOR_LANES value[i] = at[0][i] * b->weight[0][i] + at[1][i] * b->weight[1][i] + at[2][i] * b->weight[2][i];
    for (int i = 0; i < b->count; ++i) out[i] = value[i];
}

/* Fragments of one image: columns [start, stop) of out [1 + n_attributes + n_corner, n_fragments]. */
EXPORT void hiface_surface_forward(const Inputs *in, int64_t image, int64_t start, int64_t stop, float *out) {
    const float *verts = in->verts + image * in->n_verts * 3;
    const float *attributes = in->attributes + image * in->n_verts * in->n_attributes;
    int64_t row = 0;
    for (int64_t first = start; first < stop; first += BLOCK) {
        Block b;
        Lane at[3];
        load_block(in, verts, image, first, stop - first < BLOCK ? (int)(stop - first) : BLOCK, &row, &b);
        float *column = out + first;
        for (int i = 0; i < b.count; ++i) column[i] = b.z[i];
        for (int64_t k = 0; k < in->n_attributes; ++k) {
            load_attribute(&b, attributes, in->n_attributes, k, at);
            store_value(&b, (const Lane *)at, column += in->n_fragments);
        }
        for (int64_t k = 0; k < in->n_corner; ++k) {
            load_corner_value(&b, in->corners, in->n_corner, k, at);
            store_value(&b, (const Lane *)at, column += in->n_fragments);
        }
    }
}

/* Gradient of the weights, and of the corner values if `grad_attributes` is given. */
static inline void pull_value(const Block *b, const Lane *at, const float *grad, Lane *grad_weight) {
    Lane g;
    FOR_LANES g[i] = i < b->count ? grad[i] : 0.0f;
    for (int c = 0; c < 3; ++c) FOR_LANES grad_weight[c][i] += g[i] * at[c][i];
}

static inline void push_attribute(const Block *b, const float *grad, float *grad_attributes, int64_t stride,
                                  int64_t k) {
    for (int c = 0; c < 3; ++c)
        for (int i = 0; i < b->count; ++i)
            grad_attributes[b->vertex[c][i] * stride + k] += grad[i] * b->weight[c][i];
}

static inline void push_vertices(const Block *b, const float *grad_z, const Lane *grad_weight, float *grad_verts) {
    Lane gx[3], gy[3], gz[3];
    FOR_LANES {
        const float g = i < b->count ? grad_z[i] : 0.0f;
        float ge[3];
        const float mean = grad_weight[0][i] * b->weight[0][i] + grad_weight[1][i] * b->weight[1][i] +
                           grad_weight[2][i] * b->weight[2][i] + g * b->z[i];
        for (int c = 0; c < 3; ++c) {
            const float gu = (grad_weight[c][i] - mean) * b->scale[i];
            ge[c] = gu * b->w[c][i] + g * b->scale[i];
            gz[c][i] = -(gu * b->e[c][i]) * b->w[c][i] * b->w[c][i];
        }
        gx[0][i] = ge[2] * b->y[1][i] - ge[1] * b->y[2][i];
        gx[1][i] = ge[0] * b->y[2][i] - ge[2] * b->y[0][i];
        gx[2][i] = ge[1] * b->y[0][i] - ge[0] * b->y[1][i];
        gy[0][i] = ge[1] * b->x[2][i] - ge[2] * b->x[1][i];
        gy[1][i] = ge[2] * b->x[0][i] - ge[0] * b->x[2][i];
        gy[2][i] = ge[0] * b->x[1][i] - ge[1] * b->x[0][i];
    }
    for (int c = 0; c < 3; ++c)
        for (int i = 0; i < b->count; ++i) {
            float *target = grad_verts + 3 * b->vertex[c][i];
            target[0] += gx[c][i];
            target[1] += gy[c][i];
            target[2] += gz[c][i];
        }
}

/* grad is shaped like out of the forward; grad_verts and grad_attributes are shaped like the inputs and zero. */
EXPORT void hiface_surface_backward(const Inputs *in, int64_t image, int64_t start, int64_t stop, const float *grad,
                                    float *grad_verts, float *grad_attributes) {
    const float *verts = in->verts + image * in->n_verts * 3;
    const int64_t attribute_start = image * in->n_verts * in->n_attributes;
    int64_t row = 0;
    for (int64_t first = start; first < stop; first += BLOCK) {
        Block b;
        Lane at[3], grad_weight[3] = {{0}};
        load_block(in, verts, image, first, stop - first < BLOCK ? (int)(stop - first) : BLOCK, &row, &b);
        const float *column = grad + first;
        for (int64_t k = 0; k < in->n_attributes; ++k) {
            column += in->n_fragments;
            load_attribute(&b, in->attributes + attribute_start, in->n_attributes, k, at);
            pull_value(&b, (const Lane *)at, column, grad_weight);
            if (grad_attributes)
                push_attribute(&b, column, grad_attributes + attribute_start, in->n_attributes, k);
        }
        for (int64_t k = 0; k < in->n_corner; ++k) {
            column += in->n_fragments;
            load_corner_value(&b, in->corners, in->n_corner, k, at);
            pull_value(&b, (const Lane *)at, column, grad_weight);
        }
        push_vertices(&b, grad + first, (const Lane *)grad_weight, grad_verts + image * in->n_verts * 3);
    }
}

/* Number of covered pixels of each image: ids [n_images, n_pixels] -> counts [n_images]. */
EXPORT void hiface_count_fragments(const int32_t *ids, int64_t n_images, int64_t n_pixels, int64_t *counts) {
    for (int64_t image = 0; image < n_images; ++image, ids += n_pixels) {
        int64_t count = 0;
        for (int64_t i = 0; i < n_pixels; ++i) count += ids[i] >= 0;
        counts[image] = count;
    }
}

/* Indices of the covered pixels, ascending: ids [n] -> pixels. */
EXPORT void hiface_list_fragments(const int32_t *ids, int64_t n, int64_t *pixels) {
    for (int64_t i = 0; i < n; ++i) {
        if (ids[i] >= 0) *pixels++ = i;
    }
}

/* Fragments start..stop of one image into its pixels: rows [channels, n] -> out [n_images, channels, n_pixels]. */
EXPORT void hiface_scatter_rows(const float *rows, const int64_t *pixels, int64_t n, int64_t channels,
                                int64_t image, int64_t n_pixels, int64_t start, int64_t stop, float *out) {
    for (int64_t c = 0; c < channels; ++c) {
        float *target = out + ((image * channels + c) - image) * n_pixels;
        for (int64_t i = start; i < stop; ++i) target[pixels[i]] = rows[c * n + i];
    }
}

/* The opposite way. */
EXPORT void hiface_gather_rows(const float *images, const int64_t *pixels, int64_t n, int64_t channels,
                               int64_t image, int64_t n_pixels, int64_t start, int64_t stop, float *rows) {
    for (int64_t c = 0; c < channels; ++c) {
        const float *source = images + ((image * channels + c) - image) * n_pixels;
        for (int64_t i = start; i < stop; ++i) rows[c * n + i] = source[pixels[i]];
    }
}
