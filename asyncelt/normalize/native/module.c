/* What Python sees: Columns takes rows in and gives a tree of places out; Values hands one lane to whoever speaks
 * Arrow's PyCapsule interface. See _columns.pyi. */

#include "columns.h"
#include <stdlib.h>
#if defined(__GLIBC__)
#include <malloc.h>
#endif

/* ------------------------------------------------------------- Arrow's C data interface, as its document has it */

struct ArrowSchema {
    const char *format, *name, *metadata;
    int64_t flags, n_children;
    struct ArrowSchema **children, *dictionary;
    void (*release)(struct ArrowSchema *);
    void *private_data;
};

struct ArrowArray {
    int64_t length, null_count, offset, n_buffers, n_children;
    const void **buffers;
    struct ArrowArray **children, *dictionary;
    void (*release)(struct ArrowArray *);
    void *private_data;
};

enum { NULLABLE = 2 };

static const char *const FORMATS[KINDS] = {[TEXT] = "u", [INTEGER] = "l", [NUMBER] = "g", [BOOLEAN] = "b"};

typedef struct {
    const void *buffers[3];
    Lane *lane;
} Handed;

static void release_schema(struct ArrowSchema *schema)
{
    schema->release = NULL;
}

static void release_array(struct ArrowArray *array)
{
    Handed *handed = array->private_data;
    lane_free(handed->lane);
    free(handed);
    array->release = NULL;
}

static void drop_schema(PyObject *capsule)
{
    struct ArrowSchema *schema = PyCapsule_GetPointer(capsule, "arrow_schema");

    if (schema->release != NULL)
        schema->release(schema);

    free(schema);
}

static void drop_array(PyObject *capsule)
{
    struct ArrowArray *array = PyCapsule_GetPointer(capsule, "arrow_array");

    if (array->release != NULL)
        array->release(array);

    free(array);
}

/* ------------------------------------------------------------------------------------------------ Values */

typedef struct {
    PyObject_HEAD
    Lane *lane; /* NULL once handed over */
} Values;

static PyTypeObject ValuesType;

static PyObject *values_new(Lane *lane)
{
    Values *values = PyObject_New(Values, &ValuesType);

    if (values == NULL) {
        lane_free(lane);
        return NULL;
    }

    values->lane = lane;

    return (PyObject *)values;
}

static void values_dealloc(Values *self)
{
    lane_free(self->lane);
    PyObject_Free(self);
}

static PyObject *schema_capsule(Kind kind)
{
    struct ArrowSchema *schema = calloc(1, sizeof(*schema));

    if (schema == NULL)
        return PyErr_NoMemory();

    *schema = (struct ArrowSchema){.format = FORMATS[kind], .name = "", .flags = NULLABLE, .release = release_schema};
    PyObject *capsule = PyCapsule_New(schema, "arrow_schema", drop_schema);

    if (capsule == NULL)
        free(schema);

    return capsule;
}

/* Takes the lane over, whatever happens. */
static PyObject *array_capsule(Lane *lane)
{
    struct ArrowArray *array = calloc(1, sizeof(*array));
    Handed *handed = calloc(1, sizeof(*handed));

    if (array == NULL || handed == NULL) {
        free(array);
        free(handed);
        lane_free(lane);
        return PyErr_NoMemory();
    }

    handed->lane = lane;
    handed->buffers[0] = lane->valid;
    handed->buffers[1] = lane->values;
    handed->buffers[2] = lane->text != NULL ? lane->text : "";
    *array = (struct ArrowArray){
        .length = lane->rows,
        .null_count = lane->nulls,
        .n_buffers = lane->kind == TEXT ? 3 : 2,
        .buffers = handed->buffers,
        .release = release_array,
        .private_data = handed,
    };
    PyObject *capsule = PyCapsule_New(array, "arrow_array", drop_array);

    if (capsule == NULL) {
        release_array(array);
        free(array);
    }

    return capsule;
}

static PyObject *values_arrow(Values *self, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"requested_schema", NULL};
    PyObject *requested = Py_None;

    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|O", names, &requested))
        return NULL;

    if (self->lane == NULL) {
        PyErr_SetString(PyExc_ValueError, "the values have been handed over already");
        return NULL;
    }

    PyObject *schema = schema_capsule(self->lane->kind);

    if (schema == NULL)
        return NULL;

    PyObject *array = array_capsule(self->lane);
    self->lane = NULL;

    if (array == NULL) {
        Py_DECREF(schema);
        return NULL;
    }

    return Py_BuildValue("(NN)", schema, array);
}

static PyMethodDef values_methods[] = {
    {"__arrow_c_array__", (PyCFunction)(void (*)(void))values_arrow, METH_VARARGS | METH_KEYWORDS,
     "Hand the values over; works once."},
    {NULL, NULL, 0, NULL},
};

