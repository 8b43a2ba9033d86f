/* SPDX-License-Identifier: Apache-2.0
 *
 * Light on the vertices of a head, with shadows from a table, and the shading of its fragments: albedo, relief,
 * highlights. The same as `received_plain` in synthetic/lights.py and `shade_plain` in synthetic/skin.py.
 */
#include <stddef.h>
#include <stdint.h>

#include "kernels.h"

/* Inputs of hiface_received; mirrored by `LightInputs` in skin.py. Directions come in blocks of BLOCK. */
typedef struct {
    const float *normals;      /* [n_verts, 3] */
    const float *closed;       /* [n_verts, n_directions] or NULL for no shadows */
    const float *opened;       /* the same, or NULL */
    const float *directions;   /* [3, n_directions] */
    const float *radiance;     /* [3, n_directions], divided by 1 + wrap */
    const float *lamps;        /* [n_lamps, n_directions] weights that sum to one */
    const uint8_t *wanted;     /* [n_verts] or NULL for all */
    float *out;                /* [n_verts, stride]: light, then the share of each lamp at column `lamp_column` */
    int64_t n_verts, n_directions, n_lamps, stride, lamp_column;
    float blend, wrap_red, wrap;
} LightInputs;

static inline float sum_lanes(const Lane lane) {
    const float a = (lane[0] + lane[4]) + (lane[2] + lane[6]), b = (lane[1] + lane[5]) + (lane[3] + lane[7]);
    return a + b;
}

EXPORT void hiface_received(const LightInputs *in) {
    const int64_t n = in->n_directions;
    for (int64_t v = 0; v < in->n_verts; ++v) {
        if (in->wanted && !in->wanted[v]) continue;
        const float nx = in->normals[3 * v], ny = in->normals[3 * v + 1], nz = in->normals[3 * v + 2];
        Lane sum[3] = {{0}}, lamp[MAX_LAMPS] = {{0}};
        for (int64_t j = 0; j < n; j += BLOCK) {
            const float *d = in->directions + j, *r = in->radiance + j;
            Lane seen, red, rest;
            if (in->closed) {
                const float *closed = in->closed + v * n + j;
                FOR_LANES seen[i] = closed[i];
                if (in->opened) {
                    const float *opened = in->opened + v * n + j;
                    FOR_LANES seen[i] += in->blend * (opened[i] - seen[i]);
                }
            } else {
                FOR_LANES seen[i] = 1.0f;
            }
            FOR_LANES {
                const float cosine = nx * d[i] + ny * d[n + i] + nz * d[2 * n + i];
                red[i] = cosine + in->wrap_red;
                rest[i] = cosine + in->wrap;
                red[i] = (red[i] > 0.0f ? red[i] : 0.0f) * seen[i];
                rest[i] = (rest[i] > 0.0f ? rest[i] : 0.0f) * seen[i];
                sum[0][i] += red[i] * r[i];
                sum[1][i] += rest[i] * r[n + i];
                sum[2][i] += rest[i] * r[2 * n + i];
            }
            for (int64_t l = 0; l < in->n_lamps; ++l) {
                const float *weight = in->lamps + l * n + j;
                FOR_LANES lamp[l][i] += seen[i] * weight[i];
            }
        }
        float *out = in->out + v * in->stride;
        for (int c = 0; c < 3; ++c) out[c] = sum_lanes(sum[c]);
        for (int64_t l = 0; l < in->n_lamps; ++l) out[in->lamp_column + l] = sum_lanes(lamp[l]);
    }
}

/* Inputs of hiface_shade_skin; mirrored by `SkinInputs` in skin.py. */
typedef struct {
    const float *attributes;  /* [n_verts, n_attributes]: light, normal, share of each lamp, then for relief the
                                 vectors a and b of relief.py and the share of light; n_attributes % 4 == 0 */
    const float *corners;     /* [n_triangles, 3, 2] texture coordinates, -1..1 */
    const int64_t *triangles; /* [n_triangles, 3] */
    const int64_t *triangle, *pixel; /* [n_fragments], pixels ascending */
    const float *place;       /* [4, stride] barycentrics and z */
    const float *texture;     /* [side, side, 4] albedo */
    const float *relief;      /* [relief_side, relief_side, 4] slopes and depth, or NULL */
    const uint8_t *label;     /* [n_triangles] */
    const uint8_t *kind;      /* [n_triangles] 0 skin, 1 tooth, 2 eye */
    const float *gloss;       /* [n_triangles] */
    const float *lamps;       /* [n_lamps, 8] direction, colour, width of the lobe, 0 */
    const float *quadratic;   /* [3, 4, 4] light as a quadratic form, times the softening under the skin */
    float *colour, *depth;    /* canvas [3, n_pixels], [n_pixels] */
    uint8_t *canvas_label;    /* [n_pixels] */
    int64_t *eyes;            /* out [n_fragments] numbers of the fragments of eyes, which are not drawn right */
    int64_t n_fragments, stride, n_attributes, n_lamps, side, relief_side, size;
    float inv_focal[2], centre[2], tooth[3], shine, cavity[3], cavity_m, steepest;
} SkinInputs;

