/* SpectralMamba's two dense operations of float32 on the CPU, forward only: the features of spectra and the gated
 * merging of patches. What they compute and what their weights mean is said in __init__.py.
 *
 * Pixels never mix in the features, and only neighbours do in the merging, so the vector lanes are pixels: no sum is
 * ever taken over lanes, sizes of the network need not be multiples of anything, and a pixel's value has the same bits
 * in whichever lane, block or thread it is computed. Both operations spend their time in products of a few weights with
 * a few vectors that stay in registers (`product`), and the features in the decays of the recurrence (`scan`). Where
 * the processor multiplies bfloat16 matrices (AMX) and the system lets it, the merging's products are done so, with each
 * number cut into two of bfloat16; features lose too much by that where a network's weights are large.
 *
 * The second half of this file is the kernels; it is compiled once for each vector width by including the file in
 * itself with LANES defined. Which is used, the processor decides when the library is called.
 */

#ifndef LANES

#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#ifdef _OPENMP
#include <omp.h>
#else
static int omp_get_thread_num(void) { return 0; }
#endif

#define INLINE static inline __attribute__((always_inline))
#define EXPORT __attribute__((visibility("default")))

#if defined(__has_builtin)
#if __has_builtin(__builtin_shufflevector)
#define SHUFFLES 1
#endif
#endif

enum {
    ALIGNMENT = 64, /* bytes of a cache line */
    OUTPUTS = 6,    /* outputs of a product that are computed together */
    TOKENS = 16,    /* tokens that are computed together, at most */
    COLUMNS = 64,   /* columns of merged pixels that are computed together, at most */
    SMALL = 1 << 20 /* multiplications of a merging below which threads cost more than they save */
};

typedef struct {
    int64_t batch, bands, tokens, piece, width, channels, states, rank, taps, threads;
} Sizes;

/* As FeatureWeights has them. */
typedef struct {
    const float *token, *position, *token_in, *position_in, *bias_in, *convolution, *convolution_bias, *selection;
    const float *delta, *delta_bias, *A, *D, *out, *epsilon;
} Weights;

/* The matrices of Weights, packed for `product`. */
typedef struct {
    float *token, *token_in, *selection, *out;
} Packed;

typedef struct {
    int64_t height, width, bands, patch, threads, matrices;
} Image;

/* As MergingWeights has them; the matrix is packed for `product`. */
typedef struct {
    const float *depthwise, *depthwise_bias, *pointwise, *pointwise_bias;
} Merging;

/* Memory handed out in aligned pieces: a first pass with base NULL measures, a second one gives out. */
typedef struct {
    char *base;
    size_t used;
} Arena;

static void *take(Arena *arena, int64_t floats) {
    void *piece = arena->base ? arena->base + arena->used : NULL;
    arena->used += ((size_t)floats * sizeof(float) + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    return piece;
}

/* Allocate what was measured; the returned pointer is to be freed. */
static void *allocate(Arena *arena) {
    char *memory = malloc(arena->used + ALIGNMENT);
    if (memory) arena->base = memory + (ALIGNMENT - (uintptr_t)memory % ALIGNMENT);
    arena->used = 0;
    return memory;
}

INLINE int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }
INLINE int64_t larger(int64_t a, int64_t b) { return a > b ? a : b; }
INLINE int64_t divided(int64_t a, int64_t b) { return (a + b - 1) / b; }

/* Where part i begins of so many things, in as few equal parts as hold no more than `most` each. */
INLINE int64_t part(int64_t i, int64_t things, int64_t most) { return i * things / divided(things, most); }

/* Pack a matrix (inputs, outputs) as `product` reads it: in parts of OUTPUTS outputs, each input by input. */
static void pack(float *packed, const float *matrix, int64_t inputs, int64_t outputs) {
    for (int64_t i = 0; i < divided(outputs, OUTPUTS); i++)
        for (int64_t k = 0; k < inputs; k++)
            for (int64_t o = part(i, outputs, OUTPUTS); o < part(i + 1, outputs, OUTPUTS); o++)
                *packed++ = matrix[k * outputs + o];
}

#if defined(__x86_64__)
#include <immintrin.h>
#if defined(__linux__) && (defined(__clang__) ? __clang_major__ >= 12 : __GNUC__ >= 11)
#define MATRICES 1 /* the compiler knows AMX, and this system lends it */
#endif
/* Let numbers below the smallest normal one be zero, in this thread; they would take a hundred times as long. */
INLINE unsigned flush(void) {
    const unsigned before = _mm_getcsr();
    _mm_setcsr(before | 0x8040);
    return before;
}
INLINE void restore(unsigned before) { _mm_setcsr(before); }
#define LANES 16
#define NAME(name) name##_16
#define TARGET __attribute__((target("avx512f,avx512dq,fma")))
#include "native.c"
#undef LANES
#undef NAME
#undef TARGET
#define LANES 8
#define NAME(name) name##_8
#define TARGET __attribute__((target("avx2,fma")))
#include "native.c"
#undef LANES
#else
INLINE unsigned flush(void) { return 0; }
INLINE void restore(unsigned before) { (void)before; }
#define LANES 4
#define NAME(name) name##_4
#define TARGET
#include "native.c"
#undef LANES
#endif

#if MATRICES
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Whether this processor multiplies bfloat16 matrices (AMX) and the system lets this process, which is asked for once. */
EXPORT int dense_matrices(void) {
    enum { LEAF = 7, BFLOAT16 = 1 << 22, TILE = 1 << 24, REQUEST = 0x1023, TILE_DATA = 18 };
    unsigned a, b, c, d;
    if (!__builtin_cpu_supports("avx512f") || !__builtin_cpu_supports("avx512dq")) return 0;
    if (!__get_cpuid_count(LEAF, 0, &a, &b, &c, &d) || ~d & (BFLOAT16 | TILE)) return 0;
    return syscall(SYS_arch_prctl, REQUEST, TILE_DATA) == 0;
}
#else
EXPORT int dense_matrices(void) { return 0; }
#endif

/* Pixels that one vector of this processor holds; 0 if there are no kernels for it. */
EXPORT int dense_lanes(void) {
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq")) return 16;
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") ? 8 : 0;
#else
    return 4;
#endif
}

#if defined(__x86_64__)
#define DISPATCH(name, lanes, ...) ((lanes) == 16 ? name##_16(__VA_ARGS__) : name##_8(__VA_ARGS__))
#else
#define DISPATCH(name, lanes, ...) name##_4(__VA_ARGS__)
#endif

