/* A language model in two files: model.bin holds the parameters and the vocabulary, this program runs them.

       cc -O3 -o run run.c -lm                            (add -fopenmp to use all cores)
       ./run model.bin                                    chat: a line is a message, an empty line ends
       ./run model.bin -p "Where does Mira live?"         one answer
       ./run model.bin -t "Once upon a time"              go on with a plain text, without the chat format
       ./run model.bin -i 5,17,3                          token ids in, token ids out
       ./run model.bin ... -n 100                         at most 100 tokens

   No library beyond C's own, no network. Decoding is greedy: the best token, always, so the same prompt gives the same answer.
   The parts, in order: the file, the tokenizer, the network, the calculator the model may call, the loop. */

#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void die(const char *what, const char *where) { fprintf(stderr, "run: %s: %s\n", what, where); exit(2); }
static void *need(size_t n, size_t size) { void *p = calloc(n ? n : 1, size); if (!p) die("out of memory", "see the size of model.bin"); return p; }

/* ---- the file: a header of 32-bit numbers, Unicode classes, token bytes, weights -------------------------------------- */

enum { BOS, USER_START, USER_END, ASSISTANT_START, ASSISTANT_END, PYTHON_START, PYTHON_END, OUTPUT_START, OUTPUT_END, N_SPECIAL };
enum { OTHER, LETTER, NUMBER, SPACE };

static struct {
    char magic[8];
    int32_t version, vocab, layers, heads, kv_heads, width, context, digits, n_ranges, special[N_SPECIAL];
    float softcap, rope_base, eps;
} H;
typedef struct { uint32_t low, high, kind; } Range;
typedef struct { float *q, *k, *v, *o, *fc, *proj; } Layer;

static Range *ranges;
static uint8_t **token;                     /* the bytes of each token; special tokens have none */
static uint16_t *token_len;
static float *wte, *lm_head;
static Layer *layer;

static void get(FILE *f, void *to, size_t size, size_t n) {
    if (fread(to, size, n, f) != n) die("model.bin is cut short", "export it again");
}
static float *matrix(FILE *f, size_t n) { float *w = need(n, sizeof *w); get(f, w, sizeof *w, n); return w; }

static void load(const char *path) {
    FILE *f = fopen(path, "rb");
    if (!f) die("cannot open", path);
    get(f, &H, sizeof H, 1);
    if (memcmp(H.magic, "NANOCHAT", 8) || H.version != 1) die("not a model.bin of this program", path);
    ranges = need(H.n_ranges, sizeof *ranges);
    get(f, ranges, sizeof *ranges, H.n_ranges);
    token = need(H.vocab, sizeof *token);
    token_len = need(H.vocab, sizeof *token_len);
    get(f, token_len, sizeof *token_len, H.vocab);
    for (int i = 0; i < H.vocab; i++) { token[i] = need(token_len[i], 1); get(f, token[i], 1, token_len[i]); }
    size_t C = H.width, D = C / H.heads, KV = D * H.kv_heads;
    wte = matrix(f, H.vocab * C);
    layer = need(H.layers, sizeof *layer);
    for (int l = 0; l < H.layers; l++) {
        Layer *w = &layer[l];
        w->q = matrix(f, C * C); w->k = matrix(f, KV * C); w->v = matrix(f, KV * C); w->o = matrix(f, C * C);
        w->fc = matrix(f, 4 * C * C); w->proj = matrix(f, 4 * C * C);
    }
    lm_head = matrix(f, H.vocab * C);
    fclose(f);
}

/* ---- the tokenizer: split as the pattern says, then merge the pair of lowest rank until none is left --------------------- */

static int32_t *table;                      /* bytes -> id, open addressing */
static uint32_t mask;

static uint32_t hash(const uint8_t *s, size_t n) {
    uint32_t h = 2166136261u;
    while (n--) h = (h ^ *s++) * 16777619u;
    return h;
}
static int find(const uint8_t *s, size_t n) {
    for (uint32_t i = hash(s, n) & mask;; i = (i + 1) & mask) {
        int id = table[i];
        if (id < 0 || (token_len[id] == n && !memcmp(token[id], s, n))) return id;
    }
}
static void index_tokens(void) {
    for (mask = 1; mask < 4u * H.vocab; mask *= 2) {}
    table = need(mask, sizeof *table);
    memset(table, -1, mask * sizeof *table);
    mask--;
    for (int id = 0; id < H.vocab; id++) {
        if (!token_len[id] || find(token[id], token_len[id]) >= 0) continue;
        uint32_t i = hash(token[id], token_len[id]) & mask;
        while (table[i] >= 0) i = (i + 1) & mask;
        table[i] = id;
    }
}

