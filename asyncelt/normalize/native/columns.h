/* Rows of JSON or of Python objects to Arrow columns, in one pass: what the parts of the extension share.
 *
 *   json.c, rows.c   read rows and put each value where it belongs
 *   tree.c           the places: tables, and in each of them keys of keys
 *   lanes.c          the values: one growing Arrow array per place and kind
 *   module.c         what Python sees
 *
 * Nothing here knows names, types or schemas: a place is known by its raw keys, a value by the kind it came with.
 * Whatever is not plain (an integer over 64 bits, a key that comes twice, text that is no Unicode) is refused as a
 * whole, and the caller takes another, slower road.
 */

#ifndef ASYNCELT_COLUMNS_H
#define ASYNCELT_COLUMNS_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

enum { DEEPEST = 200, MOST_NODES = 100000, MOST_CELLS = 1 << 26 };

typedef enum { OK, REFUSED, NO_MEMORY } Status;

/* ------------------------------------------------------------------------------------------------ lanes.c */

/* In the order in which lanes of one column are worked through. */
typedef enum { BOOLEAN, NUMBER, INTEGER, TEXT, KINDS } Kind;

/* The values of one kind of one place, in Arrow's layout. Rows that were left out are null. */
typedef struct Lane {
    Kind kind;
    uint32_t rows;      /* filled so far, nulls included */
    uint32_t capacity;  /* rows that fit */
    uint32_t nulls;
    uint8_t *valid;     /* a bit per row; NULL as long as there are no nulls */
    void *values;       /* int64, double, bits, or the int32 ends of texts (one more than rows) */
    char *text;
    size_t text_size, text_capacity;
} Lane;

Lane *lane_new(Kind kind);
void lane_free(Lane *lane);
Status lane_integer(Lane *lane, uint32_t row, int64_t value);
Status lane_number(Lane *lane, uint32_t row, double value);
Status lane_boolean(Lane *lane, uint32_t row, bool value);

/* Text in two steps, for readers that decode as they go: room for `size` more bytes, then the end of the value. */
Status lane_text_begin(Lane *lane, uint32_t row, size_t size);
void lane_text_end(Lane *lane);
Status lane_text(Lane *lane, uint32_t row, const char *text, size_t size);

/* Nulls up to the last row of the table; after this the lane can be handed over. Does not need the GIL. */
Status lane_finish(Lane *lane, uint32_t rows);

/* ------------------------------------------------------------------------------------------------- tree.c */

typedef struct Node Node;
typedef struct Table Table;

/* The keys that the objects of one place have had, in the order of their first appearance. */
typedef struct {
    Node **nodes;
    uint32_t count, capacity;
    uint32_t *slots;    /* hash table of positions + 1 */
    uint32_t mask;
    uint32_t next;      /* where the key after the last one is likely to be: rows resemble each other */
} Object;

/* A place: below a key of an object, or an element of a list. */
struct Node {
    PyObject *key;      /* a str that is known to be this key; may be NULL */
    char *name;         /* UTF-8 */
    size_t length;
    uint64_t hash;
    uint64_t seen;      /* number of the object that had this key last */
    Lane *lanes[KINDS];
    Object *object;     /* where a value was an object */
    Table *list;        /* where a value was a list */
};

/* The elements of all lists of one place; the first table holds the rows themselves. */
struct Table {
    uint32_t number;
    int64_t parent;     /* number of the table whose rows have the lists; -1 for the first one */
    uint32_t rows;
    Lane *parent_rows, *positions; /* NULL for the first table */
    Node element;
};

typedef struct {
    Table **tables;
    uint32_t count, capacity;
    uint32_t nodes;
    uint64_t objects;   /* how many objects have been read */
} Tree;

Status tree_init(Tree *tree);
void tree_clear(Tree *tree);
Status tree_object(Node *node, Object **object);
Status tree_list(Tree *tree, Table *parent, Node *node, Table **list);
Status tree_row(Table *table, uint32_t parent_row, uint32_t position, uint32_t *row);
Status tree_key(Tree *tree, Object *object, const char *name, size_t length, Node **node);

/* Finish all lanes, so that they can be handed over. Does not need the GIL. */
Status tree_finish(Tree *tree);

static inline Status node_lane(Node *node, Kind kind, Lane **lane)
{
    if (node->lanes[kind] == NULL && (node->lanes[kind] = lane_new(kind)) == NULL)
        return NO_MEMORY;

    *lane = node->lanes[kind];

    return OK;
}

/* A code point as UTF-8, which takes up to four bytes; returns what is behind it. */
static inline char *put_utf8(char *out, uint32_t point)
{
    if (point < 0x80) {
        *out++ = (char)point;
        return out;
    }

    if (point < 0x800) {
        *out++ = (char)(0xc0 | (point >> 6));
    } else {
        if (point < 0x10000) {
            *out++ = (char)(0xe0 | (point >> 12));
        } else {
            *out++ = (char)(0xf0 | (point >> 18));
            *out++ = (char)(0x80 | ((point >> 12) & 0x3f));
        }

        *out++ = (char)(0x80 | ((point >> 6) & 0x3f));
    }

    *out++ = (char)(0x80 | (point & 0x3f));

    return out;
}

/* --------------------------------------------------------------------------------------- json.c and rows.c */

/* To be called once, before the first `json_read`. */
Status json_prepare(void);

/* All rows of a JSON text: an array of objects, lines of objects, or one object. Does not need the GIL. */
Status json_read(Tree *tree, const char *data, size_t size);

/* Rows from `start` on, for about `seconds`; `*next` is the first one that was not taken. */
Status rows_read(Tree *tree, PyObject *rows, Py_ssize_t start, double seconds, Py_ssize_t *next);

#endif
