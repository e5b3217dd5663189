/* contention ROUNDS: a thread on each CPU but one takes one lock of the kernel all the time and writes to one page, which the first one makes read-only and
   writable again, with a barrier on all CPUs before it: who writes to it while it is read-only must fault. Ends with 1 when one did not: its CPU
   had kept a translation. */
#define _GNU_SOURCE
#include <pthread.h>
#include <linux/membarrier.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

static atomic_int read_only, over, stale; /* read_only: the round in which the page is; 0: it is writable */
static atomic_int told[64];                /* by CPU: the last round in which its thread has faulted */
static atomic_ulong locked[64];
static volatile char *page;
static _Thread_local volatile int faulted;
static _Thread_local long cpu;

static void on_fault(int number)
{
    (void)number;
    faulted = 1;
    int round = atomic_load(&read_only);
    if (round)
        atomic_store(&told[cpu], round);
    while (round && atomic_load(&read_only) == round)
        sched_yield();
}

static int pin(void)
{
    cpu_set_t only;
    CPU_ZERO(&only);
    CPU_SET(cpu, &only);
    return sched_setaffinity(0, sizeof only, &only);
}

static void *work(void *number)
{
    cpu = (long)number;
    if (pin())
        return (void *)1;
    while (!atomic_load(&over)) {
        int must_fault = atomic_load(&read_only);
        page[64 * cpu]++;
        if (must_fault && !faulted)
            atomic_fetch_add(&stale, 1);
        faulted = 0;
        for (int i = 0; i < 1500; i++)
            close(dup(0)); /* the lock of the table of open files */
        atomic_fetch_add(&locked[cpu], 1);
    }
    return 0;
}

int main(int argc, char **argv)
{
    long cpus = sysconf(_SC_NPROCESSORS_ONLN), workers = cpus - 2; /* one CPU idles: what goes to some goes another way than what goes to all */
    int rounds = atoi(argv[1]);
    pthread_t threads[64];
    page = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (argc != 2 || page == MAP_FAILED || signal(SIGSEGV, on_fault) == SIG_ERR || pin()
        || syscall(SYS_membarrier, MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED, 0, 0))
        return 2;
    for (long i = 0; i < workers; i++)
        if (pthread_create(&threads[i], 0, work, (void *)(i + 1)))
            return 2;
    for (int round = 1; round <= rounds && !stale; round++) {
        for (long i = 1; i <= workers; i++)
            for (unsigned long before = locked[i]; locked[i] == before;)
                close(dup(0));
        if (syscall(SYS_membarrier, MEMBARRIER_CMD_PRIVATE_EXPEDITED, 0, 0) || mprotect((void *)page, 4096, PROT_READ))
            return 2;
        atomic_store(&read_only, round);
        for (long i = 1; i <= workers; i++)
            while (told[i] != round && !stale)
                sched_yield();
        if (mprotect((void *)page, 4096, PROT_READ | PROT_WRITE))
            return 2;
        atomic_store(&read_only, 0);
    }
    atomic_store(&over, 1);
    for (long i = 0; i < workers; i++) {
        void *failed;
        pthread_join(threads[i], &failed);
        if (failed)
            return 2;
    }
    printf("contention %s %ld CPUs %d rounds\n", stale ? "STALE" : "ok", cpus, rounds);
    return stale != 0;
}
