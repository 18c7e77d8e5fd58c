/* amx_model.h - kernel_model: fast/amx.c's own text over tile instructions written in plain C, as
 * Intel's manual defines them (Software Developer's Manual, volume 2, TDPBF16PS and others). A
 * program that includes it may give it to fast_use_half. */
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__TINYC__)
#include <immintrin.h>                  /* before its names become the model's */
#define MODEL_HAS_CODES __builtin_cpu_supports("avx2")  /* the look-up of 4-bit codes runs as it is */
#else
#define MODEL_HAS_CODES 0
#endif

/* a thread's; dots: instructions done */
static struct { int configured; long long dots; unsigned char row[8][16][64]; } tiles;
#ifdef _OPENMP
#pragma omp threadprivate(tiles)
#endif

/* Inputs and results below 2^-126 are 0. */
static float flush(float x) { return fabsf(x) < 1.17549435e-38f ? copysignf(0, x) : x; }

static float half_at(const unsigned char *bytes) {
    uint16_t bits;
    memcpy(&bits, bytes, sizeof bits);
    return flush(bf16_to_f32(bits));
}

/* a b + c, rounded once. Products of 8 by 8 bits are exact but where they are too small for a
 * float. */
static float fused(float a, float b, float c) {
    const float product = a * b;
    return fabsf(product) > 1e-30f ? product + c : fmaf(a, b, c);
}

static void model_loadconfig(const void *config) {
    const unsigned char *c = config;
    uint16_t bytes;
    tiles.configured = c[0] == 1 && c[1] == 0;
    for (int t = 0; t < 8; t++) {
        memcpy(&bytes, c + 16 + 2 * t, sizeof bytes);
        tiles.configured &= bytes == 64 && c[48 + t] == 16;
    }
}

static void model_release(void) { tiles.configured = 0; }

static void model_zero(int t) { memset(tiles.row[t], 0, sizeof tiles.row[t]); }

static void model_load(int t, const void *base, size_t stride) {
    for (int i = 0; i < 16; i++)
        memcpy(tiles.row[t][i], (const unsigned char *)base + (size_t)i * stride, 64);
}

static void model_store(int t, void *base, size_t stride) {
    for (int i = 0; i < 16; i++)
        memcpy((unsigned char *)base + (size_t)i * stride, tiles.row[t][i], 64);
}

/* For each row m and column n: even and odd products each in order of k, every step rounded once;
 * their sum; then C. Without a configuration the processor would refuse: here C becomes no
 * number. */
static void model_dot(int c, int a, int b) {
    static float left[16][32], right[16][32];
#ifdef _OPENMP
#pragma omp threadprivate(left, right)
#endif
    tiles.dots++;
    for (int i = 0; i < 16; i++)
        for (int k = 0; k < 32; k++) {
            left[i][k] = half_at(tiles.row[a][i] + 2 * k);
            right[i][k] = half_at(tiles.row[b][i] + 2 * k);
        }
    for (int m = 0; m < 16; m++)
        for (int n = 0; n < 16; n++) {
            float sum[2] = { 0, 0 }, old;
            for (int k = 0; k < 16; k++)
                for (int h = 0; h < 2; h++)
                    sum[h] = flush(fused(left[m][2 * k + h], right[k][2 * n + h], sum[h]));
            memcpy(&old, tiles.row[c][m] + 4 * n, sizeof old);
            old = tiles.configured ? flush(flush(old) + flush(sum[0] + sum[1])) : (float)NAN;
            memcpy(tiles.row[c][m] + 4 * n, &old, sizeof old);
        }
}

/* The look-up of codes has a register of 512 bits, which few processors that run this test have:
 * here it is 32 words. */
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__TINYC__)
#define AVX2 __attribute__((target("avx2")))
typedef struct { uint16_t word[32]; } Words;
AVX2 static Words model_twice(__m256i x) {
    Words w;
    for (int i = 0; i < 2; i++) memcpy(w.word + 16 * i, &x, sizeof x);
    return w;
}
AVX2 static Words model_bytes(__m128i x) {                      /* each a double word */
    Words w;
    unsigned char byte[16];
    memcpy(byte, &x, sizeof byte);
    for (int i = 0; i < 16; i++) { w.word[2 * i] = byte[i]; w.word[2 * i + 1] = 0; }
    return w;
}
AVX2 static Words model_shift(Words x, int left) {  /* of each double word; negative: right */
    for (int i = 0; i < 32; i += 2) {
        uint32_t both = x.word[i] | (uint32_t)x.word[i + 1] << 16;
        both = left < 0 ? both >> -left : both << left;
        x.word[i] = (uint16_t)both;
        x.word[i + 1] = (uint16_t)(both >> 16);
    }
    return x;
}
AVX2 static Words model_or(Words x, Words y) {
    for (int i = 0; i < 32; i++) x.word[i] |= y.word[i];
    return x;
}
AVX2 static Words model_choose(Words index, Words x) {          /* by the low five bits */
    for (int i = 0; i < 32; i++) index.word[i] = x.word[index.word[i] & 31];
    return index;
}
AVX2 static void model_put(void *to, Words x) { memcpy(to, &x, sizeof x); }
#define AMX_LOOK_UP "avx2"
#define __m512i Words
#define _mm512_broadcast_i64x4 model_twice
#define _mm512_cvtepu8_epi32 model_bytes
#undef _mm512_srli_epi32
#define _mm512_srli_epi32(x, n) model_shift(x, -(n))
#undef _mm512_slli_epi32
#define _mm512_slli_epi32(x, n) model_shift(x, n)
#define _mm512_or_si512 model_or
#define _mm512_permutexvar_epi16 model_choose
#define _mm512_storeu_si512 model_put
#endif

#undef _tile_loadconfig
#undef _tile_release
#undef _tile_zero
#undef _tile_loadd
#undef _tile_stored
#undef _tile_dpbf16ps
#define AMX_MODEL
#define AMX_TARGET
#define kernel_amx kernel_model                                 /* the library has the real one */
#define _tile_loadconfig model_loadconfig
#define _tile_release model_release
#define _tile_zero model_zero
#define _tile_loadd model_load
#define _tile_stored model_store
#define _tile_dpbf16ps model_dot
extern const HalfKernel kernel_model;
static int amx_here(void) { return 1; }
#include "../../fast/amx.c"
#undef kernel_amx
