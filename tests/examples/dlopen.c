/* A program that loads a compiled model at run time and learns all about it from its descriptor.

       compile zoo:lenet5 --dim batch=1 -o lenet5.so --header lenet5.h
       cc dlopen.c -o dlopen && ./dlopen ./lenet5.so lehr_model_lenet5

   Any model's header will do: only the part that all models share is used. */
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>

#include "lenet5.h"

int main(int argc, char **argv) {
  if (argc != 3) {
    fprintf(stderr, "usage: dlopen MODEL.so DESCRIPTOR\n");
    return 2;
  }
  void *library = dlopen(argv[1], RTLD_NOW);
  if (!library) {
    fprintf(stderr, "%s\n", dlerror());
    return 1;
  }
  const struct lehr_model *m = (const struct lehr_model *)dlsym(library, argv[2]);
  if (!m || m->magic != LEHR_MAGIC || m->abi_version != LEHR_ABI_VERSION || m->struct_bytes != sizeof *m) {
    fprintf(stderr, "%s: no model of this ABI version\n", argv[1]);
    return 1;
  }
  struct lehr_tensor *tensors = calloc(m->n_inputs + m->n_outputs, sizeof *tensors);
  for (uint32_t i = 0; i < m->n_inputs + m->n_outputs; i++) {
    const struct lehr_tensor_spec *s = i < m->n_inputs ? &m->inputs[i] : &m->outputs[i - m->n_inputs];
    tensors[i] = (struct lehr_tensor){calloc(1, s->bytes ? s->bytes : 1), s->dtype, s->rank, s->dims, s->bytes};
    if (i < m->n_inputs && s->dtype == LEHR_F32)
      for (uint64_t k = 0; k < s->bytes / sizeof(float); k++)
        ((float *)tensors[i].data)[k] = (float)(k % 29) / 28.0f - 0.5f;
  }
  uint64_t bytes = m->workspace_bytes(m, 1);
  void *ws = aligned_alloc(LEHR_ALIGN, bytes);
  if (m->open(m, ws, bytes, 1) != LEHR_OK ||
      m->run(m, ws, tensors, m->n_inputs, tensors + m->n_inputs, m->n_outputs) != LEHR_OK) {
    fprintf(stderr, "%s\n", m->last_error(ws));
    return 1;
  }
  for (uint32_t i = 0; i < m->n_outputs; i++) {
    const struct lehr_tensor *t = &tensors[m->n_inputs + i];
    if (t->dtype != LEHR_F32) continue;
    for (uint64_t k = 0; k < t->bytes / sizeof(float); k++) printf("%.6f\n", ((float *)t->data)[k]);
  }
  m->close(m, ws);
  for (uint32_t i = 0; i < m->n_inputs + m->n_outputs; i++) free(tensors[i].data);
  free(tensors);
  free(ws);
  dlclose(library);
  return 0;
}
