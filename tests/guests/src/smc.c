/* Self-modifying code; linked with rwx.ld.
 *
 * With b the first byte of the input (0 without input), round i of 0..15 patches two places and calls both functions:
 *   value = (b + 37 * i) & 0x7ff
 *   constant: returns value          (the first instruction of a function is patched)
 *   product:  returns 10 * value + 3 (an instruction inside a loop that has already run is patched)
 * and writes both results as u32.  In the odd rounds the second patch takes value 1, the instruction that the file has
 * there: going back to code that was seen before is tested too.
 */
#include "runtime.h"

#define ROUNDS 16u

uint32_t constant(void);
uint32_t product(void);
extern uint32_t constant_patch[], product_patch[];

/* Compressed instructions are off, so that each patched instruction is one aligned word. */
__asm__(".text\n"
        ".option push\n"
        ".option norvc\n"
        ".balign 4\n"
        ".globl constant\n"
        ".type constant,@function\n"
        "constant:\n"
        ".globl constant_patch\n"
        "constant_patch:\n"
        "addi a0, zero, 1\n"
        "ret\n"
        ".size constant, . - constant\n"
        ".globl product\n"
        ".type product,@function\n"
        "product:\n"
        "addi a0, zero, 3\n"
        "addi a1, zero, 10\n"
        "1:\n"
        ".globl product_patch\n"
        "product_patch:\n"
        "addi a0, a0, 1\n"
        "addi a1, a1, -1\n"
        "bne a1, zero, 1b\n"
        "ret\n"
        ".size product, . - product\n"
        ".option pop\n");

/* addi a0, source, value */
static void patch_addi(uint32_t *word, uint32_t source, uint32_t value)
{
    *(volatile uint32_t *)word = value << 20 | source << 15 | 10u << 7 | 0x13u;
}

_Noreturn void guest_start(unsigned long a0, unsigned long a1)
{
    uint8_t first = 0;
    uint32_t results[2 * ROUNDS];
    (void)a0;
    (void)a1;
    guest_syscall(SYS_READ, 0, (long)&first, 1);
    for (uint32_t i = 0; i < ROUNDS; i++) {
        uint32_t value = (first + 37u * i) & 0x7ffu;
        patch_addi(constant_patch, 0, value);
        patch_addi(product_patch, 10, i & 1u ? 1u : value);
        __asm__ volatile("fence.i" ::: "memory");
        results[2u * i] = constant();
        results[2u * i + 1u] = product();
    }
    guest_exit(guest_write_all(1, results, sizeof results) == 0 ? 0 : 1);
}
