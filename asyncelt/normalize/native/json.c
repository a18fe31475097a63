/* JSON text to lanes. Strict: what is no JSON in UTF-8 (RFC 8259) is refused, and so is what Python would read in a
 * way that columns cannot show: keys that come twice, integers over 64 bits, numbers out of a double's range. */

#include "columns.h"
#include <float.h>
#include <locale.h>
#include <math.h>
#include <stdlib.h>
#if defined(__APPLE__)
#include <xlocale.h>
#endif

typedef struct {
    Tree *tree;
    const char *at, *end;
    char *scratch;      /* keys with escapes */
    size_t scratch_size;
    int depth;
} Reader;

static Status read_value(Reader *reader, Node *node, Table *table, uint32_t row);

/* ----------------------------------------------------------------------------------------------- letters */

static const uint64_t ONES = 0x0101010101010101u, HIGH = 0x8080808080808080u;

static bool is_utf8(const unsigned char *at, size_t size)
{
    const unsigned char *end = at + size;

    while (at < end) {
        uint64_t word;

        while (end - at >= 8 && (memcpy(&word, at, 8), (word & HIGH) == 0))
            at += 8;

        if (at == end)
            break;

        unsigned char first = *at++;

        if (first < 0x80)
            continue;

        int more = first >= 0xf0 ? 3 : first >= 0xe0 ? 2 : 1;

        if (first < 0xc2 || first > 0xf4 || end - at < more)
            return false;

        /* The second byte rules out overlong forms, surrogates and what lies beyond U+10FFFF. */
        unsigned char low = first == 0xe0 ? 0xa0 : first == 0xf0 ? 0x90 : 0x80;
        unsigned char high = first == 0xed ? 0x9f : first == 0xf4 ? 0x8f : 0xbf;

        if (at[0] < low || at[0] > high)
            return false;

        for (int i = 1; i < more; i++)
            if ((at[i] & 0xc0) != 0x80)
                return false;

        at += more;
    }

    return true;
}

static inline void skip_blanks(Reader *reader)
{
    while (reader->at < reader->end
           && (*reader->at == ' ' || *reader->at == '\n' || *reader->at == '\r' || *reader->at == '\t'))
        reader->at++;
}

/* From behind the opening quote to the closing one, which is not passed. */
static Status find_quote(Reader *reader, bool *escaped)
{
    const char *at = reader->at, *end = reader->end;
    *escaped = false;

    for (;;) {
#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
        while (end - at >= 8) {
            uint64_t word, quote, slash, found;
            memcpy(&word, at, 8);
            quote = word ^ (ONES * '"');
            slash = word ^ (ONES * '\\');
            found = ((quote - ONES) & ~quote) | ((slash - ONES) & ~slash) | ((word - ONES * 0x20) & ~word);

            if ((found &= HIGH) != 0) {
                at += __builtin_ctzll(found) / 8;
                break;
            }

            at += 8;
        }
#endif
        if (at >= end)
            return REFUSED;

        unsigned char letter = (unsigned char)*at;

        if (letter == '"') {
            reader->at = at;
            return OK;
        }

        if (letter < 0x20)
            return REFUSED;

        if (letter == '\\') {
            *escaped = true;
            at++;
        }

        at++;
    }
}

static int hex4(const char *at)
{
    int value = 0;

    for (int i = 0; i < 4; i++) {
        char c = at[i];
        int digit = c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;

        if (digit < 0)
            return -1;

        value = value * 16 + digit;
    }

    return value;
}

