/* fast/fast.h - what the files of fast/ share among themselves and with ops.c, which calls them.
 *
 * A twin is a faster function with its definition's results: the same bits, unless the kernel's
 * multiply-adds round once (fused). fast/matmul.c and fast/attention.c are the twins of ops.c's
 * linears and attention in plain C, around an innermost loop, a kernel, of which processors with
 * newer instructions have others: fast/x86.c, avx512.c, arm.c. fast/half.c is the product of bf16
 * numbers for processors that multiply these (fast/amx.c). fast/choose.c says which kernel runs.
 * fast/wide.c is ops.c for AVX2. */
#ifndef FAST_H
#define FAST_H
#include "../rlhf.h"

/* ---- choose.c ---- */
typedef struct Kernel Kernel;
typedef struct HalfKernel HalfKernel;
int fast_twins(void);  /* 1: twins run; 0: the definitions were chosen by name */
/* the best of this processor, or the one that was forced; NULL: the plain tile */
const Kernel *fast_kernel(void);
/* the tile of bf16 products, if there is one and no other kernel is forced; or NULL */
const HalfKernel *fast_half(void);
/* until fast_use, fast_half returns this one, here or not (tests: a model of one) */
void fast_use_half(const HalfKernel *half);
/* 1: this processor has AVX2, and neither "plain" nor "definition" was forced */
int fast_wide(void);

