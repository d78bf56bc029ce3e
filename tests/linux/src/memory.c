/* The heap in its ways: small and large pieces, grown and given back, mapped anonymously; thread-local data. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

static _Thread_local int counter = 5;
static _Thread_local char zeros[100];

static uint32_t next(uint32_t *state)
{
    return *state = *state * 1664525u + 1013904223u;
}

int main(void)
{
    uint32_t state = 1, hash = 0;
    unsigned char *pieces[200] = {0};
    size_t sizes[200] = {0};
    for (int round = 0; round < 4000; round++) {
        int i = (int)(next(&state) >> 8) % 200;
        if (pieces[i])
            for (size_t k = 0; k < sizes[i]; k += 97)
                hash = hash * 31 + pieces[i][k];
        size_t size = (next(&state) >> 8) % (round % 50 ? 2000 : 200000);
        if (next(&state) & 0x10000) {
            free(pieces[i]);
            pieces[i] = size & 1 ? malloc(size) : calloc(1, size);
            if (!(size & 1))
                for (size_t k = 0; k < size; k++)
                    hash += pieces[i][k];
        } else
            pieces[i] = realloc(pieces[i], size);
        sizes[i] = size;
        if (size && !pieces[i])
            return 1;
        memset(pieces[i], round, size);
    }
    for (int i = 0; i < 200; i++)
        free(pieces[i]);
    printf("%08x\n", hash);
    for (int i = 0; i < 3; i++) {
        char *page = mmap(NULL, 3 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        int dirty = 0;
        for (int k = 0; k < 3 << 20; k += 4096)
            dirty += page[k] != 0;
        memset(page, 0x55, 3 << 20);
        printf("%d %d\n", dirty, munmap(page, 3 << 20));
    }
    char *before = (char *)syscall(SYS_brk, 0);
    syscall(SYS_brk, before + 10000);
    memset(before, 1, 10000);
    syscall(SYS_brk, before);
    char *after = (char *)syscall(SYS_brk, before + 10000);
    printf("%d %d %d\n", before[0], before[9999], after == before + 10000);
    counter += zeros[50];
    printf("%d\n", counter);
    return 0;
}
