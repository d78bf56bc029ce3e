/* Entry point of all guests, and the two functions that a compiler may call on its own. */
#include "runtime.h"

_Noreturn void guest_start(unsigned long a0, unsigned long a1);

/* sp is taken as given; a0 and a1 are handed on untouched; gp must be set without the relaxation that would use gp. */
__asm__(".section .text.start,\"ax\",@progbits\n"
        ".globl _start\n"
        ".type _start,@function\n"
        "_start:\n"
        ".option push\n"
        ".option norelax\n"
        "lla gp, __global_pointer$\n"
        ".option pop\n"
        "tail guest_start\n"
        ".size _start, . - _start\n"
        ".text\n");

/* Built with -fno-builtin: otherwise the compiler would turn these loops into calls of themselves. */
void *memcpy(void *restrict target, const void *restrict source, size_t length)
{
    uint8_t *to = target;
    const uint8_t *from = source;
    for (size_t i = 0; i < length; i++)
        to[i] = from[i];
    return target;
}

void *memset(void *target, int value, size_t length)
{
    uint8_t *to = target;
    for (size_t i = 0; i < length; i++)
        to[i] = (uint8_t)value;
    return target;
}
