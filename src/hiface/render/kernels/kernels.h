/* SPDX-License-Identifier: Apache-2.0
 *
 * What all kernels share: exported names, and blocks of fixed length that the compiler turns into vectors.
 */
#ifndef HIFACE_KERNELS_H
#define HIFACE_KERNELS_H

#if defined(_WIN32)
#define EXPORT __declspec(dllexport)
#else
#define EXPORT __attribute__((visibility("default")))
#endif

#define BLOCK 8
#define FOR_LANES for (int i = 0; i < BLOCK; ++i)

typedef float Lane[BLOCK];

#define MAX_COORD 4194304.0f /* 2^22 px */

/* Limits of skin.c, mirrored in skin.py. */
#define MAX_LAMPS 8
#define MAX_ROWS 24

#endif
