/* Text through stdio: lines of the input, sorted and counted, numbers read and printed in every way. */
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int by_text(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

int main(int argc, char **argv)
{
    char line[200], *words[400];
    int count = 0;
    long sum = 0;
    for (int i = 0; i < argc; i++)
        printf("argument %d: %s\n", i, i ? argv[i] : "-");
    printf("NAME=%s\n", getenv("NAME") ? getenv("NAME") : "(none)");
    while (fgets(line, sizeof line, stdin))
        for (char *word = strtok(line, " \t\n"); word; word = strtok(NULL, " \t\n")) {
            char *end;
            sum += strtol(word, &end, 0);
            for (char *c = word; *c; c++)
                *c = (char)toupper((unsigned char)*c);
            if (count < 400)
                words[count++] = strdup(word);
        }
    qsort(words, (size_t)count, sizeof *words, by_text);
    for (int i = 0; i < count; i++)
        printf("%3d %-12s|\n", i, words[i]);
    printf("%ld %#lx %o %+d %5.1f%%\n", sum, sum, (unsigned)count, count, count / 3.0);
    fprintf(stderr, "%d words\n", count);
    for (int i = 0; i < count; i++)
        free(words[i]);
    return count & 127;
}