static PyTypeObject ValuesType = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "asyncelt.normalize._columns.Values",
    .tp_basicsize = sizeof(Values),
    .tp_dealloc = (destructor)values_dealloc,
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .tp_methods = values_methods,
    .tp_doc = "Values of one kind of one place; an Arrow array to be taken once.",
};

/* ----------------------------------------------------------------------------------------------- Columns */

typedef struct {
    PyObject_HEAD
    Tree tree;
    bool open; /* whether rows may still be added */
} Columns;

static PyObject *Refused;

static PyObject *columns_new(PyTypeObject *type, PyObject *Py_UNUSED(args), PyObject *Py_UNUSED(kwargs))
{
    Columns *self = (Columns *)type->tp_alloc(type, 0);

    if (self == NULL)
        return NULL;

    if (tree_init(&self->tree) != OK) {
        Py_DECREF(self);
        return PyErr_NoMemory();
    }

    self->open = true;

    return (PyObject *)self;
}

static void columns_dealloc(Columns *self)
{
    tree_clear(&self->tree);
    Py_TYPE(self)->tp_free((PyObject *)self);
}

static bool is_open(Columns *self)
{
    if (!self->open)
        PyErr_SetString(PyExc_ValueError, "no rows can be added any more");

    return self->open;
}

/* True for OK; else the error is set, and what was read so far is of no use. */
static bool is_fine(Columns *self, Status status)
{
    if (status == OK)
        return true;

    self->open = false;

    if (status == NO_MEMORY)
        PyErr_NoMemory();
    else
        PyErr_SetString(Refused, "the rows are not plain");

    return false;
}

static PyObject *columns_add_json(Columns *self, PyObject *data)
{
    Py_buffer view;
    Status status;

    if (!is_open(self) || PyObject_GetBuffer(data, &view, PyBUF_SIMPLE) < 0)
        return NULL;

    uint32_t before = self->tree.tables[0]->rows;
    self->open = false; /* nobody else while the GIL is let go */
    Py_BEGIN_ALLOW_THREADS
    status = json_read(&self->tree, view.buf, (size_t)view.len);
    Py_END_ALLOW_THREADS
    self->open = true;
    PyBuffer_Release(&view);

    return is_fine(self, status) ? PyLong_FromUnsignedLong(self->tree.tables[0]->rows - before) : NULL;
}

static PyObject *columns_add_rows(Columns *self, PyObject *args)
{
    PyObject *rows;
    Py_ssize_t start, next = 0;
    double seconds;

    if (!PyArg_ParseTuple(args, "O!nd", &PyList_Type, &rows, &start, &seconds) || !is_open(self))
        return NULL;

    if (start < 0) {
        PyErr_SetString(PyExc_ValueError, "start is negative");
        return NULL;
    }

    Status status = rows_read(&self->tree, rows, start, seconds, &next);

    return is_fine(self, status) ? PyLong_FromSsize_t(next) : NULL;
}

static PyObject *describe_node(Node *node);

/* A lane that belongs to Python from now on. */
static PyObject *take_lane(Lane **lane)
{
    Lane *taken = *lane;
    *lane = NULL;

    return values_new(taken);
}

static PyObject *describe_lanes(Node *node)
{
    PyObject *lanes = PyList_New(0);

    for (int kind = 0; lanes != NULL && kind < KINDS; kind++) {
        if (node->lanes[kind] == NULL)
            continue;

        PyObject *values = take_lane(&node->lanes[kind]);
        PyObject *pair = values == NULL ? NULL : Py_BuildValue("(iN)", kind, values);

        if (pair == NULL || PyList_Append(lanes, pair) < 0)
            Py_CLEAR(lanes);

        Py_XDECREF(pair);
    }

    return lanes;
}

static PyObject *describe_object(Object *object)
{
    if (object == NULL)
        return Py_NewRef(Py_None);

    PyObject *nodes = PyList_New(object->count);

    for (uint32_t i = 0; nodes != NULL && i < object->count; i++) {
        PyObject *node = describe_node(object->nodes[i]);

        if (node == NULL)
            Py_CLEAR(nodes);
        else
            PyList_SET_ITEM(nodes, i, node);
    }

    return nodes;
}

static PyObject *describe_node(Node *node)
{
    if (node->key == NULL
        && (node->key = PyUnicode_DecodeUTF8(node->name ? node->name : "", (Py_ssize_t)node->length, NULL)) == NULL)
        return NULL;

    PyObject *lanes = describe_lanes(node);
    PyObject *object = lanes == NULL ? NULL : describe_object(node->object);

    if (object == NULL) {
        Py_XDECREF(lanes);
        return NULL;
    }

    PyObject *list = node->list == NULL ? Py_NewRef(Py_None) : PyLong_FromUnsignedLong(node->list->number);

    return Py_BuildValue("(ONNN)", node->key, lanes, object, list);
}

