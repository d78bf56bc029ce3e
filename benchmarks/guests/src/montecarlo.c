/* Estimates pi: the share of random points of a square that lie in the quarter circle, in 32-bit integers. */
#include "runtime.h"

#define SAMPLES 8192u

static NOINLINE uint32_t count_inside(uint32_t *state)
{
    uint32_t inside = 0;
    for (uint32_t i = 0; i < SAMPLES; i++) {
        uint32_t bits = random_next(state);
        uint32_t x = bits & 0x7fffu, y = bits >> 17;
        if (x * x + y * y < 0x40000000u)
            inside++;
    }
    return inside;
}

/* The result is the number of points inside: pi is about 4 * result / (8192 * repeat). */
uint32_t guest_main(const uint8_t *input, uint32_t length)
{
    struct job job = job_parse(input, length);
    uint32_t state = random_start(job.seed);
    uint32_t inside = 0;
    for (uint32_t round = 0; round < job.repeat; round++)
        inside += count_inside(&state);
    return inside;
}
