#include "bench.h"
void bench_generate(void) {}
void bench_judge(void) {}
