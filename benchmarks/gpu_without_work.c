/* The stand-in of a GPU (tests/gpu_stand_in.c), whose kernels are launched and do nothing.

   Its memory is a range of addresses that nothing may read or write. So PyTorch's own caching
   allocator gives and takes memory as on a GPU, in streams, blocks and segments, and what is
   computed has no content: what the host reads of it are zeros. */

#define cudaDeviceGetAttribute of_a_smaller_one
#define cudaMalloc of_the_host
#define cudaFree of_the_host_again
#define cudaMemcpyAsync copied_on_the_host
#define cudaMemsetAsync set_on_the_host
#define cudaMemGetInfo info_of_the_host
#define cudaPointerGetAttributes unknown
#define cudaLaunchKernel refused
#define __cudaLaunchKernel refused_too
#define cudaLaunchKernelExC refused_as_well
#include "../tests/gpu_stand_in.c"
#undef cudaDeviceGetAttribute
#undef cudaMalloc
#undef cudaFree
#undef cudaMemcpyAsync
#undef cudaMemsetAsync
#undef cudaMemGetInfo
#undef cudaPointerGetAttributes
#undef cudaLaunchKernel
#undef __cudaLaunchKernel
#undef cudaLaunchKernelExC
#include <sys/mman.h>

/* Memory is never given back: 64 TiB of addresses are more than a step asks for. */
static const size_t MEMORY = 64UL << 40, SEGMENT = 2 << 20;
static char *memory, *end;

static int is_its(const void *place) {
    return memory && (char *)place >= memory && (char *)place < memory + MEMORY;
}
CUDA cudaMalloc(void **place, size_t size) {
    if (!memory)
        end = memory =
            mmap(0, MEMORY, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED || end + size > memory + MEMORY) return OUT_OF_MEMORY;
    *place = end;
    end += (size + SEGMENT - 1) / SEGMENT * SEGMENT;
    return SUCCESS;
}
DONE(cudaFree, void *place)
CUDA cudaMemGetInfo(size_t *left, size_t *all) { *left = *all = MEMORY; return SUCCESS; }
CUDA cudaMemcpyAsync(void *to, const void *from, size_t size, int kind, Handle stream) {
    if (is_its(to)) return SUCCESS;
    if (is_its(from)) memset(to, 0, size);
    else memcpy(to, from, size);
    return SUCCESS;
}
CUDA cudaMemcpy(void *to, const void *from, size_t size, int kind) {
    return cudaMemcpyAsync(to, from, size, kind, 0);
}
CUDA cudaMemsetAsync(void *to, int value, size_t size, Handle stream) {
    if (!is_its(to)) memset(to, value, size);
    return SUCCESS;
}
CUDA cudaMemset(void *to, int value, size_t size) { return cudaMemsetAsync(to, value, size, 0); }

/* cudaDeviceAttr, of an H100: CUB cuts its work by them. */
CUDA cudaDeviceGetAttribute(int *value, int attribute, int device) {
    switch (attribute) {
    case 1: *value = 1024; break;       /* threads of a block */
    case 5: *value = 0x7fffffff; break; /* blocks */
    case 6: case 7: *value = 65535; break;
    case 8: *value = 48 << 10; break;   /* shared memory of a block */
    case 10: *value = 32; break;        /* threads of a warp */
    case 16: *value = 132; break;       /* multiprocessors */
    case 39: *value = 2048; break;      /* threads of each */
    case 75: *value = 9; break;         /* compute capability */
    case 81: case 97: *value = 227 << 10; break;
    default: *value = 0;
    }
    return SUCCESS;
}

/* cudaPointerAttributes: the type, 2 on a GPU, the device, and its places there and on the host. */
typedef struct { int type, device; const void *there, *here; } Place;
CUDA cudaPointerGetAttributes(Place *of, const void *place) {
    of->type = is_its(place) ? 2 : 0;
    of->device = 0;
    of->there = of->here = place;
    return SUCCESS;
}

