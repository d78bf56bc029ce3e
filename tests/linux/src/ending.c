/* Ways to end, by the first argument: exit status, abort, a signal, a fault, exits from below, a bad jump. */
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static jmp_buf back;

static void at_end(void)
{
    puts("at the end");
}

int main(int argc, char **argv)
{
    const char *how = argc > 1 ? argv[1] : "exit";
    atexit(at_end);
    signal(SIGINT, SIG_IGN);
    if (!setjmp(back))
        longjmp(back, 3);
    printf("%s\n", how);
    fflush(stdout);
    if (!strcmp(how, "abort"))
        abort();
    if (!strcmp(how, "raise"))
        raise(SIGTERM);
    if (!strcmp(how, "fault"))
        *(volatile int *)8 = 1;
    if (!strcmp(how, "quick"))
        _exit(9);
    if (!strcmp(how, "unknown"))
        return fork() < 0 ? 4 : 5;
    exit(300 + 7);
}
