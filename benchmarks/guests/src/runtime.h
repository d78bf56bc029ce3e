/* What every guest program shares: the system calls, the input convention and a generator of data.
 *
 * A guest is freestanding and uses only read(63), write(64) and exit(93), so that one and the same file runs on the
 * translation engine and under a user-mode emulator.  With -DNATIVE the same source compiles for the host (native.c).
 */
#ifndef GUEST_RUNTIME_H
#define GUEST_RUNTIME_H

#include <stddef.h>
#include <stdint.h>

#define INPUT_CAPACITY 4096u
#define NOINLINE __attribute__((noinline))

#ifndef NATIVE

enum {
    SYS_CLOSE = 57,
    SYS_LSEEK = 62,
    SYS_READ = 63,
    SYS_WRITE = 64,
    SYS_FSTAT = 80,
    SYS_EXIT = 93,
    SYS_CLOCK_GETTIME = 113,
    SYS_GETTIMEOFDAY = 169,
    SYS_BRK = 214
};

static inline long guest_syscall(long number, long first, long second, long third)
{
    register long a7 __asm__("a7") = number;
    register long a0 __asm__("a0") = first;
    register long a1 __asm__("a1") = second;
    register long a2 __asm__("a2") = third;
    __asm__ volatile("ecall" : "+r"(a0) : "r"(a1), "r"(a2), "r"(a7) : "memory");
    return a0;
}

static inline _Noreturn void guest_exit(int code)
{
    for (;;)
        guest_syscall(SYS_EXIT, code, 0, 0);
}

/* Reads until the buffer is full or the input ends: a read may return less than it was asked for. */
static inline uint32_t guest_read_all(int descriptor, void *buffer, uint32_t capacity)
{
    uint32_t length = 0;
    while (length < capacity) {
        long got = guest_syscall(SYS_READ, descriptor, (long)((uint8_t *)buffer + length), (long)(capacity - length));
        if (got <= 0)
            break;
        length += (uint32_t)got;
    }
    return length;
}

/* Returns 0 once everything is written, -1 at the first error. */
static inline int guest_write_all(int descriptor, const void *buffer, uint32_t length)
{
    uint32_t done = 0;
    while (done < length) {
        long put = guest_syscall(SYS_WRITE, descriptor, (long)((const uint8_t *)buffer + done), (long)(length - done));
        if (put <= 0)
            return -1;
        done += (uint32_t)put;
    }
    return 0;
}

#endif /* NATIVE */

/* The program itself.  It is called once per run in a guest, but many times per process on the host, so that it must
 * not rely on static data being zero. */
uint32_t guest_main(const uint8_t *input, uint32_t length);

/* Input of a benchmark guest: u32 seed, u32 repeat (both little endian), then an optional payload. */
struct job {
    uint32_t seed;
    uint32_t repeat;
    const uint8_t *payload;
    uint32_t payload_length;
};

static inline uint32_t load_u32(const uint8_t *bytes)
{
    return (uint32_t)bytes[0] | (uint32_t)bytes[1] << 8 | (uint32_t)bytes[2] << 16 | (uint32_t)bytes[3] << 24;
}

static inline struct job job_parse(const uint8_t *input, uint32_t length)
{
    struct job job = {1u, 1u, input, 0u};
    if (length >= 4u)
        job.seed = load_u32(input);
    if (length >= 8u) {
        job.repeat = load_u32(input + 4);
        job.payload = input + 8;
        job.payload_length = length - 8u;
    }
    return job;
}

/* Neighbouring seeds (lane numbers) must not give neighbouring data, and xorshift must never be in state 0. */
static inline uint32_t random_start(uint32_t seed)
{
    uint32_t state = (seed ^ 0x9e3779b9u) * 0x85ebca6bu;
    state ^= state >> 15;
    return state != 0u ? state : 0x6d2b79f5u;
}

static inline uint32_t random_next(uint32_t *state)
{
    uint32_t value = *state;
    value ^= value << 13;
    value ^= value >> 17;
    value ^= value << 5;
    *state = value;
    return value;
}

static inline uint32_t mix(uint32_t hash, uint32_t value)
{
    return (hash ^ value) * 16777619u;
}

#endif /* GUEST_RUNTIME_H */
