/* Files of a root folder: read, sought in, looked at; and what must not be possible with them. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

static void attempt(const char *path, int flags)
{
    int file = open(path, flags, 0644);
    printf("%s %#x: %s\n", path, flags, file < 0 ? strerror(errno) : "opened");
    if (file >= 0)
        close(file);
}

int main(void)
{
    char buffer[64] = {0};
    FILE *file = fopen("/data/words.txt", "r");
    if (!file)
        return 1;
    while (fgets(buffer, sizeof buffer, file))
        printf("> %s", buffer);
    fseek(file, -6, SEEK_END);
    printf("at %ld: %s\n", ftell(file), fgets(buffer, sizeof buffer, file));
    fclose(file);
    struct stat status;
    printf("stat %d %lld %d\n", stat("data/words.txt", &status), (long long)status.st_size, S_ISREG(status.st_mode));
    printf("folder %d %d\n", stat("/data", &status), S_ISDIR(status.st_mode));
    int direct = open("/data/words.txt", O_RDONLY);
    struct iovec parts[2] = {{buffer, 3}, {buffer + 10, 4}};
    printf("readv %d %.3s|%.4s\n", (int)readv(direct, parts, 2), buffer, buffer + 10);
    printf("pread %d %.5s\n", (int)pread(direct, buffer, 5, 6), buffer);
    int second = dup(direct);
    printf("dup %d %d\n", second, (int)lseek(second, 2, SEEK_SET));
    printf("lseek end %d, bad %d\n", (int)lseek(direct, 0, SEEK_END), (int)lseek(direct, -99, SEEK_SET));
    close(direct);
    printf("read closed %d\n", (int)read(direct, buffer, 1));
    attempt("/data/link.txt", O_RDONLY);
    attempt("/data/../data/words.txt", O_RDONLY);
    attempt("/../../../../etc/passwd", O_RDONLY);
    attempt("/escape/passwd", O_RDONLY);
    attempt("/data/loop", O_RDONLY);
    attempt("/data/words.txt", O_WRONLY);
    attempt("/data/new", O_CREAT | O_WRONLY);
    attempt("/data/words.txt/x", O_RDONLY);
    attempt("", O_RDONLY);
    struct iovec words[3] = {{"one ", 4}, {"", 0}, {"two\n", 4}};
    fflush(stdout);
    return writev(1, words, 3) == 8 ? 0 : 2;
}