/* Vectors of BLOCK lanes; the compiler does not find them by itself in long loops. */
typedef float Wide __attribute__((vector_size(4 * BLOCK)));
typedef float WideLane __attribute__((vector_size(4 * BLOCK), aligned(4), may_alias));
typedef int32_t WideInt __attribute__((vector_size(4 * BLOCK)));

static inline Wide load(const Lane lane) { return *(const WideLane *)lane; }

static inline void store(Lane lane, Wide value) { *(WideLane *)lane = value; }

static inline Wide choose(WideInt mask, Wide yes, Wide no) {
    return (Wide)((mask & (WideInt)yes) | (~mask & (WideInt)no));
}

static inline Wide larger(Wide a, Wide b) { return choose(a > b, a, b); }

static inline Wide spread(float value) { return (Wide){0} + value; }

static inline Wide dot(const Wide *a, const Wide *b) { return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]; }

static inline void make_unit(Wide *v) {
    const Wide scale = 1.0f / __builtin_elementwise_sqrt(larger(dot(v, v), spread(1e-20f)));
    for (int k = 0; k < 3; ++k) v[k] *= scale;
}

/* e^x for x <= 0, relative error below 3e-7: 2^k times a polynomial on +-ln(2) / 2. */
static inline Wide exp_negative(Wide x) {
    x = larger(x, spread(-87.0f));
    const WideInt whole = __builtin_convertvector(x * 1.44269504f - 0.5f, WideInt);
    const Wide k = __builtin_convertvector(whole, Wide);
    const Wide r = (x - k * 0.693359375f) + k * 2.12194440e-4f;
    const Wide p = 1.0f + r * (1.0f + r * (0.5f + r * (0.166666667f + r * (0.0416666418f +
                   r * (0.00833336077f + r * 0.00139316152f)))));
    return p * (Wide)((whole + 127) << 23);
}

/* e^x for x in -0.3..0 by its series, relative error below 1e-7. */
static inline Wide exp_small(Wide x) {
    return 1.0f + x * (1.0f + x * (0.5f + x * (1.0f / 6.0f + x * (1.0f / 24.0f + x * (1.0f / 120.0f + x * (1.0f / 720.0f))))));
}

/* x^(-1/3) for x >= 1: a guess from the exponent, then Newton's steps. */
static inline float inverse_cube_root(float x) {
    union {
        float f;
        int32_t i;
    } guess = {x};
    guess.i = 0x54a2fa8c - guess.i / 3;
    float y = guess.f;
    for (int k = 0; k < 4; ++k) y *= (4.0f - x * y * y * y) * (1.0f / 3.0f);
    return y;
}

typedef struct {
    int64_t triangle[BLOCK];
    float rows[BLOCK][MAX_ROWS] __attribute__((aligned(16)));
    Lane albedo[4], relief[4], light[3], normal[3], view[3], colour[3];
} Fragments;