/* The features of spectra (batch, bands): (batch, width), with vectors of so many lanes. Returns 0, or 1 without
 * memory. */
EXPORT int dense_features(const float *spectra, const float *token, const float *position, const float *token_in,
                          const float *position_in, const float *bias_in, const float *convolution,
                          const float *convolution_bias, const float *selection, const float *delta,
                          const float *delta_bias, const float *A, const float *D, const float *out,
                          const float *epsilon, float *features, int64_t batch, int64_t bands, int64_t tokens,
                          int64_t piece, int64_t width, int64_t channels, int64_t states, int64_t rank, int64_t taps,
                          int64_t threads, int64_t lanes) {
    const Sizes s = {batch, bands, tokens, piece, width, channels, states, rank, taps, threads};
    const Weights w = {token,     position, token_in,   position_in, bias_in, convolution, convolution_bias,
                       selection, delta,    delta_bias, A,           D,       out,         epsilon};
    return DISPATCH(features, lanes, spectra, &w, features, &s);
}

/* What the patches of an image (height, width, bands) merge into: (height - patch + 1, width - patch + 1, bands), with
 * vectors of so many lanes, and by matrices if the processor has them and is to use them. Returns 0, or 1 without
 * memory. */
EXPORT int dense_merging(const float *image, const float *depthwise, const float *depthwise_bias,
                         const float *pointwise, const float *pointwise_bias, float *merged, int64_t height,
                         int64_t width, int64_t bands, int64_t patch, int64_t threads, int64_t lanes,
                         int64_t matrices) {
    const Image s = {height, width, bands, patch, threads, matrices};
    const Merging w = {depthwise, depthwise_bias, pointwise, pointwise_bias};
    return DISPATCH(merging, lanes, image, &w, merged, &s);
}

#else /* The kernels, for vectors of LANES floats. */

#define V NAME(Vector)
#define I NAME(Integers)
#define U NAME(Unaligned)
typedef float V __attribute__((vector_size(4 * LANES), may_alias));
typedef int32_t I __attribute__((vector_size(4 * LANES)));
typedef float U __attribute__((vector_size(4 * LANES), may_alias, aligned(4)));

/* Vectors that are multiplied with the same weight: with OUTPUTS sums for each, as many as there are registers for. */
#define POINTS NAME(POINTS)
enum { POINTS = LANES == 8 ? 2 : 4 };

#define LOG2_E 1.44269504f

/* x in all lanes: a sum with zero would be another number for minus zero, and so cost an addition. */
TARGET INLINE V NAME(spread)(float x) { return x - (V){0}; }

/* The functions below take a few vectors at a time, step by step for all of them: each step waits some cycles for the
 * one before it. */
#define EACH _Pragma("GCC unroll 8") for (int j = 0; j < count; j++)
enum { NAME(TOGETHER) = 4 };

/* p = 2^x to about 2e-7 of it; results below the smallest normal number, 2^-126, are zero. With x = k + f and a whole
 * k, 2^f = 1 + f + f (1 - f) q(f) on 0 <= f <= 1, exact at both ends, q a minimax polynomial. */
TARGET INLINE void NAME(powers)(V *restrict p, const V *restrict x, const int count) {
    V f[NAME(TOGETHER)];
#if LANES == 16
    EACH f[j] = _mm512_reduce_ps(x[j], _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC);
#else
    const float shift = 12582912.0f; /* 1.5 * 2^23: a sum with it has its whole part in the lowest bits */
    const V least = NAME(spread)(-127.0f), most = NAME(spread)(128.0f);
    V shifted[NAME(TOGETHER)];
    EACH {
#if LANES == 8
        const V within = _mm256_min_ps(most, _mm256_max_ps(least, x[j]));
#else
        const I low = x[j] < least, high = x[j] > most;
        const V within = (V)(((I)x[j] & ~(low | high)) | ((I)least & low) | ((I)most & high));
#endif
        shifted[j] = (within - 0.5f) + shift;
        f[j] = within - (shifted[j] - shift);
    }
#endif
    EACH p[j] = f[j] * 1.8793186713665087e-3f + 8.990995065690406e-3f;
    EACH p[j] = p[j] * f[j] + 5.581867595470006e-2f;
    EACH p[j] = p[j] * f[j] + 0.2401592714813987f;
    EACH p[j] = p[j] * f[j] + 0.6931517388268443f;
    EACH p[j] = p[j] * f[j] + 1.0f;
#if LANES == 16
    EACH p[j] = _mm512_scalef_ps(p[j], x[j]); /* by 2 to the whole part of x */
#else
    EACH {
        const I bits = (I)p[j] + (I)((I)shifted[j] << 23);
        p[j] = (V)((bits & (x[j] >= -126.0f)) | (x[j] != x[j])); /* NaN stays NaN */
    }
#endif
}

/* s = 1 / (1 + exp(-x)). */
TARGET INLINE void NAME(sigmoids)(V *restrict s, const V *restrict x, const int count) {
    V d[NAME(TOGETHER)];
    EACH s[j] = x[j] * -LOG2_E;
    NAME(powers)(d, s, count);
#if LANES == 16
    EACH d[j] += 1.0f;
    EACH d[j] = _mm512_min_ps(_mm512_set1_ps(0x1p126f), d[j]); /* the next steps know no infinity */
    EACH s[j] = _mm512_rcp14_ps(d[j]);
    EACH d[j] = 1.0f - d[j] * s[j];
    EACH s[j] += s[j] * d[j];
#else
    EACH s[j] = 1.0f / (1.0f + d[j]);
#endif
}

/* x = log(1 + exp(x)) = max(x, 0) + log(1 + v) with v = exp(-|x|), and log(1 + v) = v q(v), q a minimax polynomial. */
TARGET INLINE void NAME(softplus)(V *x, const int count) {
    V v[NAME(TOGETHER)], p[NAME(TOGETHER)];
    EACH p[j] = (V)((I)x[j] & 0x7fffffff) * -LOG2_E;
    NAME(powers)(v, p, count);
    EACH p[j] = v[j] * -3.24631027e-3f + 1.98626916e-2f;
    EACH p[j] = p[j] * v[j] - 5.69827862e-2f;
    EACH p[j] = p[j] * v[j] + 0.106062903f;
    EACH p[j] = p[j] * v[j] - 0.153073698f;
    EACH p[j] = p[j] * v[j] + 0.196766649f;
    EACH p[j] = p[j] * v[j] - 0.249543082f;
    EACH p[j] = p[j] * v[j] + 0.333299853f;
    EACH p[j] = p[j] * v[j] - 0.499999038f;
    EACH p[j] = p[j] * v[j] + 0.999999996f;
    EACH p[j] *= v[j];
    EACH x[j] = (x[j] * 0.5f + (V)((I)x[j] & 0x7fffffff) * 0.5f) + p[j];
}