typedef struct { uint32_t code; int kind; size_t at; } Char;      /* a character, its class, where its bytes begin */

static int kind_of(uint32_t code) {
    int low = 0, high = H.n_ranges - 1;
    while (low <= high) {
        int mid = (low + high) / 2;
        if (code < ranges[mid].low) high = mid - 1;
        else if (code > ranges[mid].high) low = mid + 1;
        else return ranges[mid].kind;
    }
    return OTHER;
}
static size_t characters(const uint8_t *s, size_t n, Char *out) { /* UTF-8 to characters; a stray byte counts as one */
    size_t count = 0;
    for (size_t i = 0; i < n; count++) {
        int more = s[i] < 0x80 ? 0 : s[i] >= 0xF0 ? 3 : s[i] >= 0xE0 ? 2 : s[i] >= 0xC0 ? 1 : -1;
        uint32_t code = more <= 0 ? s[i] : s[i] & (0x3F >> more);
        if (more < 0 || i + more >= n) { more = 0; if (s[i] >= 0x80) code = 0xFFFD; }
        for (int j = 1; j <= more; j++) code = code << 6 | (s[i + j] & 0x3F);
        out[count] = (Char){code, kind_of(code), i};
        i += 1 + more;
    }
    out[count] = (Char){0, -1, n};                                  /* the end belongs to no class */
    return count;
}
static int newline(Char c) { return c.kind >= 0 && (c.code == '\r' || c.code == '\n'); }
static int folds_to(Char c, char letter) {
    return c.kind >= 0 && (c.code == (uint32_t)letter || c.code == (uint32_t)letter - 32 || (letter == 's' && c.code == 0x17F));
}
static size_t run_of(const Char *c, size_t i, int kind) { while (c[i].kind == kind) i++; return i; }

/* Where the chunk that begins at i ends. The alternatives of the pattern, in its order:
   '(?i:[sdmt]|ll|ve|re) | [^\r\n\p{L}\p{N}]?+\p{L}+ | \p{N}{1,digits} | ?[^\s\p{L}\p{N}]++[\r\n]* | \s*[\r\n] | \s+(?!\S) | \s+ */
static size_t chunk_end(const Char *c, size_t i) {
    if (c[i].code == '\'') {
        for (const char *p = "sdmt"; *p; p++) if (folds_to(c[i + 1], *p)) return i + 2;
        for (const char *p = "llvere"; *p; p += 2)
            if (c[i + 1].kind >= 0 && folds_to(c[i + 1], p[0]) && folds_to(c[i + 2], p[1])) return i + 3;
    }
    size_t letters = i + (c[i].kind != LETTER && c[i].kind != NUMBER && !newline(c[i]));
    if (c[letters].kind == LETTER) return run_of(c, letters, LETTER);
    if (c[i].kind == NUMBER) {
        size_t end = i;
        while (c[end].kind == NUMBER && end - i < (size_t)H.digits) end++;
        return end;
    }
    size_t others = i + (c[i].code == ' ');
    if (c[others].kind == OTHER) {
        size_t end = run_of(c, others, OTHER);
        while (newline(c[end])) end++;
        return end;
    }
    size_t end = run_of(c, i, SPACE);
    for (size_t j = end; j > i; j--) if (newline(c[j - 1])) return j;
    return c[end].kind < 0 || end - i == 1 ? end : end - 1;         /* the last space goes with the word that follows */
}

