/* relay PORT: a listener on loopback, its port on the first line, that relays every connection to PORT by splice(2).
 *
 * The least that a relay can do: no look at what goes by, a thread for each direction. The benchmark holds the gateway's
 * speed against it, since beside client and server on the same cores no relay reaches a direct connection's. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

enum { PIPE = 1 << 18 }; /* bytes in flight, as in the gateway */

struct way {
    int from, to;
};

static void *run(void *given) {
    struct way *way = given;
    int ends[2];
    ssize_t got, went;
    if (pipe(ends))
        return NULL;
    fcntl(ends[1], F_SETPIPE_SZ, PIPE);
    while ((got = splice(way->from, NULL, ends[1], NULL, PIPE, SPLICE_F_MOVE)) > 0)
        for (; got > 0; got -= went)
            if ((went = splice(ends[0], NULL, way->to, NULL, (size_t)got, SPLICE_F_MOVE)) <= 0)
                return NULL;
    shutdown(way->to, SHUT_WR);
    return NULL;
}

int main(int argc, char **argv) {
    struct sockaddr_in where = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof where;
    int listener = socket(AF_INET, SOCK_STREAM, 0), client;
    if (argc != 2 || bind(listener, (void *)&where, size) || listen(listener, 512) ||
        getsockname(listener, (void *)&where, &size))
        return 2;
    printf("%d\n", ntohs(where.sin_port));
    fflush(stdout);
    where.sin_port = htons((unsigned short)atoi(argv[1]));
    while ((client = accept(listener, NULL, NULL)) >= 0) {
        int server = socket(AF_INET, SOCK_STREAM, 0);
        struct way *ways = malloc(2 * sizeof *ways);
        pthread_t thread;
        if (!ways || connect(server, (void *)&where, size))
            return 1;
        ways[0] = (struct way){client, server};
        ways[1] = (struct way){server, client};
        pthread_create(&thread, NULL, run, &ways[0]);
        pthread_create(&thread, NULL, run, &ways[1]);
    }
    return 0;
}
