/* Product of two square matrices of doubles. */
#include "runtime.h"

#define SIZE 24u

static double left[SIZE][SIZE], right[SIZE][SIZE], product[SIZE][SIZE];

static NOINLINE void fill(double matrix[SIZE][SIZE], uint32_t *state)
{
    for (unsigned i = 0; i < SIZE; i++)
        for (unsigned j = 0; j < SIZE; j++)
            matrix[i][j] = (double)(int32_t)random_next(state) * 0x1p-31;
}

static NOINLINE void multiply(void)
{
    for (unsigned i = 0; i < SIZE; i++)
        for (unsigned j = 0; j < SIZE; j++) {
            double sum = 0.0;
            for (unsigned k = 0; k < SIZE; k++)
                sum += left[i][k] * right[k][j];
            product[i][j] = sum;
        }
}

uint32_t guest_main(const uint8_t *input, uint32_t length)
{
    struct job job = job_parse(input, length);
    uint32_t state = random_start(job.seed);
    uint32_t result = 0;
    for (uint32_t round = 0; round < job.repeat; round++) {
        fill(left, &state);
        fill(right, &state);
        multiply();
        for (unsigned i = 0; i < SIZE; i++)
            for (unsigned j = 0; j < SIZE; j++)
                result = mix(result, (uint32_t)(int32_t)(product[i][j] * 1048576.0));
    }
    return result;
}
