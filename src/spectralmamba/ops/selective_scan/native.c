/* The selective scan of float32 on the CPU and its gradients.
 *
 *     h_t = exp(delta_t A) h_{t-1} + delta_t B_t u_t,    y_t[e] = sum_n C_t[n] h_t[e, n]
 *
 * u, delta and y are (batch, tokens, channels), B and C (batch, tokens, states), states of the recurrence
 * (batch, states, channels). A is (groups, states, channels): the batch falls into equal consecutive groups.
 *
 * Channels never mix in the recurrence, so they are the vector lanes: a block of LANES channels runs through all tokens
 * with its state in the cache, and no array of all exp(delta A) is ever in memory. The loops over lanes are plain C
 * that the compiler vectorises: their counts are fixed and their arrays restrict parameters of small functions. Every
 * sum has an order that depends on the sizes alone, so results do not depend on the number of threads.
 */

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#ifdef _OPENMP
#include <omp.h>
#else
static int omp_get_thread_num(void) { return 0; }
#endif

#if defined(_MSC_VER)
#define restrict __restrict
#define INLINE static __forceinline
#define EXPORT __declspec(dllexport)
#else
#define INLINE static inline __attribute__((always_inline))
#define EXPORT __attribute__((visibility("default")))
#endif

/* One binary that takes the widest vectors of the processor it runs on. */
#if defined(__x86_64__) && defined(__GLIBC__) && defined(__GNUC__) && !defined(__clang__)
#if __GNUC__ >= 12
#define CLONES __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define CLONES __attribute__((target_clones("avx512f", "avx2", "default")))
#endif
#else
#define CLONES
#endif

enum {
    LANES = 16,      /* channels of a block: two AVX2 vectors, one of AVX-512 */
    CHUNK = 64,      /* tokens whose decays and states the backward keeps at a time */
    PARTS = 32,      /* parts of a group's batch whose gradients of A are summed apart */
    SMALL = 1 << 15, /* state updates below which threads cost more than they save */
    ALIGNMENT = 64,  /* bytes of a cache line */
};

typedef struct {
    int64_t batch, tokens, channels, states, groups, blocks;
} Sizes;

/* exp(x) to about one unit in the last place; results below the smallest normal number, 2^-126, are zero.
 * exp(k ln 2 + r) = 2^k exp(r): k is rounded by adding 1.5 * 2^23, which leaves it in the low bits of the sum, and is
 * added to the exponent of a minimax polynomial for exp(r) on |r| <= ln(2) / 2. */
INLINE float exponential(float x) {
    const float shift = 12582912.0f;
    float shifted = x * 1.44269504f + shift;
    float k = shifted - shift;
    float r = x - k * 0.693359375f;
    r = r + k * 2.12194440e-4f;
    float p = 1.38145406e-3f;
    p = p * r + 8.36874545e-3f;
    p = p * r + 4.16683890e-2f;
    p = p * r + 0.166665211f;
    p = p * r + 0.499999940f;
    p = p * r + 1.0f;
    p = p * r + 1.0f;
    uint32_t bits, exponent;
    memcpy(&bits, &p, sizeof bits);
    memcpy(&exponent, &shifted, sizeof exponent);
    bits += exponent << 23;
    memcpy(&p, &bits, sizeof p);
    p = x < -87.3365402f ? 0.0f : p;
    return x <= 88.7228317f ? p : x * 3.40282347e38f; /* infinity or NaN */
}

/* Read a row of a block; lanes beyond its channels are zero, which keeps their states and gradients zero. */
INLINE void load(float *restrict to, const float *restrict from, int64_t width) {
    if (width == LANES) {
        for (int i = 0; i < LANES; i++) to[i] = from[i];
    } else {
        for (int i = 0; i < LANES; i++) to[i] = 0;
        for (int64_t i = 0; i < width; i++) to[i] = from[i];
    }
}

INLINE void store(float *restrict to, const float *restrict from, int64_t width) {
    if (width == LANES) {
        for (int i = 0; i < LANES; i++) to[i] = from[i];
    } else {
        for (int64_t i = 0; i < width; i++) to[i] = from[i];
    }
}