/* x *= sigmoid(x). */
TARGET INLINE void NAME(silu)(V *x, const int count) {
    V s[NAME(TOGETHER)];
    NAME(sigmoids)(s, x, count);
    EACH x[j] *= s[j];
}

/* 1 / sqrt(x). */
TARGET INLINE V NAME(inverse_root)(V x) {
#if LANES == 16
    return 1.0f / (V)_mm512_sqrt_ps(x);
#elif LANES == 8
    return 1.0f / (V)_mm256_sqrt_ps(x);
#else
    for (int i = 0; i < LANES; i++) x[i] = sqrtf(x[i]);
    return 1.0f / x;
#endif
}

/* For outputs o and points p, to[o][p] = start[p][o] (or to[o][p]) + sum_k weights[k][o] in[k][p]. Points are vectors.
 * Then, if asked for: times scale[p] plus shift[o]; or, with a to_step of 1, its sigmoid times gated[o][p]. */
#define Product NAME(Product)
typedef struct {
    const float *weights; /* packed */
    int64_t inputs, outputs, points;
    const V *in;
    int64_t in_stride, in_step; /* from an input to the next, and from a point to the next */
    V *to;
    int64_t to_stride, to_step;
    const float *start; /* NULL: what lies at `to` */
    int64_t start_step; /* from a point to the next */
    const V *scale;
    const float *shift;
    const V *gated;
} Product;

/* Outputs from o and points from p on, `outputs` and `points` of them. */
TARGET INLINE void NAME(tile)(const Product *a, const float *weights, int64_t o, int64_t p, const int outputs,
                              const int points) {
    V sum[OUTPUTS][POINTS];
    V *to = a->to + o * a->to_stride + p * a->to_step;
    if (a->start) {
#pragma GCC unroll 8
        for (int i = 0; i < outputs; i++)
#pragma GCC unroll 8
            for (int j = 0; j < points; j++) sum[i][j] = NAME(spread)(a->start[(p + j) * a->start_step + o + i]);
    } else {
#pragma GCC unroll 8
        for (int i = 0; i < outputs; i++)
#pragma GCC unroll 8
            for (int j = 0; j < points; j++) sum[i][j] = to[i * a->to_stride + j * a->to_step];
    }
    const V *in = a->in + p * a->in_step;
    const int64_t step = a->in_step, stride = a->in_stride;
    for (const float *end = weights + a->inputs * outputs; weights < end; weights += outputs, in += stride) {
        V x[POINTS];
#pragma GCC unroll 8
        for (int j = 0; j < points; j++) x[j] = in[j * step];
#pragma GCC unroll 8
        for (int i = 0; i < outputs; i++) {
            const V weight = NAME(spread)(weights[i]);
#pragma GCC unroll 8
            for (int j = 0; j < points; j++) sum[i][j] += weight * x[j];
        }
    }
    if (a->scale) {
#pragma GCC unroll 8
        for (int i = 0; i < outputs; i++)
#pragma GCC unroll 8
            for (int j = 0; j < points; j++) sum[i][j] = sum[i][j] * a->scale[p + j] + a->shift[o + i];
    }
#pragma GCC unroll 8
    for (int i = 0; i < outputs; i++)
#pragma GCC unroll 8
        for (int j = 0; j < points; j++) to[i * a->to_stride + j * a->to_step] = sum[i][j];
    if (a->gated) {
        const V *gated = a->gated + o * a->to_stride + p;
        for (int i = 0; i < outputs; i++, to += a->to_stride, gated += a->to_stride) {
            V gate[POINTS];
            NAME(sigmoids)(gate, to, points);
#pragma GCC unroll 8
            for (int j = 0; j < points; j++) to[j] = gate[j] * gated[j];
        }
    }
}

#define SIZED(points)                                                                                                  \
    TARGET static void NAME(tile##points)(const Product *a, const float *weights, int64_t o, int64_t p, int outputs) { \
        switch (outputs) {                                                                                             \
        case 1: NAME(tile)(a, weights, o, p, 1, points); break;                                                        \
        case 2: NAME(tile)(a, weights, o, p, 2, points); break;                                                        \
        case 3: NAME(tile)(a, weights, o, p, 3, points); break;                                                        \
        case 4: NAME(tile)(a, weights, o, p, 4, points); break;                                                        \
        case 5: NAME(tile)(a, weights, o, p, 5, points); break;                                                        \
        case 6: NAME(tile)(a, weights, o, p, 6, points); break;                                                        \
        }                                                                                                              \
    }
SIZED(1)
SIZED(2)
#if LANES != 8
SIZED(3)
SIZED(4)
#endif
#undef SIZED

TARGET static void NAME(product)(const Product *a) {
    for (int64_t i = 0; i < divided(a->points, POINTS); i++) {
        const int64_t p = part(i, a->points, POINTS), points = part(i + 1, a->points, POINTS) - p;
        for (int64_t j = 0; j < divided(a->outputs, OUTPUTS); j++) {
            const int64_t o = part(j, a->outputs, OUTPUTS), outputs = part(j + 1, a->outputs, OUTPUTS) - o;
            const float *weights = a->weights + o * a->inputs;
            switch (points) {
            case 1: NAME(tile1)(a, weights, o, p, (int)outputs); break;
            case 2: NAME(tile2)(a, weights, o, p, (int)outputs); break;
#if LANES != 8
            case 3: NAME(tile3)(a, weights, o, p, (int)outputs); break;
            case 4: NAME(tile4)(a, weights, o, p, (int)outputs); break;
#endif
            }
        }
    }
}

/* Every second element of the low or high half of (a, b) from a, every other from b. */
#if LANES == 16
#define LOW(a, b) __builtin_shufflevector(a, b, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23)
#define HIGH(a, b) __builtin_shufflevector(a, b, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31)
#elif LANES == 8
#define LOW(a, b) __builtin_shufflevector(a, b, 0, 8, 1, 9, 2, 10, 3, 11)
#define HIGH(a, b) __builtin_shufflevector(a, b, 4, 12, 5, 13, 6, 14, 7, 15)
#else
#define LOW(a, b) __builtin_shufflevector(a, b, 0, 4, 1, 5)
#define HIGH(a, b) __builtin_shufflevector(a, b, 2, 6, 3, 7)
#endif

