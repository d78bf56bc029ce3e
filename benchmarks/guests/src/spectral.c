/* The spectral norm of an infinite matrix's corner: products with a matrix whose elements are divisions. */
#include "runtime.h"

#define SIZE 24u

static double u[SIZE], v[SIZE], w[SIZE];

static inline double element(uint32_t i, uint32_t j)
{
    return 1.0 / (double)(int32_t)((i + j) * (i + j + 1u) / 2u + i + 1u);
}

static NOINLINE void times(const double *in, double *out, int transposed)
{
    for (uint32_t i = 0; i < SIZE; i++) {
        double sum = 0.0;
        for (uint32_t j = 0; j < SIZE; j++)
            sum += (transposed ? element(j, i) : element(i, j)) * in[j];
        out[i] = sum;
    }
}

uint32_t guest_main(const uint8_t *input, uint32_t length)
{
    struct job job = job_parse(input, length);
    uint32_t state = random_start(job.seed);
    uint32_t result = 0;
    for (uint32_t round = 0; round < job.repeat; round++) {
        for (unsigned i = 0; i < SIZE; i++)
            u[i] = 1.0 + (double)(int32_t)(random_next(&state) >> 8) * 0x1p-24;
        for (unsigned i = 0; i < 6; i++) {
            times(u, w, 0);
            times(w, v, 1);
            for (unsigned k = 0; k < SIZE; k++)
                u[k] = v[k] * 0.6;
        }
        for (unsigned i = 0; i < SIZE; i++)
            result = mix(result, (uint32_t)(int32_t)(u[i] * 1048576.0));
    }
    return result;
}
