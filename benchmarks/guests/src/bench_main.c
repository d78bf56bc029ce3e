/* The frame of a benchmark guest: standard input -> guest_main -> 4 bytes on standard output. */
#include "runtime.h"

static uint8_t input_buffer[INPUT_CAPACITY];

_Noreturn void guest_start(unsigned long a0, unsigned long a1)
{
    (void)a0;
    (void)a1;
    uint32_t length = guest_read_all(0, input_buffer, INPUT_CAPACITY);
    uint32_t result = guest_main(input_buffer, length);
    uint8_t bytes[4] = {(uint8_t)result, (uint8_t)(result >> 8), (uint8_t)(result >> 16), (uint8_t)(result >> 24)};
    guest_exit(guest_write_all(1, bytes, sizeof bytes) == 0 ? 0 : 1);
}