INLINE float lane_sum(const float *restrict lanes) {
    float half[LANES / 2], quarter[LANES / 4];
    for (int i = 0; i < LANES / 2; i++) half[i] = lanes[i] + lanes[i + LANES / 2];
    for (int i = 0; i < LANES / 4; i++) quarter[i] = half[i] + half[i + LANES / 4];
    return (quarter[0] + quarter[2]) + (quarter[1] + quarter[3]);
}

INLINE void copy(float *restrict to, const float *restrict from, int64_t floats) {
    memcpy(to, from, floats * sizeof(float));
}

INLINE int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }

INLINE int64_t block_width(Sizes s, int64_t block) { return smaller(LANES, s.channels - block * LANES); }

/* Copy one block of (states, channels) to or from (states, LANES). */
INLINE void load_block(float *restrict to, const float *restrict from, Sizes s, int64_t block) {
    for (int64_t n = 0; n < s.states; n++)
        load(to + n * LANES, from + n * s.channels + block * LANES, block_width(s, block));
}

INLINE void store_block(float *restrict to, const float *restrict from, Sizes s, int64_t block) {
    for (int64_t n = 0; n < s.states; n++)
        store(to + n * s.channels + block * LANES, from + n * LANES, block_width(s, block));
}

/* Scan one sequence's block; A and h are (states, LANES). */
CLONES static void forward_block(const float *restrict u, const float *restrict delta, const float *restrict A,
                                 const float *restrict B, const float *restrict C, const float *restrict state,
                                 float *restrict y, float *restrict last, float *restrict h, Sizes s, int64_t block) {
    const int64_t width = block_width(s, block);
    load_block(h, state, s, block);
    for (int64_t t = 0; t < s.tokens; t++) {
        const int64_t at = t * s.channels + block * LANES;
        float step[LANES], drive[LANES], sum[LANES] = {0};
        load(drive, u + at, width);
        load(step, delta + at, width);
        for (int i = 0; i < LANES; i++) drive[i] *= step[i];
        for (int64_t n = 0; n < s.states; n++) {
            const float b = B[t * s.states + n], c = C[t * s.states + n];
            for (int i = 0; i < LANES; i++) {
                const float decay = exponential(step[i] * A[n * LANES + i]);
                const float next = decay * h[n * LANES + i] + drive[i] * b;
                h[n * LANES + i] = next;
                sum[i] += c * next;
            }
        }
        store(y + at, sum, width);
    }
    store_block(last, h, s, block);
}

/* One token of one block: the state after it and its decays, (states, LANES) each. */
INLINE void advance_token(const float *restrict step, const float *restrict drive, const float *restrict A,
                          const float *restrict B, const float *restrict before, float *restrict after,
                          float *restrict decays, int64_t states) {
    for (int64_t n = 0; n < states; n++) {
        const float b = B[n];
        for (int i = 0; i < LANES; i++) {
            const float decay = exponential(step[i] * A[n * LANES + i]);
            decays[n * LANES + i] = decay;
            after[n * LANES + i] = decay * before[n * LANES + i] + drive[i] * b;
        }
    }
}

/* Decays of the tokens from `from` to `to` and the states after them, which follow the state before them. */
INLINE void advance(const float *restrict u, const float *restrict delta, const float *restrict A,
                    const float *restrict B, float *decays, float *states, Sizes s, int64_t block, int64_t from,
                    int64_t to) {
    const int64_t width = block_width(s, block), size = s.states * LANES;
    for (int64_t t = from; t < to; t++) {
        const int64_t at = t * s.channels + block * LANES;
        float step[LANES], drive[LANES];
        load(drive, u + at, width);
        load(step, delta + at, width);
        for (int i = 0; i < LANES; i++) drive[i] *= step[i];
        advance_token(step, drive, A, B + t * s.states, states, states + size, decays, s.states);
        states += size;
        decays += size;
    }
}

/* Memory of one thread of the backward, all rows of LANES. */
typedef struct {
    float *checkpoints; /* (chunks, blocks, states): the state before each chunk */
    float *grad_state;  /* (blocks, states): of the state after the token at hand */
    float *decays;      /* (chunk, states) */
    float *states;      /* (1 + chunk, states) */
    float *grad_B;      /* (chunk, states), to be summed over the lanes */
    float *grad_C;      /* (chunk, states) */
    float *grad_A;      /* (states) of one chunk */
} Scratch;