/* The beginning of cudaFuncAttributes. */
typedef struct { size_t shared, constant, local; int threads, registers, ptx, binary; } Function;
CUDA cudaFuncGetAttributes(Function *of, const void *function) {
    *of = (Function){.threads = 1024, .registers = 32, .ptx = 90, .binary = 90};
    return SUCCESS;
}
CUDA cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(
    int *blocks, const void *function, int threads, size_t shared, unsigned flags
) {
    *blocks = 2;
    return SUCCESS;
}
DONE(cudaLaunchKernel, void)
DONE(__cudaLaunchKernel, void)
DONE(cudaLaunchKernelExC, void)
DONE(cudaFuncSetAttribute, void)
DONE(cudaHostRegister, void)
DONE(cudaHostUnregister, void)
DONE(cudaMemcpyToSymbol, void)
CUDA cudaStreamCreateWithFlags(Handle *stream, unsigned flags) {
    *stream = next();
    return SUCCESS;
}
CUDA cudaEventCreate(Handle *event) { *event = next(); return SUCCESS; }
CUDA cudaStreamGetPriority(Handle stream, int *priority) { *priority = 0; return SUCCESS; }
CUDA cudaGetSymbolAddress(void **place, const void *symbol) { return cudaMalloc(place, SEGMENT); }
CUDA cuCtxGetCurrent(Handle *context) { *context = (Handle)16; return SUCCESS; }
CUDA cuCtxSetCurrent(Handle context) { return SUCCESS; }
CUDA cuDevicePrimaryCtxRetain(Handle *context, int device) { return cuCtxGetCurrent(context); }
CUDA cuModuleLoadData(Handle *made, const void *data) { *made = next(); return SUCCESS; }
CUDA cuModuleGetFunction(Handle *made, Handle of, const char *name) {
    *made = next();
    return SUCCESS;
}
DONE(cuLaunchKernel, void)

/* cuBLAS, which would look for a GPU of its own; PyTorch gives its workspaces. */
#define MADE(name) \
    CUDA name(Handle *made) { *made = next(); return SUCCESS; }
MADE(cublasCreate_v2)
MADE(cublasLtMatmulDescCreate)
MADE(cublasLtMatmulPreferenceCreate)
MADE(cublasLtMatrixLayoutCreate)
CUDA cublasGetMathMode(Handle of, int *mode) { *mode = 0; return SUCCESS; }
CUDA cublasGetPointerMode_v2(Handle of, int *mode) { *mode = 0; return SUCCESS; }
DONE(cublasDestroy_v2, void)
DONE(cublasSetStream_v2, void)
DONE(cublasSetMathMode, void)
DONE(cublasSetPointerMode_v2, void)
DONE(cublasSetSmCountTarget, void)
DONE(cublasSetWorkspace_v2, void)
DONE(cublasDotEx, void)
DONE(cublasSdot_v2, void)
DONE(cublasSgemv_v2, void)
DONE(cublasSgemm_v2, void)
DONE(cublasSgemmEx, void)
DONE(cublasSgemmStridedBatched, void)
DONE(cublasGemmEx, void)
DONE(cublasGemmStridedBatchedEx, void)
DONE(cublasLtMatmul, void)
DONE(cublasLtMatmulDescDestroy, void)
DONE(cublasLtMatmulDescSetAttribute, void)
DONE(cublasLtMatmulPreferenceDestroy, void)
DONE(cublasLtMatmulPreferenceSetAttribute, void)
DONE(cublasLtMatrixLayoutDestroy, void)
DONE(cublasLtMatrixLayoutSetAttribute, void)
CUDA cublasLtMatmulAlgoGetHeuristic(
    Handle handle, Handle of, Handle a, Handle b, Handle c, Handle d, Handle preference, int most,
    void *results, int *found
) {
    enum { RESULT = 96 }; /* bytes of cublasLtMatmulHeuristicResult_t: an algorithm, no workspace */
    memset(results, 0, RESULT);
    *found = 1;
    return SUCCESS;
}
