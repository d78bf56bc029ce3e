/* SipHash-2-4: a keyed hash in 64-bit arithmetic, which rv32 does in pairs of registers. */
#include "runtime.h"

#define WORDS 100u
#define MESSAGES 8u

static uint64_t message[WORDS];

static inline uint64_t random_next64(uint32_t *state)
{
    uint64_t low = random_next(state);
    return low | (uint64_t)random_next(state) << 32;
}

static inline uint64_t rotate(uint64_t value, unsigned by)
{
    return value << by | value >> (64u - by);
}

static inline void sip_round(uint64_t v[4])
{
    v[0] += v[1];
    v[2] += v[3];
    v[1] = rotate(v[1], 13) ^ v[0];
    v[3] = rotate(v[3], 16) ^ v[2];
    v[0] = rotate(v[0], 32);
    v[2] += v[1];
    v[0] += v[3];
    v[1] = rotate(v[1], 17) ^ v[2];
    v[3] = rotate(v[3], 21) ^ v[0];
    v[2] = rotate(v[2], 32);
}

static NOINLINE uint64_t siphash(uint64_t key0, uint64_t key1, const uint64_t *words, uint32_t count)
{
    uint64_t v[4] = {key0 ^ 0x736f6d6570736575u, key1 ^ 0x646f72616e646f6du, key0 ^ 0x6c7967656e657261u,
                     key1 ^ 0x7465646279746573u};
    for (uint32_t i = 0; i <= count; i++) {
        uint64_t word = i < count ? words[i] : (uint64_t)count << 59; /* last, the number of bytes modulo 256 */
        v[3] ^= word;
        sip_round(v);
        sip_round(v);
        v[0] ^= word;
    }
    v[2] ^= 0xffu;
    for (unsigned i = 0; i < 4; i++)
        sip_round(v);
    return v[0] ^ v[1] ^ v[2] ^ v[3];
}

uint32_t guest_main(const uint8_t *input, uint32_t length)
{
    struct job job = job_parse(input, length);
    uint32_t state = random_start(job.seed);
    uint32_t result = 0;
    for (uint32_t round = 0; round < job.repeat; round++) {
        uint64_t key0 = random_next64(&state), key1 = random_next64(&state);
        for (uint32_t i = 0; i < MESSAGES; i++) {
            for (uint32_t j = 0; j < WORDS; j++)
                message[j] = random_next64(&state);
            uint64_t hash = siphash(key0, key1, message, WORDS);
            result = mix(mix(result, (uint32_t)hash), (uint32_t)(hash >> 32));
        }
    }
    return result;
}
