/* What CoreMark has lanes do: a linked list sorted and searched, a matrix, a machine over text, and a checksum of all. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

struct item {
    struct item *next;
    int16_t key, place;
};

static uint16_t crc(uint16_t sum, uint16_t value)
{
    for (int bit = 0; bit < 16; bit++) {
        int carry = (sum ^ value) & 1;
        sum >>= 1;
        value >>= 1;
        if (carry)
            sum ^= 0xA001;
    }
    return sum;
}

typedef int (*order)(const struct item *, const struct item *);

static int by_key(const struct item *a, const struct item *b)
{
    return a->key - b->key;
}

static int by_place(const struct item *a, const struct item *b)
{
    return a->place - b->place;
}

static struct item *sorted(struct item *list, order compare)
{
    if (!list || !list->next)
        return list;
    struct item *slow = list, *fast = list->next;
    while (fast && fast->next) {
        slow = slow->next;
        fast = fast->next->next;
    }
    struct item *right = sorted(slow->next, compare), *left, head, *last = &head;
    slow->next = NULL;
    left = sorted(list, compare);
    while (left && right) {
        struct item **least = compare(left, right) <= 0 ? &left : &right;
        last = last->next = *least;
        *least = (*least)->next;
    }
    last->next = left ? left : right;
    return head.next;
}

static uint16_t of_list(uint16_t seed)
{
    struct item *list = NULL;
    for (int i = 0; i < 300; i++) {
        struct item *item = malloc(sizeof *item);
        seed = (uint16_t)(seed * 25173u + 13849u);
        *item = (struct item){list, (int16_t)seed, (int16_t)i};
        list = item;
    }
    uint16_t sum = 0;
    list = sorted(list, by_key);
    for (struct item *i = list; i; i = i->next)
        sum = crc(sum, (uint16_t)i->key);
    list = sorted(list, by_place);
    while (list) {
        struct item *next = list->next;
        sum = crc(sum, (uint16_t)(list->key ^ list->place));
        free(list);
        list = next;
    }
    return sum;
}

#define SIZE 24

static uint16_t of_matrix(uint16_t seed)
{
    static int16_t a[SIZE][SIZE], b[SIZE][SIZE];
    uint16_t sum = 0;
    for (int i = 0; i < SIZE; i++)
        for (int k = 0; k < SIZE; k++) {
            seed = (uint16_t)(seed * 25173u + 13849u);
            a[i][k] = (int16_t)(seed >> 4);
            b[k][i] = (int16_t)(seed & 0xFF);
        }
    for (int i = 0; i < SIZE; i++)
        for (int k = 0; k < SIZE; k++) {
            int32_t cell = 0;
            for (int n = 0; n < SIZE; n++)
                cell += a[i][n] * b[n][k];
            sum = crc(crc(sum, (uint16_t)cell), (uint16_t)(cell >> 16));
        }
    return sum;
}

enum state { START, SIGN, INTEGER, POINT, FRACTION, EXPONENT, BAD, STATES };

static uint16_t of_text(const char *text)
{
    unsigned visits[STATES] = {0}, ends[STATES] = {0};
    enum state now = START;
    for (; *text; text++) {
        char c = *text;
        int digit = c >= '0' && c <= '9';
        if (c == ',') {
            ends[now]++;
            now = START;
            continue;
        }
        switch (now) {
        case START: now = digit ? INTEGER : c == '-' || c == '+' ? SIGN : c == '.' ? POINT : BAD; break;
        case SIGN: now = digit ? INTEGER : c == '.' ? POINT : BAD; break;
        case INTEGER: now = digit ? INTEGER : c == '.' ? POINT : c == 'e' ? EXPONENT : BAD; break;
        case POINT:
        case FRACTION: now = digit ? FRACTION : c == 'e' ? EXPONENT : BAD; break;
        case EXPONENT: now = digit || c == '-' ? EXPONENT : BAD; break;
        default: break;
        }
        visits[now]++;
    }
    uint16_t sum = 0;
    for (int i = 0; i < STATES; i++)
        sum = crc(crc(sum, (uint16_t)visits[i]), (uint16_t)ends[i]);
    return sum;
}

int main(int argc, char **argv)
{
    unsigned rounds = argc > 1 ? (unsigned)atoi(argv[1]) : 1;
    uint16_t sum = 0;
    for (unsigned round = 0; round < rounds; round++) {
        uint16_t list = of_list((uint16_t)round), matrix = of_matrix(sum);
        uint16_t text = of_text("5012,1.5e-3,-874,+122,.5,x2,-.7e,3.14159,2e5e,--1,");
        sum = crc(crc(crc(sum, list), matrix), text);
        printf("round %u: list %04x matrix %04x text %04x\n", round, list, matrix, text);
    }
    printf("sum %04x\n", sum);
    return sum & 0x7F;
}
