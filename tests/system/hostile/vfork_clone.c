/* Children that share memory, descriptors or the working directory with the caller.
 * Escape: the secret is read by one of them.
 * Trap: mediation by process number, when the calling thread is another; vfork's suspended parent. */
#include "_attack.h"

static char *result_of(int fd)
{
    return fd >= 0 ? leak_fd(fd) : NULL;
}
static int by_vfork(char *why)
{
    static char found[200];
    pid_t pid = vfork();
    if (pid == 0) {
        char *t = result_of((int)syscall(SYS_openat, AT_FDCWD, arena("secret"), O_RDONLY, 0));
        if (t)
            strcpy(found, t);
        _exit(0);
    }
    waitpid(pid, NULL, 0);
    if (*found)
        strcpy(why, found);
    return *found != 0;
}
static int opened_fd = -1;
static int child_opens(void *path)
{
    opened_fd = (int)syscall(SYS_openat, AT_FDCWD, path, O_RDONLY, 0);
    return 0;
}
static int child_enters(void *path) { return chdir(path); }
static int shared(char *why, int flags)
{
    char *stack = mmap(NULL, 1 << 18, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    int pid = clone(child_opens, stack + (1 << 18), flags | SIGCHLD, arena("secret"));
    if (pid < 0) {
        strcpy(why, strerror(errno));
        return 0;
    }
    waitpid(pid, NULL, 0);
    char *t = result_of(opened_fd);
    if (t)
        strcpy(why, t);
    return t != NULL;
}
static int clone_files(char *why) { return shared(why, CLONE_VM | CLONE_FILES); }
static int clone_all(char *why) { return shared(why, CLONE_VM | CLONE_FILES | CLONE_FS | CLONE_SIGHAND); }
static int clone_fs(char *why)
{
    char *stack = mmap(NULL, 1 << 18, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    char *dir = strdup(arena("secret"));
    *strrchr(dir, '/') = 0;
    int pid = clone(child_enters, stack + (1 << 18), CLONE_VM | CLONE_FS | SIGCHLD, dir);
    waitpid(pid, NULL, 0);
    char *t = result_of(open("id_ed25519", O_RDONLY));
    if (t)
        strcpy(why, t);
    return t != NULL;
}
static void *in_thread(void *path)
{
    char *dir = strdup(path);
    unshare(CLONE_FS | CLONE_FILES);
    *strrchr(dir, '/') = 0;
    if (chdir(dir) == 0) {
        char *t = result_of(open("id_ed25519", O_RDONLY));
        return t ? strdup(t) : NULL;
    }
    return NULL;
}
static int own_cwd(char *why)
{
    pthread_t t;
    void *found = NULL;
    pthread_create(&t, NULL, in_thread, arena("secret"));
    pthread_join(t, &found);
    if (found)
        strcpy(why, found);
    return found != NULL;
}
int main(void)
{
    attempt("vfork", by_vfork, 1500);
    attempt("CLONE_FILES", clone_files, 1500);
    attempt("CLONE_VM, CLONE_FILES, CLONE_FS", clone_all, 1500);
    attempt("CLONE_FS", clone_fs, 1500);
    attempt("thread with a working directory of its own", own_cwd, 1500);
    return finish();
}
