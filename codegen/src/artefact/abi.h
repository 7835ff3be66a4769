/* The interface of all models of this ABI version; headers of several models share it. */
#ifndef LEHR_ABI_3
#define LEHR_ABI_3
#ifdef __cplusplus
extern "C" {
#endif

#define LEHR_MAGIC UINT64_C(0x4c444f4d5248454c)
#define LEHR_ABI_VERSION 3
/* Alignment of a workspace. */
#define LEHR_ALIGN 64

/* Element types. */
#define LEHR_F64 1
#define LEHR_F32 2
#define LEHR_F16 3
#define LEHR_BF16 4
#define LEHR_I8 5
#define LEHR_I16 6
#define LEHR_I32 7
#define LEHR_I64 8
#define LEHR_U8 9
#define LEHR_U16 10
#define LEHR_U32 11
#define LEHR_U64 12
#define LEHR_BOOL 13

/* What calls return. */
#define LEHR_OK 0
#define LEHR_NULL 1
#define LEHR_BAD_MODEL 2
#define LEHR_BAD_WORKSPACE 3
#define LEHR_WORKSPACE_TOO_SMALL 4
#define LEHR_UNSUPPORTED_CPU 5
#define LEHR_BAD_COUNT 6
#define LEHR_BAD_DTYPE 7
#define LEHR_BAD_SHAPE 8
#define LEHR_BAD_SIZE 9
#define LEHR_MISALIGNED 10
#define LEHR_BUSY 11
#define LEHR_THREADS 12
#define LEHR_FAULT 13
#define LEHR_NO_DRIVER 14
#define LEHR_OLD_DRIVER 15
#define LEHR_NO_DEVICE 16
#define LEHR_DEVICE_MEMORY 17
#define LEHR_DEVICE_CODE 18
#define LEHR_DEVICE 19

/* What `device` returns where there is no GPU's number. */
#define LEHR_ON_CPU (-1)
#define LEHR_NOT_OPEN (-2)

/* An input or output as the model wants it. */
struct lehr_tensor_spec {
  const char *name;
  uint32_t dtype;
  uint32_t rank;
  const int64_t *dims;
  uint64_t bytes;
};

/* An input or output as the caller passes it: dense, row-major, aligned to its element. */
struct lehr_tensor {
  void *data;
  uint32_t dtype;
  uint32_t rank;
  const int64_t *dims;
  uint64_t bytes;
};

/* A compiled model. All of it is constant; everything that changes is in a workspace, so one model may be opened on any number
   of workspaces and run on all of them at once. */
struct lehr_model {
  uint64_t magic;
  uint32_t abi_version;
  uint32_t struct_bytes;
  const char *name;
  const char *producer;
  const char *target;
  uint32_t n_inputs;
  uint32_t n_outputs;
  const struct lehr_tensor_spec *inputs;
  const struct lehr_tensor_spec *outputs;
  uint64_t arena_bytes;
  uint64_t weights_bytes;
  const void *weights;
  uint64_t isa_required;
  uint32_t n_faults;
  uint32_t reserved;
  const char *const *faults;
  const char *metadata; /* JSON */
  uint64_t metadata_bytes;
  /* Bytes of workspace for so many threads; 0 threads: as many as the process may use. */
  uint64_t (*workspace_bytes)(const struct lehr_model *model, uint32_t threads);
  /* Starts a 64-byte aligned workspace: checks it and the CPU, and starts threads - 1 threads. */
  int32_t (*open)(const struct lehr_model *model, void *workspace, uint64_t bytes, uint32_t threads);
  /* One inference. Allocates nothing; a second call on the same workspace at the same time gets LEHR_BUSY. */
  int32_t (*run)(const struct lehr_model *model, void *workspace, const struct lehr_tensor *inputs, uint32_t n_inputs,
                 const struct lehr_tensor *outputs, uint32_t n_outputs);
  /* Ends the threads; the memory is the caller's again. */
  int32_t (*close)(const struct lehr_model *model, void *workspace);
  /* What was wrong with the last call on this workspace; never null. Not for a workspace of under 64 bytes. */
  const char *(*last_error)(const void *workspace);
  /* What a status means; never null. */
  const char *(*status_text)(int32_t status);
  void (*main)(const void *context); /* Not for callers. */
  const void *gpu;                   /* Not for callers; NULL for a model that is for the CPU alone. */

  /* What follows is for models for NVIDIA GPUs; others have it, too. `open` takes the GPU of the thread's current context, or
     else the first that can run the model, loads the code and uploads the weights; each workspace has its own. `run` takes
     pointers to host memory (pinned or not) and to that GPU's, mixed as you like, and waits. Managed memory counts as the host's.
     `run` works after what is in the legacy default stream, also in programs that were compiled for a default stream per thread.
     It does not wait for other streams, that one included: if tensors come from one, give it to run_on, or wait for it before.
     No call disturbs a capture that another stream or thread is in the middle of, or is disturbed by it.
     A workspace holds memory of the GPU until `close`. */

  /* Like `run`, in the order of a stream: a CUstream or cudaStream_t of the GPU's primary context. NULL and 1 are the legacy
     default stream (whatever NULL means to the program's own calls), 2 is the thread's own default stream.
     With host memory among the tensors it waits; with none it returns when the work is in the stream. Runs of a workspace follow
     one another, whatever their streams. A stream that is being captured is refused (LEHR_DEVICE), and its capture goes on: a
     run is a graph by itself. On the CPU, stream must be NULL. */
  int32_t (*run_on)(const struct lehr_model *model, void *workspace, const struct lehr_tensor *inputs, uint32_t n_inputs,
                    const struct lehr_tensor *outputs, uint32_t n_outputs, void *stream);
  /* Waits for the runs that run_on has not waited for. LEHR_FAULT if the data of one of them made an operator fail; otherwise the
     next call that waits says so. A call that fails with LEHR_DEVICE may take the fault of a run before it along. */
  int32_t (*wait)(const struct lehr_model *model, void *workspace);
  /* What an open workspace's runs are computed on, and why, if the CPU stands in for a GPU: text for people; never null. As
     last_error, not for a workspace of under 64 bytes. */
  const char *(*runs_on)(const void *workspace);
  /* The same as a number: the GPU's, as CUDA counts them, or LEHR_ON_CPU, or LEHR_NOT_OPEN. */
  int32_t (*device)(const void *workspace);
};

#ifdef __cplusplus
}
#endif
#endif
