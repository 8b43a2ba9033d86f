/* SPDX-License-Identifier: Apache-2.0
 *
 * Nearest triangle of every pixel, on a GPU: one thread per (image, triangle), a 64-bit atomic minimum per pixel.
 * The rules are those of reference.py and zbuffer.c. The key of a pixel holds how far the triangle is in the upper
 * half and its id in the lower half, so the smallest key is the nearest triangle, the lowest id among equals.
 * Compiled by NVRTC at first use, so no header is included; every float operation is spelled out, never fused.
 */

typedef long long i64;
typedef unsigned long long u64;

#define SUBPIXEL 256
#define HALF 128
#define MAX_COORD 4194304.0f

struct Corner {
    i64 x, y;
    float w;
};

__device__ static bool load_corner(const float *verts, i64 index, float near_z, Corner *out) {
    const float x = verts[3 * index], y = verts[3 * index + 1], z = verts[3 * index + 2];
    if (!(x < MAX_COORD && x > -MAX_COORD && y < MAX_COORD && y > -MAX_COORD && z >= near_z && z <= 3.0e38f))
        return false;
    out->x = __float2int_rn(__fmul_rn(x, (float)SUBPIXEL));
    out->y = __float2int_rn(__fmul_rn(y, (float)SUBPIXEL));
    out->w = __fdiv_rn(1.0f, z);
    return true;
}

__device__ static int first_pixel(i64 a, i64 b, i64 c) {
    const i64 low = a < b ? (a < c ? a : c) : (b < c ? b : c);
    const i64 pixel = (low + HALF - 1) >> 8;
    return pixel < 0 ? 0 : (int)pixel;
}

__device__ static int last_pixel(i64 a, i64 b, i64 c, int size) {
    const i64 high = a > b ? (a > c ? a : c) : (b > c ? b : c);
    const i64 pixel = (high - HALF) >> 8;
    return pixel >= size ? size - 1 : (int)pixel;
}

__device__ static int threshold(i64 dx, i64 dy) { return (dy < 0 || (dy == 0 && dx > 0)) ? -1 : 0; }

__device__ static void fill(const Corner &a, const Corner &b, const Corner &c, i64 area, int id, int height,
                            int width, u64 *keys) {
    const int x0 = first_pixel(a.x, b.x, c.x), x1 = last_pixel(a.x, b.x, c.x, width);
    const int y0 = first_pixel(a.y, b.y, c.y), y1 = last_pixel(a.y, b.y, c.y, height);
    const i64 dx0 = c.x - b.x, dy0 = c.y - b.y, dx1 = a.x - c.x, dy1 = a.y - c.y, dx2 = b.x - a.x, dy2 = b.y - a.y;
    const float inv_area = __fdiv_rn(1.0f, __ll2float_rn(area));
    const float d1 = __fmul_rn(__fsub_rn(b.w, a.w), inv_area), d2 = __fmul_rn(__fsub_rn(c.w, a.w), inv_area);
    const int t0 = threshold(dx0, dy0), t1 = threshold(dx1, dy1), t2 = threshold(dx2, dy2);
    for (int y = y0; y <= y1; ++y) {
        const i64 px = (i64)x0 * SUBPIXEL + HALF, py = (i64)y * SUBPIXEL + HALF;
        i64 e0 = dx0 * (py - b.y) - dy0 * (px - b.x);
        i64 e1 = dx1 * (py - c.y) - dy1 * (px - c.x);
        i64 e2 = dx2 * (py - a.y) - dy2 * (px - a.x);
        for (int x = x0; x <= x1; ++x) {
            if (e0 > t0 && e1 > t1 && e2 > t2) {
                const float near_side = __fadd_rn(a.w, __fmul_rn(__ll2float_rn(e1), d1));
                const float w = __fadd_rn(near_side, __fmul_rn(__ll2float_rn(e2), d2));
                const u64 farness = 0x7FFFFFFFu - (w > 0.0f ? __float_as_uint(w) : 0u);
                atomicMin(keys + (i64)y * width + x, (farness << 32) | (u64)id);
            }
            e0 -= dy0 * SUBPIXEL;
            e1 -= dy1 * SUBPIXEL;
            e2 -= dy2 * SUBPIXEL;
        }
    }
}

/* verts [n_images, n_verts, 3] float32, triangles [n_triangles, 3] int64, keys [n_images, height, width] filled with
 * the largest int64. Grid: x over triangles, y over images. near_z comes as a double, as the launcher passes it. */
extern "C" __global__ void hiface_zbuffer(const float *verts, int n_verts, const i64 *triangles, int n_triangles,
                                          int height, int width, double near_z, u64 *keys) {
    const int id = blockIdx.x * blockDim.x + threadIdx.x;
    if (id >= n_triangles) return;
    const i64 image = blockIdx.y;
    const i64 ia = triangles[3 * (i64)id], ib = triangles[3 * (i64)id + 1], ic = triangles[3 * (i64)id + 2];
    if ((u64)ia >= (u64)n_verts || (u64)ib >= (u64)n_verts || (u64)ic >= (u64)n_verts) return;
    const float *first = verts + image * n_verts * 3;
    Corner a, b, c;
    if (!load_corner(first, ia, (float)near_z, &a) || !load_corner(first, ib, (float)near_z, &b) ||
        !load_corner(first, ic, (float)near_z, &c))
        return;
    const i64 area = (b.x - a.x) * (c.y - a.y) - (b.y - a.y) * (c.x - a.x);
    u64 *image_keys = keys + image * height * width;
    if (area > 0) fill(a, b, c, area, id, height, width, image_keys);
    if (area < 0) fill(a, c, b, -area, id, height, width, image_keys);
}
