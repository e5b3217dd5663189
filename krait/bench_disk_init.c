/* /init of `krait bench disk`: reads 4 KiB blocks of /dev/vda past the page cache, 1 and MOST in flight. First plainly, with a second's
   rest before and after, so that exits can be asked for; then beside a process that counts idle time, to print instructions (TSC
   ticks under -icount, less that time). */
#define _GNU_SOURCE
#include <fcntl.h>
#include <glob.h>
#include <linux/aio_abi.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { BLOCK = 4096, MOST = 32, REQUESTS = 4096, STRIDE = 769 };

static uint64_t rdtsc(void) {
    uint32_t low, high;
    __asm__ volatile("rdtsc" : "=a"(low), "=d"(high));
    return (uint64_t)high << 32 | low;
}

static void fail(const char *what) {
    perror(what);
    sleep(1);
    reboot(RB_POWER_OFF);
}

static void load_modules(void) {
    glob_t found;
    if (glob("/lib/modules/[0-9]*.ko", 0, NULL, &found) != 0) return;
    for (size_t i = 0; i < found.gl_pathc; i++) {
        int file = open(found.gl_pathv[i], O_RDONLY);
        if (file < 0 || syscall(SYS_finit_module, file, "", 0) != 0) fail(found.gl_pathv[i]);
        close(file);
    }
}

/* `depth` reads in flight until REQUESTS have ended: TSC ticks from the first to the last. */
static uint64_t reads(int disk, aio_context_t context, char *buffers, int depth, uint64_t blocks) {
    struct iocb block[MOST], *now[MOST];
    struct io_event events[MOST];
    int idle[MOST], started = 0, ended = 0, idle_count = depth;
    for (int i = 0; i < depth; i++) idle[i] = i;
    uint64_t begin = rdtsc();
    while (ended < REQUESTS) {
        int count = 0;
        while (idle_count && started < REQUESTS) {
            int i = idle[--idle_count];
            block[i] = (struct iocb){.aio_fildes = disk, .aio_lio_opcode = IOCB_CMD_PREAD, .aio_nbytes = BLOCK, .aio_data = i,
                                     .aio_buf = (uint64_t)(buffers + i * BLOCK),
                                     .aio_offset = (int64_t)(started++ * (uint64_t)STRIDE % blocks) * BLOCK};
            now[count++] = &block[i];
        }
        if (count && syscall(SYS_io_submit, context, count, now) != count) fail("io_submit");
        int done = syscall(SYS_io_getevents, context, 1, depth, events, NULL);
        if (done < 1) fail("io_getevents");
        for (int i = 0; i < done; i++) {
            if (events[i].res != BLOCK) fail("a read");
            idle[idle_count++] = events[i].data;
        }
        ended += done;
    }
    return rdtsc() - begin;
}

/* A process that counts whenever the CPU would be idle, so that ticks spent waiting can be told from instructions. */
static volatile uint64_t *start_soaker(void) {
    volatile uint64_t *count = mmap(NULL, BLOCK, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (count == MAP_FAILED) fail("mmap");
    pid_t child = fork();
    if (child < 0) fail("fork");
    if (child == 0) {
        struct sched_param lowest = {0};
        sched_setscheduler(0, SCHED_IDLE, &lowest);
        for (;;) ++*count;
    }
    return count;
}

int main(void) {
    static const int depths[] = {1, MOST};
    char *buffers = NULL;
    aio_context_t context = 0;
    mount("devtmpfs", "/dev", "devtmpfs", 0, NULL);
    load_modules();
    int disk = open("/dev/vda", O_RDONLY | O_DIRECT);
    off_t bytes = disk < 0 ? -1 : lseek(disk, 0, SEEK_END);
    if (bytes < BLOCK) fail("/dev/vda");
    if (posix_memalign((void **)&buffers, BLOCK, MOST * BLOCK)) fail("memory");
    for (int i = 0; i < MOST * BLOCK; i += BLOCK) buffers[i] = 1;
    if (syscall(SYS_io_setup, MOST, &context)) fail("io_setup");
    for (int i = 0; i < 2; i++) {
        printf("bench: begin %d\n", depths[i]);
        fflush(stdout);
        sleep(1);
        reads(disk, context, buffers, depths[i], bytes / BLOCK);
        printf("bench: end %d\n", depths[i]);
        fflush(stdout);
        sleep(1);
    }
    volatile uint64_t *soaked = start_soaker();
    sleep(1);
    uint64_t before = *soaked, begin = rdtsc();
    usleep(200000);
    uint64_t alone = (rdtsc() - begin) * 1000 / (*soaked - before); /* ticks for 1000 rounds of the soaker */
    for (int i = 0; i < 2; i++) {
        before = *soaked;
        uint64_t ticks = reads(disk, context, buffers, depths[i], bytes / BLOCK);
        uint64_t idle = (*soaked - before) * alone / 1000;
        printf("bench: depth %d requests %d instructions %llu\n", depths[i], REQUESTS, (unsigned long long)(ticks - idle));
    }
    printf("bench: done\n");
    fflush(stdout);
    sleep(1);
    reboot(RB_POWER_OFF);
}