/* Text with escapes, decoded; never longer than it was. NULL where an escape is wrong. */
static char *unescape(const char *at, const char *end, char *out)
{
    while (at < end) {
        if (*at != '\\') {
            *out++ = *at++;
            continue;
        }

        if (end - at < 2)
            return NULL;

        char letter = at[1];
        at += 2;

        switch (letter) {
        case '"': case '\\': case '/':
            *out++ = letter;
            break;
        case 'b': *out++ = '\b'; break;
        case 'f': *out++ = '\f'; break;
        case 'n': *out++ = '\n'; break;
        case 'r': *out++ = '\r'; break;
        case 't': *out++ = '\t'; break;
        case 'u': {
            int point = end - at >= 4 ? hex4(at) : -1;

            if (point < 0 || (point >= 0xdc00 && point < 0xe000))
                return NULL;

            at += 4;

            if (point >= 0xd800 && point < 0xdc00) {
                int low = end - at >= 6 && at[0] == '\\' && at[1] == 'u' ? hex4(at + 2) : -1;

                if (low < 0xdc00 || low >= 0xe000)
                    return NULL;

                point = 0x10000 + ((point - 0xd800) << 10) + (low - 0xdc00);
                at += 6;
            }

            out = put_utf8(out, (uint32_t)point);
            break;
        }
        default:
            return NULL;
        }
    }

    return out;
}

static Status read_text(Reader *reader, Node *node, uint32_t row)
{
    const char *start = ++reader->at;
    bool escaped;
    Lane *lane;
    Status status;

    if ((status = find_quote(reader, &escaped)) != OK || (status = node_lane(node, TEXT, &lane)) != OK)
        return status;

    const char *end = reader->at++;

    if (!escaped)
        return lane_text(lane, row, start, (size_t)(end - start));

    if ((status = lane_text_begin(lane, row, (size_t)(end - start))) != OK)
        return status;

    char *written = unescape(start, end, lane->text + lane->text_size);

    if (written == NULL)
        return REFUSED;

    lane->text_size = (size_t)(written - lane->text);
    lane_text_end(lane);

    return OK;
}

static Status read_key(Reader *reader, Object *object, Node **node)
{
    const char *start = ++reader->at;
    bool escaped;
    Status status = find_quote(reader, &escaped);

    if (status != OK)
        return status;

    const char *end = reader->at++;
    size_t length = (size_t)(end - start);

    if (!escaped)
        return tree_key(reader->tree, object, start, length, node);

    if (length > reader->scratch_size) {
        char *scratch = realloc(reader->scratch, length * 2);

        if (scratch == NULL)
            return NO_MEMORY;

        reader->scratch = scratch;
        reader->scratch_size = length * 2;
    }

    char *written = unescape(start, end, reader->scratch);

    if (written == NULL)
        return REFUSED;

    return tree_key(reader->tree, object, reader->scratch, (size_t)(written - reader->scratch), node);
}

/* ----------------------------------------------------------------------------------------------- numbers */

static const double POWERS[] = {1e0,  1e1,  1e2,  1e3,  1e4,  1e5,  1e6,  1e7,  1e8,  1e9,  1e10, 1e11,
                                1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22};

static bool is_digit(const Reader *reader)
{
    return reader->at < reader->end && *reader->at >= '0' && *reader->at <= '9';
}

static locale_t plain_locale = (locale_t)0;

Status json_prepare(void)
{
    if (plain_locale == (locale_t)0)
        plain_locale = newlocale(LC_ALL_MASK, "C", (locale_t)0);

    return plain_locale == (locale_t)0 ? NO_MEMORY : OK;
}

/* The nearest double, whatever the locale of the process. */
static Status exact_double(const char *start, const char *end, double *value)
{
    char digits[512];
    size_t length = (size_t)(end - start);

    if (length >= sizeof(digits))
        return REFUSED;

    memcpy(digits, start, length);
    digits[length] = 0;
    *value = strtod_l(digits, NULL, plain_locale);

    return isinf(*value) ? REFUSED : OK;
}

