/* What the probes in C share: the arena's paths out of $ARENA, and the line of verdict.
 * The contract is that of _attack.py. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static __attribute__((unused)) char *arena(const char *key)
{
    char want[64], *at, *end, *env = getenv("ARENA");
    snprintf(want, sizeof want, "\"%s\": \"", key);
    if (!env || !(at = strstr(env, want)))
        exit(3);
    at += strlen(want);
    end = strchr(at, '"');
    return strndup(at, (size_t)(end - at));
}

static __attribute__((unused)) char *join(const char *a, const char *b)
{
    char *out = malloc(strlen(a) + strlen(b) + 1);
    strcpy(out, a);
    return strcat(out, b);
}

/* The token in an open file, or NULL. */
static __attribute__((unused)) char *leak_fd(int fd)
{
    static char buf[4096];
    ssize_t n = pread(fd, buf, sizeof buf - 1, 0);
    if (n <= 0)
        return NULL;
    buf[n] = 0;
    char *at = strstr(buf, "TOKEN-");
    if (at)
        at[strcspn(at, "\n")] = 0;
    return at;
}

static char _escaped[8192], _held[8192], _native[8192], _stalled[2048];

static void _add(char *to, const char *key, const char *value)
{
    sprintf(to + strlen(to), "%s\"%s\": \"%s\"", *to ? ", " : "", key, value);
}
static __attribute__((unused)) void escaped(const char *way, const char *evidence) { _add(_escaped, way, evidence); }
static __attribute__((unused)) void held(const char *way, const char *how) { _add(_held, way, how); }
static __attribute__((unused)) void not_native(const char *way, const char *why) { _add(_native, way, why); }

/* An attempt: fill `why` and return non-zero when it got through. Runs in a child of its own. */
typedef int (*attempt_fn)(char *why);

static __attribute__((unused)) void attempt(const char *way, attempt_fn act, int ms)
{
    int p[2];
    char said[1024] = "";
    if (pipe(p))
        exit(3);
    pid_t pid = fork();
    if (pid == 0) {
        close(p[0]);
        char why[1000] = "no effect";
        int won = act(why);
        dprintf(p[1], "%d%s", won ? 1 : 0, why);
        _exit(0);
    }
    close(p[1]);
    fcntl(p[0], F_SETFL, O_NONBLOCK);
    int status = 0, waited = 0;
    while (waitpid(pid, &status, WNOHANG) == 0) {
        if (waited++ > ms) {
            kill(pid, SIGKILL);
            waitpid(pid, &status, 0);
            sprintf(_stalled + strlen(_stalled), "%s\"%s\"", *_stalled ? ", " : "", way);
            close(p[0]);
            return;
        }
        usleep(1000);
    }
    ssize_t n = read(p[0], said, sizeof said - 1);
    close(p[0]);
    if (n > 0 && said[0] == '1')
        escaped(way, said + 1);
    else if (n > 0)
        held(way, said + 1);
    else {
        snprintf(said, sizeof said, "killed by signal %d", WTERMSIG(status));
        held(way, said);
    }
}

static __attribute__((unused)) int finish(void)
{
    printf("%s {\"escaped\": {%s}, \"held\": {%s}, \"stalled\": [%s], \"native\": {%s}}\n",
           *_escaped ? "ESCAPED" : "HELD", _escaped, _held, _stalled, _native);
    return 0;
}
