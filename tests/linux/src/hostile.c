/* What a machine must bear, by the first argument: a program that takes all it can get, without end. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

static int deeper(volatile int *above)
{
    volatile int here[64];
    here[0] = above ? above[0] + 1 : 0;
    return deeper(here) + here[0];
}

static void map_all(void)
{
    size_t size = 1 << 20, total = 0;
    for (;;) {
        char *place = mmap(0, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (place == MAP_FAILED && size <= 4096)
            break;
        if (place == MAP_FAILED) {
            size /= 2;
            continue;
        }
        memset(place, 7, size);
        total += size;
    }
    printf("mapped %s\n", total > 4 << 20 && errno == ENOMEM ? "all" : "little");
}

static void map_holes(void)
{
    char *area = mmap(0, 7 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    int failed = 0;
    for (int i = 0; i < 1700; i += 2)
        failed += munmap(area + i * 4096, 4096) != 0;
    printf("holes, %s\n", failed ? "up to a limit" : "all");
}

int main(int argc, char **argv)
{
    const char *how = argc > 1 ? argv[1] : "";
    if (!strcmp(how, "recurse"))
        return deeper(0);
    if (!strcmp(how, "map"))
        map_all();
    if (!strcmp(how, "holes"))
        map_holes();
    while (!strcmp(how, "touch")) {
        char *area = mmap(0, 4 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (area == MAP_FAILED)
            return 5;
        for (int i = 0; i < 1024; i++)
            area[i * 4096] = 1;
    }
    static char text[4096];
    memset(text, 'x', sizeof text);
    while (!strcmp(how, "write"))
        if (write(1, text, sizeof text) != sizeof text)
            return 3;
    if (!strcmp(how, "fork")) {
        for (int i = 0; i < 3; i++)
            if (fork() == 0)
                return 4;
        printf("%s\n", errno == ENOSYS ? "alone" : "forked");
    }
    if (!strcmp(how, "open")) {
        const char *paths[] = {"/etc/passwd", "../../../../etc/passwd", "/proc/self/mem", "/dev/mem", "/dev/null"};
        for (int i = 0; i < 5; i++)
            printf("%s ", open(paths[i], O_RDWR) < 0 && open(paths[i], O_RDONLY) < 0 ? "no" : "opened");
        puts("");
    }
    if (!strcmp(how, "loop"))
        for (;;)
            ;
    puts(how);
    return 7;
}
