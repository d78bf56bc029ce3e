/* Product of two square matrices of 32-bit integers (wrapping). */
#include "runtime.h"

#define SIZE 24u

static uint32_t left[SIZE][SIZE], right[SIZE][SIZE], product[SIZE][SIZE];

static NOINLINE void fill(uint32_t matrix[SIZE][SIZE], uint32_t *state)
{
    for (unsigned i = 0; i < SIZE; i++)
        for (unsigned j = 0; j < SIZE; j++)
            matrix[i][j] = random_next(state);
}

static NOINLINE void multiply(void)
{
    for (unsigned i = 0; i < SIZE; i++)
        for (unsigned j = 0; j < SIZE; j++) {
            uint32_t sum = 0;
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
                result = mix(result, product[i][j]);
    }
    return result;
}
