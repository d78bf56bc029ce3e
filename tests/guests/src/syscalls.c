/* The system calls beyond read, write and exit; exits with 0, or with the number of the first check that failed.
 *
 * Only for the translation engine: times are pairs of XLEN-bit words and lseek has three arguments on both widths,
 * as newlib's bare-metal programs have it; Linux on 32 bits has neither.
 */
#include "runtime.h"

#define CHECK(number, condition)                                                                                     \
    do {                                                                                                             \
        if (!(condition))                                                                                            \
            guest_exit(number);                                                                                      \
    } while (0)

enum { EBADF = 9, BAD_DESCRIPTOR = 99, PAGE = 4096 };

struct pair {
    long seconds;
    long fraction;
};

static struct pair pairs[4];
static uint8_t status[256];

static int not_before(const struct pair *later, const struct pair *earlier)
{
    return later->seconds > earlier->seconds
           || (later->seconds == earlier->seconds && later->fraction >= earlier->fraction);
}

static int is_error(long result)
{
    return result < 0 && result >= -4095;
}

_Noreturn void guest_start(unsigned long a0, unsigned long a1)
{
    static const char message[] = "ok\n";
    (void)a0;
    (void)a1;

    /* brk: 0 asks where the end is; memory up to the new end can be used and is zero; it can shrink again. */
    long end = guest_syscall(SYS_BRK, 0, 0, 0);
    CHECK(1, end > 0);
    CHECK(2, guest_syscall(SYS_BRK, end, 0, 0) == end);
    CHECK(3, guest_syscall(SYS_BRK, end + 2 * PAGE, 0, 0) == end + 2 * PAGE);
    volatile uint8_t *heap = (volatile uint8_t *)end;
    CHECK(4, heap[0] == 0 && heap[PAGE] == 0 && heap[2 * PAGE - 1] == 0);
    heap[0] = 17;
    heap[2 * PAGE - 1] = 18;
    CHECK(5, heap[0] == 17 && heap[2 * PAGE - 1] == 18);
    CHECK(6, guest_syscall(SYS_BRK, end + PAGE, 0, 0) == end + PAGE);
    CHECK(7, guest_syscall(SYS_BRK, 0, 0, 0) == end + PAGE && heap[0] == 17);
    /* An impossible wish (below the program) leaves the end where it is. */
    CHECK(8, guest_syscall(SYS_BRK, 16, 0, 0) == end + PAGE);

    /* clock_gettime of the realtime (0) and the monotonic (1) clock, gettimeofday */
    for (int i = 0; i < 2; i++) {
        pairs[0].fraction = pairs[1].fraction = -1;
        CHECK(10 + 3 * i, guest_syscall(SYS_CLOCK_GETTIME, i, (long)&pairs[0], 0) == 0);
        CHECK(11 + 3 * i, pairs[0].seconds >= 0 && pairs[0].fraction >= 0 && pairs[0].fraction < 1000000000);
        guest_syscall(SYS_CLOCK_GETTIME, i, (long)&pairs[1], 0);
        CHECK(12 + 3 * i, not_before(&pairs[1], &pairs[0]));
    }
    pairs[2].fraction = -1;
    CHECK(16, guest_syscall(SYS_GETTIMEOFDAY, (long)&pairs[2], 0, 0) == 0);
    CHECK(17, pairs[2].seconds >= 0 && pairs[2].fraction >= 0 && pairs[2].fraction < 1000000);
    guest_syscall(SYS_GETTIMEOFDAY, (long)&pairs[3], 0, 0);
    CHECK(18, not_before(&pairs[3], &pairs[2]));
    guest_syscall(SYS_CLOCK_GETTIME, 0, (long)&pairs[0], 0);
    CHECK(19, pairs[0].seconds - pairs[2].seconds >= 0 && pairs[0].seconds - pairs[2].seconds < 60);

    /* fstat: st_mode is the word at offset 16 on both widths; the stream has some file type */
    for (int descriptor = 0; descriptor < 3; descriptor++) {
        CHECK(20 + 2 * descriptor, guest_syscall(SYS_FSTAT, descriptor, (long)status, 0) == 0);
        CHECK(21 + 2 * descriptor, (load_u32(status + 16) & 0xf000u) != 0);
    }
    CHECK(26, guest_syscall(SYS_FSTAT, BAD_DESCRIPTOR, (long)status, 0) == -EBADF);

    /* lseek: the streams may or may not be seekable, but a seek to where it is must not fail in a third way */
    for (int descriptor = 0; descriptor < 2; descriptor++) {
        long place = guest_syscall(SYS_LSEEK, descriptor, 0, 1);
        CHECK(30 + descriptor, place >= 0 || is_error(place));
    }
    CHECK(32, guest_syscall(SYS_LSEEK, BAD_DESCRIPTOR, 0, 1) == -EBADF);

    /* reads and writes of nothing, and on descriptors that are not open */
    CHECK(40, guest_syscall(SYS_READ, 0, (long)status, 0) == 0);
    CHECK(41, guest_syscall(SYS_WRITE, 1, (long)message, 0) == 0);
    CHECK(42, guest_syscall(SYS_READ, BAD_DESCRIPTOR, (long)status, 1) == -EBADF);
    CHECK(43, guest_syscall(SYS_WRITE, BAD_DESCRIPTOR, (long)message, 1) == -EBADF);
    CHECK(44, guest_syscall(SYS_WRITE, 1, (long)message, 3) == 3);

    CHECK(50, guest_syscall(SYS_CLOSE, BAD_DESCRIPTOR, 0, 0) == -EBADF);
    CHECK(51, guest_syscall(SYS_CLOSE, 0, 0, 0) == 0);
    guest_exit(0);
}
