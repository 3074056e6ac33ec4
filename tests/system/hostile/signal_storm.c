/* Interrupt mediated calls with a timer every 200 microseconds.
 * Escape (of correctness): a side effect happens twice, so that mkdir, O_EXCL, link or rename of a fresh
 * name reports that it exists or is gone.
 * Trap: without WAIT_KILLABLE a signal restarts the call while the supervisor already did its work. */
#include "_attack.h"

static void tick(int n) { (void)n; }
/* A signal that comes before the supervisor took the call ends it with EINTR and nothing done: try again. */
#define AGAIN(call) ({ int r_; while ((r_ = (call)) < 0 && errno == EINTR) { } r_; })
static long now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000 + t.tv_nsec / 1000000;
}
static int storm(char *why, int restart)
{
    struct sigaction sa = {.sa_handler = tick, .sa_flags = restart ? SA_RESTART : 0};
    struct itimerval every = {{0, 200}, {0, 200}}, off = {{0, 0}, {0, 0}};
    char base[600], name[700], other[700];
    int wrong = 0, rounds = 0;
    snprintf(base, sizeof base, "%s/storm%d", arena("project"), restart);
    AGAIN(mkdir(base, 0700));
    sigaction(SIGALRM, &sa, NULL);
    setitimer(ITIMER_REAL, &every, NULL);
    for (long end = now_ms() + 700; now_ms() < end && rounds < 600; rounds++) {
        int fd;
        snprintf(name, sizeof name, "%s/d%d", base, rounds);
        snprintf(other, sizeof other, "%s/e%d", base, rounds);
        if (AGAIN(mkdir(name, 0700)) && errno == EEXIST)
            wrong++;
        AGAIN(rmdir(name));
        fd = AGAIN(open(name, O_CREAT | O_EXCL | O_WRONLY, 0600));
        if (fd < 0 && errno == EEXIST)
            wrong++;
        close(fd);
        if (AGAIN(link(name, other)) && errno == EEXIST)
            wrong++;
        if (AGAIN(unlink(other)) && errno == ENOENT)
            wrong++;
        if (AGAIN(rename(name, other)) && errno == ENOENT)
            wrong++;
        AGAIN(unlink(name));
        AGAIN(unlink(other));
    }
    setitimer(ITIMER_REAL, &off, NULL);
    sprintf(why, "%d wrong in %d rounds", wrong, rounds);
    return wrong > 0;
}
static int restarting(char *why) { return storm(why, 1); }
static int interrupting(char *why) { return storm(why, 0); }

int main(void)
{
    attempt("SA_RESTART", restarting, 2500);
    attempt("without SA_RESTART", interrupting, 2500);
    not_native("SA_RESTART", "the kernel does each thing once");
    not_native("without SA_RESTART", "the kernel does each thing once");
    return finish();
}
