/* Monte-Carlo simulation of the Ising model at its critical point: random places of a private 8 KiB lattice. */
#include "runtime.h"

#define WIDTH 128u
#define HEIGHT 64u
#define SITES (WIDTH * HEIGHT)
#define STEPS 2000u

static uint8_t spins[SITES]; /* 0 or 1 */

/* exp of minus the energy of a flip, times 2^32, by how many of the four neighbours have the same spin. */
static const uint32_t acceptance[5] = {0xffffffffu, 0xffffffffu, 0xffffffffu, 0x2bec3330u, 0x07893321u};

static NOINLINE void fill(uint32_t *state)
{
    for (uint32_t i = 0; i < SITES; i += 8u) {
        uint32_t bits = random_next(state);
        for (uint32_t j = 0; j < 8u; j++)
            spins[i + j] = (uint8_t)(bits >> (4u * j) & 1u);
    }
}

/* One Metropolis step; the lattice's edges are joined. */
static inline void step(uint32_t *state)
{
    uint32_t site = random_next(state) >> 19;
    uint32_t row = site & ~(WIDTH - 1u);
    uint32_t neighbours = spins[(site - WIDTH) % SITES] + (uint32_t)spins[(site + WIDTH) % SITES]
                          + spins[row | (site - 1u) % WIDTH] + spins[row | (site + 1u) % WIDTH];
    uint32_t same = spins[site] ? neighbours : 4u - neighbours;
    if (random_next(state) <= acceptance[same])
        spins[site] ^= 1u;
}

/* The result is a hash of the numbers of spins that are up after each of the repeats. */
uint32_t guest_main(const uint8_t *input, uint32_t length)
{
    struct job job = job_parse(input, length);
    uint32_t state = random_start(job.seed);
    uint32_t result = 0;
    for (uint32_t round = 0; round < job.repeat; round++) {
        fill(&state);
        for (uint32_t i = 0; i < STEPS; i++)
            step(&state);
        uint32_t up = 0;
        for (uint32_t i = 0; i < SITES; i++)
            up += spins[i];
        result = mix(result, up);
    }
    return result;
}
