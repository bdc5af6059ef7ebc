/* The command line. Exit status 0: done, 1: the work failed, 2: the command line is wrong. */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "cachedir.h"
#include "cli.h"
#include "export.h"
#include "meld.h"
#include "mount.h"
#include "options.h"
#include "place.h"
#include "progress.h"
#include "report.h"
#include "status.h"
#include "top.h"
#include "unmount.h"

struct command;

/* Options, and the sets of them that commands take. */
enum {
    OPT_FOREGROUND,
    OPT_DEBUG,
    OPT_LIST,
    OPT_OUTPUT,
    OPT_STRICT,
    OPT_DEEP,
    OPT_SET,
    OPT_JSON,
    OPT_PART,
    OPT_AFRESH,
    OPT_HELP,
    N_OPTIONS
};
#define TAKES(name) (1u << OPT_##name)
#define TAKES_CONFIG (TAKES(STRICT) | TAKES(SET))

/* What a command line came to. */
struct call {
    const struct command *command;
    struct mount_request request; /* config and mountpoint are the first two arguments, whatever they mean */
    int n_args;
    char **args;
    const char **set;   /* what request.set points to */
    bool deep;          /* check reads the tensors */
    bool json;          /* report, status */
    const char *output; /* of report; NULL: standard output */
    struct export_options export;
};

struct command {
    const char *name, *args;
    int min_args,
        max_args;     /* the first is a merge file, or what stands for one, where args begin with CONFIG */
    unsigned options; /* that it takes, besides --help */
    int (*run)(struct call *call);
    const char *summary, *help;
};

static int run_mount(struct call *call);
static int run_umount(struct call *call);
static int run_check(struct call *call);
static int run_explain(struct call *call);
static int run_export(struct call *call);
static int run_report(struct call *call);
static int run_path(struct call *call);
static int run_yaml(struct call *call);
static int run_status(struct call *call);
static int run_top(struct call *call);
static int run_help(struct call *call);
static int run_version(struct call *call);

#define HELP_SET \
    "  --set KEY=VALUE change a parameter, with a key as in the path of a variant; may be repeated\n"
#define HELP_PLACE "CONFIG may be a path in a mount, too: that of a model, or of a variant.\n"
#define HELP_OPTIONS                                                                              \
    "  -o cache=SIZE   memory for computed pieces: 256M unless told; K, M and G are understood\n" \
    "  -o threads=N    threads that compute: one a CPU unless told\n"                             \
    "  -o seed=N       of methods that draw at random: 0 unless told\n"                           \
    "  -o nostats      keep no statistics on disk\n"                                              \
    "  -o strict       take warnings for errors\n" HELP_SET

