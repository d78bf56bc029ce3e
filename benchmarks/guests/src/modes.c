/* One of four loops, chosen by the seed, for as long as the program runs: neighbouring lanes have nothing in common,
 * but one lane in four does the same. */
#include "runtime.h"

#define WORDS 64u
#define TURNS 150u

static uint32_t words[WORDS];

/* A linear congruential generator, folded into a checksum by multiplication. */
static NOINLINE uint32_t hash_words(uint32_t result)
{
    for (uint32_t turn = 0; turn < TURNS; turn++)
        for (uint32_t i = 0; i < WORDS; i++) {
            words[i] = words[i] * 1664525u + 1013904223u;
            result = mix(result, words[i]);
        }
    return result;
}

/* Each word with its neighbours, rotated. */
static NOINLINE uint32_t stir_words(uint32_t result)
{
    for (uint32_t turn = 0; turn < TURNS; turn++)
        for (uint32_t i = 0; i < WORDS; i++) {
            uint32_t sum = words[i] + words[(i + 1u) % WORDS];
            words[i] = (sum << 7 | sum >> 25) ^ words[(i + 9u) % WORDS];
            result += words[i];
        }
    return result;
}

/* A low pass in fixed point over the upper halves. */
static NOINLINE uint32_t filter_words(uint32_t result)
{
    uint32_t state = result >> 16;
    for (uint32_t turn = 0; turn < TURNS; turn++)
        for (uint32_t i = 0; i < WORDS; i++) {
            state = (state * 52429u + (words[i] >> 16) * 13107u) >> 16;
            words[i] += state + turn;
            result ^= state;
        }
    return result;
}

/* CRC-32 by four bits at a time, without a table. */
static NOINLINE uint32_t check_words(uint32_t result)
{
    for (uint32_t turn = 0; turn < TURNS / 2u; turn++)
        for (uint32_t i = 0; i < WORDS; i++) {
            result ^= words[i];
            for (uint32_t bit = 0; bit < 4u; bit++)
                result = result >> 1 ^ (0xedb88320u & -(result & 1u));
            words[i] ^= result;
        }
    return result;
}

uint32_t guest_main(const uint8_t *input, uint32_t length)
{
    struct job job = job_parse(input, length);
    uint32_t state = random_start(job.seed);
    uint32_t result = 0;
    for (uint32_t i = 0; i < WORDS; i++)
        words[i] = random_next(&state);
    switch (job.seed % 4u) {
    case 0:
        for (uint32_t round = 0; round < job.repeat; round++)
            result = hash_words(result);
        break;
    case 1:
        for (uint32_t round = 0; round < job.repeat; round++)
            result = stir_words(result);
        break;
    case 2:
        for (uint32_t round = 0; round < job.repeat; round++)
            result = filter_words(result);
        break;
    default:
        for (uint32_t round = 0; round < job.repeat; round++)
            result = check_words(result);
        break;
    }
    return result;
}
