/* SPDX-License-Identifier: Apache-2.0
 *
 * Nearest triangle of every pixel, on the CPU.
 *
 * Plain C99 plus the vector extensions of clang and gcc; no library is called. The rules (see docs/renderer.md)
 * are shared with reference.py and zbuffer.cu, and the three give identical ids:
 *
 *   - pixel coordinates are rounded to 1/256 px (half to even); edge functions are exact integers;
 *   - a pixel belongs to a triangle if its centre is inside, by the top-left rule;
 *   - nearness is 1/z, affine on the screen: w = (w0 + e1 * d1) + e2 * d2 in float32, never fused;
 *   - the larger w wins, the lower id among equals;
 *   - a triangle is dropped if a corner is not finite, |x| or |y| >= 2^22 px, or z < near.
 */
#include <stdint.h>

#include "kernels.h"

#ifndef HIFACE_SOURCE_HASH
#define HIFACE_SOURCE_HASH 0
#endif

#define SUBPIXEL 256
#define HALF 128
#define SMALL_EXTENT 24576   /* 96 px: below it the edge functions of a whole box fit in 32 bits */
#define LANES 4 /* of an fvec */

typedef int32_t ivec __attribute__((vector_size(4 * LANES)));
typedef struct {
    ivec v;
} __attribute__((packed, aligned(4))) ivec_unaligned;

typedef struct {
    int32_t x, y; /* 1/256 px */
    float w;      /* 1/z, or 0 for a vertex that drops its triangles */
    int32_t unused;
} Corner;

typedef struct {
    int32_t height, width;
    int32_t *ids;
    float *nearness;
} Target;

/* Round half to even for |value| < 2^31: adding 1.5 * 2^52 leaves the integer in the low bits of the double. */
static inline int32_t round_even(float value) {
    union {
        double d;
        int64_t i;
    } bits;
    bits.d = (double)value + 6755399441055744.0;
    return (int32_t)bits.i;
}

static void prepare_corners(const float *verts, int64_t n, float near_z, Corner *out) {
    for (int64_t i = 0; i < n; ++i) {
        const float x = verts[3 * i], y = verts[3 * i + 1], z = verts[3 * i + 2];
        /* Comparisons with NaN are false, so NaN is dropped as well. */
        const int ok = x < MAX_COORD && x > -MAX_COORD && y < MAX_COORD && y > -MAX_COORD && z >= near_z &&
                       z <= 3.0e38f;
        out[i].x = ok ? round_even(x * SUBPIXEL) : 0;
        out[i].y = ok ? round_even(y * SUBPIXEL) : 0;
        out[i].w = ok ? 1.0f / z : 0.0f;
    }
}

static inline int32_t min3(int32_t a, int32_t b, int32_t c) {
    const int32_t m = a < b ? a : b;
    return m < c ? m : c;
}

static inline int32_t max3(int32_t a, int32_t b, int32_t c) {
    const int32_t m = a > b ? a : b;
    return m > c ? m : c;
}

/* An edge function must exceed this: -1 on top and left edges (zero counts as inside), 0 on the others. */
static inline int32_t threshold(int64_t dx, int64_t dy) { return (dy < 0 || (dy == 0 && dx > 0)) ? -1 : 0; }

