#include "yaml_text.h"

#include <errno.h>
#include <stdint.h>
#include <string.h>

void text_cursor_init(struct text_cursor *cursor, const char *text, size_t len)
{
    size_t start = len >= 3 && memcmp(text, "\xEF\xBB\xBF", 3) == 0 ? 3 : 0;

    *cursor = (struct text_cursor){text, len, start, 0, start, start, 1};
}

static void next_line(struct text_cursor *cursor)
{
    cursor->line++;
    cursor->line_start = cursor->off;
}

/* Pass the character of n bytes that begins here. */
static void pass(struct text_cursor *cursor, size_t n)
{
    char c = cursor->text[cursor->off];

    cursor->off += n;
    cursor->index++;
    if (c == '\n' || (c == '\r' && !(cursor->off < cursor->len && cursor->text[cursor->off] == '\n')))
        next_line(cursor);
}

static size_t length_of(unsigned char lead)
{
    return lead < 0x80 ? 1 : lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4;
}

void text_cursor_to_index(struct text_cursor *cursor, size_t index)
{
    if (index < cursor->index)
        text_cursor_init(cursor, cursor->text, cursor->len);
    while (cursor->index < index && cursor->off < cursor->len)
        pass(cursor, length_of((unsigned char)cursor->text[cursor->off]));
}

struct place text_cursor_place(const struct text_cursor *cursor, const char *file)
{
    return (struct place){file, cursor->line, (unsigned)(cursor->off - cursor->line_start + 1)};
}

/* The character at the start of n bytes, its length in *used; 0 if it is no UTF-8. */
static size_t decode(const unsigned char *bytes, size_t n, uint32_t *code)
{
    static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
    size_t len = length_of(bytes[0]);

    *code = bytes[0];
    if (len == 1)
        return 1;
    if (bytes[0] < 0xC2 || bytes[0] > 0xF4 || len > n)
        return 0;
    *code = bytes[0] & (0x7FU >> len);
    for (size_t i = 1; i < len; i++) {
        if ((bytes[i] & 0xC0) != 0x80)
            return 0;
        *code = *code << 6 | (bytes[i] & 0x3FU);
    }
    return *code < least[len] || *code > 0x10FFFF || (*code >= 0xD800 && *code <= 0xDFFF) ? 0 : len;
}

static bool printable(uint32_t code)
{
    if (code < 0x20)
        return code == '\t' || code == '\n' || code == '\r';
    return code < 0x7F || code == 0x85 || (code >= 0xA0 && code != 0xFFFE && code != 0xFFFF);
}

int yaml_text_check(struct findings *findings, const char *file, const char *text, size_t len)
{
    struct text_cursor cursor;
    uint32_t code;

    text_cursor_init(&cursor, text, len);
    while (cursor.off < len) {
        const unsigned char *at = (const unsigned char *)text + cursor.off;
        size_t n = decode(at, len - cursor.off, &code);
        if (n == 0)
            findings_add(findings, SEVERITY_ERROR, text_cursor_place(&cursor, file),
                         "byte 0x%02X is no UTF-8: save the file as UTF-8 text", at[0]);
        else if (!printable(code))
            findings_add(findings, SEVERITY_ERROR, text_cursor_place(&cursor, file),
                         "character U+%04X may not stand in YAML: delete it", code);
        if (n == 0 || !printable(code))
            return -EINVAL;
        pass(&cursor, n);
    }
    return 0;
}

void text_mask(char *text)
{
    size_t len = strlen(text), n;
    uint32_t code;

    for (size_t i = 0; i < len; i += n) {
        n = decode((const unsigned char *)text + i, len - i, &code);
        if (n && code >= ' ' && code != 0x85 && printable(code))
            continue;
        n = n ? n : 1;
        memset(text + i, '?', n);
    }
}