static int merge_chunk(const uint8_t *s, size_t n, int *ids) {      /* the bytes of one chunk -> ids */
    int whole = find(s, n);
    if (whole >= 0) { ids[0] = whole; return 1; }
    size_t *start = need(n + 1, sizeof *start), parts = n;
    for (size_t i = 0; i <= n; i++) start[i] = i;
    for (;;) {
        int best = -1;
        size_t where = 0;
        for (size_t i = 0; i + 2 <= parts; i++) {
            int id = find(s + start[i], start[i + 2] - start[i]);
            if (id >= 0 && (best < 0 || id < best)) { best = id; where = i; }
        }
        if (best < 0) break;
        memmove(start + where + 1, start + where + 2, (parts - where - 1) * sizeof *start);
        parts--;
    }
    for (size_t i = 0; i < parts; i++) ids[i] = find(s + start[i], start[i + 1] - start[i]);
    free(start);
    return (int)parts;
}

static int encode(const char *text, int *ids) {                     /* ordinary text: never a special id */
    size_t n = strlen(text), count = 0;
    Char *c = need(n + 3, sizeof *c);
    size_t chars = characters((const uint8_t *)text, n, c);
    c[chars + 1] = c[chars];
    for (size_t i = 0, end; i < chars; i = end) {
        end = chunk_end(c, i);
        count += merge_chunk((const uint8_t *)text + c[i].at, c[end].at - c[i].at, ids + count);
    }
    free(c);
    return (int)count;
}

/* ---- the network: one token in, the logits of the next one out; keys and values of the past are kept ---------------------- */

static float *x, *h, *q, *att, *mid, *logits, *keys, *values, *cosine, *sine;

static void prepare(void) {
    size_t C = H.width, D = C / H.heads, KV = D * H.kv_heads;
    x = need(C, 4); h = need(C, 4); q = need(C, 4); mid = need(4 * C, 4); logits = need(H.vocab, 4);
    att = need((size_t)H.heads * H.context, 4);
    keys = need(H.layers * H.context * KV, 4);
    values = need(H.layers * H.context * KV, 4);
    cosine = need(H.context * D / 2, 4);
    sine = need(H.context * D / 2, 4);
    for (int t = 0; t < H.context; t++)
        for (size_t i = 0; i < D / 2; i++) {
            float angle = t * (float)pow(H.rope_base, -2.0 * i / D);
            cosine[t * D / 2 + i] = cosf(angle);
            sine[t * D / 2 + i] = sinf(angle);
        }
}
static float dot(const float *a, const float *b, int n) {
    float sum[8] = {0}, total = 0;
    int i = 0;
    for (; i + 8 <= n; i += 8) for (int j = 0; j < 8; j++) sum[j] += a[i + j] * b[i + j];
    for (; i < n; i++) total += a[i] * b[i];
    for (int j = 0; j < 8; j++) total += sum[j];
    return total;
}
static void multiply(float *out, const float *w, const float *in, int rows, int columns) {       /* out = w in */
    #pragma omp parallel for
    for (int r = 0; r < rows; r++) out[r] = dot(w + (size_t)r * columns, in, columns);
}
static void normalise(float *out, const float *in, int n) {         /* RMS norm, no gains */
    float scale = 1 / sqrtf(dot(in, in, n) / n + H.eps);
    for (int i = 0; i < n; i++) out[i] = in[i] * scale;
}
static void rotate(float *head, int position, int D) {              /* RoPE, then the norm of QK norm */
    const float *c = cosine + (size_t)position * D / 2, *s = sine + (size_t)position * D / 2;
    for (int i = 0; i < D / 2; i++) {
        float a = head[i], b = head[i + D / 2];
        head[i] = a * c[i] + b * s[i];
        head[i + D / 2] = b * c[i] - a * s[i];
    }
    normalise(head, head, D);
}