/* Box of at most 96 px: 32-bit edge functions, LANES pixels of a row at a time. */
static inline void fill_small(const Target *t, const Corner *a, const Corner *b, const Corner *c, int32_t id,
                              int32_t x0, int32_t x1, int32_t y0, int32_t y1) {
    const int32_t dx0 = c->x - b->x, dy0 = c->y - b->y; /* edge opposite a */
    const int32_t dx1 = a->x - c->x, dy1 = a->y - c->y; /* edge opposite b */
    const int32_t dx2 = b->x - a->x, dy2 = b->y - a->y; /* edge opposite c */
    const int32_t area = dx2 * (c->y - a->y) - dy2 * (c->x - a->x);
    const float inv_area = 1.0f / (float)area;
    const float d1 = (b->w - a->w) * inv_area, d2 = (c->w - a->w) * inv_area;
    const int32_t t0 = threshold(dx0, dy0), t1 = threshold(dx1, dy1), t2 = threshold(dx2, dy2);
    const ivec lane = {0, 1, 2, 3};
    const int32_t px = x0 * SUBPIXEL + HALF, py = y0 * SUBPIXEL + HALF;
    ivec row0 = (dx0 * (py - b->y) - dy0 * (px - b->x)) - lane * (dy0 * SUBPIXEL);
    ivec row1 = (dx1 * (py - c->y) - dy1 * (px - c->x)) - lane * (dy1 * SUBPIXEL);
    ivec row2 = (dx2 * (py - a->y) - dy2 * (px - a->x)) - lane * (dy2 * SUBPIXEL);
    for (int32_t y = y0; y <= y1; ++y) {
        ivec e0 = row0, e1 = row1, e2 = row2;
        const int64_t row = (int64_t)y * t->width;
        for (int32_t x = x0; x <= x1; x += LANES) {
            fvec_unaligned *nearness = (fvec_unaligned *)(t->nearness + row + x);
            ivec_unaligned *ids = (ivec_unaligned *)(t->ids + row + x);
            fvec w = (a->w + __builtin_convertvector(e1, fvec) * d1) + __builtin_convertvector(e2, fvec) * d2;
            w = (fvec)((ivec)w & (w > 0.0f));
            const fvec old = nearness->v;
            const ivec win = (e0 > t0) & (e1 > t1) & (e2 > t2) & (w > old);
            nearness->v = (fvec)((win & (ivec)w) | (~win & (ivec)old));
            ids->v = (win & id) | (~win & ids->v);
            e0 -= dy0 * (SUBPIXEL * LANES);
            e1 -= dy1 * (SUBPIXEL * LANES);
            e2 -= dy2 * (SUBPIXEL * LANES);
        }
        row0 += dx0 * SUBPIXEL;
        row1 += dx1 * SUBPIXEL;
        row2 += dx2 * SUBPIXEL;
    }
}

/* Any box: 64-bit edge functions. */
static void fill_large(const Target *t, const Corner *a, const Corner *b, const Corner *c, int32_t id, int32_t x0,
                       int32_t x1, int32_t y0, int32_t y1) {
    const int64_t dx0 = (int64_t)c->x - b->x, dy0 = (int64_t)c->y - b->y;
    const int64_t dx1 = (int64_t)a->x - c->x, dy1 = (int64_t)a->y - c->y;
    const int64_t dx2 = (int64_t)b->x - a->x, dy2 = (int64_t)b->y - a->y;
    const int64_t area = dx2 * ((int64_t)c->y - a->y) - dy2 * ((int64_t)c->x - a->x);
    const float inv_area = 1.0f / (float)area;
    const float d1 = (b->w - a->w) * inv_area, d2 = (c->w - a->w) * inv_area;
    const int64_t t0 = threshold(dx0, dy0), t1 = threshold(dx1, dy1), t2 = threshold(dx2, dy2);
    const int64_t px = (int64_t)x0 * SUBPIXEL + HALF;
    for (int32_t y = y0; y <= y1; ++y) {
        const int64_t py = (int64_t)y * SUBPIXEL + HALF;
        int64_t e0 = dx0 * (py - b->y) - dy0 * (px - b->x);
        int64_t e1 = dx1 * (py - c->y) - dy1 * (px - c->x);
        int64_t e2 = dx2 * (py - a->y) - dy2 * (px - a->x);
        float *nearness = t->nearness + (int64_t)y * t->width;
        int32_t *ids = t->ids + (int64_t)y * t->width;
        for (int32_t x = x0; x <= x1; ++x) {
            if (e0 > t0 && e1 > t1 && e2 > t2) {
                float w = (a->w + (float)e1 * d1) + (float)e2 * d2;
                w = w > 0.0f ? w : 0.0f;
                if (w > nearness[x]) {
                    nearness[x] = w;
                    ids[x] = id;
                }
            }
            e0 -= dy0 * SUBPIXEL;
            e1 -= dy1 * SUBPIXEL;
            e2 -= dy2 * SUBPIXEL;
        }
    }
}