static PyObject *describe_table(Table *table)
{
    PyObject *element = describe_node(&table->element);

    if (element == NULL || table->parent < 0 || table->rows == 0)
        return element == NULL ? NULL : Py_BuildValue("(IN)", table->rows, element);

    PyObject *parents = take_lane(&table->parent_rows);
    PyObject *positions = parents == NULL ? NULL : take_lane(&table->positions);

    if (positions == NULL) {
        Py_XDECREF(parents);
        Py_DECREF(element);
        return NULL;
    }

    return Py_BuildValue("(INNN)", table->rows, element, parents, positions);
}

static uint64_t count_lanes(const Node *node)
{
    uint64_t count = 0;

    for (int kind = 0; kind < KINDS; kind++)
        count += node->lanes[kind] != NULL;

    for (uint32_t i = 0; node->object != NULL && i < node->object->count; i++)
        count += count_lanes(node->object->nodes[i]);

    return count;
}

/* Objects keyed by id have a column for each row: better not made than made of nulls. */
static bool is_too_large(const Tree *tree)
{
    uint64_t cells = 0;

    for (uint32_t i = 0; i < tree->count; i++)
        cells += count_lanes(&tree->tables[i]->element) * tree->tables[i]->rows;

    return cells > MOST_CELLS;
}

static PyObject *columns_finish(Columns *self, PyObject *Py_UNUSED(ignored))
{
    if (!is_open(self) || !is_fine(self, is_too_large(&self->tree) ? REFUSED : OK))
        return NULL;

    Status status;
    self->open = false; /* for good, and nobody else while the GIL is let go */
    Py_BEGIN_ALLOW_THREADS
    status = tree_finish(&self->tree);
    Py_END_ALLOW_THREADS

    if (!is_fine(self, status))
        return NULL;

    PyObject *tables = PyList_New(self->tree.count);

    for (uint32_t i = 0; tables != NULL && i < self->tree.count; i++) {
        PyObject *table = describe_table(self->tree.tables[i]);

        if (table == NULL)
            Py_CLEAR(tables);
        else
            PyList_SET_ITEM(tables, i, table);
    }

    return tables;
}

static PyMethodDef columns_methods[] = {
    {"add_json", (PyCFunction)columns_add_json, METH_O, "Add the rows of a JSON text; returns their number."},
    {"add_rows", (PyCFunction)columns_add_rows, METH_VARARGS,
     "Add rows from `start` on for about `seconds`; returns the index of the first that was not taken."},
    {"finish", (PyCFunction)columns_finish, METH_NOARGS, "The tables, with their places and values."},
    {NULL, NULL, 0, NULL},
};

static PyTypeObject ColumnsType = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "asyncelt.normalize._columns.Columns",
    .tp_basicsize = sizeof(Columns),
    .tp_new = columns_new,
    .tp_dealloc = (destructor)columns_dealloc,
    .tp_flags = Py_TPFLAGS_DEFAULT,
    .tp_methods = columns_methods,
    .tp_doc = "Rows on their way into columns.",
};

/* ------------------------------------------------------------------------------------------------ module */

static PyObject *trim(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(ignored))
{
#if defined(__GLIBC__)
    Py_BEGIN_ALLOW_THREADS
    malloc_trim(0);
    Py_END_ALLOW_THREADS
#endif
    Py_RETURN_NONE;
}

static PyMethodDef module_methods[] = {
    {"trim", trim, METH_NOARGS, "Give memory that was freed back to the system, where the C library keeps it."},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "asyncelt.normalize._columns",
    .m_doc = "Rows of JSON or of Python objects to Arrow columns, in one pass.",
    .m_size = -1,
    .m_methods = module_methods,
};

PyMODINIT_FUNC PyInit__columns(void)
{
    if (json_prepare() != OK)
        return PyErr_NoMemory();

    if (PyType_Ready(&ValuesType) < 0 || PyType_Ready(&ColumnsType) < 0)
        return NULL;

    PyObject *module = PyModule_Create(&definition);

    if (module == NULL)
        return NULL;

    Refused = PyErr_NewExceptionWithDoc("asyncelt.normalize._columns.Refused",
                                        "The rows hold something that only another road can take.", PyExc_ValueError, NULL);

    if (Refused == NULL || PyModule_AddObjectRef(module, "Refused", Refused) < 0
        || PyModule_AddObjectRef(module, "Columns", (PyObject *)&ColumnsType) < 0
        || PyModule_AddObjectRef(module, "Values", (PyObject *)&ValuesType) < 0) {
        Py_DECREF(module);
        return NULL;
    }

    return module;
}
