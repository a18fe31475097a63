/* Growing Arrow arrays. A lane learns of a row only when it has a value for it; the rows before are nulls. */

#include "columns.h"
#include <stdlib.h>

static const size_t FIRST_ROWS = 64;

Lane *lane_new(Kind kind)
{
    Lane *lane = calloc(1, sizeof(Lane));

    if (lane != NULL)
        lane->kind = kind;

    return lane;
}

void lane_free(Lane *lane)
{
    if (lane == NULL)
        return;

    free(lane->valid);
    free(lane->values);
    free(lane->text);
    free(lane);
}

static size_t values_size(Kind kind, size_t rows)
{
    switch (kind) {
    case TEXT:
        return (rows + 1) * sizeof(int32_t);
    case BOOLEAN:
        return (rows + 7) / 8;
    default:
        return rows * 8;
    }
}

static Status grow(Lane *lane, size_t rows)
{
    size_t capacity = lane->capacity ? lane->capacity : FIRST_ROWS;

    while (capacity < rows)
        capacity *= 2;

    if (capacity > UINT32_MAX / 2)
        return REFUSED;

    void *values = realloc(lane->values, values_size(lane->kind, capacity));

    if (values == NULL)
        return NO_MEMORY;

    lane->values = values;

    if (lane->kind == TEXT && lane->capacity == 0)
        ((int32_t *)values)[0] = 0;

    /* Bits are set one by one, so they begin as zeros. Capacities are multiples of eight. */
    if (lane->kind == BOOLEAN)
        memset((char *)values + lane->capacity / 8, 0, (capacity - lane->capacity) / 8);

    if (lane->valid != NULL) {
        uint8_t *valid = realloc(lane->valid, capacity / 8);

        if (valid == NULL)
            return NO_MEMORY;

        memset(valid + lane->capacity / 8, 0, (capacity - lane->capacity) / 8);
        lane->valid = valid;
    }

    lane->capacity = (uint32_t)capacity;

    return OK;
}

static Status begin_nulls(Lane *lane)
{
    uint32_t rows = lane->rows;

    if ((lane->valid = calloc(lane->capacity / 8, 1)) == NULL)
        return NO_MEMORY;

    memset(lane->valid, 0xff, rows / 8);

    if (rows % 8)
        lane->valid[rows / 8] = (uint8_t)((1u << (rows % 8)) - 1);

    return OK;
}

/* Nulls up to `row`, and room for `row` itself. */
static Status pad(Lane *lane, uint32_t row)
{
    Status status = OK;

    if (row >= lane->capacity && (status = grow(lane, (size_t)row + 1)) != OK)
        return status;

    if (row == lane->rows)
        return OK;

    if (lane->valid == NULL && (status = begin_nulls(lane)) != OK)
        return status;

    uint32_t gap = row - lane->rows;

    if (lane->kind == TEXT) {
        int32_t *ends = lane->values;
        int32_t end = ends[lane->rows];

        for (uint32_t at = lane->rows + 1; at <= row; at++)
            ends[at] = end;
    } else if (lane->kind != BOOLEAN) {
        memset((char *)lane->values + (size_t)lane->rows * 8, 0, (size_t)gap * 8);
    }

    lane->nulls += gap;
    lane->rows = row;

    return OK;
}

/* Make `row` the last one of the lane; its value is put in by the caller. */
static inline Status open_row(Lane *lane, uint32_t row)
{
    if (row >= lane->capacity || row != lane->rows) {
        Status status = pad(lane, row);

        if (status != OK)
            return status;
    }

    if (lane->valid != NULL)
        lane->valid[row / 8] |= (uint8_t)(1u << (row % 8));

    lane->rows = row + 1;

    return OK;
}

Status lane_integer(Lane *lane, uint32_t row, int64_t value)
{
    Status status = open_row(lane, row);

    if (status == OK)
        ((int64_t *)lane->values)[row] = value;

    return status;
}

Status lane_number(Lane *lane, uint32_t row, double value)
{
    Status status = open_row(lane, row);

    if (status == OK)
        ((double *)lane->values)[row] = value;

    return status;
}

Status lane_boolean(Lane *lane, uint32_t row, bool value)
{
    Status status = open_row(lane, row);

    if (status == OK && value)
        ((uint8_t *)lane->values)[row / 8] |= (uint8_t)(1u << (row % 8));

    return status;
}

Status lane_text_begin(Lane *lane, uint32_t row, size_t size)
{
    Status status = open_row(lane, row);

    if (status != OK)
        return status;

    size_t needed = lane->text_size + size;

    if (needed > INT32_MAX)
        return REFUSED;

    if (needed > lane->text_capacity) {
        size_t capacity = needed * 2 > 256 ? needed * 2 : 256;
        char *text = realloc(lane->text, capacity);

        if (text == NULL)
            return NO_MEMORY;

        lane->text = text;
        lane->text_capacity = capacity;
    }

    return OK;
}

void lane_text_end(Lane *lane)
{
    ((int32_t *)lane->values)[lane->rows] = (int32_t)lane->text_size;
}

Status lane_text(Lane *lane, uint32_t row, const char *text, size_t size)
{
    Status status = lane_text_begin(lane, row, size);

    if (status == OK) {
        if (size)
            memcpy(lane->text + lane->text_size, text, size);

        lane->text_size += size;
        lane_text_end(lane);
    }

    return status;
}

/* Give back what growing by doubling has taken too much. */
static void *shrunk(void *block, size_t size)
{
    void *smaller = block == NULL ? NULL : realloc(block, size ? size : 1);

    return smaller != NULL ? smaller : block;
}

Status lane_finish(Lane *lane, uint32_t rows)
{
    if (lane->rows < rows) {
        Status status = pad(lane, rows);

        if (status != OK)
            return status;
    }

    lane->values = shrunk(lane->values, values_size(lane->kind, rows));
    lane->valid = shrunk(lane->valid, ((size_t)rows + 7) / 8);
    lane->text = shrunk(lane->text, lane->text_size);

    return OK;
}
