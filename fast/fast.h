/* fast/fast.h - declarations that the files of fast/ and ops.c share.
 *
 * A definition is a plain loop in ops.c. Its twin is a faster function with the same results:
 * the same bits, unless the twin's kernel computes a multiply-add with one rounding (fused). A
 * kernel is the innermost loop of a product. fast/matmul.c has the twins of ops.c's linears,
 * fast/attention.c those of its attention: both are plain C and call a kernel. fast/x86.c,
 * avx512.c and arm.c have kernels for newer processors; fast/choose.c chooses one. fast/half.c
 * computes products of bf16 numbers on processors that multiply these (fast/amx.c). fast/wide.c
 * compiles ops.c again, for AVX2. */
#ifndef FAST_H
#define FAST_H
#include "../rlhf.h"

/* ---- choose.c ---- */
typedef struct Kernel Kernel;
typedef struct HalfKernel HalfKernel;
int fast_twins(void);  /* returns 1 if twins run, 0 if the definitions were chosen by name */
/* Returns the fastest kernel of this processor, or the one that was chosen by name. NULL:
 * matmul.c's plain tile. */
const Kernel *fast_kernel(void);
/* Returns the kernel of bf16 products. NULL: the processor has none, or a float
 * kernel was chosen by name. */
const HalfKernel *fast_half(void);
/* Makes fast_half return this kernel until the next fast_use, even if the processor lacks it.
 * Tests pass a model in plain C. */
void fast_use_half(const HalfKernel *half);
/* Returns 1 if this processor has AVX2 and neither "plain" nor "definition" was chosen by name. */
int fast_wide(void);

