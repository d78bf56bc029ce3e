/* Bare metal: what a0 (the lane) and a1 (the number of lanes) are at the start, as two u32 on standard output.
 * A user-mode emulator starts programs with both 0. */
#include "runtime.h"

_Noreturn void guest_start(unsigned long a0, unsigned long a1)
{
    uint32_t words[2] = {(uint32_t)a0, (uint32_t)a1};
    guest_exit(guest_write_all(1, words, sizeof words) == 0 ? 0 : 1);
}
