/* Places: tables, and in each of them keys of keys. */

#include "columns.h"
#include <stdlib.h>

static void node_clear(Node *node);

static void object_free(Object *object)
{
    if (object == NULL)
        return;

    for (uint32_t i = 0; i < object->count; i++) {
        node_clear(object->nodes[i]);
        free(object->nodes[i]);
    }

    free(object->nodes);
    free(object->slots);
    free(object);
}

static void node_clear(Node *node)
{
    for (int kind = 0; kind < KINDS; kind++)
        lane_free(node->lanes[kind]);

    object_free(node->object);
    free(node->name);
    Py_XDECREF(node->key);
}

static Table *table_new(Tree *tree, int64_t parent)
{
    if (tree->count == tree->capacity) {
        uint32_t capacity = tree->capacity ? tree->capacity * 2 : 16;
        Table **tables = realloc(tree->tables, capacity * sizeof(Table *));

        if (tables == NULL)
            return NULL;

        tree->tables = tables;
        tree->capacity = capacity;
    }

    Table *table = calloc(1, sizeof(Table));

    if (table == NULL)
        return NULL;

    table->number = tree->count;
    table->parent = parent;
    tree->tables[tree->count++] = table;

    if (parent < 0)
        return table;

    table->parent_rows = lane_new(INTEGER);
    table->positions = lane_new(INTEGER);

    return table->parent_rows == NULL || table->positions == NULL ? NULL : table;
}

Status tree_init(Tree *tree)
{
    memset(tree, 0, sizeof(Tree));

    return table_new(tree, -1) == NULL ? NO_MEMORY : OK;
}

void tree_clear(Tree *tree)
{
    for (uint32_t i = 0; i < tree->count; i++) {
        Table *table = tree->tables[i];
        node_clear(&table->element);
        lane_free(table->parent_rows);
        lane_free(table->positions);
        free(table);
    }

    free(tree->tables);
    memset(tree, 0, sizeof(Tree));
}

Status tree_object(Node *node, Object **object)
{
    if (node->object == NULL && (node->object = calloc(1, sizeof(Object))) == NULL)
        return NO_MEMORY;

    *object = node->object;

    return OK;
}

Status tree_list(Tree *tree, Table *parent, Node *node, Table **list)
{
    if (node->list == NULL) {
        if (tree->count >= MOST_NODES)
            return REFUSED;

        if ((node->list = table_new(tree, parent->number)) == NULL)
            return NO_MEMORY;
    }

    *list = node->list;

    return OK;
}

Status tree_row(Table *table, uint32_t parent_row, uint32_t position, uint32_t *row)
{
    if (table->rows == INT32_MAX)
        return REFUSED;

    *row = table->rows++;

    if (table->parent < 0)
        return OK;

    Status status = lane_integer(table->parent_rows, *row, parent_row);

    return status == OK ? lane_integer(table->positions, *row, position) : status;
}

/* ------------------------------------------------------------------------------------------------- keys */

static uint64_t hash_of(const char *name, size_t length)
{
    uint64_t hash = 0x9e3779b97f4a7c15u ^ length, word;

    for (; length >= 8; name += 8, length -= 8) {
        memcpy(&word, name, 8);
        hash = (hash ^ word) * 0xff51afd7ed558ccdu;
        hash ^= hash >> 32;
    }

    word = 0;
    memcpy(&word, name, length);
    hash = (hash ^ word) * 0xff51afd7ed558ccdu;

    return hash ^ (hash >> 29);
}

static Status rehash(Object *object)
{
    uint32_t size = object->mask ? (object->mask + 1) * 2 : 16;
    uint32_t *slots = calloc(size, sizeof(uint32_t));

    if (slots == NULL)
        return NO_MEMORY;

    free(object->slots);
    object->slots = slots;
    object->mask = size - 1;

    for (uint32_t i = 0; i < object->count; i++) {
        uint32_t at = (uint32_t)object->nodes[i]->hash & object->mask;

        while (slots[at])
            at = (at + 1) & object->mask;

        slots[at] = i + 1;
    }

    return OK;
}

static Status add_key(Tree *tree, Object *object, const char *name, size_t length, uint64_t hash, Node **node)
{
    Status status;

    if (++tree->nodes > MOST_NODES)
        return REFUSED;

    if (object->count == object->capacity) {
        uint32_t capacity = object->capacity ? object->capacity * 2 : 8;
        Node **nodes = realloc(object->nodes, capacity * sizeof(Node *));

        if (nodes == NULL)
            return NO_MEMORY;

        object->nodes = nodes;
        object->capacity = capacity;
    }

    Node *made = calloc(1, sizeof(Node));

    if (made == NULL || (made->name = malloc(length ? length : 1)) == NULL) {
        free(made);
        return NO_MEMORY;
    }

    memcpy(made->name, name, length);
    made->length = length;
    made->hash = hash;
    object->nodes[object->count++] = made;

    /* At most half full. The new key finds its slot here or in the new table. */
    if (object->count * 2 > object->mask) {
        if ((status = rehash(object)) != OK)
            return status;
    } else {
        uint32_t at = (uint32_t)hash & object->mask;

        while (object->slots[at])
            at = (at + 1) & object->mask;

        object->slots[at] = object->count;
    }

    *node = made;

    return OK;
}

Status tree_key(Tree *tree, Object *object, const char *name, size_t length, Node **node)
{
    if (object->next < object->count) {
        Node *likely = object->nodes[object->next];

        if (likely->length == length && memcmp(likely->name, name, length) == 0) {
            object->next++;
            *node = likely;

            return OK;
        }
    }

    uint64_t hash = hash_of(name, length);

    if (object->slots != NULL) {
        uint32_t at = (uint32_t)hash & object->mask;

        for (; object->slots[at]; at = (at + 1) & object->mask) {
            Node *found = object->nodes[object->slots[at] - 1];

            if (found->hash == hash && found->length == length && memcmp(found->name, name, length) == 0) {
                object->next = object->slots[at];
                *node = found;

                return OK;
            }
        }
    }

    Status status = add_key(tree, object, name, length, hash, node);
    object->next = object->count;

    return status;
}

/* ------------------------------------------------------------------------------------------------- finish */

static Status node_finish(Node *node, uint32_t rows)
{
    Status status = OK;

    for (int kind = 0; status == OK && kind < KINDS; kind++)
        if (node->lanes[kind] != NULL)
            status = lane_finish(node->lanes[kind], rows);

    for (uint32_t i = 0; status == OK && node->object != NULL && i < node->object->count; i++)
        status = node_finish(node->object->nodes[i], rows);

    return status;
}

Status tree_finish(Tree *tree)
{
    Status status = OK;

    for (uint32_t i = 0; status == OK && i < tree->count; i++) {
        Table *table = tree->tables[i];
        status = node_finish(&table->element, table->rows);

        if (status == OK && table->parent >= 0 && (status = lane_finish(table->parent_rows, table->rows)) == OK)
            status = lane_finish(table->positions, table->rows);
    }

    return status;
}