static Status read_number(Reader *reader, Node *node, uint32_t row)
{
    const char *start = reader->at;
    bool negative = *start == '-', whole = true, exact = true;
    uint64_t mantissa = 0;
    int digits = 0, exponent = 0;
    Lane *lane;
    Status status;

    reader->at += negative;

    if (!is_digit(reader))
        return REFUSED;

    if (*reader->at == '0') {
        reader->at++;

        if (is_digit(reader))
            return REFUSED;
    }

    for (; is_digit(reader); reader->at++, digits++)
        mantissa = mantissa * 10 + (uint64_t)(*reader->at - '0'); /* wraps where there are too many: see below */

    if (reader->at < reader->end && *reader->at == '.') {
        whole = false;
        reader->at++;

        if (!is_digit(reader))
            return REFUSED;

        for (; is_digit(reader); reader->at++, exponent--) {
            mantissa = mantissa * 10 + (uint64_t)(*reader->at - '0');
            digits += mantissa != 0;
        }
    }

    if (reader->at < reader->end && (*reader->at == 'e' || *reader->at == 'E')) {
        int given = 0;
        whole = false;
        reader->at++;
        bool down = reader->at < reader->end && *reader->at == '-';

        if (reader->at < reader->end && (*reader->at == '-' || *reader->at == '+'))
            reader->at++;

        if (!is_digit(reader))
            return REFUSED;

        for (; is_digit(reader); reader->at++)
            if (given < 100000)
                given = given * 10 + (*reader->at - '0');

        exponent += down ? -given : given;
    }

    if (whole) {
        /* 19 digits stay below 2^64. */
        if (digits > 19 || mantissa > (uint64_t)INT64_MAX + negative)
            return REFUSED;

        if ((status = node_lane(node, INTEGER, &lane)) != OK)
            return status;

        return lane_integer(lane, row, (int64_t)(negative ? 0 - mantissa : mantissa));
    }

    double value;
    exact = FLT_EVAL_METHOD == 0 && digits <= 19 && mantissa <= (uint64_t)1 << 53 && exponent >= -22 && exponent <= 22;

    if (exact) {
        /* Both factors are exact, so one operation rounds once. */
        value = exponent < 0 ? (double)mantissa / POWERS[-exponent] : (double)mantissa * POWERS[exponent];
        value = negative ? -value : value;
    } else if ((status = exact_double(start, reader->at, &value)) != OK) {
        return status;
    }

    if ((status = node_lane(node, NUMBER, &lane)) != OK)
        return status;

    return lane_number(lane, row, value);
}

/* ------------------------------------------------------------------------------------- objects and lists */

/* Pass the opening sign, and the closing one if nothing stands between them. */
static bool is_empty(Reader *reader, char closing)
{
    reader->at++;
    skip_blanks(reader);

    if (reader->at >= reader->end || *reader->at != closing)
        return false;

    reader->at++;

    return true;
}

/* Pass the comma or the closing sign behind a member; `*more` tells which one it was. */
static Status to_next(Reader *reader, char closing, bool *more)
{
    skip_blanks(reader);

    if (reader->at >= reader->end)
        return REFUSED;

    char sign = *reader->at++;
    *more = sign == ',';

    if (!*more && sign != closing)
        return REFUSED;

    if (*more)
        skip_blanks(reader);

    return OK;
}

static Status read_object(Reader *reader, Node *node, Table *table, uint32_t row)
{
    Object *object;
    bool more;
    Status status = tree_object(node, &object);

    if (status != OK)
        return status;

    uint64_t number = ++reader->tree->objects;
    object->next = 0;

    if (is_empty(reader, '}'))
        return OK;

    for (;;) {
        Node *below;

        if (reader->at >= reader->end || *reader->at != '"')
            return REFUSED;

        if ((status = read_key(reader, object, &below)) != OK)
            return status;

        if (below->seen == number)
            return REFUSED;

        below->seen = number;
        skip_blanks(reader);

        if (reader->at >= reader->end || *reader->at++ != ':')
            return REFUSED;

        skip_blanks(reader);

        if ((status = read_value(reader, below, table, row)) != OK)
            return status;

        if ((status = to_next(reader, '}', &more)) != OK || !more)
            return status;
    }
}

