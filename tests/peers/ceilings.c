/* Prints what this machine's cores can do at most, on all of THREADS threads together, best of several tries each:

       cc -O2 -pthread ceilings.c -o ceilings && ./ceilings THREADS BYTES...

   a line with the GFLOP/s of fused multiply-adds on 512-bit vectors (0 without AVX-512) and on 256-bit ones, and a line for each
   BYTES with the GB/s at which a buffer of that size is read again and again, in parts that lie side by side. */
#define _GNU_SOURCE
#include <immintrin.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

enum { TRIES = 7, STEPS = 400000, STREAMS = 4, HUGE_PAGE = 2 << 20 };

typedef float (*Work)(const char *, size_t);

/* Twelve sums hide the latency of four cycles on two units. */
#define SUMS(X) X(0) X(1) X(2) X(3) X(4) X(5) X(6) X(7) X(8) X(9) X(10) X(11)

#define START(i) v s##i = x * i;
/* The empty instruction keeps the compiler from taking the loop apart. */
#define ADD(i) s##i = s##i * x + y; __asm__ volatile("" : "+v"(s##i));
#define FOLD(i) x += s##i;
#define FMA(name, isa, bytes)                                                                                                  \
  __attribute__((target(isa), optimize("fp-contract=fast"))) static float name(const char *unused, size_t steps) {              \
    typedef float v __attribute__((vector_size(bytes)));                                                                       \
    (void)unused;                                                                                                              \
    v x = (v){0} + 1.0f, y = (v){0} + 1e-9f;                                                                                   \
    SUMS(START)                                                                                                                \
    for (size_t step = 0; step < steps; step++) { SUMS(ADD) }                                                                  \
    SUMS(FOLD)                                                                                                                 \
    return x[0];                                                                                                               \
  }

FMA(fma512, "avx512f", 64)
FMA(fma256, "avx2,fma", 32)

/* Several streams at once read faster than one: a page's end stops the hardware's prefetching of one of them only. */
__attribute__((target("avx2"))) static float read_all(const char *from, size_t bytes) {
  size_t part = bytes / STREAMS;
  __m256 sums[STREAMS];
  for (int s = 0; s < STREAMS; s++) sums[s] = _mm256_setzero_ps();
  for (size_t i = 0; i + 64 <= part; i += 64)
    for (int s = 0; s < STREAMS; s++) {
      const float *line = (const float *)(from + s * part + i);
      sums[s] = _mm256_add_ps(sums[s], _mm256_add_ps(_mm256_load_ps(line), _mm256_load_ps(line + 8)));
    }
  for (int s = 1; s < STREAMS; s++) sums[0] = _mm256_add_ps(sums[0], sums[s]);
  return _mm256_cvtss_f32(sums[0]);
}

static struct {
  Work work;
  const char *data;
  size_t amount; /* for each thread */
  pthread_barrier_t barrier;
  volatile float sink;
} job;

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec + t.tv_nsec * 1e-9;
}

static void *other(void *index) {
  for (int i = 0; i < TRIES; i++) {
    pthread_barrier_wait(&job.barrier);
    job.sink = job.work(job.data + job.amount * (size_t)index, job.amount);
    pthread_barrier_wait(&job.barrier);
  }
  return NULL;
}

/* Seconds of the best try, all threads together. */
static double seconds(Work work, const char *data, size_t amount, int threads) {
  job.work = work, job.data = data, job.amount = amount;
  pthread_barrier_init(&job.barrier, NULL, threads);
  pthread_t handles[threads];
  for (int i = 1; i < threads; i++)
    if (pthread_create(&handles[i], NULL, other, (void *)(size_t)i) != 0) exit(1);
  double best = 1e30;
  for (int i = 0; i < TRIES; i++) {
    pthread_barrier_wait(&job.barrier);
    double start = now();
    job.sink = work(data, amount);
    pthread_barrier_wait(&job.barrier);
    double took = now() - start;
    best = took < best ? took : best;
  }
  for (int i = 1; i < threads; i++) pthread_join(handles[i], NULL);
  pthread_barrier_destroy(&job.barrier);
  return best;
}

int main(int argc, char **argv) {
  int threads = argc > 1 ? atoi(argv[1]) : 0;
  if (threads < 1) {
    fprintf(stderr, "usage: ceilings THREADS BYTES...\n");
    return 2;
  }
  double flops = 2.0 * 12 * STEPS * threads;
  double wide = __builtin_cpu_supports("avx512f") ? 16 * flops / seconds(fma512, NULL, STEPS, threads) : 0;
  if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma")) {
    fprintf(stderr, "no AVX2 here\n");
    return 1;
  }
  printf("%.1f %.1f\n", wide / 1e9, 8 * flops / seconds(fma256, NULL, STEPS, threads) / 1e9);
  for (int i = 2; i < argc; i++) {
    size_t share = (size_t)atoll(argv[i]) / threads / 4096 * 4096, all = share * threads;
    if (share == 0) return 2;
    char *data = aligned_alloc(HUGE_PAGE, (all + HUGE_PAGE - 1) / HUGE_PAGE * HUGE_PAGE);
    if (data == NULL) return 1;
    madvise(data, all, MADV_HUGEPAGE);
    memset(data, 0, all);
    printf("%.2f\n", all / seconds(read_all, data, share, threads) / 1e9);
    free(data);
  }
  return 0;
}