static const struct command commands[] = {
    {"mount", "CONFIG MOUNTPOINT [-f] [-d] [-o OPTION,...] [--set KEY=VALUE]", 2, 2,
     TAKES(FOREGROUND) | TAKES(DEBUG) | TAKES(LIST) | TAKES_CONFIG, run_mount,
     "mount the model that a merge file describes, or a folder of them",
     "  -o allow_other  let other users read it\n"
     "  -o noprefetch   compute nothing before it is asked for\n" HELP_OPTIONS
     "  -f              stay in the foreground; messages go to stderr\n"
     "  -d              the same, and print every FUSE request\n"
     "Returns when the mount can be read. `meldfs umount MOUNTPOINT` ends it. What is saved to CONFIG is\n"
     "served when no load is under way. Where CONFIG is a folder, each *.yml in it is a directory.\n"},
    {"umount", "MOUNTPOINT", 1, 1, 0, run_umount, "unmount, and wait until the daemon has ended",
     "Clears a mount whose daemon has died, too.\n"},
    {"check", "CONFIG [--strict] [--deep] [--set KEY=VALUE]", 1, 1, TAKES(DEEP) | TAKES_CONFIG, run_check,
     "tell everything that is wrong with a merge file",
     "  --strict  take warnings for errors\n"
     "  --deep    read the tensors, too: NaN and infinities, donors that change nothing, what rounding "
     "loses\n" HELP_SET "Without --deep no tensor is read. " HELP_PLACE},
    {"explain", "CONFIG [TENSOR] [--set KEY=VALUE]", 1, 2, TAKES_CONFIG, run_explain,
     "tell where tensors come from: sources, method, parameter values", HELP_SET HELP_PLACE},
    {"export", "CONFIG FOLDER [--part I/N] [--afresh] [-o OPTION,...] [--set KEY=VALUE]", 2, 2,
     TAKES(LIST) | TAKES(PART) | TAKES(AFRESH) | TAKES_CONFIG, run_export, "write the model to disk",
     HELP_OPTIONS
     "  --part I/N      the I-th of N shares of the weight files; 1/N has the other files, too\n"
     "  --afresh        throw away what an unfinished export has left in the folder\n"
     "The folder is made if it is not there, and must hold none of the model's files. They appear when\n"
     "all of them are complete. After Ctrl-C, an error or a crash the same command goes on where it\n"
     "was. Parts may be written into one folder at once, by any number of computers.\n" HELP_PLACE},
    {"report", "CONFIG [-o FILE] [--json] [--set KEY=VALUE]", 1, 1,
     TAKES(OUTPUT) | TAKES(JSON) | TAKES_CONFIG, run_report, "tell what the merge does to every tensor",
     "  -o FILE   write there instead of to standard output\n"
     "  --json    figures for programs instead of a page for a browser\n" HELP_SET
     "Reads every tensor. The page needs no network. " HELP_PLACE},
    {"path", "MOUNTPOINT KEY=VALUE...", 1, INT_MAX, 0, run_path, "print the path of a variant",
     "MOUNTPOINT may be a directory in a mount. If there is no such variant, the reason is told.\n"},
    {"yaml", "CONFIG [--set KEY=VALUE]", 1, 1, TAKES_CONFIG, run_yaml, "print the merge file as it stands",
     HELP_SET HELP_PLACE},
    {"status", "[MOUNTPOINT] [--json]", 0, 1, TAKES(JSON), run_status,
     "memory, cache and throughput of running mounts", "  --json  for programs\n"},
    {"top", "[MOUNTPOINT]", 0, 1, 0, run_top, "the same live, in the terminal",
     "Rates are those of the last second. q or Ctrl-C ends it.\n"},
    {"help", "[COMMAND]", 0, 1, 0, run_help, "tell how a command is used", ""},
    {"version", "", 0, 0, 0, run_version, "print the version", ""},
};
#define N_COMMANDS (sizeof(commands) / sizeof(commands[0]))

static const struct command *find_command(const char *name)
{
    for (size_t i = 0; i < N_COMMANDS; i++)
        if (strcmp(commands[i].name, name) == 0)
            return &commands[i];
    return NULL;
}

/* ---- the commands ---- */

static struct meld_engine *engine_new(const struct call *call)
{
    char *stats_dir = call->request.options.no_stats ? NULL : cachedir_path();
    struct meld_engine_options options = {.cache_bytes = call->request.options.cache_bytes,
                                          .n_threads = call->request.options.n_threads,
                                          .stats_dir = stats_dir};
    struct meld_engine *engine;
    struct err err;

    if (meld_engine_new(&options, &engine, &err) < 0)
        cli_say("%s", err.text);
    free(stats_dir);
    return engine;
}

static int run_mount(struct call *call)
{
    return mount_run(&call->request);
}

static int run_umount(struct call *call)
{
    return unmount_run(call->request.config);
}

static bool inspect_progress(void *arg, uint64_t done, uint64_t total)
{
    struct progress *progress = arg;

    progress->total = total;
    progress_update(progress, done);
    return true;
}

/* Read all tensors and tell what was found. 0, or 1 if something is wrong. */
static int inspect(const struct call *call, struct meld *meld)
{
    struct progress progress = progress_start(0, 0);
    struct report report = {0};
    char *text = NULL;
    int ret = meld_inspect(meld, inspect_progress, &progress, &report, &text);
    bool wrong = ret < 0 || report.n_errors > 0 || (call->request.options.strict && report.n > 0);

    progress_end(&progress);
    cli_report(&report, ret);
    if (text)
        fputs(text, stdout);
    report_fini(&report);
    free(text);
    return wrong;
}

