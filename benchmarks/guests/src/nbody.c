/* Five bodies under gravity: the symplectic integrator of the solar system, positions perturbed by the seed. */
#include "runtime.h"

#define BODIES 5u
#define STEPS 60u

struct body {
    double x, y, z, vx, vy, vz, mass;
};

static struct body bodies[BODIES];

static const double masses[BODIES] = {39.47841760435743, 0.03769367487038949, 0.011286326131968767,
                                      0.0017237240570597112, 0.0020336868699246304};

static double random_double(uint32_t *state)
{
    return (double)(int32_t)random_next(state) * 0x1p-31;
}

static NOINLINE void advance(double step)
{
    for (unsigned i = 0; i < BODIES; i++) {
        struct body *a = &bodies[i];
        for (unsigned j = i + 1; j < BODIES; j++) {
            struct body *b = &bodies[j];
            double dx = a->x - b->x, dy = a->y - b->y, dz = a->z - b->z;
            double squared = dx * dx + dy * dy + dz * dz;
            double magnitude = step / (squared * __builtin_sqrt(squared));
            a->vx -= dx * b->mass * magnitude;
            a->vy -= dy * b->mass * magnitude;
            a->vz -= dz * b->mass * magnitude;
            b->vx += dx * a->mass * magnitude;
            b->vy += dy * a->mass * magnitude;
            b->vz += dz * a->mass * magnitude;
        }
    }
    for (unsigned i = 0; i < BODIES; i++) {
        bodies[i].x += step * bodies[i].vx;
        bodies[i].y += step * bodies[i].vy;
        bodies[i].z += step * bodies[i].vz;
    }
}

uint32_t guest_main(const uint8_t *input, uint32_t length)
{
    struct job job = job_parse(input, length);
    uint32_t state = random_start(job.seed);
    uint32_t result = 0;
    for (uint32_t round = 0; round < job.repeat; round++) {
        for (unsigned i = 0; i < BODIES; i++) {
            double far = (double)(i * 4u);
            struct body made = {far + random_double(&state), random_double(&state), random_double(&state),
                                random_double(&state),       random_double(&state), random_double(&state),
                                masses[i]};
            bodies[i] = made;
        }
        for (unsigned i = 0; i < STEPS; i++)
            advance(0.001);
        for (unsigned i = 0; i < BODIES; i++)
            result = mix(result, (uint32_t)(int32_t)(bodies[i].x * 1048576.0));
    }
    return result;
}
