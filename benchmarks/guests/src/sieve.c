/* Sieve of Eratosthenes of a window of numbers whose place comes from the seed (so it also divides). */
#include "runtime.h"

#define ROOT 2048u /* the windows lie below ROOT squared */
#define WINDOW 4096u
#define WINDOWS 1u

static uint8_t small[ROOT];
static uint8_t window[WINDOW];

static NOINLINE void sieve_small(void)
{
    for (uint32_t i = 0; i < ROOT; i++)
        small[i] = i >= 2u;
    for (uint32_t i = 2; i * i < ROOT; i++)
        if (small[i])
            for (uint32_t j = i * i; j < ROOT; j += i)
                small[j] = 0;
}

static NOINLINE void sieve_window(uint32_t base)
{
    for (uint32_t i = 0; i < WINDOW; i++)
        window[i] = 1;
    for (uint32_t prime = 2; prime < ROOT && prime * prime < base + WINDOW; prime++) {
        if (!small[prime])
            continue;
        uint32_t first = prime * prime;
        if (first < base) {
            uint32_t rest = base % prime;
            first = rest != 0u ? base + prime - rest : base;
        }
        for (uint32_t i = first - base; i < WINDOW; i += prime)
            window[i] = 0;
    }
}

uint32_t guest_main(const uint8_t *input, uint32_t length)
{
    struct job job = job_parse(input, length);
    uint32_t state = random_start(job.seed);
    uint32_t result = 0;
    for (uint32_t round = 0; round < job.repeat; round++) {
        sieve_small();
        for (unsigned i = 0; i < WINDOWS; i++) {
            uint32_t base = 2u + random_next(&state) % (ROOT * ROOT - WINDOW - 2u);
            sieve_window(base);
            uint32_t count = 0, last = 0;
            for (uint32_t j = 0; j < WINDOW; j++)
                if (window[j]) {
                    count++;
                    last = base + j;
                }
            result = mix(mix(result, count), last);
        }
    }
    return result;
}
