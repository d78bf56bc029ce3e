/* Memory at addresses far from the program, by the first argument: each way prints what it found there, and ends by
   leaving or by a signal. */
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <unistd.h>

#define PAGE 4096
#define RW (PROT_READ | PROT_WRITE)
#define FIXED (MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED)
#if __riscv_xlen == 64
#define FAR ((unsigned char *)0x1234567000)
#define GUARDED ((unsigned char *)0x20000000000)
#else
#define FAR ((unsigned char *)0x71234000)
#define GUARDED ((unsigned char *)0x60000000)
#endif
#define WORDS (2 * PAGE / 4)

static void *checked(void *place)
{
    if (place == MAP_FAILED) {
        printf("no memory: %d\n", errno);
        exit(9);
    }
    return place;
}

static void report(const char *what, uint32_t value)
{
    printf("%s %u\n", what, value);
    fflush(stdout);
}

__attribute__((noinline)) static void fill(volatile uint32_t *words, int count, uint32_t value)
{
    for (int i = 0; i < count; i++)
        words[i] = value * i + 7;
}

__attribute__((noinline)) static uint32_t sum(volatile uint32_t *words, int count)
{
    uint32_t total = 0;
    for (int i = 0; i < count; i++)
        total = total * 3 + words[i];
    return total;
}

/* A list whose nodes lie here and far away in turn. */
struct node {
    struct node *next;
    uint32_t value;
};

static void lists(void)
{
    struct node *far = checked(mmap(FAR, 4 * PAGE, RW, FIXED, -1, 0)), *first = NULL;
    for (int i = 0; i < 600; i++) {
        struct node *node = i % 2 ? far++ : malloc(sizeof *node);
        *node = (struct node){first, i * i};
        first = node;
    }
    uint32_t total = 0;
    for (int round = 0; round < 50; round++)
        for (struct node *node = first; node; node = node->next)
            total = total * 5 + node->value++;
    report("list", total);
}

static void words(void)
{
    volatile uint32_t *far = checked(mmap(FAR, 2 * PAGE, RW, FIXED, -1, 0));
    report("zero", sum(far, WORDS));
    fill(far, WORDS, 3);
    report("filled", sum(far, WORDS));
    uint64_t value = 0x0123456789abcdefull, back;
    for (int i = 0; i < 9; i++) {
        memcpy(FAR + PAGE - 8 + i, &value, 8); /* over the end of a page */
        memcpy(&back, FAR + PAGE - 8 + i, 8);
        report("unaligned", (uint32_t)(back >> 32) ^ (uint32_t)back);
    }
    memcpy((void *)far, "mapped again", 12);
    checked(mmap(FAR, 2 * PAGE, RW, FIXED, -1, 0));
    report("again", sum(far, WORDS));
}

/* Many pages of addresses, few of memory. */
static void reserved(void)
{
    size_t size = (size_t)512 << 20;
    unsigned char *place = checked(mmap(NULL, size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
    uint32_t total = 0;
    for (int i = 0; i < 20; i++) {
        unsigned char *page = place + (size_t)i * (25 << 20);
        if (mprotect(page, PAGE, RW))
            exit(8);
        total += sum((uint32_t *)page, PAGE / 4);
        fill((uint32_t *)page, PAGE / 4, i);
    }
    for (int i = 0; i < 20; i++)
        total = total * 7 + sum((uint32_t *)(place + (size_t)i * (25 << 20)), PAGE / 4);
    report("committed", total);
    report("unmapped", munmap(place, size));
    checked(mmap(FAR, 40 * PAGE, RW, FIXED, -1, 0));
    report("room again", sum((uint32_t *)FAR, 40 * PAGE / 4));
    *(volatile unsigned char *)(place + (25 << 20)) = 1;
}

static void calls(void)
{
    struct iovec vectors[] = {{FAR + PAGE - 3, 6}, {"|\n", 2}};
    checked(mmap(FAR, PAGE, RW, FIXED, -1, 0));
    checked(mmap(FAR + PAGE, PAGE, RW, FIXED, -1, 0));
    report("read", read(0, FAR + PAGE - 4, 8));
    report("written", writev(1, vectors, 2));
    report("beyond", write(1, FAR + 2 * PAGE - 2, 4) < 0 ? errno : 0);
    report("grown", mremap(FAR + PAGE, PAGE, 3 * PAGE, 0) == FAR + PAGE);
    report("kept", FAR[PAGE]);
    unsigned char *moved = checked(mremap(FAR + PAGE, 3 * PAGE, 4 * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, GUARDED));
    report("moved", moved[0] + (moved == GUARDED));
    report("forgotten", madvise(GUARDED, PAGE, MADV_DONTNEED) + GUARDED[0]);
    printf("%u\n", FAR[PAGE]);
}

/* int f(int n) { return n * 3 + 1; } */
static const uint32_t code[] = {0x00151793, 0x00a7853b, 0x0015051b, 0x00008067};
static const uint32_t code32[] = {0x00151793, 0x00a78533, 0x00150513, 0x00008067};

static void jit(void)
{
    uint32_t *far = checked(mmap(FAR, PAGE, RW | PROT_EXEC, FIXED, -1, 0));
    memcpy(far, sizeof(long) == 8 ? code : code32, sizeof code);
    __builtin___clear_cache((char *)far, (char *)far + sizeof code);
    int (*function)(int) = (int (*)(int))far;
    int value = 1;
    for (int i = 0; i < 20000; i++)
        value = function(value);
    report("made", value);
    far[2] = sizeof(long) == 8 ? 0x0025051b : 0x00250513; /* + 2 */
    __builtin___clear_cache((char *)far, (char *)far + sizeof code);
    for (int i = 0; i < 20000; i++)
        value = function(value);
    report("made again", value);
    mprotect(far, PAGE, RW);
    function(value);
}

static void guarded(void)
{
    checked(mmap(GUARDED, 3 * PAGE, RW, FIXED, -1, 0));
    mprotect(GUARDED + PAGE, PAGE, PROT_READ);
    fill((uint32_t *)GUARDED, PAGE / 4, 5);
    report("readable", sum((uint32_t *)GUARDED, 3 * PAGE / 4));
    fill((uint32_t *)GUARDED, 2 * PAGE / 4, 5);
}

/* A file, and more than there is. */
static void file(const char *name)
{
    FILE *stream = fopen(name, "r");
    if (!stream)
        exit(7);
    unsigned char *place = checked(mmap(FAR, 3 * PAGE, PROT_READ, MAP_PRIVATE | MAP_FIXED, fileno(stream), 0));
    report("file", sum((uint32_t *)place, PAGE / 4));
    unsigned char *free_place = mmap(FAR + 64 * PAGE, PAGE, RW, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    report("where it was asked for", free_place == FAR + 64 * PAGE);
    unsigned char *other = checked(mmap(FAR, PAGE, RW, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    report("elsewhere", other != FAR);
    report("bad", mmap((void *)1, PAGE, RW, FIXED, -1, 0) == MAP_FAILED ? errno : 0);
}

int main(int argc, char **argv)
{
    const char *way = argc > 1 ? argv[1] : "words";
    if (!strcmp(way, "list"))
        lists();
    else if (!strcmp(way, "words"))
        words();
    else if (!strcmp(way, "reserved"))
        reserved();
    else if (!strcmp(way, "calls"))
        calls();
    else if (!strcmp(way, "jit"))
        jit();
    else if (!strcmp(way, "guarded"))
        guarded();
    else if (!strcmp(way, "file"))
        file(argv[2]);
    else
        return 2;
    return 0;
}
