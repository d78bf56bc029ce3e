/* Decompression of LZ4 blocks: literals and matches of random lengths, copied byte by byte with every bound checked. */
#include "runtime.h"

#define PLAIN 4096u
#define PACKED 3072u
#define GENERATED (PLAIN - 80u)    /* beyond either of these only literals are added, once */
#define GENERATED_PACKED (PACKED - 80u)
#define SHORTEST_MATCH 4u

static uint8_t plain[PLAIN], packed[PACKED];

/* ---- generator ---- */

static inline uint32_t put_length(uint32_t at, uint32_t length)
{
    if (length < 15u)
        return at;
    for (length -= 15u; length >= 255u; length -= 255u)
        packed[at++] = 255u;
    packed[at++] = (uint8_t)length;
    return at;
}

static inline uint32_t nibble(uint32_t length)
{
    return length < 15u ? length : 15u;
}

/* A block of sequences, the last of which has no match. Returns its length. */
static NOINLINE uint32_t generate(uint32_t *state)
{
    uint32_t at = 0, produced = 0;
    for (;;) {
        uint32_t bits = random_next(state);
        uint32_t literals = 1u + (bits & (bits & 0x700u ? 7u : 31u));
        int last = produced >= GENERATED || at >= GENERATED_PACKED;
        uint32_t match = last ? 0u : bits >> 11 & (bits & 0x7000000u ? 15u : 511u);
        if (!last && produced + literals + match + SHORTEST_MATCH > GENERATED)
            match = 0u;
        packed[at++] = (uint8_t)(nibble(literals) << 4 | nibble(match));
        at = put_length(at, literals);
        for (uint32_t i = 0; i < literals; i++)
            packed[at++] = (uint8_t)(random_next(state) >> 24);
        produced += literals;
        if (last)
            return at;
        uint32_t offset = 1u + random_next(state) % produced;
        packed[at++] = (uint8_t)offset;
        packed[at++] = (uint8_t)(offset >> 8);
        at = put_length(at, match);
        produced += match + SHORTEST_MATCH;
    }
}

/* ---- decompression ---- */

/* The rest of a length whose nibble was 15. */
static inline uint32_t get_length(const uint8_t **from, const uint8_t *end)
{
    uint32_t length = 0;
    while (*from < end) {
        uint8_t byte = *(*from)++;
        length += byte;
        if (byte != 255u)
            break;
    }
    return length;
}

/* The number of bytes it gives, 0 for a block that is damaged. */
static NOINLINE uint32_t decompress(const uint8_t *from, uint32_t length)
{
    const uint8_t *end = from + length;
    uint32_t at = 0;
    while (from < end) {
        uint32_t token = *from++;
        uint32_t literals = token >> 4;
        if (literals == 15u)
            literals += get_length(&from, end);
        if (literals > (uint32_t)(end - from) || literals > PLAIN - at)
            return 0;
        for (; literals != 0u; literals--)
            plain[at++] = *from++;
        if (from == end)
            return at;
        if (end - from < 2)
            return 0;
        uint32_t offset = from[0] | (uint32_t)from[1] << 8;
        from += 2;
        uint32_t match = token & 15u;
        if (match == 15u)
            match += get_length(&from, end);
        match += SHORTEST_MATCH;
        if (offset == 0u || offset > at || match > PLAIN - at)
            return 0;
        for (; match != 0u; match--, at++)
            plain[at] = plain[at - offset];
    }
    return 0;
}

/* The result is a hash of all that was decompressed. */
uint32_t guest_main(const uint8_t *input, uint32_t length)
{
    struct job job = job_parse(input, length);
    uint32_t state = random_start(job.seed);
    uint32_t result = 0;
    for (uint32_t round = 0; round < job.repeat; round++) {
        uint32_t size = decompress(packed, generate(&state));
        result = mix(result, size);
        for (uint32_t i = 0; i < size; i++)
            result = mix(result, plain[i]);
    }
    return result;
}
