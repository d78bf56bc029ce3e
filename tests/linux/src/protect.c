/* Memory that may not be accessed, by the first argument: each way prints what is allowed, and ends by a signal. */
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#define PAGE 4096
#define RW (PROT_READ | PROT_WRITE)

static volatile unsigned char data[4 * PAGE] __attribute__((aligned(PAGE))) = {1, 2, 3};
static const char constants[] = "constants";
static volatile uint32_t sink;

static volatile unsigned char *map(size_t size, int protection)
{
    void *place = mmap(0, size, protection, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (place == MAP_FAILED) {
        puts("no memory");
        exit(9);
    }
    return place;
}

/* Loops that get compiled: the second pass goes over what is not allowed any more. */
__attribute__((noinline)) static uint32_t sum_words(volatile uint32_t *words, int count)
{
    uint32_t sum = 0;
    for (int i = 0; i < count; i++)
        sum = sum * 3 + words[i];
    return sum;
}

__attribute__((noinline)) static void fill_words(volatile uint32_t *words, int count, uint32_t value)
{
    for (int i = 0; i < count; i++)
        words[i] = value + i;
}

__attribute__((noinline)) static void copy_bytes(volatile unsigned char *to, volatile unsigned char *from, int count)
{
    for (int i = count - 1; i >= 0; i--)
        to[i] = from[i] ^ 0x5a;
}

__attribute__((noinline)) static uint64_t unaligned(volatile unsigned char *place, int offset)
{
    uint64_t value;
    memcpy(&value, (unsigned char *)place + offset, 8);
    return value;
}

static void report(const char *what, uint32_t value)
{
    printf("%s %u\n", what, value);
    fflush(stdout);
}

static void warm(volatile unsigned char *area, int words)
{
    for (int i = 0; i < 200; i++) {
        fill_words((volatile uint32_t *)area, words, i);
        sink += sum_words((volatile uint32_t *)area, words);
    }
    report("sum", sink);
}

typedef int (*function)(int);

/* addi a0, a0, n; ret */
static void assemble(volatile unsigned char *place, int n)
{
    uint32_t code[2] = {0x00050513u | (uint32_t)n << 20, 0x00008067u};
    memcpy((void *)place, code, sizeof code);
    __builtin___clear_cache((char *)place, (char *)place + sizeof code);
}

static int call_many(function f)
{
    int x = 0;
    for (int i = 0; i < 3000; i++)
        x = f(x);
    return x;
}

static int is(const char *way, const char *name)
{
    return !strcmp(way, name);
}

static void protections(const char *way)
{
    volatile unsigned char *area = map(4 * PAGE, RW);
    warm(area, PAGE);
    if (is(way, "read-only")) {
        mprotect((void *)(area + 2 * PAGE), PAGE, PROT_READ);
        report("still", sum_words((volatile uint32_t *)area, PAGE));
        fill_words((volatile uint32_t *)area, PAGE, 7);
    }
    if (is(way, "no-access")) {
        mprotect((void *)(area + 3 * PAGE), PAGE, PROT_NONE);
        fill_words((volatile uint32_t *)area, 3 * PAGE / 4, 9);
        report("still", sum_words((volatile uint32_t *)area, 3 * PAGE / 4));
        report("never", sum_words((volatile uint32_t *)area, PAGE));
    }
    if (is(way, "again")) {
        mprotect((void *)area, 4 * PAGE, PROT_NONE);
        mprotect((void *)area, 4 * PAGE, RW);
        report("kept", sum_words((volatile uint32_t *)area, PAGE));
        warm(area, PAGE);
        mprotect((void *)area, 4 * PAGE, PROT_READ);
        area[5] = 1;
    }
    if (is(way, "unmapped")) {
        munmap((void *)(area + PAGE), PAGE);
        fill_words((volatile uint32_t *)(area + 2 * PAGE), PAGE / 2, 3);
        report("around", sum_words((volatile uint32_t *)area, PAGE / 4));
        report("behind", sum_words((volatile uint32_t *)(area + 2 * PAGE), PAGE / 2));
        copy_bytes(area, area + 2 * PAGE, PAGE + 1);
    }
    if (is(way, "straddle")) {
        for (int i = 0; i < 3000; i++)
            sink += (uint32_t)unaligned(area, i % (3 * PAGE));
        report("unaligned", sink);
        munmap((void *)(area + 3 * PAGE), PAGE);
        report("last", (uint32_t)unaligned(area, 3 * PAGE - 8));
        report("never", (uint32_t)unaligned(area, 3 * PAGE - 3));
    }
    if (is(way, "call-data")) {
        assemble(area, 1);
        report("never", (uint32_t)call_many((function)(uintptr_t)area));
    }
}

static void segments(const char *way)
{
    warm(data, PAGE);
    if (is(way, "data")) {
        mprotect((void *)(data + PAGE), PAGE, PROT_READ);
        report("still", sum_words((volatile uint32_t *)data, PAGE));
        fill_words((volatile uint32_t *)data, PAGE, 1);
    }
    if (is(way, "constants")) {
        report(constants, constants[3]);
        *(volatile char *)constants = 1;
    }
    if (is(way, "code"))
        *(volatile char *)(uintptr_t)report = 1;
    if (is(way, "null"))
        sink = *(volatile uint32_t *)(uintptr_t)sink;
    if (is(way, "heap")) {
        char *end = (char *)syscall(SYS_brk, 0);
        end = (char *)syscall(SYS_brk, ((uintptr_t)end + 2 * PAGE + PAGE - 1) & -(uintptr_t)PAGE);
        fill_words((volatile uint32_t *)(end - 2 * PAGE), PAGE / 2, 1);
        report("heap", sum_words((volatile uint32_t *)(end - 2 * PAGE), PAGE / 2));
        syscall(SYS_brk, end - PAGE);
        report("less", sum_words((volatile uint32_t *)(end - 2 * PAGE), PAGE / 4));
        report("never", sum_words((volatile uint32_t *)(end - 2 * PAGE), PAGE / 2));
    }
    if (is(way, "beyond")) {
        char *end = (char *)syscall(SYS_brk, 0);
        report("never", *(volatile char *)(((uintptr_t)end + PAGE - 1) & -(uintptr_t)PAGE));
    }
}

static int deeper(volatile int *above)
{
    volatile int here[64];
    here[0] = above ? above[0] + 1 : 0;
    return deeper(here) + here[0];
}

static void written_code(void)
{
    volatile unsigned char *page = map(PAGE, RW);
    assemble(page, 3);
    mprotect((void *)page, PAGE, PROT_READ | PROT_EXEC);
    report("code", (uint32_t)call_many((function)(uintptr_t)page));
    mprotect((void *)page, PAGE, RW);
    assemble(page, 5);
    mprotect((void *)page, PAGE, PROT_READ | PROT_EXEC);
    report("other code", (uint32_t)call_many((function)(uintptr_t)page));
    volatile unsigned char *both = map(PAGE, RW | PROT_EXEC);
    for (int n = 1; n < 4; n++) {
        assemble(both + 16 * n, n);
        assemble(both, n + 10);
        report("both", (uint32_t)call_many((function)(uintptr_t)(both + 16 * n)));
        report("both", (uint32_t)call_many((function)(uintptr_t)both));
    }
    page[0] = 1;
}

static const char *said(int result)
{
    return result ? strerror(errno) : "fine";
}

static void kernel(void)
{
    volatile unsigned char *area = map(5 * PAGE, RW);
    memset((void *)area, 'k', 4 * PAGE);
    mprotect((void *)(area + PAGE), PAGE, PROT_READ);
    mprotect((void *)(area + 2 * PAGE), PAGE, PROT_NONE);
    printf("read into read-only: %s\n", said(read(0, (void *)(area + PAGE), 4) != 4));
    printf("read: %s\n", said(read(0, (void *)area, 4) != 4));
    printf("write from no access: %s\n", said(write(1, (void *)(area + 2 * PAGE), 4) != 4));
    fflush(stdout);
    printf(" write: %s\n", said(write(1, (void *)(area + PAGE), 4) != 4));
    printf("odd: %s\n", said(mprotect((void *)(area + 1), PAGE, PROT_READ)));
    munmap((void *)(area + 3 * PAGE), PAGE);
    printf("nowhere: %s\n", said(mprotect((void *)(area + 2 * PAGE), 2 * PAGE, RW)));
    printf("nothing: %s\n", said(munmap((void *)area, 0)));
    printf("no flags: %s\n", said(mmap(0, 0, RW, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) == MAP_FAILED));
    printf("not a page: %s\n",
           said(mmap((void *)(area + 5), PAGE, RW, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == MAP_FAILED));
    printf("free: %d\n", mmap((void *)(area + 3 * PAGE), PAGE, RW, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) == area + 3 * PAGE);
    printf("%d\n", area[3 * PAGE] + area[4 * PAGE - 1]);
    memset((void *)(area + 3 * PAGE), 4, PAGE);
    printf("in place: %d\n", mmap((void *)(area + 3 * PAGE), PAGE, RW, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) ==
                                 area + 3 * PAGE && area[3 * PAGE] == 0);
    memset((void *)(area + 3 * PAGE), 4, PAGE);
    printf("not needed: %s", said(madvise((void *)(area + 3 * PAGE), PAGE, MADV_DONTNEED)));
    printf(" %d\n", area[3 * PAGE + 7]);
    volatile unsigned char *grows = map(2 * PAGE, RW);
    for (int i = 0; i < 2 * PAGE; i++)
        grows[i] = (unsigned char)(i * 7);
    volatile unsigned char *moved = mremap((void *)grows, 2 * PAGE, 300 * PAGE, MREMAP_MAYMOVE);
    uint32_t sum = 0;
    for (int i = 0; i < 300 * PAGE; i++)
        sum = sum * 31 + moved[i];
    printf("remapped: %u\n", sum);
    moved = mremap((void *)moved, 300 * PAGE, PAGE, 0);
    printf("smaller: %u\n", sum_words((volatile uint32_t *)moved, PAGE / 4));
    printf("gone: %s\n", said(mremap((void *)(moved + PAGE), PAGE, 2 * PAGE, MREMAP_MAYMOVE) == MAP_FAILED));
    fflush(stdout);
    report("never", moved[PAGE]);
}

/* MAP_FIXED_NOREPLACE, which not all that call themselves Linux know. */
static void no_replace(void)
{
    volatile unsigned char *area = map(2 * PAGE, RW);
    int flags = MAP_PRIVATE | MAP_ANONYMOUS | 0x100000;
    printf("taken: %s\n", said(mmap((void *)area, PAGE, RW, flags, -1, 0) == MAP_FAILED));
    munmap((void *)area, PAGE);
    printf("free: %d\n", mmap((void *)area, PAGE, RW, flags, -1, 0) == area);
    printf("too high: %s\n", said(mmap((void *)-(uintptr_t)PAGE, PAGE, RW, flags, -1, 0) == MAP_FAILED));
    fflush(stdout);
    munmap((void *)area, PAGE);
    area[0] = 1;
}

int main(int argc, char **argv)
{
    const char *way = argc > 1 ? argv[1] : "";
    setvbuf(stdout, 0, _IOFBF, 1 << 12);
    if (is(way, "stack"))
        return deeper(0);
    if (is(way, "written-code"))
        written_code();
    if (is(way, "kernel"))
        kernel();
    if (is(way, "no-replace"))
        no_replace();
    segments(way);
    protections(way);
    puts("nothing happened");
    return 1;
}