static void draw_triangle(const Target *t, const Corner *a, const Corner *b, const Corner *c, int32_t id) {
    const int32_t min_x = min3(a->x, b->x, c->x), max_x = max3(a->x, b->x, c->x);
    const int32_t min_y = min3(a->y, b->y, c->y), max_y = max3(a->y, b->y, c->y);
    int32_t x0 = (min_x + HALF - 1) >> 8, x1 = (max_x - HALF) >> 8;
    int32_t y0 = (min_y + HALF - 1) >> 8, y1 = (max_y - HALF) >> 8;
    x0 = x0 < 0 ? 0 : x0;
    y0 = y0 < 0 ? 0 : y0;
    x1 = x1 >= t->width ? t->width - 1 : x1;
    y1 = y1 >= t->height ? t->height - 1 : y1;
    if (x0 > x1 || y0 > y1) return;
    if (!(a->w > 0.0f && b->w > 0.0f && c->w > 0.0f)) return;
    const int64_t area = ((int64_t)b->x - a->x) * ((int64_t)c->y - a->y) -
                         ((int64_t)b->y - a->y) * ((int64_t)c->x - a->x);
    if (area == 0) return;
    if (area < 0) {
        const Corner *swap = b;
        b = c;
        c = swap;
    }
    if (max_x - min_x <= SMALL_EXTENT && max_y - min_y <= SMALL_EXTENT && t->width >= LANES) {
        /* Whole vectors stay inside the row; the pixels added on the left are tested like the others. */
        const int32_t blocks = (x1 - x0) / LANES + 1;
        const int32_t last = t->width - LANES * blocks;
        if (last < 0)
            fill_large(t, a, b, c, id, x0, x1, y0, y1);
        else
            fill_small(t, a, b, c, id, x0 < last ? x0 : last, x1, y0, y1);
    } else {
        fill_large(t, a, b, c, id, x0, x1, y0, y1);
    }
}

/* Tells which sources the library was made from. */
EXPORT int64_t hiface_source_hash(void) { return HIFACE_SOURCE_HASH; }

/* Bytes of scratch memory, 16-byte aligned, that hiface_zbuffer needs. */
EXPORT int64_t hiface_zbuffer_scratch(int64_t n_verts, int64_t height, int64_t width) {
    return n_verts * (int64_t)sizeof(Corner) + height * width * (int64_t)sizeof(float);
}

/* verts [n_images, n_verts, 3] (x px, y px, z), triangles [n_triangles, 3] -> ids [n_images, height, width]. */
EXPORT void hiface_zbuffer(const float *verts, int64_t n_images, int64_t n_verts, const int64_t *triangles,
                           int64_t n_triangles, int32_t height, int32_t width, float near_z, int32_t *ids,
                           void *scratch) {
    const int64_t n_pixels = (int64_t)height * width;
    Corner *corners = scratch;
    Target target = {height, width, ids, (float *)(corners + n_verts)};
    for (int64_t image = 0; image < n_images; ++image) {
        prepare_corners(verts + image * n_verts * 3, n_verts, near_z, corners);
        for (int64_t i = 0; i < n_pixels; ++i) {
            target.nearness[i] = -1.0f;
            target.ids[i] = -1;
        }
        for (int64_t i = 0; i < n_triangles; ++i) {
            const uint64_t a = (uint64_t)triangles[3 * i], b = (uint64_t)triangles[3 * i + 1],
                           c = (uint64_t)triangles[3 * i + 2];
            if (a >= (uint64_t)n_verts || b >= (uint64_t)n_verts || c >= (uint64_t)n_verts) continue;
            draw_triangle(&target, corners + a, corners + b, corners + c, (int32_t)i);
        }
        target.ids += n_pixels;
    }
}