static int forward(int id, int position) {                          /* returns the best next token */
    int C = H.width, D = C / H.heads, KV = D * H.kv_heads, group = H.heads / H.kv_heads;
    normalise(x, wte + (size_t)id * C, C);
    for (int l = 0; l < H.layers; l++) {
        Layer *w = &layer[l];
        float *K = keys + (size_t)l * H.context * KV, *V = values + (size_t)l * H.context * KV, *k = K + (size_t)position * KV;
        normalise(h, x, C);
        multiply(q, w->q, h, C, C);
        multiply(k, w->k, h, KV, C);
        multiply(V + (size_t)position * KV, w->v, h, KV, C);
        for (int i = 0; i < H.heads; i++) rotate(q + i * D, position, D);
        for (int i = 0; i < H.kv_heads; i++) rotate(k + i * D, position, D);
        #pragma omp parallel for
        for (int i = 0; i < H.heads; i++) {
            float *weight = att + (size_t)i * H.context, *out = h + i * D, top = -INFINITY, sum = 0;
            int shared = i / group * D;
            for (int t = 0; t <= position; t++) {
                weight[t] = dot(q + i * D, K + (size_t)t * KV + shared, D) / sqrtf(D);
                if (weight[t] > top) top = weight[t];
            }
            for (int t = 0; t <= position; t++) sum += weight[t] = expf(weight[t] - top);
            memset(out, 0, D * sizeof *out);
            for (int t = 0; t <= position; t++)
                for (int j = 0; j < D; j++) out[j] += weight[t] / sum * V[(size_t)t * KV + shared + j];
        }
        multiply(q, w->o, h, C, C);
        for (int i = 0; i < C; i++) x[i] += q[i];
        normalise(h, x, C);
        multiply(mid, w->fc, h, 4 * C, C);
        for (int i = 0; i < 4 * C; i++) mid[i] = mid[i] > 0 ? mid[i] * mid[i] : 0;
        multiply(q, w->proj, mid, C, 4 * C);
        for (int i = 0; i < C; i++) x[i] += q[i];
    }
    normalise(h, x, C);
    multiply(logits, lm_head, h, H.vocab, C);
    int best = 0;
    for (int i = 0; i < H.vocab; i++) {
        logits[i] = H.softcap * tanhf(logits[i] / H.softcap);
        if (logits[i] > logits[best]) best = i;
    }
    return best;
}

/* ---- the calculator the model may call: + - * / and brackets -------------------------------------------------------------- */

static const char *at;
static int bad;

static double sum_of(int depth);
static void blanks(void) { while (*at == ' ') at++; }
static int is_digit(char c) { return c >= '0' && c <= '9'; }
static double factor(int depth) {
    blanks();
    if (depth > 40) { bad = 1; return 0; }
    if (*at == '-') { at++; return -factor(depth + 1); }
    if (*at == '+') { at++; return factor(depth + 1); }
    if (*at == '(') {
        at++;
        double value = sum_of(depth + 1);
        if (*at++ != ')') bad = 1;
        return value;
    }
    char digits[64], *end;
    int n = 0, since_comma = 0;
    for (; n < 60 && (is_digit(*at) || *at == '.' || *at == ','); at++) {
        if (*at != ',') { digits[n++] = *at; since_comma++; continue; }
        int group = is_digit(at[1]) && is_digit(at[2]) && is_digit(at[3]) && !is_digit(at[4]);       /* 1,234 is 1234 */
        if (!group || since_comma < 1 || since_comma > 3) bad = 1;
        since_comma = 0;
    }
    digits[n] = 0;
    double value = strtod(digits, &end);
    if (!n || *end || (digits[0] == '0' && is_digit(digits[1]) && !strchr(digits, '.') && value != 0)) bad = 1;
    return value;
}
static double product_of(int depth) {
    double value = factor(depth);
    for (blanks(); !bad && (*at == '*' || *at == '/'); blanks()) {
        char sign = *at++;
        double by = factor(depth);
        if (sign == '/' && by == 0) bad = 1;
        else value = sign == '*' ? value * by : value / by;
    }
    return value;
}
static double sum_of(int depth) {
    double value = product_of(depth);
    for (blanks(); !bad && (*at == '+' || *at == '-'); blanks()) value = *at++ == '+' ? value + product_of(depth) : value - product_of(depth);
    return value;
}
static int calculate(const char *text, char *out, size_t size) {     /* 0 when it is not an expression this knows */
    at = text; bad = 0;
    double value = sum_of(0);
    if (bad || *at || fabs(value) >= 9007199254740992.0) return 0;    /* past 2^53 a double is no longer exact */
    snprintf(out, size, value == floor(value) ? "%.0f" : "%.12g", value == 0 ? 0.0 : value);
    return 1;
}

/* ---- the loop ------------------------------------------------------------------------------------------------------------- */

static int position, limit = 256, show_ids;

