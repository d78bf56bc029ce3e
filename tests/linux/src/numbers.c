/* Floats through the C library: functions, conversions in both directions, rounding modes and exceptions. */
#include <fenv.h>
#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

int main(void)
{
    volatile double one = 1.0, three = 3.0, tiny = DBL_MIN;
    for (double x = -2.0; x < 3.0; x += 0.37)
        printf("%.17g %.17g %.17g %.17g %a\n", sin(x), exp(x), atan2(x, 1.5), cbrt(x), pow(2.5, x));
    printf("%.17g %.9g %g\n", strtod("3.14159265358979323846", NULL), strtof("1e-40", NULL), strtod("0x1.8p-1074", NULL));
    printf("%f %e %G %.0f %.0f\n", 1e15 / 7, 123456.789, 1e-10, 0.5, 1.5);
    static const int modes[] = {FE_TONEAREST, FE_TOWARDZERO, FE_DOWNWARD, FE_UPWARD};
    for (int i = 0; i < 4; i++) {
        fesetround(modes[i]);
        feclearexcept(FE_ALL_EXCEPT);
        double third = one / three, root = sqrt(three);
        printf("%d: %a %a %a %ld %g\n", i, third, -third, root, lrint(-2.5), rint(0.5));
        printf("   inexact %d underflow %d\n", !!fetestexcept(FE_INEXACT), !!fetestexcept(FE_UNDERFLOW));
    }
    fesetround(FE_TONEAREST);
    feclearexcept(FE_ALL_EXCEPT);
    volatile double bad = tiny / three;
    printf("%a underflow %d\n", bad, !!fetestexcept(FE_UNDERFLOW));
    bad = one / (three - three);
    printf("%g divided by zero %d\n", bad, !!fetestexcept(FE_DIVBYZERO));
    bad = sqrt(-one);
    printf("%s invalid %d\n", isnan(bad) ? "nan" : "?", !!fetestexcept(FE_INVALID));
    printf("%a %a\n", fma(three, 1.0 / 3.0, -1.0), (double)fmaf(3.0f, 1.0f / 3.0f, -1.0f));
    return 0;
}
