/* Folders and files by path: what is in the folders that arguments name, and what is in the files. */
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

static int by_name(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static int list(const char *path)
{
    DIR *folder = opendir(path);
    if (!folder)
        return 0;
    char *lines[200];
    int count = 0;
    for (struct dirent *entry; (entry = readdir(folder)) && count < 200;) {
        char line[300];
        snprintf(line, sizeof line, "%s %d", entry->d_name, entry->d_type);
        lines[count++] = strdup(line);
    }
    rewinddir(folder);
    int again = 0;
    while (readdir(folder))
        again++;
    closedir(folder);
    qsort(lines, (size_t)count, sizeof *lines, by_name);
    printf("%s: %d entries, %s\n", path, count, again == count ? "and again" : "then others");
    for (int i = 0; i < count; i++)
        puts(lines[i]);
    return 1;
}

int main(int argc, char **argv)
{
    if (getenv("SEEN"))
        printf("SEEN=%s\n", getenv("SEEN"));
    for (int i = 1; i < argc; i++) {
        if (list(argv[i]))
            continue;
        int file = open(argv[i], O_RDONLY);
        struct stat status;
        if (file < 0 || fstat(file, &status)) {
            printf("%s: none\n", argv[i]);
            continue;
        }
        char *mapped = mmap(0, (size_t)status.st_size + 1, PROT_READ, MAP_PRIVATE, file, 0);
        char buffer[100] = {0};
        long end = lseek(file, 0, SEEK_END), got = pread(file, buffer, sizeof buffer - 1, 0);
        lseek(file, 2, SEEK_SET);
        char rest[100] = {0};
        long more = read(file, rest, sizeof rest - 1);
        printf("%s: %ld %ld %ld %s|%s|%d\n", argv[i], end, got, more, buffer, rest,
               mapped != MAP_FAILED && !memcmp(mapped, buffer, (size_t)got));
    }
    return argc;
}
