/* Calls above all: two recursive functions, and a chain of calls through a table of function pointers. */
#include "runtime.h"

#define STEPS 2000u

static NOINLINE uint32_t fibonacci(uint32_t n)
{
    return n < 2u ? n : fibonacci(n - 1u) + fibonacci(n - 2u);
}

static NOINLINE uint32_t ackermann(uint32_t m, uint32_t n)
{
    if (m == 0u)
        return n + 1u;
    if (n == 0u)
        return ackermann(m - 1u, 1u);
    return ackermann(m - 1u, ackermann(m, n - 1u));
}

typedef uint32_t operation(uint32_t value, uint32_t operand);

static uint32_t do_add(uint32_t value, uint32_t operand) { return value + operand; }
static uint32_t do_subtract(uint32_t value, uint32_t operand) { return value - operand; }
static uint32_t do_xor(uint32_t value, uint32_t operand) { return value ^ operand; }
static uint32_t do_multiply(uint32_t value, uint32_t operand) { return value * (operand | 1u); }
static uint32_t do_divide(uint32_t value, uint32_t operand) { return value / (operand >> 16 | 1u); }
static uint32_t do_rotate(uint32_t value, uint32_t operand)
{
    return value << (operand & 31u) | value >> ((32u - (operand & 31u)) & 31u);
}
static uint32_t do_reverse(uint32_t value, uint32_t operand)
{
    return (value >> 24 | (value >> 8 & 0xff00u) | (value << 8 & 0xff0000u) | value << 24) + operand;
}
static uint32_t do_conditional(uint32_t value, uint32_t operand)
{
    return value & 1u ? value + operand : value >> 1;
}

static operation *const operations[8] = {
    do_add, do_subtract, do_xor, do_multiply, do_divide, do_rotate, do_reverse, do_conditional,
};

static NOINLINE uint32_t interpret(uint32_t *state)
{
    uint32_t value = 1;
    for (uint32_t i = 0; i < STEPS; i++) {
        uint32_t bits = random_next(state);
        value = operations[bits >> 29](value, bits);
    }
    return value;
}

uint32_t guest_main(const uint8_t *input, uint32_t length)
{
    struct job job = job_parse(input, length);
    uint32_t state = random_start(job.seed);
    uint32_t result = 0;
    for (uint32_t round = 0; round < job.repeat; round++) {
        uint32_t bits = random_next(&state);
        result = mix(result, fibonacci(15u + (bits & 1u)));
        result = mix(result, ackermann(2u, 12u + (bits >> 1 & 3u)));
        result = mix(result, interpret(&state));
    }
    return result;
}