static void tell_good(const struct call *call, const struct meld *meld, double started)
{
    printf("%s: good: %" PRIu64 " tensors of %" PRIu64 " models, %zu files, %s, %s in %s\n",
           call->request.config, meld_n_tensors(meld), meld_n_models(meld), meld_n_files(meld),
           cli_bytes(meld_bytes(meld)).text, call->deep ? "read" : "planned",
           cli_seconds(cli_clock() - started).text);
}

static int run_check(struct call *call)
{
    double started = cli_clock();
    struct meld_engine *engine = call->deep ? engine_new(call) : NULL;
    struct meld *meld = place_open(&call->request, engine);
    int status = meld && call->deep ? inspect(call, meld) : !meld;

    if (status == 0)
        tell_good(call, meld, started);
    meld_close(meld);
    meld_engine_free(engine);
    return status;
}

static int run_explain(struct call *call)
{
    struct meld *meld = place_open(&call->request, NULL);
    struct err err = {""};
    char *text;

    if (!meld)
        return 1;
    text = meld_explain(meld, call->n_args > 1 ? call->request.mountpoint : NULL, &err);
    if (text)
        fputs(text, stdout);
    else
        cli_say("%s", err.text);
    free(text);
    meld_close(meld);
    return text ? 0 : 1;
}

static int run_export(struct call *call)
{
    struct meld_engine *engine = engine_new(call);
    struct meld *meld = engine ? place_open(&call->request, engine) : NULL;
    int status = meld ? export_run(engine, meld, call->request.mountpoint, &call->export) : 1;

    meld_close(meld);
    meld_engine_free(engine);
    return status;
}

/* The merge file's name without folder and ending. */
static char *title_of(const char *config)
{
    const char *name = strrchr(config, '/') ? strrchr(config, '/') + 1 : config;
    size_t len = strcspn(name, ".");

    return strndup(name, len ? len : strlen(name));
}

static int run_report(struct call *call)
{
    struct meld_engine *engine = engine_new(call);
    struct meld *meld = engine ? place_open(&call->request, engine) : NULL;
    char *title = meld ? title_of(call->request.config) : NULL;
    int status = title ? report_run(meld, title, call->output, call->json) : 1;

    free(title);
    meld_close(meld);
    meld_engine_free(engine);
    return status;
}

static int run_path(struct call *call)
{
    return place_print(call->request.config, call->args + 1, (size_t)call->n_args - 1);
}

static int run_yaml(struct call *call)
{
    struct meld *meld = place_open(&call->request, NULL);

    if (!meld)
        return 1;
    fputs(meld_recipe(meld), stdout);
    meld_close(meld);
    return 0;
}

static int run_status(struct call *call)
{
    return status_run(call->request.config, call->json);
}

static int run_top(struct call *call)
{
    return top_run(call->request.config);
}

static void print_commands(FILE *out)
{
    fputs("meldfs mounts a merged language model: its tensors are computed while they are read.\n\n", out);
    for (size_t i = 0; i < N_COMMANDS; i++)
        fprintf(out, "  meldfs %-8s %s\n", commands[i].name, commands[i].summary);
    fputs("\n`meldfs help COMMAND` tells more.\n", out);
}

static int unknown_command(const char *name)
{
    cli_say("there is no command %s; `meldfs help` lists them", name);
    return 2;
}

static int run_help(struct call *call)
{
    const struct command *command;

    if (call->n_args == 0) {
        print_commands(stdout);
        return 0;
    }
    command = find_command(call->request.config);
    if (!command)
        return unknown_command(call->request.config);
    printf("usage: meldfs %s %s\n%c%s.\n%s", command->name, command->args, command->summary[0] - 'a' + 'A',
           command->summary + 1, command->help);
    return 0;
}

static int run_version(struct call *call)
{
    (void)call;
    printf("meldfs %s\n", meld_version());
    return 0;
}

/* ---- the command line ---- */

static int usage(const struct command *command)
{
    cli_say("usage: meldfs %s %s", command->name, command->args);
    return 2;
}

