/* Python rows to lanes. Takes exactly dict, list, str, int, float, bool and None; their subclasses and all other types
 * may mean something else and are refused. Runs no Python code, so nothing can change under its hands. */

#include "columns.h"
#include <math.h>
#include <time.h>

enum { ROWS_BETWEEN_LOOKS = 16 };

static Status take_value(Tree *tree, Node *node, Table *table, uint32_t row, PyObject *value, int depth);

/* Text that is not ASCII, as UTF-8. */
static Status take_wide_text(Lane *lane, uint32_t row, PyObject *value)
{
    Py_ssize_t length = PyUnicode_GET_LENGTH(value);
    int kind = PyUnicode_KIND(value);
    const void *data = PyUnicode_DATA(value);
    Status status = lane_text_begin(lane, row, (size_t)length * 4);

    if (status != OK)
        return status;

    char *out = lane->text + lane->text_size;

    for (Py_ssize_t i = 0; i < length; i++) {
        Py_UCS4 point = PyUnicode_READ(kind, data, i);

        if (point >= 0xd800 && point < 0xe000)
            return REFUSED;

        out = put_utf8(out, point);
    }

    lane->text_size = (size_t)(out - lane->text);
    lane_text_end(lane);

    return OK;
}

static Status take_text(Node *node, uint32_t row, PyObject *value)
{
    Lane *lane;
    Status status = node_lane(node, TEXT, &lane);

    if (status != OK)
        return status;

    if (PyUnicode_IS_COMPACT_ASCII(value))
        return lane_text(lane, row, (const char *)PyUnicode_1BYTE_DATA(value), (size_t)PyUnicode_GET_LENGTH(value));

    return take_wide_text(lane, row, value);
}

static Status take_integer(Node *node, uint32_t row, PyObject *value)
{
    int overflow;
    long long number = PyLong_AsLongLongAndOverflow(value, &overflow);
    Lane *lane;
    Status status;

    if (overflow)
        return REFUSED;

    if ((status = node_lane(node, INTEGER, &lane)) != OK)
        return status;

    return lane_integer(lane, row, number);
}

static Status find_key(Tree *tree, Object *object, PyObject *key, Node **node)
{
    if (object->next < object->count && object->nodes[object->next]->key == key) {
        *node = object->nodes[object->next++];
        return OK;
    }

    if (!PyUnicode_CheckExact(key))
        return REFUSED;

    Py_ssize_t length;
    const char *name = PyUnicode_AsUTF8AndSize(key, &length);

    if (name == NULL) {
        PyErr_Clear();
        return REFUSED;
    }

    Status status = tree_key(tree, object, name, (size_t)length, node);

    if (status == OK && (*node)->key == NULL)
        (*node)->key = Py_NewRef(key);

    return status;
}

static Status take_object(Tree *tree, Node *node, Table *table, uint32_t row, PyObject *value, int depth)
{
    Object *object;
    Status status = tree_object(node, &object);
    PyObject *key, *item;
    Py_ssize_t position = 0;

    if (status != OK)
        return status;

    object->next = 0;

    while (PyDict_Next(value, &position, &key, &item)) {
        Node *below;

        if ((status = find_key(tree, object, key, &below)) != OK)
            return status;

        if ((status = take_value(tree, below, table, row, item, depth)) != OK)
            return status;
    }

    return OK;
}

static Status take_list(Tree *tree, Node *node, Table *table, uint32_t row, PyObject *value, int depth)
{
    Table *list;
    uint32_t below;
    Status status = tree_list(tree, table, node, &list);

    if (status != OK)
        return status;

    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(value); i++) {
        if ((status = tree_row(list, row, (uint32_t)i, &below)) != OK)
            return status;

        if ((status = take_value(tree, &list->element, list, below, PyList_GET_ITEM(value, i), depth)) != OK)
            return status;
    }

    return OK;
}

static Status take_value(Tree *tree, Node *node, Table *table, uint32_t row, PyObject *value, int depth)
{
    Lane *lane;
    Status status;

    if (value == Py_None)
        return OK;

    if (PyUnicode_CheckExact(value))
        return take_text(node, row, value);

    if (PyLong_CheckExact(value))
        return take_integer(node, row, value);

    if (PyFloat_CheckExact(value)) {
        status = node_lane(node, NUMBER, &lane);
        return status == OK ? lane_number(lane, row, PyFloat_AS_DOUBLE(value)) : status;
    }

    if (PyBool_Check(value)) {
        status = node_lane(node, BOOLEAN, &lane);
        return status == OK ? lane_boolean(lane, row, value == Py_True) : status;
    }

    if (depth >= DEEPEST)
        return REFUSED;

    if (PyDict_CheckExact(value))
        return take_object(tree, node, table, row, value, depth + 1);

    if (PyList_CheckExact(value))
        return take_list(tree, node, table, row, value, depth + 1);

    return REFUSED;
}

static double seconds_now(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);

    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

Status rows_read(Tree *tree, PyObject *rows, Py_ssize_t start, double seconds, Py_ssize_t *next)
{
    Table *table = tree->tables[0];
    Py_ssize_t count = PyList_GET_SIZE(rows), at = start;
    double end = seconds_now() + seconds;

    for (; at < count; at++) {
        PyObject *item = PyList_GET_ITEM(rows, at);
        uint32_t row;

        if (!PyDict_CheckExact(item))
            return REFUSED;

        Status status = tree_row(table, 0, 0, &row);

        if (status == OK)
            status = take_object(tree, &table->element, table, row, item, 0);

        if (status != OK)
            return status;

        if ((at - start) % ROWS_BETWEEN_LOOKS == ROWS_BETWEEN_LOOKS - 1 && seconds_now() >= end) {
            at++;
            break;
        }
    }

    *next = at;

    return OK;
}
