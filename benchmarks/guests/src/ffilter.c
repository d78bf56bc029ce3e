/* A low pass of eighth order in single precision: four sections, direct form II transposed. */
#include "runtime.h"

#define SAMPLES 1200u
#define SECTIONS 4u

static const float coefficients[SECTIONS][5] = {
    {0.0201f, 0.0402f, 0.0201f, -1.5610f, 0.6414f},
    {0.0675f, 0.1349f, 0.0675f, -1.1430f, 0.4128f},
    {0.2066f, 0.4131f, 0.2066f, -0.3695f, 0.1958f},
    {0.0976f, 0.1953f, 0.0976f, -0.9428f, 0.3333f},
};
static float memory[SECTIONS][2];

static NOINLINE float filter(float sample)
{
    for (unsigned i = 0; i < SECTIONS; i++) {
        const float *c = coefficients[i];
        float out = c[0] * sample + memory[i][0];
        memory[i][0] = c[1] * sample - c[3] * out + memory[i][1];
        memory[i][1] = c[2] * sample - c[4] * out;
        sample = out;
    }
    return sample;
}

uint32_t guest_main(const uint8_t *input, uint32_t length)
{
    struct job job = job_parse(input, length);
    uint32_t state = random_start(job.seed);
    uint32_t result = 0;
    for (uint32_t round = 0; round < job.repeat; round++) {
        for (unsigned i = 0; i < SECTIONS; i++)
            memory[i][0] = memory[i][1] = 0.0f;
        float sum = 0.0f;
        for (unsigned i = 0; i < SAMPLES; i++)
            sum += filter((float)(int32_t)random_next(&state) * 0x1p-31f);
        result = mix(result, (uint32_t)(int32_t)(sum * 65536.0f));
    }
    return result;
}
