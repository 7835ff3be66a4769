/* A program that is linked with a compiled model and knows it by its header.

       compile zoo:lenet5 --dim batch=1 -o lenet5.so --header lenet5.h
       cc linked.c -o linked ./lenet5.so -Wl,-rpath,'$ORIGIN' && ./linked */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "lenet5.h"

int main(void) {
  const struct lehr_model *m = &lehr_model_lenet5;
  /* All memory the model needs, threads included; 0 threads: as many as this process may use. */
  uint64_t bytes = m->workspace_bytes(m, 0);
  void *ws = aligned_alloc(LEHR_ALIGN, bytes);
  if (!ws || m->open(m, ws, bytes, 0) != LEHR_OK) {
    fprintf(stderr, "open: %s\n", m->last_error(ws));
    return 1;
  }
  static float image[LEHR_MODEL_LENET5_INPUT_IMAGE_ELEMENTS];
  static float probabilities[LEHR_MODEL_LENET5_OUTPUT_PROBABILITIES_ELEMENTS];
  for (int i = 0; i < LEHR_MODEL_LENET5_INPUT_IMAGE_ELEMENTS; i++) image[i] = (float)(i % 29) / 28.0f - 0.5f;
  if (lehr_model_lenet5_run(ws, image, probabilities) != LEHR_OK) {
    fprintf(stderr, "run: %s\n", m->last_error(ws));
    return 1;
  }
  for (int i = 0; i < LEHR_MODEL_LENET5_OUTPUT_PROBABILITIES_ELEMENTS; i++) printf("%.6f\n", probabilities[i]);
  m->close(m, ws);
  free(ws);
  return 0;
}
