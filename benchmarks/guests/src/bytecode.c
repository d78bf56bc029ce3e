/* An interpreter of byte code for a stack machine, with a switch, as small languages have it.
 *
 * The program it runs takes pairs of numbers and adds up their greatest common divisors and their digits.
 */
#include "runtime.h"

#define PAIRS 32u
#define STACK 16u
#define VARIABLES 8u

enum opcode {
    OP_HALT,
    OP_PUSH,  /* operand: the number */
    OP_LOAD,  /* operand: the variable */
    OP_STORE, /* operand: the variable */
    OP_INPUT,
    OP_ADD,
    OP_SUBTRACT,
    OP_MULTIPLY,
    OP_DIVIDE,
    OP_MODULO,
    OP_JUMP,      /* operand: the target */
    OP_JUMP_ZERO, /* operand: the target, taken if what is popped is zero */
};

enum { COUNT, A, B, SUM, REST };

static const uint8_t program[] = {
    /*  0 */ OP_PUSH, 0, OP_STORE, SUM, OP_PUSH, PAIRS, OP_STORE, COUNT,
    /*  8 */ OP_LOAD, COUNT, OP_JUMP_ZERO, 79, OP_LOAD, COUNT, OP_PUSH, 1, OP_SUBTRACT, OP_STORE, COUNT,
    /* 19 */ OP_INPUT, OP_STORE, A, OP_INPUT, OP_STORE, B, OP_LOAD, A, OP_STORE, REST,
    /* 29 */ OP_LOAD, B, OP_JUMP_ZERO, 46, OP_LOAD, B, OP_LOAD, A, OP_LOAD, B, OP_MODULO, OP_STORE, B, OP_STORE, A,
    /* 44 */ OP_JUMP, 29,
    /* 46 */ OP_LOAD, SUM, OP_PUSH, 31, OP_MULTIPLY, OP_LOAD, A, OP_ADD, OP_STORE, SUM,
    /* 56 */ OP_LOAD, REST, OP_JUMP_ZERO, 8, OP_LOAD, SUM, OP_LOAD, REST, OP_PUSH, 10, OP_MODULO, OP_ADD,
    /* 68 */ OP_STORE, SUM, OP_LOAD, REST, OP_PUSH, 10, OP_DIVIDE, OP_STORE, REST, OP_JUMP, 56,
    /* 79 */ OP_LOAD, SUM, OP_HALT,
};

static uint32_t stack[STACK], variables[VARIABLES];

/* What is on top of the stack at the end. Stack and variables cannot be left, whatever the program does. */
static NOINLINE uint32_t execute(const uint8_t *code, uint32_t *state)
{
    const uint8_t *at = code;
    uint32_t top = 0;
    for (;;) {
        uint32_t left, right;
        switch (*at++) {
        case OP_PUSH:
            stack[++top % STACK] = *at++;
            break;
        case OP_LOAD:
            stack[++top % STACK] = variables[*at++ % VARIABLES];
            break;
        case OP_STORE:
            variables[*at++ % VARIABLES] = stack[top-- % STACK];
            break;
        case OP_INPUT:
            stack[++top % STACK] = random_next(state) >> 16;
            break;
        case OP_ADD:
            right = stack[top-- % STACK];
            stack[top % STACK] += right;
            break;
        case OP_SUBTRACT:
            right = stack[top-- % STACK];
            stack[top % STACK] -= right;
            break;
        case OP_MULTIPLY:
            right = stack[top-- % STACK];
            stack[top % STACK] *= right;
            break;
        case OP_DIVIDE:
            right = stack[top-- % STACK];
            left = stack[top % STACK];
            stack[top % STACK] = right != 0u ? left / right : 0u;
            break;
        case OP_MODULO:
            right = stack[top-- % STACK];
            left = stack[top % STACK];
            stack[top % STACK] = right != 0u ? left % right : 0u;
            break;
        case OP_JUMP:
            at = code + *at;
            break;
        case OP_JUMP_ZERO:
            at = stack[top-- % STACK] == 0u ? code + *at : at + 1;
            break;
        default:
            return stack[top % STACK];
        }
    }
}

uint32_t guest_main(const uint8_t *input, uint32_t length)
{
    struct job job = job_parse(input, length);
    uint32_t state = random_start(job.seed);
    uint32_t result = 0;
    for (uint32_t round = 0; round < job.repeat; round++)
        result = mix(result, execute(program, &state));
    return result;
}