#if SHUFFLES
/* The same for LANES rows and columns. */
TARGET INLINE void NAME(transpose_square)(float *restrict to, int64_t to_stride, const float *restrict from,
                                          int64_t from_stride) {
    V x[LANES], next[LANES];
#pragma GCC unroll 16
    for (int i = 0; i < LANES; i++) x[i] = *(const U *)(from + i * from_stride);
#pragma GCC unroll 4
    for (int step = 1; step < LANES; step *= 2) {
#pragma GCC unroll 8
        for (int i = 0; i < LANES / 2; i++) {
            next[2 * i] = LOW(x[i], x[i + LANES / 2]);
            next[2 * i + 1] = HIGH(x[i], x[i + LANES / 2]);
        }
#pragma GCC unroll 16
        for (int i = 0; i < LANES; i++) x[i] = next[i];
    }
#pragma GCC unroll 16
    for (int i = 0; i < LANES; i++) *(U *)(to + i * to_stride) = x[i];
}
#endif
#undef LOW
#undef HIGH

/* to[j][i] = from[i][j], rows and columns of `from`. */
TARGET static void NAME(transpose)(float *restrict to, int64_t to_stride, const float *restrict from,
                                   int64_t from_stride, int64_t rows, int64_t columns) {
    int64_t squares = 0, down = 0;
#if SHUFFLES
    squares = columns / LANES * LANES, down = rows / LANES * LANES;
    for (int64_t i = 0; i < down; i += LANES)
        for (int64_t j = 0; j < squares; j += LANES)
            NAME(transpose_square)(to + j * to_stride + i, to_stride, from + i * from_stride + j, from_stride);
#endif
    for (int64_t i = 0; i < rows; i++)
        for (int64_t j = i < down ? squares : 0; j < columns; j++) to[j * to_stride + i] = from[i * from_stride + j];
}

/* ---- The features ---- */

/* Memory of one thread: LANES pixels, and some tokens of them. All but `selected` have the tokens innermost. */
#define Scratch NAME(Scratch)
typedef struct {
    V *spectrum;  /* (tokens * piece) */
    V *stream;    /* (width, tokens): the residual stream */
    V *inner;     /* (2 channels, before + tokens): u and z, and first the u of tokens before that convolutions see */
    V *u;         /* (channels, tokens): convolved */
    V *selected;  /* (tokens, rank + 2 states): of delta, B and C */
    V *steps;     /* (channels, tokens): delta */
    V *state;     /* (channels, states) */
    V *scale;     /* (tokens): of a norm */
    V *sum;       /* (width): of the tokens so far */
    V *y;         /* (tokens): of one channel */
} Scratch;

/* The scales with which a norm multiplies each token of a centred stream. */
TARGET static void NAME(norm)(V *restrict scale, const V *restrict stream, int64_t tokens, int64_t width,
                              float epsilon) {
    for (int64_t t = 0; t < tokens; t++) scale[t] = (V){0};
    for (int64_t m = 0; m < width; m++, stream += tokens)
        for (int64_t t = 0; t < tokens; t++) scale[t] += stream[t] * stream[t];
    for (int64_t t = 0; t < tokens; t++) scale[t] = NAME(inverse_root)(scale[t] * (1.0f / width) + epsilon);
}

/* u = convolution of the tokens of one channel. */
TARGET INLINE void NAME(convolve)(V *restrict u, const V *restrict before, const float *weights, int64_t stride,
                                  float bias, int64_t tokens, int64_t taps) {
    for (int64_t t = 0; t < tokens; t++) {
        V sum = NAME(spread)(bias);
        for (int64_t k = 0; k < taps; k++) sum += before[t + k] * weights[k * stride];
        u[t] = sum;
    }
}

TARGET static void NAME(silu_all)(V *x, int64_t count) {
    int64_t i = 0;
    for (; i + NAME(TOGETHER) <= count; i += NAME(TOGETHER)) NAME(silu)(x + i, NAME(TOGETHER));
    for (; i < count; i++) NAME(silu)(x + i, 1);
}

TARGET static void NAME(softplus_all)(V *x, int64_t count) {
    int64_t i = 0;
    for (; i + NAME(TOGETHER) <= count; i += NAME(TOGETHER)) NAME(softplus)(x + i, NAME(TOGETHER));
    for (; i < count; i++) NAME(softplus)(x + i, 1);
}

/* Some states of one channel: y += C h after each token. A is (states), B and C (tokens, ...) of `stride`. */
TARGET INLINE void NAME(scan_states)(V *restrict y, V *restrict state, const V *restrict steps, const V *restrict u,
                                     const V *restrict B, const V *restrict C, int64_t stride, const float *restrict A,
                                     int64_t tokens, const int states) {
    V h[16];
#pragma GCC unroll 16
    for (int n = 0; n < states; n++) h[n] = state[n];
    for (int64_t t = 0; t < tokens; t++, B += stride, C += stride) {
        const V step = steps[t], drive = step * u[t];
        V sum[2] = {y[t], (V){0}};
#pragma GCC unroll 16
        for (int n = 0; n < states; n++) {
            const V exponent = step * A[n];
            V decay;
            NAME(powers)(&decay, &exponent, 1);
            h[n] = decay * h[n] + drive * B[n];
            sum[n % 2] += C[n] * h[n];
        }
        y[t] = sum[0] + sum[1];
    }
#pragma GCC unroll 16
    for (int n = 0; n < states; n++) state[n] = h[n];
}

/* All channels: z *= y. As many states at a time as there are registers for. */
TARGET static void NAME(scan)(const Scratch *own, const Weights *w, const Sizes *s, V *z, int64_t z_stride,
                              int64_t tokens) {
    const int64_t N = s->states, stride = s->rank + 2 * N;
    V *y = own->y;
    for (int64_t e = 0; e < s->channels; e++, z += z_stride) {
        const V *u = own->u + e * tokens, *steps = own->steps + e * tokens;
        for (int64_t t = 0; t < tokens; t++) y[t] = u[t] * w->D[e];
        int64_t n = 0;
        const V *B = own->selected + s->rank;
#define SOME(count)                                                                                              \
    for (; n + count <= N; n += count)                                                                           \
    NAME(scan_states)(y, own->state + e * N + n, steps, u, B + n, B + N + n, stride, w->A + e * N + n, tokens, count)
#if LANES == 16
        SOME(16);
        SOME(8);
#endif
        SOME(4);
        SOME(1);
#undef SOME
        for (int64_t t = 0; t < tokens; t++) z[t] *= y[t];
    }
}