/* Interpolates everything at up to BLOCK fragments; lanes beyond `count` repeat the last. */
static inline void gather(const SkinInputs *in, int64_t first, int count, int64_t *row, Fragments *f) {
    const int64_t m = in->n_attributes;
    for (int i = 0; i < BLOCK; ++i) {
        const int64_t at = first + (i < count ? i : count - 1), t = in->triangle[at];
        const float wa = in->place[at], wb = in->place[in->stride + at], wc = in->place[2 * in->stride + at];
        const fvec_unaligned *a = (const fvec_unaligned *)(in->attributes + m * in->triangles[3 * t]);
        const fvec_unaligned *b = (const fvec_unaligned *)(in->attributes + m * in->triangles[3 * t + 1]);
        const fvec_unaligned *c = (const fvec_unaligned *)(in->attributes + m * in->triangles[3 * t + 2]);
        fvec_unaligned *out = (fvec_unaligned *)f->rows[i];
        for (int64_t k = 0; k < m / 4; ++k) out[k].v = a[k].v * wa + b[k].v * wb + c[k].v * wc;
        const float *uv = in->corners + 6 * t;
        const float u = uv[0] * wa + uv[2] * wb + uv[4] * wc, v = uv[1] * wa + uv[3] * wb + uv[5] * wc;
        const fvec albedo = lookup(in->texture, in->side, u, v);
        for (int k = 0; k < 3; ++k) f->albedo[k][i] = albedo[k];
        if (in->relief) {
            const fvec relief = lookup(in->relief, in->relief_side, u, v);
            for (int k = 0; k < 3; ++k) f->relief[k][i] = relief[k];
        }
        f->triangle[i] = t;
        const int64_t pixel = in->pixel[at];
        while (pixel >= (*row + 1) * in->size) ++*row;
        f->view[0][i] = (in->centre[0] - ((float)(pixel - *row * in->size) + 0.5f)) * in->inv_focal[0];
        f->view[1][i] = (in->centre[1] - ((float)*row + 0.5f)) * in->inv_focal[1];
        f->view[2][i] = -1.0f;
        for (int k = 0; k < 3; ++k) {
            f->light[k][i] = f->rows[i][k];
            f->normal[k][i] = f->rows[i][3 + k];
        }
    }
}

static inline void load3(const Lane *lanes, Wide *v) {
    for (int k = 0; k < 3; ++k) v[k] = load(lanes[k]);
}

/* Tilts normals by the slope of the relief, moves light and darkens grooves. */
static inline void raise(const SkinInputs *in, Fragments *f) {
    const int64_t first = 6 + in->n_lamps;
    Lane slope[3], share;
    Wide n[3], tilted[3], sum[3], step[3];
    for (int i = 0; i < BLOCK; ++i) {
        const float *axes = f->rows[i] + first;
        for (int k = 0; k < 3; ++k) slope[k][i] = f->relief[0][i] * axes[k] + f->relief[1][i] * axes[3 + k];
        share[i] = axes[6];
    }
    load3(f->normal, n);
    load3(slope, tilted);
    const Wide scale = in->steepest / (in->steepest + __builtin_elementwise_sqrt(dot(tilted, tilted)));
    for (int k = 0; k < 3; ++k) tilted[k] = n[k] - tilted[k] * scale;
    make_unit(tilted);
    for (int k = 0; k < 3; ++k) {
        sum[k] = tilted[k] + n[k];
        step[k] = tilted[k] - n[k];
        store(f->normal[k], tilted[k]);
    }
    const Wide groove = exp_negative(load(f->relief[2]) * (-1.0f / in->cavity_m)) - 1.0f, part = load(share);
    for (int c = 0; c < 3; ++c) {
        const float *M = in->quadratic + 16 * c;
        const Wide shift = (M[0] * sum[0] + M[1] * sum[1] + M[2] * sum[2] + 2.0f * M[3]) * step[0] +
                           (M[4] * sum[0] + M[5] * sum[1] + M[6] * sum[2] + 2.0f * M[7]) * step[1] +
                           (M[8] * sum[0] + M[9] * sum[1] + M[10] * sum[2] + 2.0f * M[11]) * step[2];
        const Wide light = load(f->light[c]);
        store(f->light[c], larger(light + shift * part, 0.25f * light));
        store(f->albedo[c], load(f->albedo[c]) * exp_small(in->cavity[c] * groove));
    }
}

/* Adds the highlights of all lamps. */
static inline void shine(const SkinInputs *in, Fragments *f) {
    Wide n[3], view[3], colour[3], half[3];
    Lane gloss, seen;
    for (int i = 0; i < BLOCK; ++i) gloss[i] = in->gloss[f->triangle[i]];
    load3(f->normal, n);
    load3(f->view, view);
    load3(f->colour, colour);
    make_unit(view);
    const Wide facing = larger(dot(n, view), spread(0.0f)), away = larger(1.0f - facing, spread(0.0f));
    const Wide grazing = away * away, strength = in->shine * (1.0f + 3.0f * grazing * grazing) + 0.12f * load(gloss);
    for (int64_t l = 0; l < in->n_lamps; ++l) {
        const float *lamp = in->lamps + 8 * l, width = lamp[6];
        for (int k = 0; k < 3; ++k) half[k] = view[k] + lamp[k];
        for (int i = 0; i < BLOCK; ++i) seen[i] = f->rows[i][6 + l];
        make_unit(half);
        const Wide cosine = larger(dot(n, half), spread(0.0f));
        const Wide lobe = cosine / (width - (width - 1.0f) * cosine) * (strength * load(seen));
        for (int c = 0; c < 3; ++c) colour[c] += lamp[3 + c] * lobe;
    }
    for (int c = 0; c < 3; ++c) store(f->colour[c], colour[c]);
}

