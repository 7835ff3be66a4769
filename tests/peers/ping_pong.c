/* Prints the round trip of a cache line between the two CPUs that it is given, in ns: the median of 25 batches.

       cc -O2 -pthread ping_pong.c -o ping_pong && ./ping_pong 0 1

   Virtual CPUs move between cores that are near each other (about 50 ns) and far apart (300 ns and more), and what two
   threads gain depends on which. */
#define _GNU_SOURCE
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum { BATCHES = 25, TRIPS = 2000 };

static _Alignas(128) atomic_int ball;

static void pin(int cpu) {
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(cpu, &set);
  if (sched_setaffinity(0, sizeof set, &set) != 0) {
    perror("sched_setaffinity");
    exit(1);
  }
}

/* Odd is the other's turn, even is ours. */
static void *answer(void *cpu) {
  pin(*(int *)cpu);
  for (int i = 0; i < BATCHES * TRIPS; i++) {
    while (atomic_load_explicit(&ball, memory_order_acquire) != 2 * i + 1) {
    }
    atomic_store_explicit(&ball, 2 * i + 2, memory_order_release);
  }
  return NULL;
}

static int ascending(const void *a, const void *b) {
  double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

int main(int argc, char **argv) {
  if (argc != 3) {
    fprintf(stderr, "usage: ping_pong CPU CPU\n");
    return 2;
  }
  int other = atoi(argv[2]);
  double ns[BATCHES];
  pthread_t thread;
  if (pthread_create(&thread, NULL, answer, &other) != 0) return 1;
  pin(atoi(argv[1]));
  for (int batch = 0, i = 0; batch < BATCHES; batch++) {
    struct timespec start, end;
    clock_gettime(CLOCK_MONOTONIC, &start);
    for (int trip = 0; trip < TRIPS; trip++, i++) {
      atomic_store_explicit(&ball, 2 * i + 1, memory_order_release);
      while (atomic_load_explicit(&ball, memory_order_acquire) != 2 * i + 2) {
      }
    }
    clock_gettime(CLOCK_MONOTONIC, &end);
    ns[batch] = ((end.tv_sec - start.tv_sec) * 1e9 + (end.tv_nsec - start.tv_nsec)) / TRIPS;
  }
  pthread_join(thread, NULL);
  qsort(ns, BATCHES, sizeof *ns, ascending);
  printf("%.0f\n", ns[BATCHES / 2]);
  return 0;
}
