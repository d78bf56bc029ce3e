/* How long the Collatz sequences of random numbers are: a short loop that every lane leaves after a time of its own. */
#include "runtime.h"

#define NUMBERS 150u

/* Below 2^16 no sequence exceeds 32 bits. */
static NOINLINE uint32_t steps_to_one(uint32_t number)
{
    uint32_t steps = 0;
    while (number > 1u) {
        number = number & 1u ? 3u * number + 1u : number / 2u;
        steps++;
    }
    return steps;
}

uint32_t guest_main(const uint8_t *input, uint32_t length)
{
    struct job job = job_parse(input, length);
    uint32_t state = random_start(job.seed);
    uint32_t result = 0;
    for (uint32_t round = 0; round < job.repeat; round++)
        for (uint32_t i = 0; i < NUMBERS; i++)
            result = mix(result, steps_to_one(random_next(&state) >> 16));
    return result;
}