/* One token of one block, backwards: grad_state goes from the state after the token to the one before; the gradients of
 * A, B and C are added to. */
INLINE void backward_token(const float *restrict step, const float *restrict drive, const float *restrict grad_y,
                           const float *restrict A, const float *restrict B, const float *restrict C,
                           const float *restrict decays, const float *restrict before, const float *restrict after,
                           float *restrict grad_state, float *restrict grad_step, float *restrict grad_drive,
                           float *restrict grad_A, float *restrict grad_B, float *restrict grad_C, int64_t states) {
    for (int64_t n = 0; n < states; n++) {
        const float b = B[n], c = C[n];
        for (int i = 0; i < LANES; i++) {
            const int64_t k = n * LANES + i;
            const float grad_after = grad_state[k] + c * grad_y[i];
            const float grad_before = grad_after * decays[k];
            const float grad_exponent = grad_before * before[k];
            grad_B[k] += grad_after * drive[i];
            grad_C[k] += grad_y[i] * after[k];
            grad_drive[i] += grad_after * b;
            grad_step[i] += grad_exponent * A[k];
            grad_A[k] += grad_exponent * step[i];
            grad_state[k] = grad_before;
        }
    }
}

/* The gradients of one chunk and block, back from token `to` to token `from`. */
INLINE void backward_chunk(const float *restrict u, const float *restrict delta, const float *restrict A,
                           const float *restrict B, const float *restrict C, const float *restrict grad_y,
                           float *restrict grad_u, float *restrict grad_delta, float *grad_state, const Scratch *own,
                           Sizes s, int64_t block, int64_t from, int64_t to) {
    const int64_t width = block_width(s, block), size = s.states * LANES;
    for (int64_t t = to - 1; t >= from; t--) {
        const int64_t at = t * s.channels + block * LANES, row = (t - from) * size;
        float x[LANES], step[LANES], drive[LANES], grad[LANES], grad_drive[LANES] = {0}, grad_step[LANES] = {0};
        load(x, u + at, width);
        load(step, delta + at, width);
        load(grad, grad_y + at, width);
        for (int i = 0; i < LANES; i++) drive[i] = x[i] * step[i];
        backward_token(step, drive, grad, A, B + t * s.states, C + t * s.states, own->decays + row, own->states + row,
                       own->states + row + size, grad_state, grad_step, grad_drive, own->grad_A, own->grad_B + row,
                       own->grad_C + row, s.states);
        for (int i = 0; i < LANES; i++) {
            grad_step[i] += grad_drive[i] * x[i];
            grad_drive[i] *= step[i];
        }
        store(grad_delta + at, grad_step, width);
        store(grad_u + at, grad_drive, width);
    }
}

/* The gradients of one sequence for the blocks first to end; A and grad_A are (blocks, states, LANES). */
CLONES static void backward_sequence(const float *u, const float *delta, const float *A, const float *B, const float *C,
                                     const float *state, const float *grad_y, const float *grad_last, float *grad_u,
                                     float *grad_delta, float *grad_A, float *grad_B, float *grad_C, float *grad_state,
                                     Scratch own, Sizes s, int64_t chunk, int64_t first, int64_t end) {
    const int64_t size = s.states * LANES, count = end - first;
    const int64_t chunks = (s.tokens + chunk - 1) / chunk;
    for (int64_t block = first; block < end; block++) {
        float *checkpoint = own.checkpoints + (block - first) * size;
        load_block(checkpoint, state, s, block);
        load_block(own.grad_state + (block - first) * size, grad_last, s, block);
        for (int64_t index = 0; index < chunks - 1; index++, checkpoint += count * size) {
            copy(own.states, checkpoint, size);
            const int64_t from = index * chunk;
            advance(u, delta, A + block * size, B, own.decays, own.states, s, block, from, from + chunk);
            copy(checkpoint + count * size, own.states + chunk * size, size);
        }
    }
    for (int64_t index = chunks - 1; index >= 0; index--) {
        const int64_t from = index * chunk, to = smaller(from + chunk, s.tokens);
        memset(own.grad_B, 0, (to - from) * size * sizeof(float));
        memset(own.grad_C, 0, (to - from) * size * sizeof(float));
        for (int64_t block = first; block < end; block++) {
            const float *A_ = A + block * size;
            copy(own.states, own.checkpoints + (index * count + block - first) * size, size);
            advance(u, delta, A_, B, own.decays, own.states, s, block, from, to);
            memset(own.grad_A, 0, size * sizeof(float));
            float *grad_ = own.grad_state + (block - first) * size;
            backward_chunk(u, delta, A_, B, C, grad_y, grad_u, grad_delta, grad_, &own, s, block, from, to);
            for (int64_t i = 0; i < size; i++) grad_A[block * size + i] += own.grad_A[i];
        }
        for (int64_t i = 0; i < (to - from) * s.states; i++) {
            grad_B[from * s.states + i] = lane_sum(own.grad_B + i * LANES);
            grad_C[from * s.states + i] = lane_sum(own.grad_C + i * LANES);
        }
    }
    for (int64_t block = first; block < end; block++)
        store_block(grad_state, own.grad_state + (block - first) * size, s, block);
}