/* Colour, depth and label of the fragments of a head, onto the canvas; returns the number of `eyes`. */
EXPORT int64_t hiface_shade_skin(const SkinInputs *in) {
    const int64_t n_pixels = in->size * in->size;
    int64_t n_eyes = 0, row = 0;
    Fragments f;
    for (int64_t first = 0; first < in->n_fragments; first += BLOCK) {
        const int count = in->n_fragments - first < BLOCK ? (int)(in->n_fragments - first) : BLOCK;
        gather(in, first, count, &row, &f);
        if (in->relief || in->n_lamps > 0) { /* even light on smooth skin asks for no direction */
            Wide normal[3];
            load3(f.normal, normal);
            make_unit(normal);
            for (int k = 0; k < 3; ++k) store(f.normal[k], normal[k]);
        }
        if (in->relief) raise(in, &f);
        for (int c = 0; c < 3; ++c) FOR_LANES f.colour[c][i] = f.albedo[c][i] * f.light[c][i];
        for (int i = 0; i < count; ++i) {
            const uint8_t kind = in->kind[f.triangle[i]];
            if (kind == 2) in->eyes[n_eyes++] = first + i;
            if (kind != 1) continue;
            for (int c = 0; c < 3; ++c) {
                const float bright = f.colour[c][i] * in->tooth[c], ratio = bright * (1.0f / 0.95f);
                f.colour[c][i] = bright * inverse_cube_root(1.0f + ratio * ratio * ratio);
            }
        }
        if (in->n_lamps > 0) shine(in, &f);
        for (int i = 0; i < count; ++i) {
            const int64_t pixel = in->pixel[first + i];
            for (int c = 0; c < 3; ++c) in->colour[c * n_pixels + pixel] = f.colour[c][i];
            in->depth[pixel] = in->place[3 * in->stride + first + i];
            in->canvas_label[pixel] = in->label[f.triangle[i]];
        }
    }
    return n_eyes;
}

/* verts [n_verts, 3], triangles [n_triangles, 3] -> unit normals [n_verts, stride], weighted by area; zero where there
 * is no triangle of any size. */
EXPORT void hiface_vertex_normals(const float *verts, int64_t n_verts, const int64_t *triangles, int64_t n_triangles,
                                  int64_t stride, float *out) {
    for (int64_t v = 0; v < n_verts; ++v)
        for (int k = 0; k < 3; ++k) out[v * stride + k] = 0.0f;
    for (int64_t t = 0; t < n_triangles; ++t) {
        const int64_t *corner = triangles + 3 * t;
        const float *a = verts + 3 * corner[0], *b = verts + 3 * corner[1], *c = verts + 3 * corner[2];
        const float x1 = b[0] - a[0], y1 = b[1] - a[1], z1 = b[2] - a[2];
        const float x2 = c[0] - a[0], y2 = c[1] - a[1], z2 = c[2] - a[2];
        const float n[3] = {y1 * z2 - z1 * y2, z1 * x2 - x1 * z2, x1 * y2 - y1 * x2};
        for (int i = 0; i < 3; ++i)
            for (int k = 0; k < 3; ++k) out[corner[i] * stride + k] += n[k];
    }
    for (int64_t v = 0; v < n_verts; ++v) {
        float *n = out + v * stride;
        const float sum = n[0] * n[0] + n[1] * n[1] + n[2] * n[2];
        const float scale = 1.0f / __builtin_sqrtf(sum > 1e-30f ? sum : 1e-30f);
        for (int k = 0; k < 3; ++k) n[k] *= scale;
    }
}

/* Displacement [side, side] in metres -> slopes per unit of u and v, depth, 0, as in `relief_maps`. */
EXPORT void hiface_relief_texels(const float *displacement, int64_t side, float *out) {
    const float scale = 0.5f * (float)side;
    for (int64_t y = 0; y < side; ++y) {
        const float *row = displacement + y * side;
        const int inner = y > 0 && y + 1 < side;
        for (int64_t x = 0; x < side; ++x, out += 4) {
            out[0] = x > 0 && x + 1 < side ? (row[x + 1] - row[x - 1]) * scale : 0.0f;
            out[1] = inner ? (row[x + side] - row[x - side]) * scale : 0.0f;
            out[2] = row[x] < 0.0f ? -row[x] : 0.0f;
            out[3] = 0.0f;
        }
    }
}
