/* A language: assignments, loops and printing, parsed to a tree and walked; names in a hash table, errors by longjmp. */
#include <ctype.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct node {
    char kind; /* + - * / ^ < = n(umber) v(ariable) f(unction) p(rint) w(hile) ;(then) */
    double number;
    char *name;
    struct node *left, *right;
};

struct variable {
    struct variable *next;
    char *name;
    double value;
};

static struct variable *table[64];
static const char *place;
static int line = 1;
static jmp_buf failed;
static char message[128];

static _Noreturn void fail(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(message, sizeof message, format, arguments);
    va_end(arguments);
    longjmp(failed, 1);
}

static double *variable(const char *name)
{
    unsigned hash = 5381;
    for (const char *c = name; *c; c++)
        hash = hash * 33 ^ (unsigned char)*c;
    struct variable **slot = &table[hash % 64], *found = *slot;
    while (found && strcmp(found->name, name))
        found = found->next;
    if (!found) {
        found = malloc(sizeof *found);
        *found = (struct variable){*slot, strdup(name), 0};
        *slot = found;
    }
    return &found->value;
}

static struct node *make(char kind, struct node *left, struct node *right)
{
    struct node *made = calloc(1, sizeof *made);
    made->kind = kind;
    made->left = left;
    made->right = right;
    return made;
}

static char next(void)
{
    while (isspace((unsigned char)*place))
        line += *place++ == '\n';
    return *place;
}

static int is(const char *word)
{
    size_t size = strlen(word);
    next();
    if (strncmp(place, word, size) || (isalpha((unsigned char)*word) && isalnum((unsigned char)place[size])))
        return 0;
    place += size;
    return 1;
}

static void expect(const char *word)
{
    if (!is(word))
        fail("line %d: expected '%s', found '%.8s'", line, word, place);
}

static char *name(void)
{
    const char *start = place;
    while (isalnum((unsigned char)*place))
        place++;
    return strndup(start, (size_t)(place - start));
}

static struct node *sum(void);

static struct node *atom(void)
{
    struct node *made;
    if (is("("))
        made = sum(), expect(")");
    else if (is("-"))
        made = make('-', make('n', NULL, NULL), atom());
    else if (isdigit((unsigned char)next())) {
        char *end;
        made = make('n', NULL, NULL);
        made->number = strtod(place, &end);
        place = end;
    } else if (isalpha((unsigned char)next())) {
        made = make('v', NULL, NULL);
        made->name = name();
        if (is("(")) {
            made->kind = 'f';
            made->left = sum();
            expect(")");
        }
    } else
        fail("line %d: no value at '%.8s'", line, place);
    return is("^") ? make('^', made, atom()) : made;
}

static struct node *product(void)
{
    struct node *left = atom();
    for (;;)
        if (is("*"))
            left = make('*', left, atom());
        else if (is("/"))
            left = make('/', left, atom());
        else
            return left;
}

static struct node *sum(void)
{
    struct node *left = product();
    for (;;)
        if (is("+"))
            left = make('+', left, product());
        else if (is("-"))
            left = make('-', left, product());
        else if (is("<"))
            left = make('<', left, product());
        else
            return left;
}

static struct node *block(void)
{
    struct node *all = NULL;
    while (next() && *place != '}') {
        struct node *one;
        if (is("while")) {
            one = sum();
            expect("{");
            one = make('w', one, block());
            expect("}");
        } else if (is("print")) {
            one = make('p', sum(), NULL);
            expect(";");
        } else {
            struct node *target = atom();
            if (target->kind != 'v')
                fail("line %d: cannot assign to that", line);
            expect("=");
            one = make('=', target, sum());
            expect(";");
        }
        all = all ? make(';', all, one) : one;
    }
    return all;
}

static double run(const struct node *n)
{
    double left, right;
    if (!n)
        return 0;
    switch (n->kind) {
    case 'n': return n->number;
    case 'v': return *variable(n->name);
    case ';': run(n->left); return run(n->right);
    case '=': return *variable(n->left->name) = run(n->right);
    case 'p': printf("%.10g\n", run(n->left)); return 0;
    case 'w':
        while (run(n->left) != 0)
            run(n->right);
        return 0;
    case 'f':
        left = run(n->left);
        if (!strcmp(n->name, "sqrt"))
            return sqrt(left);
        if (!strcmp(n->name, "sin"))
            return sin(left);
        if (!strcmp(n->name, "floor"))
            return floor(left);
        fail("no function '%s'", n->name);
    }
    left = run(n->left);
    right = run(n->right);
    switch (n->kind) {
    case '+': return left + right;
    case '-': return left - right;
    case '*': return left * right;
    case '<': return left < right;
    case '^': return pow(left, right);
    }
    if (right == 0)
        fail("%g divided by zero", left);
    return left / right;
}

int main(void)
{
    size_t room = 256, size = 0, got;
    char *text = malloc(room);
    while ((got = fread(text + size, 1, room - size - 1, stdin)) > 0)
        if ((size += got) + 1 == room)
            text = realloc(text, room *= 2);
    text[size] = 0;
    place = text;
    if (setjmp(failed)) {
        fflush(stdout);
        fprintf(stderr, "%s\n", message);
        return 1;
    }
    struct node *program = block();
    if (*place)
        fail("line %d: '}' without '{'", line);
    run(program);
    return 0;
}