/* The steps of all channels from the first `rank` of what was selected. */
TARGET static void NAME(step_sizes)(const Scratch *own, const Weights *w, const Sizes *s, int64_t tokens) {
    const int64_t stride = s->rank + 2 * s->states;
    V *to = own->steps;
    for (int64_t e = 0; e < s->channels; e++, to += tokens)
        for (int64_t t = 0; t < tokens; t++) {
            V sum = NAME(spread)(w->delta_bias[e]);
            for (int64_t r = 0; r < s->rank; r++) sum += own->selected[t * stride + r] * w->delta[r * s->channels + e];
            to[t] = sum;
        }
    NAME(softplus_all)(own->steps, s->channels * tokens);
}

/* Tokens `first` to `first + tokens` of LANES pixels, after those before them. */
TARGET static void NAME(advance)(const Scratch *own, const Weights *w, const Packed *packed, const Sizes *s,
                                 int64_t first, int64_t tokens) {
    const int64_t R = s->piece, M = s->width, E = s->channels, before = s->taps - 1, row = before + TOKENS;
    const int64_t selected = s->rank + 2 * s->states;
    V *z = own->inner + E * row + before;
    const V *in = own->spectrum + first * R;
    const Product embedding = {.weights = packed->token, .inputs = R, .outputs = M, .points = tokens,
                               .in = in, .in_stride = 1, .in_step = R,
                               .to = own->stream, .to_stride = tokens, .to_step = 1,
                               .start = w->position + first * M, .start_step = M};
    NAME(product)(&embedding);
    NAME(norm)(own->scale, own->stream, tokens, M, w->epsilon[0]);
    const Product projection = {.weights = packed->token_in, .inputs = R, .outputs = 2 * E, .points = tokens,
                                .in = in, .in_stride = 1, .in_step = R,
                                .to = own->inner + before, .to_stride = row, .to_step = 1,
                                .start = w->position_in + first * 2 * E, .start_step = 2 * E,
                                .scale = own->scale, .shift = w->bias_in};
    NAME(product)(&projection);
    for (int64_t e = 0; e < E; e++) {
        V *u = own->inner + e * row, *to = own->u + e * tokens;
        if (s->taps == 4)
            NAME(convolve)(to, u, w->convolution + e, E, w->convolution_bias[e], tokens, 4);
        else
            NAME(convolve)(to, u, w->convolution + e, E, w->convolution_bias[e], tokens, s->taps);
        NAME(silu_all)(z + e * row, tokens);
        for (int64_t t = 0; t < before; t++) u[t] = u[tokens + t];
    }
    NAME(silu_all)(own->u, E * tokens);
    memset(own->selected, 0, tokens * selected * sizeof(V));
    const Product selection = {.weights = packed->selection, .inputs = E, .outputs = selected, .points = tokens,
                               .in = own->u, .in_stride = tokens, .in_step = 1,
                               .to = own->selected, .to_stride = 1, .to_step = selected};
    NAME(product)(&selection);
    NAME(step_sizes)(own, w, s, tokens);
    NAME(scan)(own, w, s, z, row, tokens);
    const Product output = {.weights = packed->out, .inputs = E, .outputs = M, .points = tokens,
                            .in = z, .in_stride = row, .in_step = 1,
                            .to = own->stream, .to_stride = tokens, .to_step = 1};
    NAME(product)(&output);
    NAME(norm)(own->scale, own->stream, tokens, M, w->epsilon[1]);
    for (int64_t m = 0; m < M; m++) {
        V sum = own->sum[m];
        for (int64_t t = 0; t < tokens; t++) sum += own->stream[m * tokens + t] * own->scale[t];
        own->sum[m] = sum;
    }
}

/* So many pixels, LANES at most. */
TARGET static void NAME(features_block)(const float *spectra, float *to, int64_t pixels, const Scratch *own,
                                        const Weights *w, const Packed *packed, const Sizes *s) {
    const int64_t chunks = divided(s->tokens, TOKENS), row = s->taps - 1 + TOKENS;
    memset(own->spectrum, 0, s->tokens * s->piece * sizeof(V));
    memset(own->state, 0, s->channels * s->states * sizeof(V));
    memset(own->sum, 0, s->width * sizeof(V));
    for (int64_t e = 0; e < s->channels; e++) memset(own->inner + e * row, 0, (s->taps - 1) * sizeof(V));
    NAME(transpose)((float *)own->spectrum, LANES, spectra, s->bands, pixels, s->bands);
    for (int64_t i = 0; i < chunks; i++) {
        const int64_t first = part(i, s->tokens, TOKENS);
        NAME(advance)(own, w, packed, s, first, part(i + 1, s->tokens, TOKENS) - first);
    }
    for (int64_t m = 0; m < s->width; m++) own->sum[m] *= 1.0f / s->tokens;
    NAME(transpose)(to, s->width, (float *)own->sum, LANES, s->width, pixels);
}

TARGET static int NAME(features)(const float *spectra, const Weights *w, float *to, const Sizes *s) {
    const int64_t blocks = divided(s->batch, LANES), selected = s->rank + 2 * s->states;
    const int64_t row = s->taps - 1 + TOKENS;
    if (blocks == 0) return 0;
    const int members = (int)smaller(s->threads, blocks);
    Scratch *scratch = malloc(members * sizeof(Scratch));
    if (!scratch) return 1;
    Arena arena = {NULL, 0};
    Packed packed = {0};
    void *memory = NULL;
    for (int pass = 0; pass < 2; pass++) {
        packed.token = take(&arena, s->piece * s->width);
        packed.token_in = take(&arena, s->piece * 2 * s->channels);
        packed.selection = take(&arena, s->channels * selected);
        packed.out = take(&arena, s->channels * s->width);
        for (int member = 0; member < members; member++) {
            Scratch *own = scratch + member;
            own->spectrum = take(&arena, s->tokens * s->piece * LANES);
            own->stream = take(&arena, s->width * TOKENS * LANES);
            own->inner = take(&arena, 2 * s->channels * row * LANES);
            own->u = take(&arena, s->channels * TOKENS * LANES);
            own->selected = take(&arena, TOKENS * selected * LANES);
            own->steps = take(&arena, s->channels * TOKENS * LANES);
            own->state = take(&arena, s->channels * s->states * LANES);
            own->scale = take(&arena, TOKENS * LANES);
            own->sum = take(&arena, s->width * LANES);
            own->y = take(&arena, TOKENS * LANES);
        }
        if (pass == 0 && !(memory = allocate(&arena))) {
            free(scratch);
            return 1;
        }
    }
    pack(packed.token, w->token, s->piece, s->width);
    pack(packed.token_in, w->token_in, s->piece, 2 * s->channels);
    pack(packed.selection, w->selection, s->channels, selected);
    pack(packed.out, w->out, s->channels, s->width);
#pragma omp parallel for num_threads(members) schedule(static)
    for (int64_t block = 0; block < blocks; block++) {
        const int64_t first = block * LANES;
        const unsigned before = flush();
        NAME(features_block)(spectra + first * s->bands, to + first * s->width, smaller(LANES, s->batch - first),
                             scratch + omp_get_thread_num(), w, &packed, s);
        restore(before);
    }
    free(memory);
    free(scratch);
    return 0;
}

