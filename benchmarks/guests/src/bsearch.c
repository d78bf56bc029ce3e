/* Binary search in a sorted table: half of what is looked for is in it. */
#include "runtime.h"

#define ENTRIES 1024u
#define SEARCHES 800u

static uint32_t table[ENTRIES];

/* The entry's index, or the complement of where it would be inserted. */
static NOINLINE uint32_t search(uint32_t key)
{
    uint32_t low = 0, high = ENTRIES;
    while (low < high) {
        uint32_t middle = (low + high) / 2u;
        uint32_t found = table[middle];
        if (found == key)
            return middle;
        if (found < key)
            low = middle + 1u;
        else
            high = middle;
    }
    return ~low;
}

uint32_t guest_main(const uint8_t *input, uint32_t length)
{
    struct job job = job_parse(input, length);
    uint32_t state = random_start(job.seed);
    uint32_t result = 0;
    for (uint32_t round = 0; round < job.repeat; round++) {
        uint32_t last = 0;
        for (uint32_t i = 0; i < ENTRIES; i++)
            table[i] = last += 1u + (random_next(&state) >> 11);
        for (uint32_t i = 0; i < SEARCHES; i++) {
            uint32_t bits = random_next(&state);
            uint32_t key = bits & 1u ? table[bits >> 22] : bits >> 1;
            result = mix(result, search(key));
        }
    }
    return result;
}
