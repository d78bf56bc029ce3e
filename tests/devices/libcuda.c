// A library in the place of libcuda.so.1: every function hands its name and its arguments to one handler.
#include <stdint.h>
#include <string.h>

typedef int (*handler_t)(const char *name, uint64_t *arguments);
static handler_t handler;

void set_handler(handler_t given) { handler = given; }

// Arguments beyond those of the function are whatever lies there; the handler does not look at them.
#define FUNCTION(name)                                                                                         \
    int name(uint64_t a, uint64_t b, uint64_t c, uint64_t d, uint64_t e, uint64_t f, uint64_t g, uint64_t h,   \
             uint64_t i, uint64_t j, uint64_t k) {                                                             \
        uint64_t arguments[] = {a, b, c, d, e, f, g, h, i, j, k};                                              \
        return handler(#name, arguments);                                                                      \
    }

#define ALL(X)                                                                                                 \
    X(cuInit) X(cuDriverGetVersion) X(cuDeviceGetCount) X(cuDeviceGet) X(cuDeviceGetName)                      \
    X(cuDeviceGetAttribute) X(cuDeviceTotalMem) X(cuDevicePrimaryCtxRetain) X(cuCtxPushCurrent)                \
    X(cuCtxPopCurrent) X(cuMemGetInfo) X(cuMemAlloc) X(cuMemFree) X(cuMemsetD8Async) X(cuMemcpyHtoDAsync)      \
    X(cuMemcpyDtoHAsync) X(cuMemcpy2DAsync) X(cuModuleLoadDataEx) X(cuModuleUnload) X(cuModuleGetFunction)     \
    X(cuFuncGetAttribute) X(cuOccupancyMaxActiveBlocksPerMultiprocessor) X(cuLaunchKernel) X(cuStreamCreate)   \
    X(cuStreamSynchronize) X(cuGetErrorName) X(cuGetErrorString)

ALL(FUNCTION)

#define ROW(name) {#name, (void *)name},
static const struct { const char *name; void *function; } table[] = {ALL(ROW)};

int cuGetProcAddress_v2(const char *symbol, void **function, int version, uint64_t flags, int *status) {
    for (unsigned n = 0; n < sizeof table / sizeof *table; n++)
        if (!strcmp(symbol, table[n].name)) {
            *function = table[n].function;
            if (status) *status = 0;
            return 0;
        }
    *function = 0;
    if (status) *status = 1;
    return 500; // CUDA_ERROR_NOT_FOUND
}

int cuGetProcAddress(const char *symbol, void **function, int version, uint64_t flags) {
    return cuGetProcAddress_v2(symbol, function, version, flags, 0);
}
