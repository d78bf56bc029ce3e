/* Recursive quicksort of unsigned words from the seed, then a checksum that depends on their order. */
#include "runtime.h"

#define COUNT 768
#define SMALL 12

static uint32_t values[COUNT];

static void insertion_sort(int low, int high)
{
    for (int i = low + 1; i <= high; i++) {
        uint32_t value = values[i];
        int j = i - 1;
        while (j >= low && values[j] > value) {
            values[j + 1] = values[j];
            j--;
        }
        values[j + 1] = value;
    }
}

static NOINLINE void quicksort(int low, int high)
{
    if (high - low < SMALL) {
        insertion_sort(low, high);
        return;
    }
    uint32_t pivot = values[low + (high - low) / 2];
    int i = low, j = high;
    while (i <= j) {
        while (values[i] < pivot)
            i++;
        while (values[j] > pivot)
            j--;
        if (i <= j) {
            uint32_t swap = values[i];
            values[i++] = values[j];
            values[j--] = swap;
        }
    }
    quicksort(low, j);
    quicksort(i, high);
}

uint32_t guest_main(const uint8_t *input, uint32_t length)
{
    struct job job = job_parse(input, length);
    uint32_t state = random_start(job.seed);
    uint32_t result = 0;
    for (uint32_t round = 0; round < job.repeat; round++) {
        for (int i = 0; i < COUNT; i++)
            values[i] = random_next(&state);
        quicksort(0, COUNT - 1);
        for (int i = 0; i < COUNT; i++)
            result = mix(result, values[i]);
    }
    return result;
}