static int parse_list(const char *list, struct mount_options *options)
{
    struct err err;

    if (options_parse(list, options, &err) == 0)
        return 0;
    cli_say("-o: %s", err.text);
    return -1;
}

/* What an option does: 0, or the exit status plus one. */

static int take_foreground(struct call *call, const char *value)
{
    (void)value;
    call->request.foreground = true;
    return 0;
}

static int take_debug(struct call *call, const char *value)
{
    call->request.debug = true;
    return take_foreground(call, value);
}

static int take_list(struct call *call, const char *value)
{
    return parse_list(value, &call->request.options) < 0 ? 3 : 0;
}

static int take_output(struct call *call, const char *value)
{
    call->output = value;
    return 0;
}

static int take_strict(struct call *call, const char *value)
{
    (void)value;
    call->request.options.strict = true;
    return 0;
}

static int take_deep(struct call *call, const char *value)
{
    (void)value;
    call->deep = true;
    return 0;
}

static int take_set(struct call *call, const char *value)
{
    call->set[call->request.n_set++] = value;
    return 0;
}

static int take_json(struct call *call, const char *value)
{
    (void)value;
    call->json = true;
    return 0;
}

static int take_part(struct call *call, const char *value)
{
    if (export_parse_part(value, &call->export) == 0)
        return 0;
    cli_say("--part %s: say which of how many, such as 1/4", value);
    return 3;
}

static int take_afresh(struct call *call, const char *value)
{
    (void)value;
    call->export.afresh = true;
    return 0;
}

static int take_help(struct call *call, const char *value)
{
    (void)value;
    call->n_args = 1;
    call->request.config = call->command->name;
    return 1 + run_help(call);
}

static const struct {
    const char *word; /* NULL: it has none */
    char letter;      /* 0: the same */
    bool has_value;
    int (*take)(struct call *call, const char *value);
} options[N_OPTIONS] = {
    [OPT_FOREGROUND] = {NULL, 'f', false, take_foreground},
    [OPT_DEBUG] = {NULL, 'd', false, take_debug},
    [OPT_LIST] = {NULL, 'o', true, take_list},
    [OPT_OUTPUT] = {NULL, 'o', true, take_output},
    [OPT_STRICT] = {"strict", 0, false, take_strict},
    [OPT_DEEP] = {"deep", 0, false, take_deep},
    [OPT_SET] = {"set", 0, true, take_set},
    [OPT_JSON] = {"json", 0, false, take_json},
    [OPT_PART] = {"part", 0, true, take_part},
    [OPT_AFRESH] = {"afresh", 0, false, take_afresh},
    [OPT_HELP] = {"help", 'h', false, take_help},
};

static bool takes(const struct command *command, size_t option)
{
    return option == OPT_HELP || (command->options & 1u << option);
}

/* For getopt, which then returns a letter, or for a word its option's number + WORD_FIRST. ':' in front: a
 * missing value is told apart. */
#define WORD_FIRST 256
static void list_options(const struct command *command, char letters[2 * N_OPTIONS + 2],
                         struct option words[N_OPTIONS + 1])
{
    size_t n = 0;

    *letters++ = ':';
    for (size_t i = 0; i < N_OPTIONS; i++) {
        if (!takes(command, i))
            continue;
        if (options[i].word)
            words[n++] = (struct option){options[i].word, options[i].has_value, NULL, WORD_FIRST + (int)i};
        if (options[i].letter)
            *letters++ = options[i].letter;
        if (options[i].letter && options[i].has_value)
            *letters++ = ':';
    }
    *letters = '\0';
    words[n] = (struct option){0};
}

static int take_option(int code, struct call *call)
{
    size_t i = 0;

    if (code >= WORD_FIRST)
        return options[code - WORD_FIRST].take(call, optarg);
    while (!takes(call->command, i) || options[i].letter != code)
        i++;
    return options[i].take(call, optarg);
}

/* getopt stands behind the option, or on it where several share a word. */
static int unknown_option(const char *name, char **argv)
{
    if (optopt && optopt < WORD_FIRST)
        cli_say("%s takes no option -%c", name, optopt);
    else
        cli_say("%s takes no option %s", name, argv[optind - 1]);
    return 2;
}

