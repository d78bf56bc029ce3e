/* ChaCha20 (RFC 8439): encrypts generated blocks under a key and a nonce from the seed. */
#include "runtime.h"

#define BLOCKS 40u

static uint32_t key_state[16], stream[16];

static inline uint32_t rotate(uint32_t value, unsigned by)
{
    return value << by | value >> (32u - by);
}

static inline void quarter_round(uint32_t *a, uint32_t *b, uint32_t *c, uint32_t *d)
{
    *a += *b;
    *d = rotate(*d ^ *a, 16);
    *c += *d;
    *b = rotate(*b ^ *c, 12);
    *a += *b;
    *d = rotate(*d ^ *a, 8);
    *c += *d;
    *b = rotate(*b ^ *c, 7);
}

static NOINLINE void next_block(void)
{
    uint32_t x[16];
    for (unsigned i = 0; i < 16; i++)
        x[i] = key_state[i];
    for (unsigned i = 0; i < 10; i++) {
        quarter_round(&x[0], &x[4], &x[8], &x[12]);
        quarter_round(&x[1], &x[5], &x[9], &x[13]);
        quarter_round(&x[2], &x[6], &x[10], &x[14]);
        quarter_round(&x[3], &x[7], &x[11], &x[15]);
        quarter_round(&x[0], &x[5], &x[10], &x[15]);
        quarter_round(&x[1], &x[6], &x[11], &x[12]);
        quarter_round(&x[2], &x[7], &x[8], &x[13]);
        quarter_round(&x[3], &x[4], &x[9], &x[14]);
    }
    for (unsigned i = 0; i < 16; i++)
        stream[i] = x[i] + key_state[i];
    key_state[12]++;
}

/* Per repeat one message with a key and a nonce of its own; the result is a hash of the encrypted words. */
uint32_t guest_main(const uint8_t *input, uint32_t length)
{
    static const uint32_t constants[4] = {0x61707865u, 0x3320646eu, 0x79622d32u, 0x6b206574u};
    struct job job = job_parse(input, length);
    uint32_t state = random_start(job.seed);
    uint32_t result = 0;
    for (uint32_t round = 0; round < job.repeat; round++) {
        for (unsigned i = 0; i < 16; i++)
            key_state[i] = i < 4 ? constants[i] : i == 12 ? 1u : random_next(&state);
        for (uint32_t block = 0; block < BLOCKS; block++) {
            next_block();
            for (unsigned i = 0; i < 16; i++)
                result = mix(result, random_next(&state) ^ stream[i]);
        }
    }
    return result;
}
