/* SPDX-License-Identifier: Apache-2.0
 *
 * The discrete half of antialiasing: finds the silhouette edges of a mesh, cuts them with the rows and columns of
 * pixel centres, and keeps the outermost visible cut of each pair of neighbouring pixels. The same decisions as
 * `find_cuts_plain` in antialias.py, which is the specification.
 */
#include <stddef.h>
#include <stdint.h>

#include "kernels.h"


/* Inputs and outputs; mirrored by `OutlineInputs` in outline.py. */
typedef struct {
    const float *x, *y, *w;       /* [n_images, n_verts] pixels, 1/z */
    const float *nearness;        /* [n_images, height, width] 1/z of the visible surface, 0 for none */
    const int64_t *triangles;     /* [n_triangles, 3] */
    const int64_t *edge_vertices; /* [2, n_edges] */
    const int64_t *edge_sides;    /* [2, n_edges] */
    int8_t *facing;               /* scratch [n_triangles + 1] */
    int32_t *slot;                /* scratch [height * width * 2], all -1 */
    int64_t *links;               /* out [4, capacity]: start, end, pixel before, pixel after */
    float *places;                /* out [2, capacity]: coordinate of the line, of the centre before */
    uint8_t *flags;               /* out [2, capacity]: along x, nearer pixel comes before */
    float *outward;               /* scratch [capacity] */
    int64_t n_images, n_verts, n_triangles, n_edges, height, width, capacity;
    float gap;
} Inputs;

typedef struct {
    int64_t start, end;   /* vertices, into this image */
    int64_t lines, steps; /* number of lines and of pixels on a line */
    int horizontal;
} Walk;

static inline float floor_float(float v) {
    const float truncated = (float)(int64_t)v;
    return truncated > v ? truncated - 1.0f : truncated;
}

/* First line whose centre is at or after the coordinate, between 0 and `lines`. */
static inline int64_t first_line(float across, int64_t lines) {
    const float shifted = across - 0.5f;
    if (!(shifted > 0.0f)) return 0;
    if (shifted >= (float)lines) return lines;
    const int64_t whole = (int64_t)shifted;
    return (float)whole < shifted ? whole + 1 : whole;
}

static inline int is_vertex(const Inputs *in, int64_t v) { return (uint64_t)v < (uint64_t)in->n_verts; }

static void find_facing(const Inputs *in, const float *x, const float *y) {
    for (int64_t t = 0; t < in->n_triangles; ++t) {
        const int64_t a = in->triangles[3 * t], b = in->triangles[3 * t + 1], c = in->triangles[3 * t + 2];
        in->facing[t] = 0;
        if (!is_vertex(in, a) || !is_vertex(in, b) || !is_vertex(in, c)) continue;
        const float area = (x[b] - x[a]) * (y[c] - y[a]) - (y[b] - y[a]) * (x[c] - x[a]);
        in->facing[t] = area > 0.0f;
    }
    in->facing[in->n_triangles] = 2;
}

/* Cuts of one edge with lines of one direction; returns the new number of results, or -1 if they do not fit. */
static int64_t walk_edge(const Inputs *in, int64_t image, Walk walk, int64_t count) {
    const int64_t n_pixels = in->height * in->width;
    const float *along = (walk.horizontal ? in->x : in->y) + image * in->n_verts;
    const float *across = (walk.horizontal ? in->y : in->x) + image * in->n_verts;
    const float *w = in->w + image * in->n_verts, *nearness = in->nearness + image * n_pixels;
    const float a0 = along[walk.start], d_along = along[walk.end] - a0;
    const float c0 = across[walk.start], c1 = across[walk.end], d_across = c1 - c0;
    const int64_t first = first_line(c0 < c1 ? c0 : c1, walk.lines), stop = first_line(c0 < c1 ? c1 : c0, walk.lines);
    if (first >= stop) return count;
    const float slope = d_along / d_across;
    const float intercept = a0 - slope * (c0 - 0.5f) - 0.5f;
    for (int64_t line = first; line < stop; ++line) {
        const float place = intercept + slope * (float)line;
        if (!(place >= 0.0f && place < (float)(walk.steps - 1))) continue;
        const float before = floor_float(place);
        const int64_t step = (int64_t)before;
        const int64_t pixel = walk.horizontal ? line * in->width + step : step * in->width + line;
        const int64_t next = pixel + (walk.horizontal ? 1 : in->width);
        const int inside_before = nearness[pixel] > nearness[next];
        const float far_side = inside_before ? nearness[next] : nearness[pixel];
        const float near_side = inside_before ? nearness[pixel] : nearness[next];
        const float share = ((float)line + 0.5f - c0) / d_across;
        const float limit = far_side * in->gap;
        if (!(near_side > limit && w[walk.start] + share * (w[walk.end] - w[walk.start]) > limit)) continue;
        const float distance = a0 + share * d_along - (before + 0.5f);
        const float outward = inside_before ? distance : 1.0f - distance;
        int32_t *slot = in->slot + 2 * pixel + walk.horizontal;
        if (*slot >= 0 && in->outward[*slot] >= outward) continue;
        if (*slot < 0) {
            if (count >= in->capacity) return -1;
            *slot = (int32_t)count++;
        }
        const int64_t at = *slot, n = in->capacity;
        in->outward[at] = outward;
        in->links[at] = walk.start + image * in->n_verts;
        in->links[n + at] = walk.end + image * in->n_verts;
        in->links[2 * n + at] = pixel + image * n_pixels;
        in->links[3 * n + at] = next + image * n_pixels;
        in->places[at] = (float)line + 0.5f;
        in->places[n + at] = before + 0.5f;
        in->flags[at] = (uint8_t)walk.horizontal;
        in->flags[n + at] = (uint8_t)inside_before;
    }
    return count;
}

static inline int usable(const Inputs *in, const float *x, const float *y, const float *w, int64_t v) {
    return is_vertex(in, v) && w[v] > 0.0f && x[v] < MAX_COORD && x[v] > -MAX_COORD && y[v] < MAX_COORD && y[v] > -MAX_COORD;
}

/* Number of results, or -1 if the capacity is too small (slot is then spoiled). */
EXPORT int64_t hiface_find_cuts(const Inputs *in) {
    const int64_t *start = in->edge_vertices, *end = start + in->n_edges;
    const int64_t *side_a = in->edge_sides, *side_b = side_a + in->n_edges;
    int64_t count = 0;
    for (int64_t image = 0; image < in->n_images; ++image) {
        const float *x = in->x + image * in->n_verts, *y = in->y + image * in->n_verts;
        const float *w = in->w + image * in->n_verts;
        const int64_t first = count, n_pixels = in->height * in->width;
        find_facing(in, x, y);
        for (int64_t e = 0; e < in->n_edges; ++e) {
            if (in->facing[side_a[e]] == in->facing[side_b[e]]) continue;
            if (!usable(in, x, y, w, start[e]) || !usable(in, x, y, w, end[e])) continue;
            const Walk rows = {start[e], end[e], in->height, in->width, 1};
            const Walk columns = {start[e], end[e], in->width, in->height, 0};
            if ((count = walk_edge(in, image, rows, count)) < 0) return -1;
            if ((count = walk_edge(in, image, columns, count)) < 0) return -1;
        }
        for (int64_t i = first; i < count; ++i)
            in->slot[2 * (in->links[2 * in->capacity + i] - image * n_pixels) + in->flags[i]] = -1;
    }
    return count;
}
