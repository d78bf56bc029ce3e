/* A reader of comma-separated values (RFC 4180), byte by byte: quoted fields, doubled quotes, decimal numbers.
 *
 * It reads the payload once per repeat; without one, a fresh text is generated from the seed for every repeat.
 */
#include "runtime.h"

#define TEXT_CAPACITY 3072u
#define TEXT_TARGET 2900u /* no line is begun beyond it; a line has at most 100 bytes */

static uint8_t text[TEXT_CAPACITY];

/* ---- generator ---- */

static NOINLINE uint32_t put_digits(uint32_t at, uint32_t value, unsigned least)
{
    uint8_t digits[10];
    unsigned count = 0;
    do {
        digits[count++] = (uint8_t)('0' + value % 10u);
        value /= 10u;
    } while (value != 0u || count < least);
    while (count != 0u)
        text[at++] = digits[--count];
    return at;
}

static NOINLINE uint32_t put_quoted(uint32_t at, uint32_t length, uint32_t *state)
{
    static const char letters[] = "abcdefghijklmnopqrstuvwxyz .,\"\"\n";
    text[at++] = '"';
    for (; length != 0u; length--) {
        uint8_t letter = (uint8_t)letters[random_next(state) >> 27];
        if (letter == '"')
            text[at++] = letter;
        text[at++] = letter;
    }
    text[at++] = '"';
    return at;
}

static NOINLINE uint32_t put_word(uint32_t at, uint32_t length, uint32_t *state)
{
    for (; length != 0u; length--)
        text[at++] = (uint8_t)('a' + (random_next(state) >> 28));
    return at;
}

/* Lines of an integer, a word, a quoted text and an amount with two decimals. */
static NOINLINE uint32_t generate(uint32_t *state)
{
    uint32_t at = 0;
    while (at < TEXT_TARGET) {
        uint32_t bits = random_next(state);
        at = put_digits(at, bits >> (bits & 31u), 1);
        text[at++] = ',';
        at = put_word(at, bits >> 5 & 15u, state);
        text[at++] = ',';
        at = put_quoted(at, bits >> 9 & 15u, state);
        text[at++] = ',';
        if (bits & 0x2000u)
            text[at++] = '-';
        at = put_digits(at, bits >> 16, 1);
        text[at++] = '.';
        at = put_digits(at, bits >> 14 & 63u, 2);
        text[at++] = '\n';
    }
    return at;
}

/* ---- reader ---- */

struct reader {
    const uint8_t *at, *end;
    uint32_t rows, fields, numbers, hash;
};

static inline int is_digit(uint8_t byte)
{
    return byte >= '0' && byte <= '9';
}

/* [-]digits[.digits] up to the end of the field adds its digits as one number; anything else is a word. */
static NOINLINE void read_plain(struct reader *r)
{
    const uint8_t *start = r->at;
    uint32_t value = 0, digits = 0, points = 0;
    int negative = 0, number = 1;
    if (r->at < r->end && *r->at == '-') {
        negative = 1;
        r->at++;
    }
    for (; r->at < r->end && *r->at != ',' && *r->at != '\n'; r->at++) {
        if (is_digit(*r->at)) {
            value = 10u * value + (uint32_t)(*r->at - '0');
            digits++;
        } else if (*r->at == '.') {
            points++;
        } else {
            number = 0;
        }
    }
    if (number && digits != 0u && points <= 1u) {
        r->numbers += negative ? 0u - value : value;
        return;
    }
    for (; start < r->at; start++)
        r->hash = mix(r->hash, *start);
}

/* A quoted field, whose quotes are doubled inside. */
static NOINLINE void read_quoted(struct reader *r)
{
    r->at++;
    while (r->at < r->end) {
        uint8_t byte = *r->at++;
        if (byte == '"') {
            if (r->at == r->end || *r->at != '"')
                return;
            r->at++;
        }
        r->hash = mix(r->hash, byte);
    }
}

static NOINLINE uint32_t read_all(const uint8_t *bytes, uint32_t length)
{
    struct reader r = {bytes, bytes + length, 0u, 0u, 0u, 0u};
    while (r.at < r.end) {
        if (*r.at == '"')
            read_quoted(&r);
        else
            read_plain(&r);
        r.fields++;
        if (r.at < r.end && *r.at++ == '\n')
            r.rows++;
    }
    return mix(mix(mix(r.hash, r.rows), r.fields), r.numbers);
}

uint32_t guest_main(const uint8_t *input, uint32_t length)
{
    struct job job = job_parse(input, length);
    uint32_t state = random_start(job.seed);
    uint32_t result = 0;
    for (uint32_t round = 0; round < job.repeat; round++) {
        uint32_t read = job.payload_length != 0u ? read_all(job.payload, job.payload_length)
                                                 : read_all(text, generate(&state));
        result = mix(result, read);
    }
    return result;
}