/* ---- The gated merging ----
 *
 * The depthwise convolution sees zeros beyond the patch, so what it says of a pixel depends on whether the pixel is in
 * the patch's first row, in its last or inside, and likewise for columns: nine kinds. A row of the image is computed at
 * once for the three kinds of columns, one behind the other: `across` pixels. For each of the three kinds of rows
 * their gates are taken, and gated pixels are summed along the row and added to the patches that the row is in.
 */

/* Memory of one thread; all rows begin at vectors. */
#define Strip NAME(Strip)
typedef struct {
    int64_t patch, bands, matrices;
    int64_t columns;         /* of merged pixels */
    int64_t across;          /* pixels of a row, of three kinds of columns */
    int64_t row, flat, sums; /* floats from a band to the next, in the arrays below */
    float *rows[3];          /* (bands, row): the row at hand, above and below: rows of the image modulo 3 */
    float *mixed[3];         /* (bands, flat): convolved as a patch's first row, as one inside and as its last row */
    float *rest[3];          /* as `mixed`, if that is pairs of bands in bfloat16: what those leave */
    float *pixels;           /* (bands, flat): the row at hand */
    float *gated;            /* (bands, flat), for matrices as many as they compute at once */
    float *merged;           /* (patch, bands, sums): rows of merged pixels modulo patch */
} Strip;

/* Floats from a row of an array to the next, if vectors are stored from any of the row's elements: an odd number of
 * cache lines, so that a column of the array does not fall into few sets of a cache. */
static int64_t NAME(row_stride)(int64_t elements) {
    const int64_t line = ALIGNMENT / sizeof(float);
    return (divided(elements + LANES, line) | 1) * line;
}

/* One band of row q of the image, from the column left of its first on. */
INLINE const float *NAME(row)(const Strip *own, int64_t q, int64_t b) {
    return own->rows[(q + 3) % 3] + b * own->row + LANES - 1;
}

/* What pixels of one band are convolved to as a patch's first row, as one inside and as its last row. `x` are the row
 * above, at hand and below, each from the column left of the first pixel; the columns from `from` to `to` of the kernel
 * count. */
TARGET INLINE void NAME(convolved)(V *restrict m, const float *const x[3], const float *kernel, int64_t bands,
                                   float bias, const int from, const int to) {
    m[0] = NAME(spread)(bias);
#pragma GCC unroll 3
    for (int k = from; k < to; k++) m[0] += *(const U *)(x[1] + k) * kernel[(3 + k) * bands];
    m[2] = m[0];
#pragma GCC unroll 3
    for (int k = from; k < to; k++) m[0] += *(const U *)(x[2] + k) * kernel[(6 + k) * bands];
    m[1] = m[0];
#pragma GCC unroll 3
    for (int k = from; k < to; k++) {
        const V above = *(const U *)(x[0] + k) * kernel[k * bands];
        m[2] += above;
        m[1] += above;
    }
}

/* Convolve `count` pixels of one band for all kinds of rows, from column `column` of own->rows on, and keep them from
 * `at` on. */
TARGET INLINE void NAME(mix)(const Strip *own, const Merging *w, int64_t q, int64_t b, int64_t column, int64_t at,
                             int64_t count, const int from, const int to) {
    const int64_t L = own->bands;
    for (int64_t c = 0; c < count; c += LANES) {
        V m[3];
        const float *x[3];
        for (int i = 0; i < 3; i++) x[i] = NAME(row)(own, q - 1 + i, b) + column + c;
        NAME(convolved)(m, x, w->depthwise + b, L, w->depthwise_bias[b], from, to);
        for (int i = 0; i < 3; i++) *(U *)(own->mixed[i] + b * own->flat + at + c) = m[i];
        *(U *)(own->pixels + b * own->flat + at + c) = *(const U *)(x[1] + 1);
    }
}

#if LANES == 16 && MATRICES
/* Keep two vectors as pairs of bfloat16, and in other pairs what that leaves of them. */
TARGET INLINE void NAME(split)(float *high, float *low, V a, V b) {
    typedef uint32_t Bits __attribute__((vector_size(4 * LANES)));
    typedef uint32_t Words __attribute__((vector_size(4 * LANES), may_alias, aligned(4)));
    const Bits half = (Bits){0} + 0x8000, upper = (Bits){0} + 0xffff0000;
    const Bits first = ((Bits)a + half) & upper, second = ((Bits)b + half) & upper;
    a -= (V)first;
    b -= (V)second;
    *(Words *)high = first >> 16 | second;
    *(Words *)low = ((Bits)a + half) >> 16 | (((Bits)b + half) & upper);
}

/* `mix` for bands b and b + 1, as pairs. */
TARGET INLINE void NAME(mix_pair)(const Strip *own, const Merging *w, int64_t q, int64_t b, int64_t column, int64_t at,
                                  int64_t count, const int from, const int to) {
    const int64_t L = own->bands, place = b / 2 * own->flat + at;
    for (int64_t c = 0; c < count; c += LANES) {
        V m[2][3] = {{{0}}};
        for (int j = 0; j < 2 && b + j < L; j++) {
            const float *x[3];
            for (int i = 0; i < 3; i++) x[i] = NAME(row)(own, q - 1 + i, b + j) + column + c;
            NAME(convolved)(m[j], x, w->depthwise + b + j, L, w->depthwise_bias[b + j], from, to);
            *(U *)(own->pixels + (b + j) * own->flat + at + c) = *(const U *)(x[1] + 1);
        }
        for (int i = 0; i < 3; i++)
            NAME(split)(own->mixed[i] + place + c, own->rest[i] + place + c, m[0][i], m[1][i]);
    }
}
#endif

