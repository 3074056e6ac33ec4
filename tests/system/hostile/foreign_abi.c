/* Make system calls under another calling convention: 32-bit int 0x80, x32, and numbers beyond the table.
 * Escape: the secret is read.
 * Trap: a filter that compares 64-bit numbers only. */
#include "_attack.h"

static char *low;
static int result(long fd, char *why)
{
    char *t = fd >= 0 ? leak_fd((int)fd) : NULL;
    if (t)
        strcpy(why, t);
    else
        sprintf(why, "%s", strerror(fd < 0 ? (int)-fd : 0));
    return t != NULL;
}
#ifdef __x86_64__
static long int80(long nr, long a, long b, long c, long d)
{
    long r;
    __asm__ volatile("int $0x80" : "=a"(r) : "a"(nr), "b"(a), "c"(b), "d"(c), "S"(d) : "memory", "r8", "r9", "r10", "r11");
    return (int)r;
}
static long raw(long nr, long a, long b, long c)
{
    long r;
    __asm__ volatile("syscall" : "=a"(r) : "a"(nr), "D"(a), "S"(b), "d"(c) : "memory", "rcx", "r11");
    return r;
}
static int t_open(char *why) { return result(int80(5, (long)low, O_RDONLY, 0, 0), why); }
static int t_openat(char *why) { return result(int80(295, AT_FDCWD, (long)low, O_RDONLY, 0), why); }
static int t_x32(char *why) { return result(raw(0x40000000 + 2, (long)low, O_RDONLY, 0), why); }
static int t_x32_at(char *why) { return result(raw(0x40000000 + 257, AT_FDCWD, (long)low, O_RDONLY), why); }
static int t_high(char *why) { return result(raw((1L << 32) | 2, (long)low, O_RDONLY, 0), why); }
#endif
int main(void)
{
#ifdef __x86_64__
    low = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0);
    strcpy(low, arena("secret"));
    attempt("int80 open", t_open, 1500);
    attempt("int80 openat", t_openat, 1500);
    attempt("x32 open", t_x32, 1500);
    attempt("x32 openat", t_x32_at, 1500);
    attempt("number with high bits", t_high, 1500);
    not_native("x32 open", "this kernel may lack x32");
    not_native("x32 openat", "this kernel may lack x32");
    not_native("number with high bits", "the kernel compares or cuts it before anybody");
    if (access("/proc/sys/abi", F_OK))
        not_native("int80 open", "this kernel may lack 32-bit calls");
#else
    (void)low;
    (void)result;
    held("all", "x86_64 only");
#endif
    return finish();
}
