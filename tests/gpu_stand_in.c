/* A CUDA runtime with one GPU that computes nothing, for LD_PRELOAD on a machine without a GPU.

   PyTorch then takes the ways that it takes with a GPU: streams, events, guards of devices, threads
   of the autograd engine. To launch a kernel is an error, so only fake tensors (FakeTensorMode) can
   be computed with; what is copied to the GPU is in the host's memory.

   Types are plain here: streams and events are pointers, errors and attributes are numbers. */

#include <stdlib.h>
#include <string.h>

enum { SUCCESS = 0, OUT_OF_MEMORY = 2, NOT_SUPPORTED = 801, CAPABILITY_MAJOR = 75 };

#define CUDA __attribute__((visibility("default"))) int
#define DONE(name, ...) \
    CUDA name(__VA_ARGS__) { return SUCCESS; }
typedef void *Handle;

/* The beginning of CUDA 13's cudaDeviceProp; PyTorch has set the rest to 0. */
typedef struct {
    char name[256], uuid[16], luid[8];
    unsigned node_mask;
    size_t memory, shared_memory;
    int registers, warp;
    size_t pitch;
    int threads_per_block, threads[3], grid[3];
    size_t constants;
    int major, minor;
    size_t alignment, pitch_alignment;
    int processors, of_textures[41];
    size_t surface_alignment;
    int kernels[11], threads_per_processor, caches[3];
    size_t shared_memory_per_processor;
    int registers_per_processor;
} Properties;

CUDA cudaGetDeviceProperties(Properties *its, int device) {
    strcpy(its->name, "NVIDIA H100 (stand-in)");
    its->memory = 80ULL << 30;
    its->warp = 32;
    its->threads_per_block = 1024;
    its->major = 9;
    its->grid[0] = 0x7fffffff;
    its->grid[1] = its->grid[2] = 65535;
    its->shared_memory = 48 << 10;
    its->processors = 132;
    its->threads_per_processor = 2048;
    return SUCCESS;
}
CUDA cudaGetDeviceCount(int *count) { *count = 1; return SUCCESS; }
CUDA cudaGetDevice(int *device) { *device = 0; return SUCCESS; }
CUDA cudaDriverGetVersion(int *version) { *version = 13000; return SUCCESS; }
CUDA cudaMemGetInfo(size_t *left, size_t *all) { *left = *all = 80ULL << 30; return SUCCESS; }
CUDA cudaDeviceGetAttribute(int *value, int attribute, int device) {
    *value = attribute == CAPABILITY_MAJOR ? 9 : 0;
    return SUCCESS;
}
CUDA cudaDeviceGetStreamPriorityRange(int *least, int *most) { *least = *most = 0; return SUCCESS; }
CUDA cudaDeviceCanAccessPeer(int *can, int one, int other) { *can = 0; return SUCCESS; }
DONE(cudaSetDevice, int device)
DONE(cudaDeviceSynchronize, void)

/* Streams and events have numbers; all that is put on them is done at once. */
static Handle next(void) {
    static size_t made = 0;
    return (Handle)(++made << 4);
}
CUDA cudaStreamCreateWithPriority(Handle *stream, unsigned flags, int priority) {
    *stream = next();
    return SUCCESS;
}
CUDA cudaEventCreateWithFlags(Handle *event, unsigned flags) { *event = next(); return SUCCESS; }
CUDA cudaEventElapsedTime(float *ms, Handle begin, Handle end) { *ms = 1; return SUCCESS; }
CUDA cudaStreamIsCapturing(Handle stream, int *status) { *status = 0; return SUCCESS; }
CUDA cudaStreamGetCaptureInfo(Handle stream, int *status) { *status = 0; return SUCCESS; }
DONE(cudaThreadExchangeStreamCaptureMode, int *mode)
DONE(cudaStreamDestroy, Handle stream)
DONE(cudaStreamQuery, Handle stream)
DONE(cudaStreamSynchronize, Handle stream)
DONE(cudaStreamWaitEvent, Handle stream, Handle event, unsigned flags)
DONE(cudaEventDestroy, Handle event)
DONE(cudaEventQuery, Handle event)
DONE(cudaEventRecord, Handle event, Handle stream)
DONE(cudaEventRecordWithFlags, Handle event, Handle stream, unsigned flags)
DONE(cudaEventSynchronize, Handle event)

CUDA cudaMalloc(void **place, size_t size) {
    *place = aligned_alloc(512, (size + 511) / 512 * 512);
    return *place ? SUCCESS : OUT_OF_MEMORY;
}
CUDA cudaFree(void *place) { free(place); return SUCCESS; }
CUDA cudaHostAlloc(void **place, size_t size, unsigned flags) { return cudaMalloc(place, size); }
CUDA cudaPointerGetAttributes(int *attributes, const void *place) {
    *attributes = 0; /* of memory that CUDA does not know */
    return SUCCESS;
}
CUDA cudaFreeHost(void *place) { return cudaFree(place); }
CUDA cudaMemcpyAsync(void *to, const void *from, size_t size, int kind, Handle stream) {
    memcpy(to, from, size);
    return SUCCESS;
}
CUDA cudaMemsetAsync(void *to, int value, size_t size, Handle stream) {
    memset(to, value, size);
    return SUCCESS;
}

static __thread int last = SUCCESS;
CUDA cudaPeekAtLastError(void) { return last; }
CUDA cudaGetLastError(void) {
    int error = last;
    last = SUCCESS;
    return error;
}
CUDA cudaLaunchKernel(void) { return last = NOT_SUPPORTED; }
CUDA __cudaLaunchKernel(void) { return last = NOT_SUPPORTED; }
CUDA cudaLaunchKernelExC(void) { return last = NOT_SUPPORTED; }

/* The driver, as a library of its own name and as functions by name: its context is there, and
   whatever else is asked of it succeeds. */
CUDA cuDevicePrimaryCtxGetState(int device, unsigned *flags, int *active) {
    *flags = 0;
    *active = 1;
    return SUCCESS;
}
static int succeed(void) { return SUCCESS; }
CUDA cudaGetDriverEntryPointByVersion(
    const char *name, void **function, unsigned version, unsigned long long flags, int *status
) {
    *function = strcmp(name, "cuDevicePrimaryCtxGetState") ? (void *)succeed
                                                           : (void *)cuDevicePrimaryCtxGetState;
    if (status) *status = SUCCESS;
    return SUCCESS;
}
