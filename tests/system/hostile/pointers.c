/* Names at awkward addresses: across a page border, up against an unmapped page, without an end, at no
 * address at all, longer than PATH_MAX, not UTF-8.
 * Escape: a token is read; or after a bad pointer an allowed open no longer works.
 * Trap: a reader of the target's memory that gives up and lets the call through. */
#include "_attack.h"

static int open_at(const char *path, char *why)
{
    int fd = (int)syscall(SYS_openat, AT_FDCWD, path, O_RDONLY, 0);
    char *t = fd >= 0 ? leak_fd(fd) : NULL;
    strcpy(why, t ? t : strerror(errno));
    return t != NULL;
}
static char *two_pages(int second_mapped)
{
    char *p = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (!second_mapped)
        munmap(p + 4096, 4096);
    return p;
}
static int across(char *why)
{
    char *s = arena("secret"), *at = two_pages(1) + 4096 - strlen(s) / 2;
    strcpy(at, s);
    return open_at(at, why);
}
static int at_edge(char *why)
{
    char *s = arena("secret"), *at = two_pages(0) + 4096 - strlen(s) - 1;
    strcpy(at, s);
    return open_at(at, why);
}
static int across_hole(char *why)
{
    char *s = arena("hole_file"), *at = two_pages(1) + 4096 - 3;
    strcpy(at, s);
    return open_at(at, why);
}
static int not_utf8(char *why) { return open_at(join(arena("hole"), "/\xffkey"), why); }
static int unended(char *why)
{
    char *s = arena("secret"), *at = two_pages(0) + 4096 - strlen(s);
    memcpy(at, s, strlen(s));
    return open_at(at, why);
}
static int still_works(char *why)
{
    long bad[] = {0, 1, 4095, 0x7ffffffff000, -1, -4096, (long)0x8000000000000000UL};
    for (unsigned i = 0; i < sizeof bad / sizeof *bad; i++) {
        syscall(SYS_openat, AT_FDCWD, bad[i], O_RDONLY, 0);
        syscall(SYS_openat, AT_FDCWD, bad[i], O_CREAT | O_RDWR, 0600);
        syscall(SYS_unlinkat, AT_FDCWD, bad[i], 0);
        syscall(SYS_renameat2, AT_FDCWD, bad[i], AT_FDCWD, bad[i], 0);
        syscall(SYS_connect, 0, bad[i], 110);
        syscall(SYS_openat2, AT_FDCWD, bad[i], bad[i], 24);
        syscall(SYS_linkat, AT_FDCWD, bad[i], AT_FDCWD, arena("hole"), 0);
        syscall(SYS_fchmodat, AT_FDCWD, bad[i], 0777);
    }
    char *name = join(arena("project"), "/notes.txt");
    if (open(name, O_RDONLY) < 0) {
        sprintf(why, "an allowed open failed afterwards: %s", strerror(errno));
        return 1;
    }
    /* and a bad pointer is EFAULT, never success */
    if (syscall(SYS_openat, AT_FDCWD, 1L, O_RDONLY, 0) >= 0 || errno != EFAULT) {
        sprintf(why, "a bad pointer gave %s", strerror(errno));
        return 1;
    }
    return 0;
}
static int too_long(char *why)
{
    char *long_name = malloc(9000);
    long_name[0] = 0;
    while (strlen(long_name) < 4200)
        strcat(long_name, "/.");
    strcat(long_name, arena("secret"));
    return open_at(long_name, why);
}
static int nothing(char *why) { return open_at("", why); }

int main(void)
{
    attempt("across a page border", across, 1500);
    attempt("across a page border, the hole", across_hole, 1500);
    attempt("up against an unmapped page", at_edge, 1500);
    attempt("not UTF-8", not_utf8, 1500);
    attempt("without an end", unended, 1500);
    attempt("too long", too_long, 1500);
    attempt("empty", nothing, 1500);
    attempt("bad pointers", still_works, 1500);
    not_native("without an end", "the kernel says EFAULT");
    not_native("too long", "the kernel says ENAMETOOLONG");
    not_native("empty", "the kernel says ENOENT");
    not_native("bad pointers", "nothing is lost without remit");
    return finish();
}
