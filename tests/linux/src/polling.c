/* Waiting for descriptors that are ready at once or never, and descriptors that share where a file is read. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/select.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#ifdef SYS_ppoll_time64
#define PPOLL SYS_ppoll_time64
#define PSELECT SYS_pselect6_time64
#else
#define PPOLL SYS_ppoll
#define PSELECT SYS_pselect6
#endif

static const char *error_of(long result)
{
    return result < 0 ? strerror(errno) : "none";
}

static void show_poll(const char *title, struct pollfd *polled, int count, int timeout)
{
    int ready = poll(polled, count, timeout);
    printf("%s: %d", title, ready);
    for (int i = 0; i < count; i++)
        printf(" %#x", polled[i].revents);
    printf("\n");
}

static void show_select(const char *title, int count, fd_set *in, fd_set *out, fd_set *except, long microseconds)
{
    struct timeval time = {microseconds / 1000000, microseconds % 1000000};
    int ready = select(count, in, out, except, microseconds < 0 ? NULL : &time);
    printf("%s: %d (%s)", title, ready, error_of(ready));
    for (int i = 0; i < count; i++) {
        int is_in = in && FD_ISSET(i, in), is_out = out && FD_ISSET(i, out), is_except = except && FD_ISSET(i, except);
        if (is_in || is_out || is_except)
            printf(" %d%s%s%s", i > 2 ? 3 : i, is_in ? "r" : "", is_out ? "w" : "", is_except ? "e" : "");
    }
    printf("\n");
}

static void polls(int file, int folder)
{
    struct pollfd all[] = {{0, POLLIN, 99}, {1, POLLOUT | POLLIN, 99}, {2, POLLOUT | POLLPRI, 99},
                           {file, POLLIN | POLLOUT, 99}, {folder, POLLIN, 99}, {-1, POLLIN, 99},
                           {25, POLLIN, 99}, {-7, -1, 99}, {25, 0, 99}, {file, 0, 99}, {file, POLLPRI, 99}};
    show_poll("all", all, sizeof all / sizeof *all, -1);
    show_poll("all at once", all, sizeof all / sizeof *all, 0);
    struct pollfd none[] = {{1, POLLIN, 99}, {-1, POLLIN, 99}, {file, 0, 99}};
    show_poll("nothing", none, 3, 3);
    show_poll("nobody", NULL, 0, 1);
    struct pollfd wide[] = {{file, POLLRDNORM | POLLWRNORM | POLLRDBAND | POLLWRBAND, 0}, {1, POLLWRNORM, 0}};
    show_poll("by other names", wide, 2, -1);
}

static void selects(int file)
{
    fd_set in, out, except;
    FD_ZERO(&in);
    FD_ZERO(&out);
    FD_ZERO(&except);
    FD_SET(0, &in), FD_SET(1, &out), FD_SET(2, &out), FD_SET(file, &in), FD_SET(file, &out), FD_SET(file, &except);
    show_select("all", file + 1, &in, &out, &except, -1);
    FD_SET(file, &in), FD_SET(1, &in);
    show_select("fewer", 1, &in, NULL, &except, 1000);
    FD_ZERO(&in);
    FD_ZERO(&out);
    FD_SET(1, &in);
    show_select("nothing", 2, &in, &out, NULL, 500);
    show_select("nobody", 0, NULL, NULL, NULL, 500);
    FD_SET(0, &in), FD_SET(25, &in);
    show_select("closed", 26, &in, NULL, NULL, 0);
    show_select("beyond the count", 25, &in, NULL, NULL, 0);
    FD_ZERO(&in);
    FD_SET(0, &in);
    show_select("all that a set has", FD_SETSIZE, &in, NULL, NULL, -1);
    show_select("negative", -1, &in, NULL, NULL, 0);
}

static void errors(void)
{
    struct pollfd one = {0, POLLIN, 0};
    struct timespec late = {0, 2000000000}, before = {-1, 0}, short_time = {0, 1000000}, left = {3, 5};
    sigset_t mask;
    sigemptyset(&mask);
    void *nowhere = (void *)1;
    printf("ppoll: %s", error_of(syscall(PPOLL, nowhere, 1, NULL, NULL, 8)));
    printf(", %s", error_of(syscall(PPOLL, &one, -1, NULL, NULL, 8)));
    printf(", %s", error_of(syscall(PPOLL, &one, 1, nowhere, NULL, 8)));
    printf(", %s", error_of(syscall(PPOLL, &one, 1, &late, NULL, 8)));
    printf(", %s", error_of(syscall(PPOLL, &one, 1, &before, NULL, 8)));
    printf(", %s", error_of(syscall(PPOLL, &one, 1, NULL, nowhere, 8)));
    printf(", %s", error_of(syscall(PPOLL, &one, 1, NULL, &mask, 7)));
    printf(", %s\n", error_of(syscall(PPOLL, &one, 1, NULL, &mask, 8)));
    uintptr_t packed[2] = {(uintptr_t)&mask, 8}, wrong[2] = {(uintptr_t)&mask, 9}, bad[2] = {1, 8}, no[2] = {0, 0};
    printf("pselect: %s", error_of(syscall(PSELECT, 1, nowhere, NULL, NULL, &short_time, NULL)));
    printf(", %s", error_of(syscall(PSELECT, 1, NULL, NULL, NULL, nowhere, NULL)));
    printf(", %s", error_of(syscall(PSELECT, 0, nowhere, nowhere, nowhere, &short_time, packed)));
    printf(", %s", error_of(syscall(PSELECT, 0, NULL, NULL, NULL, &late, packed)));
    printf(", %s", error_of(syscall(PSELECT, 0, NULL, NULL, NULL, &short_time, wrong)));
    printf(", %s", error_of(syscall(PSELECT, 0, NULL, NULL, NULL, &short_time, bad)));
    printf(", %s", error_of(syscall(PSELECT, 0, NULL, NULL, NULL, &short_time, no)));
    printf(", %s\n", error_of(syscall(PSELECT, 0, NULL, NULL, NULL, &short_time, nowhere)));
    fd_set in;
    FD_ZERO(&in);
    FD_SET(0, &in);
    long ready = syscall(PSELECT, 1, &in, NULL, NULL, &left, packed);
    printf("time: %ld, %d left", ready, left.tv_sec > 0);
    left = (struct timespec){0, 2000000};
    ready = syscall(PSELECT, 0, NULL, NULL, NULL, &left, NULL);
    printf("; %ld, %d left", ready, left.tv_sec || left.tv_nsec);
    left = (struct timespec){0, 2000000};
    ready = syscall(PPOLL, NULL, 0, &left, NULL, 8);
    printf("; %ld, %d left\n", ready, left.tv_sec || left.tv_nsec);
}

static void show_read(const char *title, int descriptor, int size)
{
    char buffer[64] = {0};
    int count = read(descriptor, buffer, size);
    printf("%s: %d (%s) '%.*s' at %d\n", title, count, error_of(count), count < 0 ? 0 : count, buffer,
           (int)lseek(descriptor, 0, SEEK_CUR));
}

static void shared(const char *path)
{
    int first = open(path, O_RDONLY), second = dup(first), third = fcntl(first, F_DUPFD, 20);
    int fourth = fcntl(second, F_DUPFD_CLOEXEC, 10), own = open(path, O_RDONLY);
    printf("new ones: %d %d %d\n", second > first, third == 20, fourth >= 10);
    show_read("first", first, 3);
    show_read("second", second, 4);
    show_read("third", third, 2);
    show_read("own", own, 3);
    printf("moved to %d\n", (int)lseek(fourth, -5, SEEK_END));
    show_read("first", first, 3);
    close(first);
    show_read("first, closed", first, 1);
    show_read("second", second, 1);
    printf("over its own: %d\n", dup3(second, own, O_CLOEXEC) == own);
    show_read("own", own, 1);
    lseek(own, 1, SEEK_SET);
    show_read("third", third, 2);
    close(second), close(third), close(fourth);
    int again = open(path, O_RDONLY);
    show_read("again", again, 5);
    show_read("own", own, 5);
    printf("bad: %s", error_of(dup(25)));
    printf(", %s", error_of(dup3(own, own, 0)));
    printf(", %s", error_of(dup3(25, own, 0)));
    printf(", %s", error_of(dup3(own, -1, 0)));
    printf(", %s", error_of(dup3(own, again, 5)));
    printf(", %s", error_of(fcntl(25, F_DUPFD, 0)));
    printf(", %s\n", error_of(fcntl(own, F_DUPFD, -1)));
    int input = dup(0);
    show_read("input", 0, 5);
    show_read("input's second", input, 5);
    close(0);
    show_read("input's second", input, 5);
    dup2(again, 0);
    show_read("a file as input", 0, 5);
    show_read("again", again, 5);
    dup2(input, 0);
    show_read("input again", 0, 50);
    close(own), close(again), close(input);
}

static void folders(int folder)
{
    static char entries[4096];
    int other = dup(folder);
    printf("entries: %d", syscall(SYS_getdents64, folder, entries, sizeof entries) > 0);
    printf(" %d", (int)syscall(SYS_getdents64, other, entries, sizeof entries));
    lseek(other, 0, SEEK_SET);
    printf(" %d\n", syscall(SYS_getdents64, folder, entries, sizeof entries) > 0);
    close(other);
}

int main(int argc, char **argv)
{
    if (argc < 2)
        return 1;
    int file = open(argv[1], O_RDONLY), folder = open(".", O_RDONLY | O_DIRECTORY);
    if (file < 0 || folder < 0)
        return 2;
    setvbuf(stdout, NULL, _IOFBF, 1 << 14);
    polls(file, folder);
    selects(file);
    errors();
    shared(argv[1]);
    folders(folder);
    return 0;
}