static Status read_list(Reader *reader, Node *node, Table *table, uint32_t row)
{
    Table *list;
    uint32_t position = 0, below;
    bool more;
    Status status = tree_list(reader->tree, table, node, &list);

    if (status != OK)
        return status;

    if (is_empty(reader, ']'))
        return OK;

    for (;;) {
        if ((status = tree_row(list, row, position++, &below)) != OK)
            return status;

        if ((status = read_value(reader, &list->element, list, below)) != OK)
            return status;

        if ((status = to_next(reader, ']', &more)) != OK || !more)
            return status;
    }
}

static Status read_word(Reader *reader, const char *word, size_t length)
{
    if ((size_t)(reader->end - reader->at) < length || memcmp(reader->at, word, length) != 0)
        return REFUSED;

    reader->at += length;

    return OK;
}

static Status read_boolean(Reader *reader, Node *node, uint32_t row)
{
    bool value = *reader->at == 't';
    Lane *lane;
    Status status = value ? read_word(reader, "true", 4) : read_word(reader, "false", 5);

    if (status == OK)
        status = node_lane(node, BOOLEAN, &lane);

    return status == OK ? lane_boolean(lane, row, value) : status;
}

static Status read_nested(Reader *reader, Node *node, Table *table, uint32_t row)
{
    if (++reader->depth > DEEPEST)
        return REFUSED;

    Status status = *reader->at == '{' ? read_object(reader, node, table, row) : read_list(reader, node, table, row);
    reader->depth--;

    return status;
}

static Status read_value(Reader *reader, Node *node, Table *table, uint32_t row)
{
    if (reader->at >= reader->end)
        return REFUSED;

    switch (*reader->at) {
    case '"':
        return read_text(reader, node, row);
    case '{': case '[':
        return read_nested(reader, node, table, row);
    case 't': case 'f':
        return read_boolean(reader, node, row);
    case 'n':
        return read_word(reader, "null", 4);
    default:
        return read_number(reader, node, row);
    }
}

/* -------------------------------------------------------------------------------------------------- rows */

static Status read_row(Reader *reader)
{
    Table *table = reader->tree->tables[0];
    uint32_t row;

    if (reader->at >= reader->end || *reader->at != '{')
        return REFUSED;

    Status status = tree_row(table, 0, 0, &row);

    return status == OK ? read_object(reader, &table->element, table, row) : status;
}

static Status read_array(Reader *reader)
{
    bool more;

    if (is_empty(reader, ']'))
        return OK;

    for (;;) {
        Status status = read_row(reader);

        if (status != OK)
            return status;

        if ((status = to_next(reader, ']', &more)) != OK || !more)
            return status;
    }
}

/* One object on each line, or one object over any number of lines. */
static Status read_lines(Reader *reader)
{
    bool broken = false;

    for (int count = 1; reader->at < reader->end; count++) {
        const char *start = reader->at;
        Status status = read_row(reader);

        if (status != OK)
            return status;

        const char *end = reader->at;
        broken = broken || memchr(start, '\n', (size_t)(end - start)) != NULL;
        skip_blanks(reader);

        if (broken && (count > 1 || reader->at < reader->end))
            return REFUSED;

        if (reader->at < reader->end && memchr(end, '\n', (size_t)(reader->at - end)) == NULL)
            return REFUSED;
    }

    return OK;
}

Status json_read(Tree *tree, const char *data, size_t size)
{
    Reader reader = {.tree = tree, .at = data, .end = data + size};
    Status status;

    if (!is_utf8((const unsigned char *)data, size))
        return REFUSED;

    skip_blanks(&reader);
    status = reader.at < reader.end && *reader.at == '[' ? read_array(&reader) : read_lines(&reader);
    skip_blanks(&reader);
    free(reader.scratch);

    return status == OK && reader.at != reader.end ? REFUSED : status;
}
