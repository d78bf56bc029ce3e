/* A program with a long start-up: makes a table of 1 MiB, then, from `ready` on, fills two pages from it as its input
   says and writes a checksum. Built for Linux with musl, as in `benchmarks/memory.py`. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define TABLE (1u << 20)
#define DIRTY 8192

static unsigned char *table, *pages;

__attribute__((noinline)) void ready(void)
{
    __asm__ volatile("" ::: "memory");
}

int main(void)
{
    table = malloc(TABLE);
    for (uint32_t i = 0; i < TABLE; i++)
        table[i] = (unsigned char)(i * 2654435761u >> 24);
    pages = aligned_alloc(4096, DIRTY);
    ready();
    unsigned char input[16];
    long count = read(0, input, sizeof input);
    uint32_t place = 0, sum = 0;
    for (long i = 0; i < count; i++)
        place = place * 31 + input[i];
    for (uint32_t i = 0; i < DIRTY; i++)
        pages[i] = table[(place + i * 127) % TABLE];
    for (uint32_t i = 0; i < DIRTY; i++)
        sum = sum * 33 + pages[i];
    char text[16];
    int length = snprintf(text, sizeof text, "%u\n", (unsigned)sum);
    if (write(1, text, (size_t)length) != length)
        return 1;
    _exit(0);
}
