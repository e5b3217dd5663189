/* clocks SECONDS: a thread on each CPU computes and reads the clock; ends with 1 when one CPU's clock was behind what another had read. */
#define _GNU_SOURCE
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

static atomic_uint_least64_t latest, backwards;
static uint64_t rounds[64], until;

static uint64_t now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000ull + t.tv_nsec;
}

static void *work(void *number)
{
    long cpu = (long)number;
    cpu_set_t only;
    CPU_ZERO(&only);
    CPU_SET(cpu, &only);
    if (sched_setaffinity(0, sizeof only, &only))
        return (void *)1;
    uint64_t mine, seen;
    do {
        seen = atomic_load(&latest);
        mine = now();
        if (mine < seen)
            atomic_fetch_add(&backwards, 1);
        while (seen < mine && !atomic_compare_exchange_weak(&latest, &seen, mine))
            ;
        rounds[cpu]++;
    } while (mine < until);
    return 0;
}

int main(int argc, char **argv)
{
    long cpus = sysconf(_SC_NPROCESSORS_ONLN);
    pthread_t threads[64];
    until = now() + atoi(argv[1]) * 1000000000ull;
    for (long i = 0; i < cpus; i++)
        if (pthread_create(&threads[i], 0, work, (void *)i))
            return 2;
    for (long i = 0; i < cpus; i++) {
        void *failed;
        pthread_join(threads[i], &failed);
        if (failed)
            return 2;
    }
    printf("clocks %s %ld CPUs", backwards ? "WENT BACKWARDS" : "ok", cpus);
    for (long i = 0; i < cpus; i++)
        printf(" %lu", rounds[i]);
    printf("\n");
    return backwards != 0;
}
