/* Faults on demand: the first byte of the input says which, the second one (0 if missing) which variant.
 *
 *    0  load from address 0                          6  illegal instruction: 0 word 0, 1 word 0xffffffff
 *    1  store to its own read-only data              7  infinite loop: 0 a jump to itself, 1 with loads and stores
 *    2  jump: 0 to address 0, 1 to its own data      8  unknown system call 9999, exits with -result & 255 (ENOSYS: 38)
 *    3  load from 0x7ffffff0, far from everything    9  recursion until the stack runs out
 *    4  misaligned accesses that must work: exit 0  10  store to its own code
 *    5  ebreak                                      11  call of its own read-only data
 *
 * Exits with 98 when what should have stopped it did not, with 97 when case 4 read a wrong value, with 99 when asked
 * for an unknown case.
 */
#include "runtime.h"

enum { SURVIVED = 98, WRONG_VALUE = 97, UNKNOWN_CASE = 99 };

static const uint32_t constant_word = 0x00008067u; /* "ret": what would run if read-only data could be executed */
static uint32_t data_word = 0x00008067u;
static uint8_t misaligned_area[3 * 4096] __attribute__((aligned(4096)));
static volatile uint32_t counter;

/* An address whose origin the compiler cannot know: it may assume nothing about accesses to it. */
static volatile uint32_t *hidden(const volatile void *address)
{
    __asm__("" : "+r"(address));
    return (volatile uint32_t *)(uintptr_t)address;
}

static void call(const volatile void *address)
{
    ((void (*)(void))(uintptr_t)hidden(address))();
}

static NOINLINE uint32_t recurse(uint32_t depth)
{
    volatile uint32_t frame[64];
    frame[depth & 63u] = depth;
    if (depth == UINT32_MAX) /* not in this world, but the compiler refuses a recursion without an end */
        return 0;
    return recurse(depth + 1u) + frame[depth & 63u];
}

#define STORE(type, instruction, address, value)                                                                     \
    __asm__ volatile(instruction " %0, 0(%1)" ::"r"((type)(value)), "r"(address) : "memory")
#define LOAD(type, instruction, address)                                                                             \
    __extension__({                                                                                                  \
        type loaded;                                                                                                 \
        __asm__ volatile(instruction " %0, 0(%1)" : "=r"(loaded) : "r"(address) : "memory");                         \
        loaded;                                                                                                      \
    })

/* Every offset in a word, in the middle of a page and across the border of two. */
static int misaligned_accesses_work(void)
{
    static const uint32_t places[2] = {512, 4096 - 8};
    for (unsigned place = 0; place < 2; place++)
        for (uint32_t offset = 0; offset < 16; offset++) {
            uint8_t *at = misaligned_area + places[place] + offset;
            uint32_t word = 0x81020384u + offset * 0x01010101u;
            at[-1] = at[4] = 0xa5;
            STORE(uint32_t, "sw", at, word);
            if (load_u32(at) != word || at[-1] != 0xa5 || at[4] != 0xa5)
                return 0;
            if (LOAD(long, "lw", at) != (long)(int32_t)word)
                return 0;
            STORE(uint32_t, "sh", at, 0x8765u + offset);
            if (load_u32(at) != ((word & 0xffff0000u) | (0x8765u + offset)))
                return 0;
            if (LOAD(long, "lh", at) != (long)(int16_t)(0x8765u + offset))
                return 0;
            if (LOAD(unsigned long, "lhu", at) != 0x8765u + offset)
                return 0;
#if __riscv_xlen == 64
            uint64_t wide = 0x8102038405060708u + offset;
            STORE(uint64_t, "sd", at, wide);
            if (load_u32(at) != (uint32_t)wide || load_u32(at + 4) != (uint32_t)(wide >> 32))
                return 0;
            if (LOAD(uint64_t, "ld", at) != wide || LOAD(uint64_t, "lwu", at) != (uint32_t)wide)
                return 0;
#endif
        }
    return 1;
}

_Noreturn void guest_start(unsigned long a0, unsigned long a1)
{
    uint8_t input[2] = {255, 0};
    (void)a0;
    (void)a1;
    guest_read_all(0, input, sizeof input);
    uint32_t variant = input[1];
    switch (input[0]) {
    case 0:
        (void)*hidden(NULL);
        break;
    case 1:
        *hidden(&constant_word) = 1;
        break;
    case 2:
        call(variant ? &data_word : NULL);
        break;
    case 3:
        (void)*hidden((const void *)0x7ffffff0);
        break;
    case 4:
        guest_exit(misaligned_accesses_work() ? 0 : WRONG_VALUE);
    case 5:
        __asm__ volatile("ebreak");
        break;
    case 6:
        if (variant)
            __asm__ volatile(".balign 4\n.word 0xffffffff");
        else
            __asm__ volatile(".balign 4\n.word 0");
        break;
    case 7:
        if (!variant)
            __asm__ volatile("0: j 0b");
        for (;;)
            counter++;
    case 8:
        guest_exit((int)(-guest_syscall(9999, 1, 2, 3) & 255));
    case 9:
        counter = recurse(0);
        break;
    case 10:
        *hidden((const void *)(uintptr_t)recurse) = 0x13;
        break;
    case 11:
        call(&constant_word);
        break;
    default:
        guest_exit(UNKNOWN_CASE);
    }
    guest_exit(SURVIVED);
}