/* Row q of the image, for all kinds of rows and columns. A last vector overlaps what is written next. */
TARGET static void NAME(mix_row)(const Strip *own, const Merging *w, int64_t q) {
    const int64_t columns = own->columns, inside = own->patch - 2, last = columns + inside - 1;
#define ALL_KINDS(mix)                                     \
    mix(own, w, q, b, 0, 0, columns, 1, 3);                \
    mix(own, w, q, b, 1, columns, last, 0, 3);             \
    mix(own, w, q, b, 1 + inside, columns + last, columns, 0, 2)
#if LANES == 16 && MATRICES
    if (own->matrices) {
        for (int64_t b = 0; b < own->bands; b += 2) {
            ALL_KINDS(NAME(mix_pair));
        }
        return;
    }
#endif
    for (int64_t b = 0; b < own->bands; b++) {
        ALL_KINDS(NAME(mix));
    }
#undef ALL_KINDS
}

#if LANES == 16 && MATRICES
#define TILES __attribute__((target("avx512f,avx512dq,fma,amx-tile,amx-bf16")))
enum {
    TILE = 16,                   /* rows of a matrix register, each of 16 pairs of bfloat16 or 16 floats */
    TILE_FLOATS = TILE * TILE,   /* its size, in floats */
    PAIR_TILES = 4 * TILE_FLOATS /* of two registers of high halves and two of low ones, one behind the other */
};

/* Matrix registers of 16 rows of 64 bytes, all eight. */
TILES static void configure(void) {
#define ALL(x) {x, x, x, x, x, x, x, x}
    static const struct {
        uint8_t palette, start, reserved[14];
        uint16_t bytes[16];
        uint8_t rows[16];
    } configuration = {.palette = 1, .bytes = ALL(4 * TILE), .rows = ALL(TILE)};
#undef ALL
    _tile_loadconfig(&configuration);
}

/* Give the registers back, which a thread that is set aside would have to save. */
TILES static void release(void) { _tile_release(); }

/* Pack a matrix (bands, bands) for matrix registers: for 32 outputs and then 32 inputs at a time four registers of 16
 * outputs each, the high halves of the first and the second 16 outputs and then the low halves. */
static void pack_tiles(float *packed, const float *matrix, int64_t bands) {
    uint16_t *to = (uint16_t *)packed;
    for (int64_t o = 0; o < bands; o += 2 * TILE)
        for (int64_t k = 0; k < bands; k += 2 * TILE)
            for (int half = 0; half < 2; half++)
                for (int64_t row = o; row < o + 2 * TILE; row++)
                    for (int64_t column = k; column < k + 2 * TILE; column++) {
                        union { float value; uint32_t bits; } x = {0}, high;
                        if (row < bands && column < bands) x.value = matrix[column * bands + row];
                        high.bits = (x.bits + 0x8000) & 0xffff0000;
                        x.value -= high.value;
                        *to++ = (half ? x.bits + 0x8000 : high.bits) >> 16;
                    }
}

/* What the gates of 32 outputs from o on are of 32 pixels, times the pixels; matrix registers hold what their bias is
 * added to. */
TARGET static void gate_tiles(const Strip *own, const float *bias, int64_t o, int64_t p) {
    for (int64_t i = o; i < smaller(o + 2 * TILE, own->bands); i += 2) {
        V sum[4] = {{0}}, gate[4];
        const int64_t rows = smaller(2, own->bands - i);
        V *to[2];
        for (int64_t r = 0; r < rows; r++) {
            to[r] = (V *)(own->gated + (i + r) * own->flat + p);
            for (int j = 0; j < 2; j++) sum[2 * r + j] = to[r][j] + bias[i + r];
        }
        NAME(sigmoids)(gate, sum, 4);
        for (int64_t r = 0; r < rows; r++)
            for (int j = 0; j < 2; j++)
                to[r][j] = gate[2 * r + j] * ((const V *)(own->pixels + (i + r) * own->flat + p))[j];
    }
}

/* Gates of the row at hand, times its pixels. Products of high and of low halves, but not of low ones with low ones:
 * to about 2^-17 of what is multiplied. */
TILES static void gate_by_matrices(const Strip *own, const Merging *w, int kind) {
    const int64_t L = own->bands, flat = own->flat, stride = 4 * flat;
    const float *weights = w->pointwise;
    for (int64_t o = 0; o < L; o += 2 * TILE, weights += divided(L, 2 * TILE) * PAIR_TILES)
        for (int64_t p = 0; p < own->across; p += 2 * TILE) {
            const float *a = weights, *high = own->mixed[kind] + p, *low = own->rest[kind] + p;
            float *to = own->gated + o * flat + p;
            __asm__ volatile("" ::: "memory"); /* compilers are not told what these instructions read */
            _tile_zero(0);
            _tile_zero(1);
            _tile_zero(2);
            _tile_zero(3);
#define MULTIPLY()           \
    _tile_dpbf16ps(0, 4, 6); \
    _tile_dpbf16ps(1, 4, 7); \
    _tile_dpbf16ps(2, 5, 6); \
    _tile_dpbf16ps(3, 5, 7)
            for (int64_t k = 0; k < L; k += 2 * TILE, a += PAIR_TILES, high += TILE * flat, low += TILE * flat) {
                _tile_loadd(4, a + 2 * TILE_FLOATS, 4 * TILE);
                _tile_loadd(5, a + 3 * TILE_FLOATS, 4 * TILE);
                _tile_loadd(6, high, stride);
                _tile_loadd(7, high + TILE, stride);
                MULTIPLY();
                _tile_loadd(4, a, 4 * TILE);
                _tile_loadd(5, a + TILE_FLOATS, 4 * TILE);
                MULTIPLY();
                _tile_loadd(6, low, stride);
                _tile_loadd(7, low + TILE, stride);
                MULTIPLY();
            }
#undef MULTIPLY
            _tile_stored(0, to, stride);
            _tile_stored(1, to + TILE, stride);
            _tile_stored(2, to + TILE * flat, stride);
            _tile_stored(3, to + TILE * flat + TILE, stride);
            gate_tiles(own, w->pointwise_bias, o, p);
        }
}
#undef TILES
#endif

/* Gate the row at hand as a row of one kind, and add it to rows `first` to `end` of merged pixels; what is added to
 * those first is of kind 0. */