static int missing_value(char **argv)
{
    cli_say("%s lacks its value", argv[optind - 1]);
    return 2;
}

static int take_options(int argc, char **argv, struct call *call)
{
    struct option words[N_OPTIONS + 1];
    char letters[2 * N_OPTIONS + 2];
    int code, ended = 0;

    opterr = 0;
    list_options(call->command, letters, words);
    while (!ended && (code = getopt_long(argc, argv, letters, words, NULL)) != -1) {
        if (code != '?' && code != ':') {
            ended = take_option(code, call);
            continue;
        }
        if (code == '?')
            unknown_option(call->command->name, argv);
        else
            missing_value(argv);
        ended = 1 + usage(call->command);
    }
    return ended;
}

static int run_parsed(struct call *call, int argc, char **argv)
{
    const struct command *command = call->command;
    int ended = take_options(argc, argv, call);

    if (ended)
        return ended - 1;
    call->n_args = argc - optind;
    call->args = argv + optind;
    if (call->n_args < command->min_args || call->n_args > command->max_args)
        return usage(command);
    call->request.config = argv[optind];
    call->request.mountpoint = call->n_args > 1 ? argv[optind + 1] : NULL;
    return command->run(call);
}

static int run_command(const struct command *command, int argc, char **argv)
{
    struct call call = {.command = command, .set = calloc((size_t)argc, sizeof(char *))};
    int status = 1;

    call.request.set = call.set;
    if (call.set)
        status = run_parsed(&call, argc, argv);
    else
        cli_say("out of memory");
    free(call.set);
    return status;
}

/* mount.meldfs SPEC FOLDER [-sfnv] [-N NAMESPACE] [-t TYPE] [-o OPTION,...], as mount(8) calls its
 * helpers. Here -f means "fake": what is to be mounted is planned, no more. */
static int run_helper(int argc, char **argv)
{
    struct mount_request request = {.fstab = true};
    int letter;

    opterr = 0;
    while ((letter = getopt(argc, argv, "sfnvN:t:o:")) != -1) {
        request.fake |= letter == 'f';
        if (letter == '?')
            return unknown_option("mount.meldfs", argv);
        if (letter == 'o' && parse_list(optarg, &request.options) < 0)
            return 2;
    }
    if (argc - optind != 2) {
        cli_say("usage: mount.meldfs CONFIG MOUNTPOINT [-sfnv] [-o OPTION,...]");
        return 2;
    }
    request.config = argv[optind];
    request.mountpoint = argv[optind + 1];
    return mount_run(&request);
}

/* A merge of many shards reads hundreds of files. */
static void raise_file_limit(void)
{
    struct rlimit limit;

    if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < limit.rlim_max) {
        limit.rlim_cur = limit.rlim_max;
        setrlimit(RLIMIT_NOFILE, &limit);
    }
}

static int run(int argc, char **argv)
{
    const char *slash = strrchr(argv[0], '/'), *name = slash ? slash + 1 : argv[0];
    const struct command *command;

    if (strcmp(name, "mount.meldfs") == 0 || strcmp(name, "mount.fuse.meldfs") == 0)
        return run_helper(argc, argv);
    if (argc < 2) {
        print_commands(stderr);
        return 2;
    }
    name = argv[1];
    if (strcmp(name, "--help") == 0 || strcmp(name, "-h") == 0)
        name = "help";
    if (strcmp(name, "--version") == 0 || strcmp(name, "-V") == 0)
        name = "version";
    command = find_command(name);
    return command ? run_command(command, argc - 1, argv + 1) : unknown_command(name);
}

/* A source that got one of their numbers would be lost when the daemon detaches. */
static void open_standard_files(void)
{
    int fd;

    do
        fd = open("/dev/null", O_RDWR);
    while (fd >= 0 && fd < 3);
    if (fd > 2)
        close(fd);
}

int main(int argc, char **argv)
{
    int status;

    if (argc < 1)
        return 2;
    open_standard_files();
    raise_file_limit();
    status = run(argc, argv);
    if (fflush(stdout) != 0 && status == 0) {
        cli_say("standard output: %s", strerror(errno));
        status = 1;
    }
    return status;
}