/* ---- ops.c calls its twins by these: the first line of a definition ---- */
#ifndef WIDE_COPY
#define TWIN(name, arguments) if (fast_twins()) { fast_##name arguments; return; }
#if defined(FAST) && defined(__x86_64__) && defined(__GNUC__) && !defined(__TINYC__)
#define HAS_WIDE
#define WIDE(name, arguments) \
    if (fast_wide()) { extern __typeof__(name) wide_##name; wide_##name arguments; return; }
#define WIDE_VALUE(name, arguments) \
    if (fast_wide()) { extern __typeof__(name) wide_##name; return wide_##name arguments; }
#else
#define WIDE(name, arguments)
#define WIDE_VALUE(name, arguments)
#endif
#endif

/* ---- wide.c ---- */
/* rows.h's attention_rows, compiled for AVX2: only if fast_wide(). */
void wide_attention_rows(float *P, int width, int first, const Keys *keys, const Heads *heads,
                         int from, int to, int h);

/* ---- matmul.c ---- */
/* One operand as it is in memory: element (i,k) is a[i*row + k*step]; row or step is 1. */
typedef struct { const float *a; size_t row, step; } View;
/* C (M,J) = or (add) += A (M,K) B (K,J). B is W, or its transpose; of W's sizes only I is read, the
 * distance between its rows. If `output` is not F32, the product is rounded to it before it is
 * added: only half.c does that. */
typedef struct {
    float *C; size_t stride;                /* between C's rows */
    View a;
    const Matrix *w; int transposed;
    const float *bias;                      /* (J), added last; NULL: none */
    int add, output, M, J, K;
    const Kernel *kernel;                   /* set by fast_product() and half_product() */
    const HalfKernel *half;                 /* set by half_product() */
} Product;
void fast_product(Product p, Arena *ws);  /* a measuring or failed ws: nothing happens to C */
/* the most scratch of products up to this size, with any kernel and number of threads */
size_t fast_product_floats(int M, int J, int K);
/* rows of floats as the W of a product; they are only read */
Matrix fast_rows(const float *x, int stride);
/* The twins of ops.c. */
void fast_linear_forward(float *y, const float *x, const Matrix *w, const float *bias, int N,
                         Arena *ws);
void fast_linear_add(float *y, const float *x, const Matrix *w, const float *bias, int N,
                     Arena *ws);
void fast_linear_backward(float *dx, float *dbias, const float *dy, const float *x,
                          const Matrix *w, int N, Arena *ws);
void fast_linear_measure(Arena *ws, int N, int I, int O, int compute);

/* ---- attention.c: the twins of ops.c ---- */
void fast_attention_forward(float *y, const Qkv *in, const Keys *keys, int N, const Heads *heads,
                            Arena *ws);
void fast_attention_backward(const Qkv *d, const float *dy, const float *y, const Qkv *in,
                             const Keys *keys, int N, const Heads *heads, Arena *ws);
void fast_attention_measure(Arena *ws, int keys, const Heads *heads);

/* ---- kernels: x86.c, avx512.c, arm.c ---- */
enum { KERNEL_ROWS = 16, KERNEL_COLUMNS = 48 };     /* the largest sides of any kernel's tiles */
enum { FEW_ROWS = 8, FEW_COLUMNS = 8 };             /* of x and of W, where neither is packed */
struct Kernel {
    const char *name;
    int rows, columns;                      /* of a tile */
    int fused;                              /* 1: a*b + c rounds once */
    int (*here)(void);                      /* returns 1 if this processor can */
    /* c[i*stride + j], i < rows, j < columns, becomes (add 0: 0, 1: itself) + the sum over k, in
     * order, of a[k*rows + i] b[k*columns + j]. */
    void (*tile)(float *c, size_t stride, const float *a, const float *b, int k, int add);
    /* The same for M <= rows of a's rows as they are in memory, a[i*row + k], and b[k*b_row + j].
     * NULL: packing is as quick. */
    void (*tile_in_place)(float *c, size_t stride, const float *a, size_t row, const float *b,
                          size_t b_row, int M, int k, int add);
    /* c[m*stride + j], m < M <= FEW_ROWS, j < FEW_COLUMNS: the same of x[m*x_row + k] w[j*w_row +
     * k], w of type F32, BF16 or F16; nothing is packed. NULL: there is none. */
    void (*few)(float *c, size_t stride, const float *x, size_t x_row, const void *w, size_t w_row,
                int type, int M, int k, int add);
    /* A tile_in_place of other sides, all of whose rows are used, for more than FEW_ROWS columns
     * and fewer than a tile's. narrow_rows 0: there is none. */
    int narrow_rows, narrow_columns;
    void (*narrow_in_place)(float *c, size_t stride, const float *a, size_t row, const float *b,
                            int k, int add);
    /* p[k*width + i] = a[i*row + k], i < rows <= width, k < K: rows that run along memory become
     * columns. */
    void (*interleave)(float *p, int width, const float *a, size_t row, int rows, int K);
    /* out[i] = values[16 * (i / block) + code i], i < n, of 4-bit codes, the first in the high half
     * of *packed; n and block are multiples of 8. NULL: dequantize_4bit is used. */
    void (*unpack)(float *out, const unsigned char *packed, const f32 *values, int block, int n);
    /* p[k*width + i] = table[code k of row i] * scale[8 * (k / block) + i], rounded to bf16 or not,
     * i < 8, k < K: rows of codes, row_bytes apart, become columns. K and block are multiples of
     * 32, the scales finite. NULL: unpack, then interleave. */
    void (*unpack_columns)(float *p, size_t width, const unsigned char *packed, size_t row_bytes,
                           const f32 *scale, const f32 *table, int block, int rounded, int K);
};
extern const Kernel kernel_avx2, kernel_avx, kernel_avx512, kernel_neon;
/* avx2's, which avx512 uses too. */
void avx2_few(float *c, size_t stride, const float *x, size_t x_row, const void *w, size_t w_row,
              int type, int M, int k, int add);
void avx2_unpack_columns(float *p, size_t width, const unsigned char *packed, size_t row_bytes,
                         const f32 *scale, const f32 *table, int block, int rounded, int K);
/* f(M, ...), 1 <= M <= 8, compiled for each M: the compiler knows how many rows there are. */
#define KNOWN_ROWS(M, f, ...) \
    switch (M) { \
    case 1: f(1, __VA_ARGS__); break; case 2: f(2, __VA_ARGS__); break; \
    case 3: f(3, __VA_ARGS__); break; case 4: f(4, __VA_ARGS__); break; \
    case 5: f(5, __VA_ARGS__); break; case 6: f(6, __VA_ARGS__); break; \
    case 7: f(7, __VA_ARGS__); break; default: f(8, __VA_ARGS__); }

/* ---- amx.c: a tile of products of bf16 numbers ---- */
enum { HALF_SIDE = 32 };
struct HalfKernel {
    const char *name;
    int (*here)(void);  /* returns 1 if this processor can and the system lets this process */
    void (*begin)(void), (*end)(void);      /* before a thread's first tile, after its last */
    /* c (32,32) becomes (add 0: 0, 1: itself) + the products of blocks of 32 k, in order. a's
     * element (i,k) is a[i*row + k], the next block is `next` further; b's (k,j) is b[k/2*64 + 2j +
     * k%2], with 1024 numbers to a block. */
    void (*tile)(f32 *c, const uint16_t *a, size_t row, size_t next, const uint16_t *b, int blocks,
                 int add);
    /* Two that make lines of blocks: n numbers, a multiple of 32; each 32 of them are put `next`
     * further than the 32 before. NULL: quant.c's are used. narrow: x, rounded; subnormals may
     * become 0. codes: scale table[code], rounded, of 4-bit codes, the first in the high half of
     * *packed. */
    void (*narrow)(uint16_t *half, size_t next, const f32 *x, size_t n);
    void (*codes)(uint16_t *half, size_t next, const unsigned char *packed, const f32 *table,
                  f32 scale, size_t n);
};
extern const HalfKernel kernel_amx;

/* ---- half.c: the product around such a tile ---- */
/* The same as fast_product(), with this tile; kernel: its interleave is used. */
void half_product(Product p, const HalfKernel *half, const Kernel *kernel, Arena *ws);
/* reserves its scratch and gives it back; it grows with each size */
void half_measure(Arena *ws, int M, int J, int K);
#endif