TARGET static void NAME(gate_row)(const Strip *own, const Merging *w, int kind, int64_t first, int64_t end) {
    const int64_t flat = own->flat / LANES, columns = own->columns, inside = own->patch - 2;
#if LANES == 16 && MATRICES
    if (own->matrices) gate_by_matrices(own, w, kind);
#endif
    const Product product = {.weights = w->pointwise, .inputs = own->bands, .outputs = own->bands,
                             .points = own->matrices ? 0 : divided(own->across, LANES),
                             .in = (const V *)own->mixed[kind], .in_stride = flat, .in_step = 1,
                             .to = (V *)own->gated, .to_stride = flat, .to_step = 1,
                             .start = w->pointwise_bias, .gated = (const V *)own->pixels};
    NAME(product)(&product);
    for (int64_t b = 0; b < own->bands; b++) {
        const float *gated = own->gated + b * own->flat;
        for (int64_t c = 0; c < columns; c += LANES) {
            V sum = *(const U *)(gated + c);
            for (int64_t k = 0; k < inside; k++) sum += *(const U *)(gated + columns + c + k);
            sum += *(const U *)(gated + 2 * columns + inside - 1 + c);
            for (int64_t r = first; r < end; r++) {
                V *to = (V *)(own->merged + (r % own->patch * own->bands + b) * own->sums + c);
                if (kind == 0)
                    *to = sum;
                else
                    *to += sum;
            }
        }
    }
}

/* Merged pixels of rows `top` to `bottom` and of own->columns columns from `left` on. */
TARGET static void NAME(merge_strip)(const float *image, const Merging *w, float *to, const Image *s, const Strip *own,
                                     int64_t top, int64_t bottom, int64_t left) {
    const int64_t L = s->bands, P = s->patch, columns = own->columns, width = s->width - P + 1;
    for (int64_t q = top - 1; q < bottom + P - 1; q++) {
        if (q + 1 < bottom + P - 1)
            NAME(transpose)(own->rows[(q + 1) % 3] + LANES, own->row, image + ((q + 1) * s->width + left) * L, L,
                            columns + P - 1, L);
        if (q < top) continue;
        NAME(mix_row)(own, w, q);
        if (q < bottom) NAME(gate_row)(own, w, 0, q, q + 1);
        const int64_t first = larger(top, q - P + 2), end = smaller(bottom, q);
        if (first < end) NAME(gate_row)(own, w, 1, first, end);
        const int64_t r = q - P + 1;
        if (r < top) continue;
        NAME(gate_row)(own, w, 2, r, r + 1);
        float *merged = own->merged + r % P * L * own->sums;
        const float scale = 2.0f / (P * P);
        for (int64_t b = 0; b < L; b++)
            for (int64_t c = 0; c < columns; c += LANES) *(V *)(merged + b * own->sums + c) *= scale;
        NAME(transpose)(to + (r * width + left) * L, L, merged, own->sums, L, columns);
    }
}

TARGET static int NAME(merging)(const float *image, const Merging *weights, float *to, const Image *s) {
    const int64_t L = s->bands, P = s->patch, height = s->height - P + 1, width = s->width - P + 1;
    const int64_t across = divided(width, COLUMNS), threads = 9 * L * L * height * width < SMALL ? 1 : s->threads;
    const int64_t down = across % threads ? smaller(height, threads) : 1;
    const int64_t columns = divided(width, across), strips = across * down;
    const int members = (int)smaller(threads, strips);
    const int matrices = LANES == 16 && s->matrices;
    /* Outputs of matrices, and rows of pairs of inputs, come in 32 and in 16. */
    const int64_t padded = matrices ? divided(L, 2 * LANES) * 2 * LANES : L, rows = matrices ? padded / 2 : L;
    if (L == 0) return 0;
    Strip *scratch = malloc(members * sizeof(Strip));
    if (!scratch) return 1;
    Arena arena = {NULL, 0};
    float *packed = NULL;
    void *memory = NULL;
    for (int pass = 0; pass < 2; pass++) {
        packed = take(&arena, larger(padded * padded, L * L));
        for (int member = 0; member < members; member++) {
            Strip *own = scratch + member;
            own->patch = P;
            own->bands = L;
            own->matrices = matrices;
            /* One vector stands before a row, of which the last element is the neighbour of its first. */
            own->row = NAME(row_stride)(LANES + columns + P - 1 + LANES);
            own->flat = NAME(row_stride)(divided(3 * columns + P - 3, 2 * LANES) * 2 * LANES);
            own->sums = NAME(row_stride)(columns);
            for (int i = 0; i < 3; i++) own->rows[i] = take(&arena, L * own->row);
            for (int i = 0; i < 3; i++) own->mixed[i] = take(&arena, rows * own->flat);
            for (int i = 0; i < 3; i++) own->rest[i] = matrices ? take(&arena, rows * own->flat) : NULL;
            own->pixels = take(&arena, L * own->flat);
            own->gated = take(&arena, padded * own->flat);
            own->merged = take(&arena, P * L * own->sums);
        }
        if (pass == 0) {
            const size_t size = arena.used;
            if (!(memory = allocate(&arena))) {
                free(scratch);
                return 1;
            }
            memset(arena.base, 0, size); /* lanes beyond the pixels are computed too */
        }
    }
    Merging w = *weights;
#if LANES == 16 && MATRICES
    if (matrices) pack_tiles(packed, w.pointwise, L);
#endif
    if (!matrices) pack(packed, w.pointwise, L, L);
    w.pointwise = packed;
#pragma omp parallel for num_threads(members) schedule(static)
    for (int64_t strip = 0; strip < strips; strip++) {
        const int64_t i = strip / across, j = strip % across;
        const int64_t left = part(j, width, COLUMNS), top = i * height / down, bottom = (i + 1) * height / down;
        Strip *own = scratch + omp_get_thread_num();
        own->columns = part(j + 1, width, COLUMNS) - left;
        own->across = 3 * own->columns + P - 3;
        const unsigned before = flush();
#if LANES == 16 && MATRICES
        if (matrices) configure();
#endif
        NAME(merge_strip)(image, &w, to, s, own, top, bottom, left);
#if LANES == 16 && MATRICES
        if (matrices) release();
#endif
        restore(before);
    }
    free(memory);
    free(scratch);
    return 0;
}

#undef V
#undef I
#undef U
#undef POINTS
#undef Product
#undef Scratch
#undef Strip
#undef LOG2_E
#undef EACH

#endif