static int read_ids(const int *ids, int n) {                          /* the prompt; returns the model's first token */
    int next = -1;
    if (position + n > H.context) die("the text does not fit the context window", "start anew with something shorter");
    for (int i = 0; i < n; i++) next = forward(ids[i], position++);
    return next;
}

static void generate(int next) {
    static char call[4096], result[512];
    static int forced[1024];
    int n_forced = 0, i_forced = 0, in_call = 0;
    size_t n_call = 0;
    for (int made = 0; made < limit; made++) {
        if (i_forced < n_forced) next = forced[i_forced++];           /* the tool's answer takes the place of samples */
        if (show_ids) printf(made ? ",%d" : "%d", next);
        else { fwrite(token[next], 1, token_len[next], stdout); fflush(stdout); }
        if (next == H.special[ASSISTANT_END] || next == H.special[BOS]) break;
        if (next == H.special[PYTHON_START]) { in_call = 1; n_call = 0; if (!show_ids) fputs(" [", stdout); }
        else if (next == H.special[PYTHON_END] && in_call) {
            call[n_call] = 0;
            in_call = 0;
            if (calculate(call, result, sizeof result)) {
                n_forced = i_forced = 0;
                forced[n_forced++] = H.special[OUTPUT_START];
                n_forced += encode(result, forced + n_forced);
                forced[n_forced++] = H.special[OUTPUT_END];
            }
            if (!show_ids) fputs(" =", stdout);
        } else if (in_call && n_call + token_len[next] < sizeof call) {
            memcpy(call + n_call, token[next], token_len[next]);
            n_call += token_len[next];
        } else if (next == H.special[OUTPUT_START] && !show_ids) fputs(" ", stdout);
        else if (next == H.special[OUTPUT_END] && !show_ids) fputs("] ", stdout);
        if (position >= H.context) break;
        next = forward(next, position++);
    }
    if (position < H.context) forward(H.special[ASSISTANT_END], position++);       /* a next turn finds this one closed */
    printf("\n");
}

static void say(const char *text) {                                   /* one turn of the chat format */
    int *ids = need(strlen(text) + 8, sizeof *ids), n = 0;
    if (position == 0) ids[n++] = H.special[BOS];
    ids[n++] = H.special[USER_START];
    n += encode(text, ids + n);
    ids[n++] = H.special[USER_END];
    ids[n++] = H.special[ASSISTANT_START];
    if (position && position + n >= H.context) {
        printf("(the context window is full: a new conversation begins)\n");
        position = 0;
        say(text);
    } else generate(read_ids(ids, n));
    free(ids);
}

int main(int argc, char **argv) {
    const char *prompt = NULL, *text = NULL, *list = NULL;
    if (argc < 2) die("usage", "./run model.bin [-p prompt | -t text | -i ids] [-n tokens]");
    for (int i = 2; i < argc; i += 2) {
        if (argv[i][0] != '-' || !strchr("ptin", argv[i][1]) || i + 1 >= argc) die("unknown argument", argv[i]);
        switch (argv[i][1]) {
            case 'p': prompt = argv[i + 1]; break;
            case 't': text = argv[i + 1]; break;
            case 'i': list = argv[i + 1]; break;
            case 'n': limit = atoi(argv[i + 1]); break;
        }
    }
    load(argv[1]);
    index_tokens();
    prepare();
    if (list || text) {
        int *ids = need(strlen(list ? list : text) + 2, sizeof *ids), n = 0;
        if (list) {
            show_ids = 1;
            for (const char *p = list; *p; p += *p == ',') {
                char *end;
                long id = strtol(p, &end, 10);
                if (end == p || id < 0 || id >= H.vocab) die("not a list of token ids", list);
                ids[n++] = (int)id;
                p = end;
            }
        } else {
            ids[n++] = H.special[BOS];
            n += encode(text, ids + n);
            fputs(text, stdout);
        }
        generate(read_ids(ids, n));
        free(ids);
    } else if (prompt) {
        say(prompt);
    } else {
        static char line[32768];
        for (printf("> "), fflush(stdout); fgets(line, sizeof line, stdin); printf("> "), fflush(stdout)) {
            line[strcspn(line, "\r\n")] = 0;
            if (!*line) break;
            say(line);
        }
    }
    return 0;
}
