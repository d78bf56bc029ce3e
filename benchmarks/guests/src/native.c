/* Host driver of the benchmark guests.
 *
 * Standard input: records of u32 length (little endian) and that many input bytes.  Standard output: 4 bytes (little
 * endian) per record.  Standard error: the CPU seconds, and the seconds by the clock, spent in the calls of guest_main
 * alone, so that reading, parsing and process start are not charged to the program that is compared with.
 */
#define _POSIX_C_SOURCE 200809L
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "runtime.h"

static double seconds_of(clockid_t clock)
{
    struct timespec now;
    clock_gettime(clock, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

static _Noreturn void fail(const char *message)
{
    fprintf(stderr, "native: %s\n", message);
    exit(2);
}

int main(void)
{
    size_t capacity = 1u << 16, size = 0;
    uint8_t *stream = malloc(capacity);
    if (stream == NULL)
        fail("out of memory");
    for (;;) {
        size_t got = fread(stream + size, 1, capacity - size, stdin);
        if (got == 0)
            break;
        size += got;
        if (size == capacity) {
            capacity *= 2;
            stream = realloc(stream, capacity);
            if (stream == NULL)
                fail("out of memory");
        }
    }

    size_t records = 0;
    for (size_t at = 0; at < size; records++) {
        if (size - at < 4)
            fail("truncated record");
        size_t length = load_u32(stream + at);
        if (length > INPUT_CAPACITY || size - at - 4 < length)
            fail("bad record length");
        at += 4 + length;
    }
    uint32_t *results = malloc((records + 1) * sizeof *results);
    if (results == NULL)
        fail("out of memory");

    double started = seconds_of(CLOCK_MONOTONIC), before = seconds_of(CLOCK_PROCESS_CPUTIME_ID);
    size_t at = 0;
    for (size_t i = 0; i < records; i++) {
        uint32_t length = load_u32(stream + at);
        results[i] = guest_main(stream + at + 4, length);
        at += 4 + (size_t)length;
    }
    double after = seconds_of(CLOCK_PROCESS_CPUTIME_ID), ended = seconds_of(CLOCK_MONOTONIC);

    for (size_t i = 0; i < records; i++) {
        uint8_t bytes[4] = {(uint8_t)results[i], (uint8_t)(results[i] >> 8), (uint8_t)(results[i] >> 16),
                            (uint8_t)(results[i] >> 24)};
        if (fwrite(bytes, 1, sizeof bytes, stdout) != sizeof bytes)
            fail("write error");
    }
    if (fflush(stdout) != 0)
        fail("write error");
    fprintf(stderr, "%.9f %.9f\n", after - before, ended - started);
    free(results);
    free(stream);
    return 0;
}
