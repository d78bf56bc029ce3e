/* The counters; exits with 0, or with the number of the first check that failed.
 *
 * The numbers below 20 hold on any machine; those from 20 on need a counter of retired instructions that is exact.
 */
#include "runtime.h"

#define CHECK(number, condition)                                                                                     \
    do {                                                                                                             \
        if (!(condition))                                                                                            \
            guest_exit(number);                                                                                      \
    } while (0)

#define READ(name)                                                                                                   \
    __extension__({                                                                                                  \
        unsigned long counted;                                                                                       \
        __asm__ volatile("rd" name " %0" : "=r"(counted)::"memory");                                                 \
        counted;                                                                                                     \
    })

/* The difference of the two readings around the code: the first reading counts itself, the second one does not. */
#define RETIRED(code)                                                                                                \
    __extension__({                                                                                                  \
        unsigned long before, after;                                                                                 \
        __asm__ volatile(".balign 4\nrdinstret %0\n" code "rdinstret %1\n"                                           \
                         : "=&r"(before), "=&r"(after)::"t0", "t1", "memory");                                       \
        after - before;                                                                                              \
    })

static volatile uint32_t sink;

static NOINLINE void work(void)
{
    for (uint32_t i = 0; i < 100; i++)
        sink = i;
}

_Noreturn void guest_start(unsigned long a0, unsigned long a1)
{
    (void)a0;
    (void)a1;

    /* The low words may wrap on 32 bits, so it is differences that are looked at. */
    unsigned long cycle = READ("cycle"), time = READ("time"), instret = READ("instret");
    work();
    CHECK(1, READ("cycle") - cycle - 1 < 0x7fffffff);
    CHECK(2, READ("time") - time < 0x7fffffff);
    CHECK(3, READ("instret") - instret - 1 < 0x7fffffff);

#if __riscv_xlen == 32
    /* high, low, high again: equal, or the low word wrapped between the two */
    uint32_t high = READ("cycleh");
    (void)READ("cycle");
    CHECK(4, READ("cycleh") - high < 2);
    high = READ("timeh");
    (void)READ("time");
    CHECK(5, READ("timeh") - high < 2);
    high = READ("instreth");
    (void)READ("instret");
    CHECK(6, READ("instreth") - high < 2);
#endif

    CHECK(20, RETIRED("") == 1);
    CHECK(21, RETIRED("li t0, 1\naddi t0, t0, 2\nxor t1, t0, t0\n") == 4);
    CHECK(22, RETIRED(".rept 100\naddi t0, t0, 3\n.endr\n") == 101);
    /* loads and stores */
    CHECK(23, RETIRED("sw zero, -4(sp)\nlw t0, -4(sp)\n") == 3);
    /* branches that are taken (9 times) and one that is not, in a loop of two instructions */
    CHECK(24, RETIRED("li t0, 10\n0: addi t0, t0, -1\nbnez t0, 0b\n") == 22);
    /* a forward branch over three instructions, taken and not taken */
    CHECK(25, RETIRED("beqz zero, 0f\nnop\nnop\nnop\n0:\n") == 2);
    CHECK(26, RETIRED("bnez zero, 0f\nnop\nnop\nnop\n0:\n") == 5);
    /* a call and its return: auipc, addi, jalr; jalr; j */
    CHECK(27, RETIRED(".option push\n.option norelax\nlla t0, 0f\n.option pop\n"
                      "jalr t1, 0(t0)\nj 1f\n0: jr t1\n1:\n") == 6);
    guest_exit(0);
}
