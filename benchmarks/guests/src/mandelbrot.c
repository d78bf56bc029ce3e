/* The Mandelbrot set: how soon points around the seed's place escape. */
#include "runtime.h"

#define POINTS 160u
#define LIMIT 60u

static NOINLINE uint32_t escape(double cx, double cy)
{
    double x = 0.0, y = 0.0;
    uint32_t count = 0;
    while (count < LIMIT) {
        double xx = x * x, yy = y * y;
        if (xx + yy > 4.0)
            break;
        y = 2.0 * x * y + cy;
        x = xx - yy + cx;
        count++;
    }
    return count;
}

uint32_t guest_main(const uint8_t *input, uint32_t length)
{
    struct job job = job_parse(input, length);
    uint32_t state = random_start(job.seed);
    uint32_t result = 0;
    for (uint32_t round = 0; round < job.repeat; round++)
        for (unsigned i = 0; i < POINTS; i++) {
            double x = (double)(int32_t)random_next(&state) * 0x1p-31 * 1.5 - 0.5;
            double y = (double)(int32_t)random_next(&state) * 0x1p-31;
            result = mix(result, escape(x, y));
        }
    return result;
}