/* ---- the first line of a definition in ops.c: calls its twin, if that runs, and returns ---- */
#ifndef WIDE_COPY
#define RETURN_TWIN(name, arguments) if (fast_twins()) { fast_##name arguments; return; }
#if defined(FAST) && defined(__x86_64__) && defined(__GNUC__) && !defined(__TINYC__)
#define HAS_WIDE
#define RETURN_WIDE(name, arguments) \
    if (fast_wide()) { extern __typeof__(name) wide_##name; wide_##name arguments; return; }
#define RETURN_WIDE_VALUE(name, arguments) \
    if (fast_wide()) { extern __typeof__(name) wide_##name; return wide_##name arguments; }
#else
#define RETURN_WIDE(name, arguments)
#define RETURN_WIDE_VALUE(name, arguments)
#endif
#endif

/* ---- wide.c ---- */
/* Does what attention_rows of lanes.h does, compiled for AVX2. The caller
 * checks fast_wide() first. */
void wide_attention_rows(float *P, int width, int first, const Keys *keys, const Heads *heads,
                         int from, int to, int h);

/* ---- matmul.c ---- */
/* A matrix as it is in memory: element (i,k) is a[i*row + k*step]. Either row or step is 1. */
typedef struct { const float *a; size_t row, step; } View;
/* The arguments of one product: C (M,J) = A (M,K) B (K,J), or C += A B if `add`. B is W, or W^T
 * if `transposed`. Of W's sizes only I is read, the distance between W's rows. half_product
 * rounds the product to `output` before it adds it; fast_product ignores `output`. */
typedef struct {
    float *C; size_t stride;                /* distance between C's rows, in floats */
    View a;
    const Matrix *w; int transposed;
    const float *bias;                      /* (J), added last; NULL: there is none */
    int add, output, M, J, K;
    const Kernel *kernel;                   /* set by fast_product() and half_product() */
    const HalfKernel *half;                 /* set by half_product() */
} Product;
/* Computes p, with scratch from ws. Leaves C as it is if ws only measures or has failed. */
void fast_product(Product p, Arena *ws);
/* Returns the floats of scratch that are enough for every product up to this size, with any
 * kernel and up to threads_max() threads. */
size_t fast_product_floats(int M, int J, int K);
/* Returns rows of floats, `stride` apart, as the W of a product. The product only reads them. */
Matrix fast_rows(const float *x, int stride);
/* The twins of ops.c's linears: see rlhf.h. */
void fast_linear_forward(float *y, const float *x, const Matrix *w, const float *bias, int N,
                         Arena *ws);
void fast_linear_add(float *y, const float *x, const Matrix *w, const float *bias, int N,
                     Arena *ws);
void fast_linear_backward(float *dx, float *dbias, const float *dy, const float *x,
                          const Matrix *w, int N, Arena *ws);
void fast_linear_measure(Arena *ws, int N, int I, int O, int compute);

/* ---- attention.c: the twins of ops.c's attention: see rlhf.h ---- */
void fast_attention_forward(float *y, const Qkv *in, const Keys *keys, int N, const Heads *heads,
                            Arena *ws);
void fast_attention_backward(const Qkv *d, const float *dy, const float *y, const Qkv *in,
                             const Keys *keys, int N, const Heads *heads, Arena *ws);
void fast_attention_measure(Arena *ws, int keys, const Heads *heads);

/* ---- kernels: x86.c, avx512.c, arm.c ---- */
enum { KERNEL_ROWS = 16, KERNEL_COLUMNS = 48 };     /* the largest sides of any kernel's tiles */
enum { FEW_ROWS = 8, FEW_COLUMNS = 8 };       /* the most rows of x, and the rows of W, for `few` */
struct Kernel {
    const char *name;
    int rows, columns;                      /* a tile's sides */
    int fused;                              /* 1: a*b + c rounds once */
    int (*here)(void);                      /* returns 1 if this processor can run the kernel */
    /* Computes a tile: c[i*stride + j], i < rows, j < columns, begins as 0, or with its old
     * value if `add`; then a[k*rows + i] b[k*columns + j] is added to it for each k, in order. */
    void (*tile)(float *c, size_t stride, const float *a, const float *b, int k, int add);
    /* Computes the first M <= rows rows of a tile as `tile` does, from operands that are not
     * packed: a[i*row + k] and b[k*b_row + j]. NULL: packing is as quick. */
    void (*tile_in_place)(float *c, size_t stride, const float *a, size_t row, const float *b,
                          size_t b_row, int M, int k, int add);
    /* Computes c[m*stride + j], m < M <= FEW_ROWS, j < FEW_COLUMNS, as `tile` does, from the
     * products x[m*x_row + k] w[j*w_row + k]. Nothing is packed; w is of type F32, BF16 or F16.
     * NULL: the kernel has no such function. */
    void (*few)(float *c, size_t stride, const float *x, size_t x_row, const void *w, size_t w_row,
                int type, int M, int k, int add);
    /* Computes a tile of narrow_rows x narrow_columns as tile_in_place does, always with all
     * rows, from a[i*row + k] and b[k*narrow_columns + j]. It is used if x has more than
     * FEW_ROWS and at most narrow_columns rows; the rows of x are the columns of the tile.
     * narrow_rows 0: the kernel has no such function. */
    int narrow_rows, narrow_columns;
    void (*narrow_in_place)(float *c, size_t stride, const float *a, size_t row, const float *b,
                            int k, int add);
    /* Sets p[k*width + i] = a[i*row + k], i < rows <= width, k < K: the rows of a, each
     * contiguous in memory, become columns of p. */
    void (*interleave)(float *p, int width, const float *a, size_t row, int rows, int K);
    /* Sets out[i] = values[16 * (i / block) + code i], i < n. The codes have 4 bits; the
     * first code of a byte is its high half. n and block are multiples of 8. NULL:
     * dequantize_4bit is used. */
    void (*unpack)(float *out, const unsigned char *packed, const f32 *values, int block, int n);
    /* Sets p[k*width + i] = table[code k of row i] * scale[8 * (k / block) + i], i < 8, k < K,
     * rounded to bf16 if `rounded`. So eight rows of 4-bit codes, row_bytes apart, become
     * columns of floats. K and block are multiples of 32; the scales are finite. NULL: unpack
     * and interleave are used. */
    void (*unpack_columns)(float *p, size_t width, const unsigned char *packed, size_t row_bytes,
                           const f32 *scale, const f32 *table, int block, int rounded, int K);
};
extern const Kernel kernel_avx2, kernel_avx, kernel_avx512, kernel_neon;
/* Functions of kernel_avx2 that kernel_avx512 uses too. */
void avx2_few(float *c, size_t stride, const float *x, size_t x_row, const void *w, size_t w_row,
              int type, int M, int k, int add);
void avx2_unpack_columns(float *p, size_t width, const unsigned char *packed, size_t row_bytes,
                         const f32 *scale, const f32 *table, int block, int rounded, int K);
/* Calls f(M, ...), 1 <= M <= 8, with a constant M: the compiler builds f
 * for each number of rows. */
#define KNOWN_ROWS(M, f, ...) \
    switch (M) { \
    case 1: f(1, __VA_ARGS__); break; case 2: f(2, __VA_ARGS__); break; \
    case 3: f(3, __VA_ARGS__); break; case 4: f(4, __VA_ARGS__); break; \
    case 5: f(5, __VA_ARGS__); break; case 6: f(6, __VA_ARGS__); break; \
    case 7: f(7, __VA_ARGS__); break; default: f(8, __VA_ARGS__); }

/* ---- amx.c: the kernel of bf16 products ---- */
enum { HALF_SIDE = 32 };
struct HalfKernel {
    const char *name;
    /* Returns 1 if this processor can run the kernel and the system lets this process use it. */
    int (*here)(void);
    /* A thread calls begin() before its first tile, and end() after its last. */
    void (*begin)(void), (*end)(void);
    /* Computes c (32,32) = A B, or c += A B if `add`, one block of 32 k after another. Element
     * (i,k) of a block of A is a[i*row + k]; the next block begins `next` numbers further.
     * Element (k,j) of a block of B is b[k/2*64 + 2j + k%2]; a block of B has 1024 numbers. */
    void (*tile)(f32 *c, const uint16_t *a, size_t row, size_t next, const uint16_t *b, int blocks,
                 int add);
    /* Both write n bf16 numbers, a multiple of 32, as lines of 32: each line begins `next`
     * numbers after the line before. narrow rounds x; subnormals may become 0. codes rounds
     * scale * table[code] for n 4-bit codes; the first code of a byte is its high half. NULL:
     * quant.c's functions are used. */
    void (*narrow)(uint16_t *half, size_t next, const f32 *x, size_t n);
    void (*codes)(uint16_t *half, size_t next, const unsigned char *packed, const f32 *table,
                  f32 scale, size_t n);
};
extern const HalfKernel kernel_amx;

/* ---- half.c: the product of bf16 numbers, around such a tile ---- */
/* Computes p as fast_product() does, but rounds A and W to bf16 and uses the tile of `half`. Of
 * `kernel` it uses only interleave. */
void half_product(Product p, const HalfKernel *half, const Kernel *kernel, Arena *ws);
/* Measures the scratch of half_product: reserves it in ws and frees it. It grows with each size. */
void half_measure(Arena *ws, int M, int J, int K);
#endif
