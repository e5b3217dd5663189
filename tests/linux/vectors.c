/* vectors SEED SECONDS ROUNDS: keeps patterns of its own in all vector registers while others run, for so long and so often at least; ends with 1
   when one has changed. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define ALL(X) X(0) X(1) X(2) X(3) X(4) X(5) X(6) X(7) X(8) X(9) X(10) X(11) X(12) X(13) X(14) X(15)
#define LOAD_YMM(n) "vmovdqu " #n "*32(%1), %%ymm" #n "\n"
#define STORE_YMM(n) "vmovdqu %%ymm" #n ", " #n "*32(%2)\n"
#define LOAD_XMM(n) "movdqu " #n "*32(%1), %%xmm" #n "\n"
#define STORE_XMM(n) "movdqu %%xmm" #n ", " #n "*32(%2)\n"
#define CLOBBER(n) , "xmm" #n
#define SPIN "1: pause\n dec %0\n jnz 1b\n"

static unsigned char put[16][32], found[16][32];

int main(int argc, char **argv)
{
    int seed = atoi(argv[1]), avx = __builtin_cpu_supports("avx"), bytes = avx ? 32 : 16;
    time_t end = time(0) + atoi(argv[2]);
    unsigned long rounds = 0, least = atol(argv[3]);
    do {
        unsigned long spins = 200000;
        for (int i = 0; i < 16; i++)
            for (int j = 0; j < 32; j++)
                put[i][j] = 97 * seed + 31 * i + 7 * j + rounds;
        if (avx)
            asm volatile(ALL(LOAD_YMM) SPIN ALL(STORE_YMM) : "+r"(spins) : "r"(put), "r"(found) : "memory", "cc" ALL(CLOBBER));
        else
            asm volatile(ALL(LOAD_XMM) SPIN ALL(STORE_XMM) : "+r"(spins) : "r"(put), "r"(found) : "memory", "cc" ALL(CLOBBER));
        for (int i = 0; i < 16; i++)
            if (memcmp(put[i], found[i], bytes)) {
                printf("vectors CHANGED register %d in round %lu\n", i, rounds);
                return 1;
            }
        rounds++;
    } while (rounds < least || time(0) < end);
    printf("vectors ok %s %lu rounds\n", avx ? "avx" : "sse", rounds);
    return 0;
}
