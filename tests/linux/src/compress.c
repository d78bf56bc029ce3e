/* A file compressed by repeats and Huffman's code, brought back, and compared; its size and checksum on the way. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define WINDOW 4096
#define SYMBOLS 512 /* 256 literals, then repeats by length */

struct bits {
    uint8_t *data;
    size_t count;
};

static void put(struct bits *out, uint32_t value, int count)
{
    while (count--) {
        if (out->count % 8 == 0) {
            out->data = realloc(out->data, out->count / 8 + 1);
            out->data[out->count / 8] = 0;
        }
        out->data[out->count / 8] |= (uint8_t)(((value >> count) & 1) << (out->count % 8));
        out->count++;
    }
}

static uint32_t take(const struct bits *in, size_t *place, int count)
{
    uint32_t value = 0;
    while (count--) {
        value = value << 1 | (in->data[*place / 8] >> (*place % 8) & 1);
        ++*place;
    }
    return value;
}

struct token {
    uint16_t symbol, distance;
};

static size_t tokens_of(const uint8_t *text, size_t size, struct token *tokens)
{
    size_t count = 0;
    int32_t *last = malloc(sizeof *last << 16), *before = malloc(sizeof *before * (size + 1));
    memset(last, 0xFF, sizeof *last << 16);
    for (size_t place = 0; place < size;) {
        size_t best = 0, distance = 0, most = size - place < 255 ? size - place : 255;
        if (most >= 3) {
            int32_t from = last[text[place] | text[place + 1] << 8];
            for (int tries = 0; from >= 0 && place - (size_t)from < WINDOW && tries < 32; tries++, from = before[from]) {
                size_t length = 0;
                while (length < most && text[(size_t)from + length] == text[place + length])
                    length++;
                if (length > best)
                    best = length, distance = place - (size_t)from;
            }
        }
        size_t step = best >= 3 ? best : 1;
        tokens[count++] = best >= 3 ? (struct token){(uint16_t)(256 + best), (uint16_t)distance}
                                    : (struct token){text[place], 0};
        for (; step--; place++)
            if (place + 1 < size) {
                int32_t *slot = &last[text[place] | text[place + 1] << 8];
                before[place] = *slot;
                *slot = (int32_t)place;
            }
    }
    free(last);
    free(before);
    return count;
}

/* Lengths of a Huffman code, by joining the two least often until one is left. */
static void lengths_of(const uint32_t *often, uint8_t *lengths)
{
    static uint32_t weight[2 * SYMBOLS];
    static int parent[2 * SYMBOLS];
    int alive[SYMBOLS], count = 0, nodes = SYMBOLS;
    for (int i = 0; i < SYMBOLS; i++)
        if ((weight[i] = often[i]))
            alive[count++] = i;
    memset(parent, 0, sizeof parent);
    memset(lengths, 0, SYMBOLS);
    if (count == 1)
        lengths[alive[0]] = 1;
    while (count > 1) {
        for (int k = 0; k < 2; k++) { /* the least to the end */
            int least = 0, end = count - 1 - k;
            for (int i = 1; i <= end; i++)
                if (weight[alive[i]] < weight[alive[least]])
                    least = i;
            int t = alive[least];
            alive[least] = alive[end];
            alive[end] = t;
        }
        weight[nodes] = weight[alive[count - 1]] + weight[alive[count - 2]];
        parent[alive[count - 1]] = parent[alive[count - 2]] = nodes;
        alive[count - 2] = nodes++;
        count--;
    }
    for (int i = 0; i < SYMBOLS; i++)
        for (int n = i; often[i] && parent[n]; n = parent[n])
            lengths[i]++;
}

static void codes_of(const uint8_t *lengths, uint32_t *codes)
{
    uint32_t code = 0;
    for (int length = 1; length < 32; length++, code <<= 1)
        for (int i = 0; i < SYMBOLS; i++)
            if (lengths[i] == length)
                codes[i] = code++;
}

static struct bits packed(const uint8_t *text, size_t size)
{
    struct bits out = {NULL, 0};
    struct token *tokens = malloc(sizeof *tokens * (size + 1));
    size_t count = tokens_of(text, size, tokens);
    uint32_t often[SYMBOLS] = {0}, codes[SYMBOLS] = {0};
    uint8_t lengths[SYMBOLS];
    for (size_t i = 0; i < count; i++)
        often[tokens[i].symbol]++;
    lengths_of(often, lengths);
    codes_of(lengths, codes);
    put(&out, (uint32_t)count, 32);
    for (int i = 0; i < SYMBOLS; i++)
        put(&out, lengths[i], 5);
    for (size_t i = 0; i < count; i++) {
        put(&out, codes[tokens[i].symbol], lengths[tokens[i].symbol]);
        if (tokens[i].symbol >= 256)
            put(&out, tokens[i].distance, 12);
    }
    free(tokens);
    return out;
}

static uint8_t *unpacked(const struct bits *in, size_t room, size_t *size)
{
    uint8_t *text = malloc(room + 1), lengths[SYMBOLS];
    uint32_t codes[SYMBOLS] = {0};
    size_t place = 0;
    uint32_t count = take(in, &place, 32);
    for (int i = 0; i < SYMBOLS; i++)
        lengths[i] = (uint8_t)take(in, &place, 5);
    codes_of(lengths, codes);
    *size = 0;
    while (count--) {
        uint32_t code = 0;
        int length = 0, symbol = -1;
        while (symbol < 0) {
            code = code << 1 | take(in, &place, 1);
            length++;
            for (int i = 0; i < SYMBOLS && symbol < 0; i++)
                if (lengths[i] == length && codes[i] == code)
                    symbol = i;
        }
        if (symbol < 256) {
            text[(*size)++] = (uint8_t)symbol;
            continue;
        }
        size_t distance = take(in, &place, 12);
        for (int i = 256; i < symbol; i++, ++*size)
            text[*size] = text[*size - distance];
    }
    return text;
}

int main(int argc, char **argv)
{
    for (int i = 1; i < argc; i++) {
        FILE *file = fopen(argv[i], "rb");
        if (!file) {
            perror(argv[i]);
            return 1;
        }
        fseek(file, 0, SEEK_END);
        size_t size = (size_t)ftell(file), back;
        rewind(file);
        uint8_t *text = malloc(size + 1);
        if (fread(text, 1, size, file) != size)
            return 2;
        fclose(file);
        struct bits out = packed(text, size);
        uint32_t sum = 2166136261u;
        for (size_t k = 0; k < (out.count + 7) / 8; k++)
            sum = (sum ^ out.data[k]) * 16777619u;
        uint8_t *again = unpacked(&out, size, &back);
        int same = back == size && !memcmp(text, again, size);
        printf("%zu bytes in %zu bits, %08x, %s\n", size, out.count, (unsigned)sum, same ? "same" : "DIFFERENT");
        free(text);
        free(again);
        free(out.data);
        if (!same)
            return 3;
    }
    return 0;
}