/* Memory handed out in aligned pieces: a first pass with base NULL measures, a second one gives out. */
typedef struct {
    char *base;
    size_t used;
} Arena;

static float *take(Arena *arena, int64_t floats) {
    float *piece = arena->base ? (float *)(arena->base + arena->used) : NULL;
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

static Sizes sizes(int64_t batch, int64_t tokens, int64_t channels, int64_t states, int64_t groups) {
    Sizes s = {batch, tokens, channels, states, groups, (channels + LANES - 1) / LANES};
    return s;
}

/* Few threads for little work, and never more than there are units of it. */
static int team(int64_t threads, int64_t units, Sizes s) {
    if (s.batch * s.tokens * s.channels * s.states < SMALL) return 1;
    return (int)smaller(threads, units);
}

/* A as (groups, blocks, states, LANES). */
static void pack(float *packed, const float *A, Sizes s) {
    for (int64_t g = 0; g < s.groups; g++)
        for (int64_t block = 0; block < s.blocks; block++)
            load_block(packed + (g * s.blocks + block) * s.states * LANES, A + g * s.states * s.channels, s, block);
}

/* Returns 0, or 1 without memory. */
EXPORT int scan_forward(const float *u, const float *delta, const float *A, const float *B, const float *C,
                        const float *state, float *y, float *last, int64_t batch, int64_t tokens, int64_t channels,
                        int64_t states, int64_t groups, int64_t threads) {
    const Sizes s = sizes(batch, tokens, channels, states, groups);
    const int64_t units = batch * s.blocks, size = states * LANES;
    if (units == 0) return 0;
    const int members = team(threads, units, s);
    Arena arena = {NULL, 0};
    float *packed = NULL, *h = NULL;
    void *memory = NULL;
    for (int pass = 0; pass < 2; pass++) {
        packed = take(&arena, groups * s.blocks * size);
        h = take(&arena, members * size);
        if (pass == 0 && !(memory = allocate(&arena))) return 1;
    }
    pack(packed, A, s);
#pragma omp parallel for num_threads(members) schedule(static)
    for (int64_t unit = 0; unit < units; unit++) {
        const int64_t b = unit / s.blocks, block = unit % s.blocks, group = b / (batch / groups);
        const int64_t in = b * tokens * channels, of = b * tokens * states, at = b * states * channels;
        const float *A_ = packed + (group * s.blocks + block) * size;
        forward_block(u + in, delta + in, A_, B + of, C + of, state + at, y + in, last + at,
                      h + omp_get_thread_num() * size, s, block);
    }
    free(memory);
    return 0;
}

/* Returns 0, or 1 without memory. A unit of work is a part of a group's sequences and a range of blocks: all blocks,
 * unless the sequences are too few to keep many threads busy. */
EXPORT int scan_backward(const float *u, const float *delta, const float *A, const float *B, const float *C,
                         const float *state, const float *grad_y, const float *grad_last, float *grad_u,
                         float *grad_delta, float *grad_A, float *grad_B, float *grad_C, float *grad_state,
                         int64_t batch, int64_t tokens, int64_t channels, int64_t states, int64_t groups,
                         int64_t threads) {
    const Sizes s = sizes(batch, tokens, channels, states, groups);
    const int64_t size = states * LANES, sums = batch * tokens * states;
    if (batch * channels == 0) {
        memset(grad_A, 0, groups * states * channels * sizeof(float));
        memset(grad_B, 0, sums * sizeof(float));
        memset(grad_C, 0, sums * sizeof(float));
        return 0;
    }
    const int64_t sequences = batch / groups, parts = smaller(PARTS, sequences);
    const int64_t ranges = smaller(s.blocks, (PARTS + groups * parts - 1) / (groups * parts));
    const int64_t widest = (s.blocks + ranges - 1) / ranges, units = groups * parts * ranges;
    const int64_t chunks = tokens ? (tokens + CHUNK - 1) / CHUNK : 1;
    const int64_t chunk = tokens ? (tokens + chunks - 1) / chunks : 1;
    const int members = team(threads, units, s);

    Scratch *scratch = malloc(members * sizeof(Scratch));
    if (!scratch) return 1;
    Arena arena = {NULL, 0};
    float *packed = NULL, *part_A = NULL, *part_B = NULL, *part_C = NULL;
    void *memory = NULL;
    for (int pass = 0; pass < 2; pass++) {
        packed = take(&arena, groups * s.blocks * size);
        part_A = take(&arena, groups * parts * s.blocks * size);
        if (ranges > 1) {
            part_B = take(&arena, ranges * sums);
            part_C = take(&arena, ranges * sums);
        }
        for (int member = 0; member < members; member++) {
            Scratch *own = scratch + member;
            own->checkpoints = take(&arena, chunks * widest * size);
            own->grad_state = take(&arena, widest * size);
            own->decays = take(&arena, chunk * size);
            own->states = take(&arena, (1 + chunk) * size);
            own->grad_B = take(&arena, chunk * size);
            own->grad_C = take(&arena, chunk * size);
            own->grad_A = take(&arena, size);
        }
        if (pass == 0 && !(memory = allocate(&arena))) {
            free(scratch);
            return 1;
        }
    }
    pack(packed, A, s);
    memset(part_A, 0, groups * parts * s.blocks * size * sizeof(float));

#pragma omp parallel for num_threads(members) schedule(dynamic)
    for (int64_t unit = 0; unit < units; unit++) {
        const int64_t range = unit % ranges, part = unit / ranges % parts, group = unit / (ranges * parts);
        const int64_t first = range * s.blocks / ranges, end = (range + 1) * s.blocks / ranges;
        float *to_A = part_A + (group * parts + part) * s.blocks * size;
        float *to_B = ranges > 1 ? part_B + range * sums : grad_B;
        float *to_C = ranges > 1 ? part_C + range * sums : grad_C;
        for (int64_t i = part * sequences / parts; i < (part + 1) * sequences / parts; i++) {
            const int64_t b = group * sequences + i;
            const int64_t in = b * tokens * channels, of = b * tokens * states, at = b * states * channels;
            backward_sequence(u + in, delta + in, packed + group * s.blocks * size, B + of, C + of, state + at,
                              grad_y + in, grad_last + at, grad_u + in, grad_delta + in, to_A, to_B + of, to_C + of,
                              grad_state + at, scratch[omp_get_thread_num()], s, chunk, first, end);
        }
    }

    if (ranges > 1) {
        for (int64_t i = 0; i < sums; i++) {
            float sum_B = 0, sum_C = 0;
            for (int64_t range = 0; range < ranges; range++) {
                sum_B += part_B[range * sums + i];
                sum_C += part_C[range * sums + i];
            }
            grad_B[i] = sum_B;
            grad_C[i] = sum_C;
        }
    }
    for (int64_t part = 1; part < parts; part++)
        for (int64_t group = 0; group < groups; group++) {
            float *total = part_A + group * parts * s.blocks * size;
            for (int64_t i = 0; i < s.blocks * size; i++) total[i] += total[part * s.blocks * size + i];
        }
    for (int64_t group = 0; group < groups; group++)
        for (int64_t block = 0; block < s.blocks; block++) {
            const float *total = part_A + (group * parts * s.blocks + block) * size;
            store_block(grad_A + group * states * channels, total, s, block);
        }
    free(memory);
    free(scratch);
    return 0;
}

#ifdef _WIN32
/* setuptools exports this symbol from every extension; the library is loaded by ctypes and never imported. */
EXPORT void *PyInit__native(void) { return NULL; }
#endif
