/* Pi by random points in doubles. */
#include "runtime.h"

#define POINTS 5000u

uint32_t guest_main(const uint8_t *input, uint32_t length)
{
    struct job job = job_parse(input, length);
    uint32_t state = random_start(job.seed);
    uint32_t inside = 0;
    for (uint32_t i = 0; i < POINTS * job.repeat; i++) {
        double x = (double)(int32_t)random_next(&state) * 0x1p-31;
        double y = (double)(int32_t)random_next(&state) * 0x1p-31;
        if (x * x + y * y < 1.0)
            inside++;
    }
    return inside;
}
